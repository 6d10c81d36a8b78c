"""Who begins to add jobs, one after the other, lets the threads that send them have the interpreter now and then.

A thread that computes gives the interpreter up only when somebody has waited for it for 5 ms
(`sys.getswitchinterval`), which belongs to the program: it is not changed here. A loop that adds jobs computes. Without
this, the first of them sit in this process for that long, beside idle slaves, and for as long again each time that its
threads have waited for something. Once slaves have jobs ahead, nobody is in such a hurry, and larger batches cost less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["EVERY", "Courtesy"]

#: So many jobs out for each slave are enough: no slave is idle then, or will soon be.
ENOUGH = 5

#: After so many jobs, whoever adds them looks whether it is time to give way: to look each time costs a thirtieth of
#: what it costs to add one. No power of two, lest two lanes by turns have all looks in the one.
EVERY: Final = 7

#: How often to give way, in seconds: what a thread has to do takes about as long.
PERIOD_SECONDS = 0.0003

#: For so long after its first job, a series of them gives way; no longer, since to send a few at a time costs more.
SERIES_SECONDS = 0.01

#: A sleep of any length gives the interpreter to whoever waits for it.
MOMENT_SECONDS = 0.00001


class Courtesy:
    """Knows when to give way, in a lane.

    Args:
        clock: tells the time, in seconds, and never goes back.
        sleep: sleeps for so many seconds, while others have the interpreter.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._added = 0.0  # when the last job was
        self._kept = 0  # how many there were then
        self._began = 0.0  # when this series of them did
        self._gave_way = 0.0

    def after_adding(self, kept: int, waiting: int, out: int, slaves: int) -> None:
        """Give way, if it is time to, after a job was added; called now and then, without any lock.

        Args:
            kept: how many jobs of this lane there are, whatever their state.
            waiting: how many of them nobody has taken yet.
            out: how many jobs of the master slaves were given, or are on their way to them.
            slaves: how many slaves there are, as far as is known.
        """
        now = self._clock()
        before, self._added = self._added, now
        fewer, self._kept = kept < self._kept, kept
        alone = kept < 2  # it may be the only one, for which there is nothing to give way to yet
        if alone or now - before >= SERIES_SECONDS or (fewer and kept <= EVERY):  # those before have been popped
            self._began = now
        if (
            not alone
            and waiting
            and out < ENOUGH * max(1, slaves)
            and now - self._began < SERIES_SECONDS
            and now - self._gave_way >= PERIOD_SECONDS
        ):
            self._sleep(MOMENT_SECONDS)
            self._gave_way = self._clock()
