"""Who adds jobs one after the other lets the threads that send them have the interpreter, while slaves are idle.

A thread that computes gives the interpreter up only when somebody has waited for it for 5 ms
(`sys.getswitchinterval`), which belongs to the program: it is not changed here. A loop that adds jobs computes. Without
this, the first of them sit in this process for that long, beside idle slaves, each time that its threads
have waited for something.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Courtesy"]

#: So many jobs out for each slave are enough: no slave is idle then, or will soon be.
ENOUGH = 5

#: How often to give way, in seconds: what a thread has to do takes about as long.
PERIOD_SECONDS = 0.0003

#: For so long after its first job, a series of them gives way; no longer, since to send a few at a time costs more.
SERIES_SECONDS = 0.01

#: A sleep of any length gives the interpreter to whoever waits for it.
MOMENT_SECONDS = 0.00001


class Courtesy:
    """Knows when to give way.

    Args:
        clock: tells the time, in seconds, and never goes back.
        sleep: sleeps for so many seconds, while others have the interpreter.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._began = 0.0  # when the series did
        self._gave_way = 0.0

    def after_adding(self, kept: int, waiting: int, out: int, slaves: int) -> None:
        """Give way, if it is time to, after a job was added; called without any lock.

        Args:
            kept: how many jobs of the program there are, whatever their state: with the first one, a series begins.
            waiting: how many of them nobody has taken yet.
            out: how many slaves were given, or are on their way to them.
            slaves: how many slaves there are, as far as is known.
        """
        if kept < 2:
            self._began = self._clock()
        elif waiting and out < ENOUGH * max(1, slaves):
            now = self._clock()
            if now - self._gave_way >= PERIOD_SECONDS and now - self._began < SERIES_SECONDS:
                self._sleep(MOMENT_SECONDS)
                self._gave_way = self._clock()
