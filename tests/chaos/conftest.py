"""What the tests of faults share: a master with its slaves, wherever those run, that can be harmed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import papyros
from tests.chaos.wire import Wire, wire_to_master
from tests.distributed.conftest import (  # noqa: F401 - fixtures
    _shared_cluster,
    _shared_names,
    gates,
    group,
    launch,
    mark,
    names,
)
from tests.distributed.programs import Program, slaves_of
from tests.support import wait_until

#: The lease, in seconds: how long a slave host may be silent.
LEASE = 2.0

#: What is added to each bound of the table, so that a machine with other work to do has time to schedule ours: the
#: promise is the table's, the slack is the test's.
SLACK = 2.0


@pytest.fixture
def standing(request: pytest.FixtureRequest) -> None:
    """Start what tests share before what a test leaves behind is counted."""
    if {"names", "cluster", "make_workshop", "workshop"} & set(request.fixturenames):
        request.getfixturevalue("_shared_names")


class Workshop:
    """A client with a master and slaves that can be harmed.

    Attributes:
        client: what the user holds.
        host: the number of the process whose children the slaves are.
        master: the program of the master; None where it is in this process.
        programs: the slave hosts.
    """

    def __init__(self, client: Any, hosts: list[Program], master: Program | None = None) -> None:
        self.client = client
        self.programs = hosts
        self.master = master

    @property
    def host(self) -> int:
        return self.programs[0].pid if self.programs else os.getpid()

    def slaves(self) -> list[int]:
        return sorted(slaves_of(self.host))

    def wait_for_slaves(self, number: int) -> list[int]:
        return wait_until(lambda: len(self.slaves()) == number and self.slaves(), f"{number} slaves")

    def lost(self) -> int:
        return self.client.status().lost


@pytest.fixture
def make_workshop(request: pytest.FixtureRequest) -> Iterator[Callable[..., Workshop]]:
    """Make a workshop of a kind, ``multiprocess`` or ``distributed``."""
    made: list[Workshop] = []

    def make(kind: str, slaves: int = 2, lease: float = LEASE, **options: Any) -> Workshop:
        if kind == "multiprocess":
            client: Any = papyros.MultiProcessMaster(slaves, **options)
            workshop = Workshop(client, [])
        else:
            launch, names, group = (request.getfixturevalue(name) for name in ("launch", "names", "group"))
            master = launch.master(group, names, f"--lease={lease}")
            hosts = [start_host(launch, group, names, slaves)]
            client = papyros.DistributedMaster(group, names, host_master=False, **options)
            workshop = Workshop(client, hosts, master)
        made.append(workshop)
        return workshop

    # The programs are ended after the clients are closed, since they were asked for before.
    request.getfixturevalue("launch")
    yield make
    for workshop in made:
        workshop.client.close()


@pytest.fixture(params=["multiprocess", "distributed"])
def workshop(request: pytest.FixtureRequest, make_workshop: Callable[..., Workshop]) -> Workshop:
    """A client with two slaves, on both kinds of masters that have processes."""
    return make_workshop(request.param)


class Line:
    """A master, and what is on the other end of a wire to it.

    Attributes:
        names: the name server of those on the near side.
        far: the name server of those whose connections go over the wire.
    """

    def __init__(self, names: str, far: str, group: str, wire: Wire) -> None:  # noqa: F811
        self.names = names
        self.far = far
        self.group = group
        self.wire = wire


@pytest.fixture
def line(launch: Any, names: str, group: str) -> Iterator[Line]:  # noqa: F811
    """A master, and a wire to it on which those are that ask the far name server."""
    launch.master(group, names, f"--lease={LEASE}")
    far = launch.nameserver().address
    with wire_to_master(names, far, group) as wire:
        yield Line(names, far, group, wire)
        wire.resume()


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    """Yield a socket on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def start_host(launch: Any, group: str, names: str, slaves: int = 1, *more: str) -> Program:  # noqa: F811
    """Start a slave host, and wait until it serves a master."""
    host = launch.part(f"--group={group}", f"--nameserver={names}", f"--slaves={slaves}", *more, name="host")
    host.find(r"slaves? serves? the group")
    return host


def outcome_of(job: papyros.Job) -> Any:
    """Return the result of a job, or its exception."""
    return job.result if job.exception is None else job.exception
