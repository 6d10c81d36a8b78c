"""How many jobs somebody who runs jobs should have at a time: what they run, and some ahead of need.

Nothing in here changes a state; the ledger asks, and assigns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from papyros.entries import Holder, Session

__all__ = ["LONG_SECONDS", "bearable", "idle_share", "share"]

#: A holder is given so many seconds' worth of jobs ahead of need, as far as durations are known.
AHEAD_SECONDS: Final = 0.6

#: Jobs that take longer, or of which that is not known, are not given ahead: what a slave holds is then what it
#: runs, and what waits can be cancelled or go to another one.
LONG_SECONDS: Final = 0.1

#: What is done in so many seconds is not parted: to fetch the other half takes as long.
LEAST_SECONDS: Final = 0.001

#: What the only one who runs jobs does in so many seconds is not parted either: there is nobody to leave the other half
#: to, and the last jobs would be fetched one by one. What stays in the line until then can be overtaken, and cancelled.
ALONE_SECONDS: Final = 0.05

#: Never more jobs ahead than this for each slave.
AHEAD_JOBS: Final = 1000


def share(holder: Holder, holders: Collection[Holder], sessions: Iterable[Session]) -> int:
    """Return how many more jobs a holder should have (guided self-scheduling, Polychronopoulos and Kuck 1987).

    One for each slave, and as many ahead as are done in `AHEAD_SECONDS`; but never more than an
    even share of half of what waits, so that at the end nobody sits on jobs that others could start, unless they are
    done in a moment. Nor more than is `bearable`.

    Args:
        holder: who asks.
        holders: all who run jobs.
        sessions: those that have waiting jobs.
    """
    if not holder.slaves:
        return 0  # it takes no more jobs, though some may run there still
    sessions = list(sessions)
    waiting = sum(session.assignable() for session in sessions)
    if not waiting:
        return 0
    slaves = sum(other.places for other in holders) or 1
    known = [session.seconds for session in sessions if session.seconds is not None]
    ahead = 0.0
    fair = waiting / (2 * slaves)
    if known and (mean := max(1e-6, sum(known) / len(known))) < LONG_SECONDS:
        ahead = min(AHEAD_JOBS, max(1.0, AHEAD_SECONDS / mean))
        fair = max(fair, (LEAST_SECONDS if slaves > holder.places else ALONE_SECONDS) / mean)
    wanted = holder.places + int(holder.slaves * min(ahead, fair)) - holder.held
    return min(waiting, max(0, bearable(holder, wanted, sessions)))


def bearable(holder: Holder, wanted: int, sessions: Iterable[Session]) -> int:
    """Return how many of so many more jobs a holder should have, since results may be bounded: what is assigned comes.

    One for each slave whatever its result takes, and ahead only those whose results will find room, as far as is known.
    """
    at_least = holder.places - holder.held
    if wanted <= at_least:
        return wanted
    # One whose results have no room at all takes nothing from the room of others.
    return int(max(0, at_least, min(wanted, sum(max(0.0, session.fitting) for session in sessions))))


def idle_share(holder: Holder, holders: Collection[Holder], sessions: Iterable[Session]) -> int:
    """Return how many jobs a holder should be given now, or 0 while it has more than half of its share."""
    more = share(holder, holders, sessions)
    return more if holder.held < holder.places or more >= ceil(holder.held / 2) else 0
