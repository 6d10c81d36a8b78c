"""How many slaves a crew has while some lend their places, and which of them are given jobs.

A slave whose job waits for the job's children is left as it is, and *lends* its place:
another slave works in its stead. When it goes on, there is one too many; whoever is done first
is then a *spare*, which is given nothing until a place is lent again, and sent away after a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

__all__ = ["SPARE_SECONDS", "Employee", "at_work", "missing", "spares"]

#: Where several slaves lend their places already, so many spares are ready before the next one does.
READY_SPARES = 2

#: A spare that was not needed for so long is sent away.
SPARE_SECONDS = 5.0


class Employee(Protocol):
    """What is to be known of a slave."""

    queue: deque[Any]
    ready: bool
    lent: bool
    dismissed: bool
    idle_since: float | None
    sentence: Any


S = TypeVar("S", bound=Employee)


def _counted(slaves: Iterable[S]) -> list[S]:
    """Those that take up a place, or could."""
    return [slave for slave in slaves if not slave.lent and not slave.dismissed]


def _needed(slaves: Iterable[Employee], wanted: int) -> int:
    """How many slaves there are to be beside those that lend their places."""
    # To start one takes longer than most jobs: where jobs have gone some way down, they are likely to go on.
    return wanted + min(READY_SPARES, sum(slave.lent for slave in slaves) // 2)


def missing(slaves: Sequence[Employee], wanted: int) -> int:
    """Return how many slaves are to be hired, where `wanted` are to work at a time."""
    return max(0, _needed(slaves, wanted) - len(_counted(slaves)))


def at_work(slaves: Iterable[S], wanted: int) -> list[S]:
    """Return the slaves that may be given jobs: those that have some, and idle ones while there are places."""
    able = [slave for slave in _counted(slaves) if slave.ready and slave.sentence is None]
    if len(able) <= wanted:
        return able
    busy = [slave for slave in able if slave.queue]
    idle = [slave for slave in able if not slave.queue]
    return busy[:wanted] + idle[: max(0, wanted - len(busy))]


def spares(slaves: Sequence[S], wanted: int, now: float) -> tuple[list[S], float | None]:
    """Return the slaves that are to be sent away, and when to look again, if ever."""
    counted = _counted(slaves)
    extra = len(counted) - _needed(slaves, wanted)
    # The youngest first, since the eldest idle one is given the next job.
    idle = [slave for slave in reversed(counted) if not slave.queue][: max(0, extra)]
    for slave in counted:
        if slave not in idle:
            slave.idle_since = None
    for slave in idle:
        slave.idle_since = now if slave.idle_since is None else slave.idle_since
    since = [slave.idle_since for slave in idle if slave.idle_since is not None]
    overdue = [slave for slave in idle if slave.idle_since is not None and now - slave.idle_since >= SPARE_SECONDS]
    moments = [moment + SPARE_SECONDS for moment in since if now - moment < SPARE_SECONDS]
    return overdue, min(moments, default=None)
