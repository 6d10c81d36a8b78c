"""What the commands of this package say: lines for standard streams that may be gone, or have no characters for them.

Who only answers a question waits until somebody reads. Parts that serve may not wait for that: Ctrl-S on a terminal
would keep them from it. Nothing of what they say is worth an end of theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from typing import IO, NoReturn

from papyros.errors import ConfigError, PapyrosError
from papyros.screen import Screen, spelt

__all__ = ["Speaker", "VersionAction", "run_command", "say"]


def say(text: str) -> None:
    """Write a line to standard output, and wait until it is written; nothing happens where nobody reads any more."""
    stream = sys.stdout
    if stream is None:
        return
    try:
        print(spelt(stream, text), file=stream, flush=True)
    except (OSError, ValueError):  # it is gone, or closed
        _let_go(stream)


class Speaker:
    """Says lines for a part that serves: whoever speaks does not wait for a reader. Any thread may use it.

    Args:
        prefix: what lines of standard output begin with.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._screen = Screen()

    def say(self, text: str) -> None:
        """Write a line to standard output; what does not fit now is kept for later."""
        self._screen.show(sys.stdout, f"{self._prefix}{text}\n")

    def complain(self, text: str) -> None:
        """Do the same with the stream for errors."""
        self._screen.show(sys.stderr, f"{text}\n")

    def close(self) -> None:
        """Wait until all that was said is written; for half a second, if nobody reads it."""
        self._screen.close()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                _settle(stream)


def run_command(parser: argparse.ArgumentParser, speaker: Speaker, run: Callable[[], int]) -> int:
    """Run a command, and close its speaker; return the exit code. What keeps it from its work is said in words."""
    try:
        return run()
    except ConfigError as error:
        parser.error(str(error))
    except PapyrosError as error:
        speaker.complain(f"{parser.prog}: {error}")
        return 1
    finally:
        speaker.close()


class VersionAction(argparse.Action):
    """An option that says which version this is, in one line, and ends: argparse itself would break a long one."""

    def __init__(self, option_strings: list[str], dest: str, version: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version, and end")
        self._version = version

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Say it."""
        say(self._version)
        parser.exit()


def _settle(stream: IO[str]) -> None:
    """See to it that nothing is left that the interpreter would try to write at the exit, and complain of."""
    try:
        stream.flush()
    except (OSError, ValueError):
        _let_go(stream)


def _let_go(stream: IO[str]) -> None:
    """Have what is left in the buffer of a stream that is gone, and all that may still come, go nowhere."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
