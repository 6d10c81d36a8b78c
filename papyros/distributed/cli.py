"""The command line: ``python -m papyros.distributed`` starts a master, slaves, or all of it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from papyros.distributed.cluster import LocalCluster
from papyros.distributed.config import apply_pyro_items
from papyros.distributed.daemon import MAX_CONNECTIONS
from papyros.distributed.desk import GRACE_SECONDS, LEASE_SECONDS
from papyros.distributed.doctor import examine
from papyros.distributed.host import SlaveHost
from papyros.distributed.keys import ENVIRONMENT, default_key_file, find_key, make_key_file, tell_fresh
from papyros.distributed.lifeline import Lifeline
from papyros.distributed.line import LineRefusedError
from papyros.distributed.naming import (
    DEFAULT_GROUP,
    DEFAULT_NAMESERVER,
    LOOPBACK,
    Address,
    NameServer,
    ask_status,
    check_group,
    check_host,
    is_here,
    parse_address,
    start_command,
    who_is,
)
from papyros.distributed.options import DRAIN_SECONDS, make_parser, read_options
from papyros.distributed.security import Security
from papyros.distributed.server import MasterServer
from papyros.distributed.signals import StopSignals
from papyros.errors import (
    ClusterError,
    KeyFileError,
    MasterNotFoundError,
    NameServerNotFoundError,
    PapyrosError,
)
from papyros.logs import logger_of, show_warnings
from papyros.memory import use_one_heap
from papyros.saying import Speaker, run_command, say
from papyros.wire import MAX_PAYLOAD_BYTES

__all__ = ["main"]

#: Options that a standalone cluster hands on to its parts.
PASSED = ("port", "publish", "lease", "grace", "drain", "max_bytes")

#: How long a slave host waits for the key of a cluster that is started at the same time, on machines that share a home.
KEY_SECONDS = 5.0

#: A slave host needs so many open files for each slave while that starts, rounded up, and so many for all else: for the
#: shared values that it holds, above all.
SLAVE_FILES = 10
HOST_FILES = 4096

#: What is said for people begins so.
PREFIX = "papyros: "

DRAINING = "draining: running jobs end, no more are taken; a second signal ends it now"

UNDRAINED = (
    "not drained after {seconds:g} s: jobs that still run are stopped; they, and those whose outcomes the master "
    "has not taken, run again elsewhere"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = make_parser()
    speaker = Speaker(PREFIX)
    return run_command(parser, speaker, lambda: _run(read_options(parser, arguments), speaker))


def _run(options: argparse.Namespace, speaker: Speaker) -> int:
    lifeline = None
    tell: Callable[[str], None] = speaker.say
    if options.lifeline is not None:
        lifeline, tell = Lifeline(options.lifeline), logger_of(__name__).info
        hello = lifeline.hello()
        sys.path[:] = hello["path"]
        apply_pyro_items(hello["pyro"])
        options.key_file = hello["key_file"]
    if options.logging:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    else:
        show_warnings()
    if options.new_key is not None:
        return _make_key(options.new_key)
    group = check_group(options.group or DEFAULT_GROUP)
    check_host(options.host or LOOPBACK)
    nameserver = parse_address(options.nameserver or DEFAULT_NAMESERVER)
    if options.doctor:
        return 0 if examine(group, nameserver, options.key_file, _answer) else 1
    security = _security(options, nameserver, tell)
    if options.show_key_fingerprint:
        say(f"{security.key.fingerprint}  {security.key.source}")
        return 0
    if options.status:
        return _print_status(group, nameserver, security)
    with StopSignals() as stop:
        if options.standalone:
            return _run_standalone(options, group, nameserver, stop, tell)
        if options.slaves is not None:
            return _run_host(options, group, nameserver, security, stop, lifeline, tell)
        return _run_master(options, group, nameserver, security, stop, lifeline, tell)


def _make_key(path: Path) -> int:
    """Make a key, for ``--new-key``."""
    try:
        key = make_key_file(path)
    except FileExistsError:
        raise KeyFileError(f"there is a file {path} already; no key is ever written over another") from None
    except FileNotFoundError:
        folder = shlex.quote(str(path.parent))
        raise KeyFileError(
            f"no key can be written to {path}, since there is no such folder; to make it: mkdir -p {folder}"
        ) from None
    except OSError as error:
        raise KeyFileError(f"no key can be written to {path}: {error.strerror or error}") from None
    _answer(f"a new key is in {path}, which only you can read; its fingerprint is {key.fingerprint}")
    return 0


def _security(options: argparse.Namespace, nameserver: Address, tell: Callable[[str], None]) -> Security:
    """Return what this part proves itself with; a key is made here only where it may be the first one."""
    asks = options.status or options.show_key_fingerprint
    here = is_here(nameserver.host)
    first = options.standalone or options.slaves is None or here
    try:
        if not (first or asks or options.key_file is not None or ENVIRONMENT in os.environ):
            _await_key()
        key = find_key(options.key_file, make=first and not asks, here=here)
    except KeyFileError as error:
        if options.key_file is not None or ENVIRONMENT in os.environ:
            raise
        raise ClusterError(str(error)) from None  # it is none of the options that is wrong
    if key.fresh:
        tell(tell_fresh(key))
    return Security(key)


def _await_key() -> None:
    """Wait for a moment for the key of this user, which another machine with the same home may be about to make."""
    path, deadline = default_key_file(), time.monotonic() + KEY_SECONDS
    while not os.path.lexists(path) and time.monotonic() < deadline:
        time.sleep(0.1)


def _run_master(
    options: argparse.Namespace,
    group: str,
    nameserver: Address,
    security: Security,
    stop: StopSignals,
    lifeline: Lifeline | None,
    tell: Callable[[str], None],
) -> int:
    _spare_the_collector()
    _allow_files(2 * MAX_CONNECTIONS)
    use_one_heap()
    over: list[PapyrosError] = []

    def give_way(why: PapyrosError) -> None:
        over.append(why)
        stop.set()

    if lifeline is not None:
        lifeline.watch(stop.set)
    server = MasterServer(
        group,
        nameserver,
        security,
        options.host or LOOPBACK,
        options.port or 0,
        options.lease or LEASE_SECONDS,
        options.grace or GRACE_SECONDS,
        publish=options.publish,
        on_over=give_way,
    )
    try:
        if not _register(server, stop, tell):
            return 0
        tell(
            f"the master of the group {group!r} is up at {server.address}, "
            f"registered with the name server at {nameserver}; Ctrl-C ends it"
        )
        if lifeline is not None:
            lifeline.ready(address=str(server.address))
        stop.wait()
    finally:
        server.close()
    if over:
        raise over[0]
    tell(f"the master of the group {group!r} has ended")
    return 0


def _register(server: MasterServer, stop: StopSignals, tell: Callable[[str], None]) -> bool:
    """Register the master as soon as a name server is there; False when it is to end before."""
    told = False
    while not stop.is_set():
        try:
            server.register()
        except NameServerNotFoundError as error:
            if not told:
                tell(f"waiting for a name server: {error}")
            told = True
            stop.wait(0.5)
        else:
            return True
    return False


def _spare_the_collector() -> None:
    """Have the garbage collector look less often through what a process of our own keeps for long: jobs by the million.

    They are let go of as they leave the books; the collector is only for the rare cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _allow_files(wanted: int) -> None:
    """Have the system allow this process so many open files, or as many as it may: 1,024 are usual."""
    try:
        import resource
    except ImportError:  # not on all systems
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # then it is as many as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run_host(
    options: argparse.Namespace,
    group: str,
    nameserver: Address,
    security: Security,
    stop: StopSignals,
    lifeline: Lifeline | None,
    tell: Callable[[str], None],
) -> int:
    _spare_the_collector()
    slaves = options.slaves
    _allow_files(HOST_FILES + SLAVE_FILES * slaves)
    max_bytes = options.max_bytes or MAX_PAYLOAD_BYTES
    host = SlaveHost(group, nameserver, security, slaves, max_bytes, tell, on_failure=stop.set)
    host.start()
    if lifeline is not None:
        lifeline.watch(lambda: _end_now(host, stop))
        threading.Thread(target=_announce, args=(host, lifeline), daemon=True).start()
    try:
        stop.wait()
        if stop.number == signal.SIGTERM and not host.broken:
            host.take_no_more()
            tell(DRAINING)
            seconds = options.drain or DRAIN_SECONDS
            if not host.drain(seconds):
                tell(UNDRAINED.format(seconds=seconds))
    finally:
        host.close()
    if host.broken:
        raise ClusterError(host.broken)
    tell(f"the slave host of the group {group!r} has ended")
    return 0


def _end_now(host: SlaveHost, stop: StopSignals) -> None:
    """End a slave host whose program is gone, also while it drains: nobody waits for that any more."""
    stop.set()
    host.hurry()


def _announce(host: SlaveHost, lifeline: Lifeline) -> None:
    if host.wait_ready():
        lifeline.ready()


def _run_standalone(
    options: argparse.Namespace, group: str, nameserver: Address, stop: StopSignals, tell: Callable[[str], None]
) -> int:
    host = options.host or (nameserver.host if options.nameserver else LOOPBACK)
    passed = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in PASSED if getattr(options, name)]
    passed += ["--logging"] if options.logging else []
    with LocalCluster(
        options.slaves, group=group, host=host, port=nameserver.port, key_file=options.key_file, options=passed
    ) as cluster:
        tell(
            f"the group {group!r} is up: name server at {cluster.nameserver}, master at {cluster.address}, "
            f"{'1 slave' if cluster.slaves == 1 else f'{cluster.slaves} slaves'}; Ctrl-C ends all of it"
        )
        stop.wait()
        if stop.number == signal.SIGTERM:
            tell(DRAINING)
            cluster.drain(options.drain or DRAIN_SECONDS)
        failed = cluster.failed_parts
    if failed:
        raise ClusterError(f"the cluster ended without its {' and its '.join(failed)}, as was told when that happened")
    return 0


def _print_status(group: str, nameserver: Address, security: Security) -> int:
    names = NameServer(nameserver, security)
    uri = names.lookup(group)
    if uri is None:
        known = ", ".join(names.groups()) or "none"
        raise MasterNotFoundError(
            f"no master of the group {group!r} is registered at {nameserver}; groups that have one: {known}; "
            f"start one with {start_command(group, nameserver)}"
        )
    try:
        # The port of one that was killed may be another's by now.
        serves = (who_is(uri, security) or {}).get("group", group)
        if serves != group:
            raise MasterNotFoundError(
                f"the master of the group {group!r} is gone: who listens where it is registered, {uri}, serves another "
                f"group, {str(serves)[:80]!r}; start another one with {start_command(group, nameserver)}"
            )
        status = ask_status(uri, security)
    except LineRefusedError as error:
        raise error.__cause__ or error from None
    except ConnectionError as error:
        raise MasterNotFoundError(
            f"the master of the group {group!r} does not answer: {error}; --doctor, in the place of --status, says more"
        ) from error
    say(str(status))
    return 0


def _answer(text: str) -> None:
    """Say something to whoever asked for it, and waits for it."""
    say(PREFIX + text)
