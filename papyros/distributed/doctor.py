"""``--doctor``: says step by step what works on the way to a master, the first thing that does not, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import papyros
from papyros.distributed.keys import find_key
from papyros.distributed.line import LineBrokenError, LineRefusedError
from papyros.distributed.naming import (
    ANSWER_SECONDS,
    Address,
    MasterUnreachedError,
    NameServer,
    ask_status,
    check_host,
    check_reachable,
    is_here,
    parse_uri,
    start_command,
    who_is,
)
from papyros.distributed.security import Security
from papyros.distributed.service import HOSTED
from papyros.errors import ClusterError, PapyrosError
from papyros.status import Status

__all__ = ["examine"]


#: What to do about a master that is registered, but not there.
_GONE = (
    "does it still run, and does a firewall let its port in, which --port chooses? If it was killed, start another, "
    "which takes its place, with {start}: slaves wait for it, and programs keep their jobs and add them again. "
    "Programs that may host the master need nobody for that; one of them does it, a few seconds after it was missed"
)


#: Slave hosts of which none answers are asked again so often, for a second or two each time: they may be busy.
MORE_LOOKS = 2


class _Ailment(Exception):
    """What does not work, and what to do about it."""


def examine(group: str, nameserver: Address, key_file: Path | None, tell: Callable[[str], None]) -> bool:
    """Tell what works on the way from this machine to the master of a group; return whether all of it does.

    Args:
        group: which group.
        nameserver: where its master should be registered.
        key_file: where the key is; None = where it is by default.
        tell: is told each finding, a line at a time.
    """
    tell(f"the group {group!r}, from {socket.gethostname()} (Papyros {papyros.__version__})")
    try:
        for finding in _findings(group, nameserver, key_file):
            tell(f"  works: {finding}")
    except (_Ailment, PapyrosError) as error:
        tell(f"  does not work: {error}")
        return False
    tell("all of it works")
    return True


def _findings(group: str, nameserver: Address, key_file: Path | None) -> Iterator[str]:
    # None is made: who only looks is not to leave a key behind that then is not that of the cluster.
    key = find_key(key_file, make=False, here=is_here(nameserver.host))
    security = Security(key)
    yield f"the key, {key.fingerprint}, of {key.source}"
    names = NameServer(nameserver, security)
    _reach(
        nameserver, "the name server", "was pyro5-ns started there, with --host, and does a firewall let its port in?"
    )
    uri = names.lookup(group)
    yield f"the name server at {nameserver}"
    if uri is None:
        known = ", ".join(names.groups()) or "none"
        raise _Ailment(
            f"no master of the group {group!r} is registered there; groups that have one: {known}. Start one with "
            f"{start_command(group, nameserver)}, or have a program host it, which makes a DistributedMaster of that "
            "group"
        )
    yield f"a master is registered, {uri}"
    try:
        check_reachable(uri, nameserver)
    except ClusterError as error:
        raise _Ailment(str(error)) from None
    _reach(parse_uri(uri), "the master", _GONE.format(start=start_command(group, nameserver)))
    yield "its address can be reached from here"
    try:
        answer = who_is(uri, security)
    except LineRefusedError as error:
        raise _Ailment(str(error)) from None
    except MasterUnreachedError:
        raise _Ailment(
            f"who listens at {uri} takes connections, but does not answer: is its process stopped, or overloaded?"
        ) from None
    if answer is None:
        raise _Ailment(f"who listens at {uri} does not answer as a master does; was its port taken by somebody else?")
    yield "the key is accepted, on both sides, and the versions go together"
    if answer.get("group") != group:
        raise _Ailment(f"the master there serves another group, {str(answer.get('group'))[:80]!r}")
    hosted = f", {HOSTED}" if answer.get("hosted") else ""
    yield f"the master answers: process {answer.get('pid')} on {str(answer.get('host'))[:80]}{hosted}"
    yield from _slaves(uri, security, group, nameserver)


def _slaves(uri: str, security: Security, group: str, nameserver: Address) -> Iterator[str]:
    status = _status(uri, security)
    if not status.slaves:
        raise _Ailment(
            "no slave is connected to it. Start some, on any machine that has the key, with "
            f"{start_command(group, nameserver)} --slaves"
        )
    for _ in range(MORE_LOOKS):
        if not all(slave.silent for slave in status.slaves):
            break
        status = _status(uri, security)
    heard = [slave for slave in status.slaves if not slave.silent]
    if not heard:
        raise _Ailment(
            "slaves are connected to it, but their slave hosts are silent. Do they still run, and can they reach the "
            "master? What slave hosts had that were killed runs elsewhere when the lease of the master is over"
        )
    slaves, machines = len(heard), len({slave.host for slave in heard})
    verb = "1 slave is connected" if slaves == 1 else f"{slaves} slaves are connected"
    yield f"{verb}, on {'1 machine' if machines == 1 else f'{machines} machines'}"


def _status(uri: str, security: Security) -> Status:
    try:
        return ask_status(uri, security)
    except LineBrokenError as error:
        raise _Ailment(f"the master does not say what it does: {error}") from None


def _reach(address: Address, what: str, hint: str) -> None:
    """Connect, and say nothing."""
    check_host(address.host)  # a name server may tell of anything
    try:
        socket.create_connection(address, ANSWER_SECONDS).close()
    except socket.gaierror as error:
        raise _Ailment(f"nobody knows a machine {address.host!r} ({error.strerror}); write its address") from None
    except OSError as error:
        raise _Ailment(f"{what} at {address} cannot be reached ({error}); {hint}") from None
