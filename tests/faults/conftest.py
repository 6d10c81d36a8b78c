"""A group within reach: its name server, master and slave host are objects of this process."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from papyros.distributed import DistributedMaster
from papyros.distributed.daemon import Daemon
from papyros.distributed.host import SlaveHost
from papyros.distributed.names import Names
from papyros.distributed.naming import Address
from papyros.distributed.security import Role
from papyros.distributed.server import MasterServer
from tests.support import PATIENCE, Gates, security, wait_until

LEASE, GRACE = 2.0, 3.0


class Group:
    """The parts of a group."""

    def __init__(self, names: Address, folder: Path) -> None:
        self.name = f"group-{uuid.uuid4().hex[:12]}"
        self.names = names
        self.folder = str(folder)
        self._servers: list[MasterServer] = []
        self._closers: list[threading.Thread] = []
        self._hosts: list[SlaveHost] = []
        self._clients: list[DistributedMaster] = []

    def master(self) -> MasterServer:
        """Make a master that is not registered yet; one that another one took the name from is closed."""

        def give_way(_: object) -> None:
            closer = threading.Thread(target=server.close, name="test-closer")
            self._closers.append(closer)
            closer.start()

        server = MasterServer(self.name, self.names, security(), lease=LEASE, grace=GRACE, on_over=give_way)
        self._servers.append(server)
        return server

    def host(self, names: Address | None = None) -> SlaveHost:
        """Start a slave host with one slave."""
        host = SlaveHost(self.name, names or self.names, security(), 1)
        self._hosts.append(host)
        host.start()
        return host

    def client(self, names: Address | None = None, **options: Any) -> DistributedMaster:
        options = {"host_master": False, "timeout": PATIENCE, **options}
        client = DistributedMaster(self.name, str(names or self.names), **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        closing: list[Callable[[], None]] = [part.close for part in (*self._clients, *self._hosts, *self._servers)]
        for close in closing:
            close()
        for closer in self._closers:
            closer.join()

    def leftovers(self) -> list[object]:
        """What the masters still have in mind."""
        found: list[object] = []
        for server in self._servers:
            desk = server.service._desk
            with desk.lock:
                found += [*desk.clients, *desk.hosts, *desk.ledger.sessions, *desk.ledger.holders]
        return found

    def values(self) -> set[bytes]:
        """The digests of the shared values that the masters hold."""
        found: set[bytes] = set()
        for server in self._servers:
            desk = server.service._desk
            with desk.lock:
                found.update(digest for client in desk.clients.values() for digest in client.values)
        return found

    def wait_until_known(self, client: DistributedMaster, jobs: int) -> None:
        """Wait until so many jobs of a client are at the master."""

        def known() -> bool:
            return any(
                client._key in server.service._desk.clients
                and len(server.service._desk.clients[client._key].session.entries) == jobs
                for server in self._servers
            )

        wait_until(known, f"{jobs} jobs at the master")


def _start_names() -> tuple[Daemon, Address]:
    daemon = Daemon("127.0.0.1", 0, security(), Role.NAME_SERVER, Names())
    daemon.start()
    return daemon, Address("127.0.0.1", daemon.port)


@pytest.fixture
def names() -> Iterator[Address]:
    daemon, address = _start_names()
    yield address
    daemon.close()


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


@pytest.fixture
def group(names: Address, tmp_path: Path, gates: Gates) -> Iterator[Group]:
    group = Group(names, tmp_path)
    yield group
    gates.open_all()
    group.close()
