"""What the command line may say: its options, how they are checked, and what a configuration file adds to them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import papyros
from papyros.checks import LEAST_SILENCE, MOST_SILENCE
from papyros.cpus import usable_cpus
from papyros.distributed.config import apply_pyro_items, read_config
from papyros.distributed.desk import GRACE_SECONDS, LEASE_SECONDS
from papyros.distributed.naming import (
    DEFAULT_GROUP,
    DEFAULT_NAMESERVER,
    LOOPBACK,
    PROGRAM,
    check_group,
    parse_address,
)
from papyros.errors import ConfigError
from papyros.saying import VersionAction
from papyros.wire import MAX_PAYLOAD_BYTES

__all__ = ["DRAIN_SECONDS", "make_parser", "read_options"]

#: Options that ask for something instead of starting a part.
QUESTIONS = ("status", "doctor", "new_key", "show_key_fingerprint")

#: How long running jobs may take to end after SIGTERM.
DRAIN_SECONDS = 60.0

#: More slaves than this are a mistake.
MOST_SLAVES = 10_000

DESCRIPTION = """\
Start one part of a Papyros cluster: the master of a group, or slaves for it.

Three parts make a cluster, started in any order and on any machines:

  pyro5-ns                                   the name server, on port 9090
  python -m papyros.distributed              the master of the group
  python -m papyros.distributed --slaves=3   three slaves; repeat this on each machine

Then, in a program:

  from papyros.distributed import DistributedMaster
  master = DistributedMaster()

Or all three parts at once, on this machine:

  python -m papyros.distributed --standalone --slaves=3
"""

EPILOG = """\
Ctrl-C ends a part and gives back what it had not finished; after SIGTERM, a slave
host lets running jobs end first. A second signal ends it at once.
Slaves outlive their master and serve the next one.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry --help.\n")


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = _Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_parts(parser.add_argument_group("what to start, instead of a master").add_argument)
    _add_questions(parser.add_argument_group("what to do instead, and end").add_argument)
    _add_places(parser.add_argument_group("who is who, and where").add_argument)
    _add_bounds(parser.add_argument_group("how long, and how much").add_argument)
    add = parser.add_argument_group("further").add_argument
    add("--config", type=Path, metavar="FILE", help="read options from a TOML file; those given here win")
    add("--logging", action="store_true", default=None, help="show more of what happens")
    add("--lifeline", type=int, help=argparse.SUPPRESS)
    return parser


Add = Callable[..., Any]


def _add_parts(add: Add) -> None:
    add(
        "--slaves",
        nargs="?",
        const=usable_cpus(),
        type=_slaves,
        metavar="N",
        help=f"start N slaves (by default {usable_cpus()}, the CPUs that may be used here)",
    )
    add(
        "--standalone",
        action="store_true",
        default=None,
        help="start name server, master and slaves on this machine, as one cluster",
    )


def _add_questions(add: Add) -> None:
    add("--status", action="store_true", help="print what the master of the group and its slaves do")
    add("--doctor", action="store_true", help="say what works on the way to the master, and what does not")
    add("--new-key", type=Path, metavar="FILE", help="make a key, in a file that must not exist yet")
    add("--show-key-fingerprint", action="store_true", help="print what identifies the key without telling it")
    add("--version", action=VersionAction, version=f"Papyros {papyros.__version__}")


def _add_places(add: Add) -> None:
    add("--group", type=_group, metavar="G", help=f"the group that these parts belong to (default: {DEFAULT_GROUP})")
    add(
        "--nameserver",
        type=_nameserver,
        metavar="HOST[:PORT]",
        help=f"where the name server is (default: {DEFAULT_NAMESERVER})",
    )
    add(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="the file with the key of the cluster (default: that of the user, made on first use)",
    )
    add("--host", metavar="ADDRESS", help=f"the address that the master listens on (default: {LOOPBACK})")
    add(
        "--publish",
        type=_published,
        metavar="HOST[:PORT]",
        help="the address by which others reach the master, if it is another one than it listens on",
    )
    add("--port", type=port_number, metavar="PORT", help="the port that the master listens on (default: any free one)")


def _add_bounds(add: Add) -> None:
    add(
        "--lease",
        type=_silence,
        metavar="S",
        help=f"give up slave hosts silent for S seconds (default: {LEASE_SECONDS:g})",
    )
    add(
        "--grace", type=_silence, metavar="S", help=f"give up clients silent for S seconds (default: {GRACE_SECONDS:g})"
    )
    add(
        "--drain",
        type=_seconds,
        metavar="S",
        help=f"after SIGTERM, let running jobs end for at most S seconds (default: {DRAIN_SECONDS:g})",
    )
    add("--max-bytes", type=_bytes, metavar="N", help="refuse results of jobs that take more than N bytes")


def _whole(text: str, least: int, most: int, what: str) -> int:
    """Return a whole number, or refuse it; the digits are counted first, since Python reads no more than 4300."""
    if text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most:
        return int(text)
    raise argparse.ArgumentTypeError(f"{_shown(text)} is no {what}; write a whole number from {least} to {most}")


def _shown(text: str) -> str:
    return ascii(text) if len(text) < 80 else ascii(text[:80]) + "..."


def _slaves(text: str) -> int:
    return _whole(text, 1, MOST_SLAVES, "number of slaves")


def _group(text: str) -> str:
    try:
        return check_group(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _nameserver(text: str) -> str:
    try:
        parse_address(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _published(text: str) -> str:
    try:
        parse_address(text, what="a master, by which others reach it")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _silence(text: str) -> float:
    seconds = _seconds(text)
    if not LEAST_SILENCE <= seconds <= MOST_SILENCE:
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is no number of seconds from {LEAST_SILENCE} to {MOST_SILENCE}, a week"
        )
    return seconds


def _bytes(text: str) -> int:
    return _whole(text, 1, MAX_PAYLOAD_BYTES, "number of bytes")


def port_number(text: str) -> int:
    """Read the number of a port, or 0 for any free one."""
    return _whole(text, 0, 65535, "port")


#: How a value of a configuration file is checked: as the same option on the command line is.
CHECKS: dict[str, Callable[[str], object]] = {
    "group": _group,
    "nameserver": _nameserver,
    "publish": _published,
    "slaves": _slaves,
    "port": port_number,
    "lease": _silence,
    "grace": _silence,
    "drain": _seconds,
    "max_bytes": _bytes,
}


def read_options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line, and the configuration file that it may name, say.

    Raises:
        ConfigError: they say what does not go together, or what is not understood.
    """
    options = parser.parse_args(arguments)
    _check_one_thing(options)
    _merge_config(options)
    return options


def _check_one_thing(options: argparse.Namespace) -> None:
    """Refuse what would be done only in part: a question and a part to start, or two questions."""
    asked = [name for name in QUESTIONS if getattr(options, name) not in {None, False}]
    parts = [name for name in ("slaves", "standalone") if getattr(options, name)]
    if asked and len(asked) + len(parts) > 1:
        named = [f"--{name.replace('_', '-')}" for name in (*asked, *parts)]
        raise ConfigError(f"{' and '.join(named)} do not go together: each of them is all that is done")


def _merge_config(options: argparse.Namespace) -> None:
    """Take from the configuration file what the command line does not say."""
    if options.config is None:
        return
    given, items = read_config(options.config, CHECKS)
    for name, value in given.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    apply_pyro_items(items)
