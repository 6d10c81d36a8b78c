"""Pyro5's name server on the daemon of this package: it asks for the key. A command, and a part of local clusters.

A group of machines may as well use the stock one, ``pyro5-ns``, which anybody may ask, and tell anything.
"""

from __future__ import annotations

import argparse
import errno
from collections.abc import Sequence

from Pyro5 import core
from Pyro5.nameserver import NameServer

from papyros.distributed.config import apply_pyro_items
from papyros.distributed.daemon import Daemon, offer
from papyros.distributed.keys import find_key, tell_fresh
from papyros.distributed.lifeline import Lifeline
from papyros.distributed.naming import DEFAULT_NAMESERVER, Address, check_listening, parse_address
from papyros.distributed.options import port_number
from papyros.distributed.security import Role, Security
from papyros.distributed.signals import StopSignals
from papyros.logs import show_warnings
from papyros.saying import Speaker, run_command

__all__ = ["Names", "main"]

#: So many names are kept, and none that is longer, or stands for more, than this.
MOST_NAMES, LONGEST = 10_000, 500

EVERYBODY = (Role.WATCHER, Role.CLIENT, Role.SLAVE_HOST, Role.MASTER)


class Names:
    """What can be asked of a name server: enough to find masters, and to be found."""

    def __init__(self) -> None:
        self._names = NameServer()

    @offer(*EVERYBODY)
    def lookup(self, name: str) -> str:
        """Return the URI that is registered under a name."""
        return str(self._names.lookup(name))

    @offer(*EVERYBODY)
    def list(self, prefix: str) -> dict[str, str]:
        """Return what is registered under names that begin so."""
        found: dict[str, str] = self._names.list(prefix=prefix)
        return found

    @offer(*EVERYBODY)
    def register(self, name: str, uri: str, safe: bool) -> None:
        """Register a URI under a name; safely, if there is none yet."""
        if max(len(name), len(uri)) > LONGEST or self._names.count() >= MOST_NAMES:
            raise ValueError(f"no more than {MOST_NAMES} names, of {LONGEST} characters, are kept")
        core.URI(uri)
        self._names.register(name, uri, safe)

    @offer(*EVERYBODY)
    def remove(self, name: str) -> int:
        """Forget a name; return how many were forgotten."""
        return int(self._names.remove(name))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command line."""
    usual = parse_address(DEFAULT_NAMESERVER)
    parser = argparse.ArgumentParser(
        prog="python -m papyros.distributed.nameserver",
        description="Serves the names of groups, as pyro5-ns does, but only to those who have the key of the cluster.",
    )
    parser.add_argument(
        "--host",
        default=usual.host,
        help="the name or address to listen on, which the others are told (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=usual.port,
        metavar="PORT",
        help="the port to listen on; 0 = any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--key-file", metavar="FILE", help="the file with the key (default: the user's own, made on first use)"
    )
    parser.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve names until Ctrl-C, SIGTERM, or the end of the program that started this one as a part of its cluster."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    speaker = Speaker()
    return run_command(parser, speaker, lambda: _serve(options, speaker))


def _serve(options: argparse.Namespace, speaker: Speaker) -> int:
    lifeline = None if options.lifeline is None else Lifeline(options.lifeline)
    if lifeline is not None:
        hello = lifeline.hello()
        apply_pyro_items(hello["pyro"])
        options.key_file = hello["key_file"]
    show_warnings()
    check_listening(options.host)
    broken: list[str] = []
    stop = StopSignals()

    def broke(why: str) -> None:
        broken.append(why)
        stop.set()

    key = find_key(options.key_file)
    if key.fresh:
        speaker.say(tell_fresh(key))
    try:
        daemon = Daemon(options.host, options.port, Security(key), Role.NAME_SERVER, Names(), broke)
    except OSError as error:
        hint = "; another name server, perhaps: take another port" if error.errno == errno.EADDRINUSE else ""
        speaker.complain(f"a name server cannot listen on {options.host}:{options.port}: {error}{hint}")
        return 1
    with stop:
        daemon.start()
        if lifeline is not None:
            lifeline.watch(stop.set)
            lifeline.ready(port=daemon.port)
        else:
            place = Address(options.host, daemon.port)
            speaker.say(f"the name server is up at {place}, for the key {key.fingerprint}; Ctrl-C ends it")
        stop.wait()
    daemon.close()
    if lifeline is None:
        speaker.say("the name server has ended")
    return 1 if broken else 0
