"""How long a client leaves outcomes with the master, where they come a few at a time: each message costs as much as
a job of a millisecond.

Where several clients share a master, what each is told of are the few jobs of its own among those that a slave host
reports. Whoever has many jobs out does not wait for these few.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Gathering"]

#: So many outcomes are worth a message.
ENOUGH = 50

#: ... and so many for each slave are many jobs, which keep it busy meanwhile.
MANY = 10

#: No more of the jobs that are out than this part are to end meanwhile.
PART = 0.25

#: Outcomes are left there for no longer than this, ...
LONGEST_SECONDS = 0.025

#: ... and no shorter: to wait costs something, too.
SHORTEST_SECONDS = 0.002


class Gathering:
    """Knows how fast outcomes come.

    Args:
        clock: tells the time, in seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None  # when some came, and many were out: what came since tells how fast they come

    def pause(self, came: int, out: int, slaves: int) -> float:
        """Return for how many seconds to leave outcomes where they are, now that some have come.

        Args:
            came: how many.
            out: of how many jobs the outcomes are still to come.
            slaves: how many slaves there are.
        """
        since, self._since = self._since, None
        if not came or out < max(ENOUGH, MANY * slaves):
            return 0.0
        now = self._since = self._clock()
        if since is None:
            return 0.0
        seconds = min(LONGEST_SECONDS, min(ENOUGH, PART * out) * (now - since) / came)
        return seconds if seconds >= SHORTEST_SECONDS else 0.0
