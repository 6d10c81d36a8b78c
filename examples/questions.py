"""Questions in a terminal, each with a default; wrong answers are explained and asked for again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


class Questions:
    """Asks the user.

    Args:
        attended: whether there is a user to ask; otherwise each question is answered by its default.
    """

    def __init__(self, attended: bool) -> None:
        self.attended = attended

    def ask(self, question: str, default: str, read: Callable[[str], T]) -> T:
        """Return what `read` makes of the answer; ask again as long as it raises `ArgumentTypeError`."""
        if not self.attended:
            return read(default)
        while True:
            print(f"{question} [{default}] ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                print(file=sys.stderr)
                raise EOFError("the input ended before all questions were answered")
            try:
                return read(line.strip() or default)
            except argparse.ArgumentTypeError as error:
                print(f"  Sorry: {error}.", file=sys.stderr)

    def choose(self, question: str, default: str, options: Mapping[str, str]) -> str:
        """Return the name of one of the options, which are shown with their numbers and meanings."""
        if self.attended:
            print(question, file=sys.stderr)
            for number, (option, meaning) in enumerate(options.items(), 1):
                print(f"  {number}  {option:<15} {meaning}", file=sys.stderr)
        return self.ask("Number or name?", default, one_of(options))


def one_of(options: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that reads the number, the name or the beginning of the name of an option."""
    names = list(options)

    def read(text: str) -> str:
        if text.isdecimal() and 1 <= int(text) <= len(names):
            return names[int(text) - 1]
        meant = [name for name in names if name.lower() == text.lower()]
        meant = meant or [name for name in names if text and name.lower().startswith(text.lower())]
        if len(meant) > 1:
            raise argparse.ArgumentTypeError(f"{text!r} could be {' or '.join(meant)}")
        if not meant:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return meant[0]

    return read


def yes_or_no(text: str) -> bool:
    """Read yes or no."""
    answers = {"y": True, "yes": True, "n": False, "no": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return answers[text.lower()]
