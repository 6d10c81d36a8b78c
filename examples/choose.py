"""What the examples share: the choice of a master, and a clean way to end.

A program needs no more than `papyros.add_master_option` and `papyros.open_master` so that its user can say where the
jobs run, in the words that all programs share. The examples add to these a cluster of their own, and options for what
such a word can say as well.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import papyros

#: What `open_master` understands besides the words of `papyros.open_master`, or in short for these, with what it means.
KINDS = {
    "serial": "one job after the other, in this thread",
    "threads": "slaves are threads of this process",
    "processes": "slaves are processes of this machine",
    "local-cluster": "a cluster of its own on this machine: name server, master and slave processes",
    "distributed": "a running cluster; it is found through its name server",
}

DEFAULT_NAMESERVER = "localhost:9090"


@contextmanager
def open_master(
    kind: str,
    slaves: int | None = None,
    *,
    group: str | None = None,
    nameserver: str = DEFAULT_NAMESERVER,
    host_master: bool = True,
) -> Iterator[papyros.Master]:
    """Open the master of a kind, and close it, with all that was started for it, at the end.

    Args:
        kind: one of `KINDS`, or a word of `papyros.open_master`.
        slaves: how many slaves; None = as many as that kind of master starts by default.
        group: for "distributed": the name of the group; None = the default group.
        nameserver: for "distributed": where the name server is, as HOST:PORT.
        host_master: for "distributed": whether to host the group's master here when there is none.
    """
    with ExitStack() as stack:
        master: papyros.Master
        if kind == "local-cluster":
            cluster = papyros.LocalCluster() if slaves is None else papyros.LocalCluster(slaves)
            master = stack.enter_context(cluster).master()
        elif kind == "distributed":
            master = papyros.open_master(f"pyro://{group or ''}@{nameserver}", host_master=host_master)
        elif kind in ("threads", "processes") and slaves is not None:
            master = papyros.open_master(f"{kind}:{slaves}")
        else:
            master = papyros.open_master(kind)
        yield stack.enter_context(master)


def add_master_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Give a parser the options that `open_master_of` reads."""
    where = parser.add_argument_group("where the jobs run")
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    where.add_argument(
        "--master",
        type=master_word,
        metavar="WHERE",
        default=default,
        help=f"{kinds}; or any word of papyros.open_master, like threads:4 and pyro://GROUP@HOST:PORT "
        f"(default: {default})",
    )
    where.add_argument(
        "--slaves",
        type=whole_number(1, 10_000),
        metavar="N",
        help="for threads, processes and local-cluster: how many slaves (default: one per CPU; local-cluster: 2)",
    )
    where.add_argument("--group", type=name, help="for distributed: the name of the group")
    where.add_argument(
        "--nameserver",
        type=host_and_port,
        metavar="HOST:PORT",
        default=DEFAULT_NAMESERVER,
        help=f"for distributed: where the name server is (default: {DEFAULT_NAMESERVER})",
    )


def open_master_of(options: argparse.Namespace) -> Any:
    """Open the master that the command line asks for."""
    return open_master(options.master, options.slaves, group=options.group, nameserver=options.nameserver)


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """Give a parser the option that `wants_progress` reads."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar on stderr (default: when that is a terminal)",
    )


def wants_progress(options: argparse.Namespace) -> bool:
    """Whether to show a progress bar."""
    if options.progress is None:
        return sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    return bool(options.progress)


# What is understood, on the command line and as an answer to a question. ----------------


def master_word(text: str) -> str:
    """Read where the jobs run: one of `KINDS`, or a word of `papyros.open_master`."""
    if text in KINDS:
        return text
    words = argparse.ArgumentParser(exit_on_error=False)
    papyros.add_master_option(words)
    try:
        words.parse_args([f"--master={text}"])
    except argparse.ArgumentError as error:
        raise argparse.ArgumentTypeError(f"{error.message}\n  {', '.join(KINDS)}: see --help") from None
    return text


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number between two bounds."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return number

    return read


def name(text: str) -> str:
    """Read a name: one word."""
    if not text or text.split() != [text]:
        raise argparse.ArgumentTypeError(f"{text!r} is no name: it must be one word")
    return text


def host_and_port(text: str) -> str:
    """Read an address, HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HOST:PORT, like {DEFAULT_NAMESERVER}")
    return text


# The end. -------------------------------------------------------------------------------


def run(main: Callable[[], int]) -> NoReturn:
    """Run the main function of a script and exit, without a traceback for what is no bug of it."""
    program = os.path.basename(sys.argv[0])
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # whoever read our output, like `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (papyros.PapyrosError, EOFError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
