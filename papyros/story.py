"""What is told to people of a job: how it lost its slaves, what it printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import IO

__all__ = ["show", "show_print", "tell_deaths", "tell_overdue"]


def tell_deaths(deaths: Sequence[object]) -> str:
    """Return what happened to the slaves that ran a job, one attempt a line."""
    if not deaths:
        return "the slave that ran the job was lost"
    attempts = [f"attempt {number}: {death}" for number, death in enumerate(deaths, 1)]
    times = "once" if len(deaths) == 1 else f"{len(deaths)} times"
    return f"the job lost its slave {times} and is not tried again:\n" + "\n".join(attempts)


def tell_overdue(slave: str, timeout: float) -> str:
    """Return what happened to a job that ran for too long."""
    return f"the job ran longer than its timeout of {timeout:g} s on {slave}, and was stopped"


def show_print(job: str, slave: str, text: str) -> None:
    """Show what a job printed, each line with the job and its slave before it."""
    show(sys.stdout, "".join(f"[{job} on {slave}] {line}\n" for line in text.splitlines()))


def show(stream: IO[str] | None, text: str) -> None:
    """Write a text to a terminal, which may be gone, or never have been there."""
    if stream is not None:
        with contextlib.suppress(Exception):  # it may be anybody's: a window that was closed, say
            stream.write(text)
            stream.flush()
