"""A master at work: a service on a daemon, registered with the name server for as long as it lives."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from collections.abc import Callable
from typing import Any

from papyros.checks import check_silence
from papyros.distributed.daemon import Daemon
from papyros.distributed.desk import GRACE_SECONDS, LEASE_SECONDS
from papyros.distributed.naming import (
    LOOPBACK,
    MASTER_OBJECT,
    Address,
    MayReplace,
    NameServer,
    always,
    check_listening,
    is_only_here,
    parse_address,
)
from papyros.distributed.security import Role, Security, is_loopback
from papyros.distributed.service import MasterService
from papyros.errors import (
    ClusterError,
    GroupTakenError,
    KeyRefusedError,
    NameServerNotFoundError,
    PapyrosError,
    VersionMismatchError,
)
from papyros.logs import logger_of
from papyros.memory import give_memory_back
from papyros.threads import worker

__all__ = ["MasterServer"]

log = logger_of(__name__)

#: How often the registration is looked after.
REGISTER_SECONDS = 2.0

#: ... and how often it is looked who is silent.
SWEEP_SECONDS = 2.0


class MasterServer:
    """The master of a group, in this process.

    Args:
        group: which group.
        nameserver: where to register.
        security: what this master proves itself with, and checks others by.
        host: the address to listen on.
        port: the port to listen on; 0 = any free one.
        lease: after how many seconds of silence a slave host is given up.
        grace: after how many seconds of silence a client is given up.
        publish: the address by which others reach it, as ``HOST[:PORT]``, if that is another one.
        on_over: told, from another thread, why this master is to end: another one took the name over, or a bug has
            ended one of its threads.
        hosted: whether a client hosts it. Then it gives way to any other that takes the name.
        may_replace: whether it may begin with the name of one that does not answer.
    """

    def __init__(
        self,
        group: str,
        nameserver: Address,
        security: Security,
        host: str = LOOPBACK,
        port: int = 0,
        lease: float = LEASE_SECONDS,
        grace: float = GRACE_SECONDS,
        publish: str | None = None,
        on_over: Callable[[PapyrosError], None] = lambda _: None,
        hosted: bool = False,
        may_replace: MayReplace = always,
    ) -> None:
        self.group = group
        self._names = NameServer(nameserver, security, keeps_line=True)
        self._lease = lease
        self._on_over = on_over
        self._hosted = hosted
        self._may_replace = may_replace
        check_silence("lease", lease)
        check_silence("grace", grace)
        check_listening(host)
        self.service = MasterService(group, lease, grace, hosted)
        try:
            self._daemon = Daemon(host, port, security, Role.MASTER, self.service, self._broke, self.service.hear)
        except OSError as error:
            raise ClusterError(f"a master cannot listen on {Address(host, port)}: {error}") from error
        #: Where clients and slave hosts reach this master.
        self.address = self._address(host, nameserver, publish)
        self.uri = f"PYRO:{MASTER_OBJECT}@{self.address}"
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper = worker("papyros-keeper", self._keep, self._broke)
        # One of its own, since a name server may take its time to answer, and whoever is silent is given up meanwhile.
        self._sweeper = worker("papyros-sweep", self._sweep, self._broke)
        self._daemon.start()

    def _address(self, host: str, nameserver: Address, publish: str | None) -> Address:
        try:
            return _published(host, nameserver, self._daemon.port, publish)
        except BaseException:
            self._daemon.close()
            raise

    def register(self) -> None:
        """Register with the name server, and stay registered.

        Raises:
            NameServerNotFoundError: no name server answers; this may be tried again.
            GroupTakenError: another master serves the group.
        """
        self._names.register(self.group, self.uri, self._may_replace)
        self._sweeper.start()
        self._keeper.start()

    def close(self) -> None:
        """Take the name back, and end everybody's connection."""
        with self._lock:  # two threads of its own that both find it broken would wait for each other
            if self._closing.is_set():
                return
            self._closing.set()
        with contextlib.ExitStack() as stack:  # whatever one of them raises, or Ctrl-C does, the others are done
            stack.callback(self._daemon.close)
            stack.callback(self.service.close)
            stack.callback(self._names.close)
            stack.callback(self._unregister)
            for thread in (self._keeper, self._sweeper):
                if thread.is_alive() and thread is not threading.current_thread():
                    thread.join()

    def close_in_child(self) -> None:
        """Keep nothing open in a process that was forked: when the other one ends, nobody is to find the port open."""
        self._daemon.close_in_child()

    def _unregister(self) -> None:
        with contextlib.suppress(NameServerNotFoundError, KeyRefusedError, VersionMismatchError):
            self._names.unregister(self.group, self.uri)

    def _sweep(self) -> None:
        """Give up who is silent."""
        while not self._closing.wait(min(SWEEP_SECONDS, self._lease / 4)):
            if self.service.sweep():
                gc.collect()
                give_memory_back()

    def _broke(self, why: str) -> None:
        self._on_over(ClusterError(f"this master can serve nobody any more: {why}"))

    def _keep(self) -> None:
        """Stay registered, also with a name server that forgot."""
        missed = False
        while not self._closing.wait(min(REGISTER_SECONDS, self._lease / 4)):
            try:
                self._names.stay_registered(self.group, self.uri, self._hosted)
                missed = False
            except (NameServerNotFoundError, KeyRefusedError, VersionMismatchError) as error:
                # Somebody else may have put an address of theirs there. To put one's own there again
                # and again would help nobody: two honest masters with different keys would do it, too.
                if not missed:
                    log.warning("%s; the master goes on for those who are connected", error)
                missed = True
            except GroupTakenError as error:
                log.error("%s; this master gives way", error)
                self._on_over(error)
                return


def _published(host: str, nameserver: Address, port: int, publish: str | None) -> Address:
    """Return the address under which others reach a socket that is bound to `host` and `port`."""
    if publish is not None:
        return parse_address(publish, port)
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 - it is asked for here, not bound
        if is_only_here(host, nameserver):
            raise ClusterError(
                f"a master that listens on {host} can be reached from this machine only, and the name server at "
                f"{nameserver} is on another one: say by which ADDRESS the others reach this machine, --host ADDRESS, "
                "in a program host='ADDRESS'"
            )
        return Address(host, port)
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # No packet is sent: the system only picks the interface that leads to the name server.
            probe.connect(_target(host, nameserver, family))
            found = str(probe.getsockname()[0])
    except OSError as error:
        raise _unpublished(host, nameserver, error) from error
    if is_loopback(found):
        raise ClusterError(
            f"a master that listens on {host} needs an address by which other machines reach it, and the name "
            f"server at {nameserver} does not tell which: say --host ADDRESS, or --nameserver with one that they use, "
            "or --publish ADDRESS"
        )
    return Address(found, port)


def _target(host: str, nameserver: Address, family: socket.AddressFamily) -> tuple[str, int] | tuple[Any, ...]:
    """Return the address of the name server, of the family that a master listens with."""
    try:
        return socket.getaddrinfo(nameserver.host, nameserver.port, family, socket.SOCK_DGRAM)[0][4]
    except OSError as error:
        raise _unpublished(host, nameserver, error) from error


def _unpublished(host: str, nameserver: Address, error: OSError) -> ClusterError:
    return ClusterError(
        f"a master that listens on {host} finds out by which address others reach it on its way to the name server, "
        f"and there is none to {nameserver} ({error.strerror or error}): say --host ADDRESS, or --publish ADDRESS"
    )
