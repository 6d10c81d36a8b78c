"""How the slaves of a crew are started: again, where the system does not let us, and until there is no hope.

How many there should be is in `papyros.staff`, what it takes to start one in `papyros.process`. Whoever calls holds the
lock of the crew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from papyros.deaths import Death
from papyros.logs import logger_of
from papyros.process import SlaveProcess
from papyros.staff import missing

__all__ = ["Hiring"]

log = logger_of(__name__)

#: Slaves that die before they are ready, and leave none: so many in a row, and the crew gives up. Where some are left,
#: those that cannot be started are waited for until it has happened so often.
MAX_FALSE_STARTS = 3

#: ... but not that soon where some have worked: somebody may be about to install something anew.
HOPE_SECONDS = 30.0

#: A slave that cannot be started, for want of memory, say, is tried again after so long.
HIRE_AGAIN_SECONDS = 1.0


class Hiring:
    """Has slaves started until there are as many as there should be.

    Args:
        slaves: those that there are.
        wanted: how many are to work at a time.
        hire: starts one, and adds it to `slaves`; raises an OSError where the system does not let it.
        begin: is called once, when slaves are ready, those that can be had.
        give_up: is told why none can be started.

    Attributes:
        ready: set when slaves are ready, those that can be had; or when none can be started.
        again_at: when to try again, if slaves are missing that could not be started.
        lacking: how many slaves less than wanted there are, and will be until others have become ready.
    """

    def __init__(
        self,
        slaves: list[SlaveProcess],
        wanted: int,
        hire: Callable[[], None],
        begin: Callable[[], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._slaves = slaves
        self._wanted = wanted
        self._hire = hire
        self._begin = begin
        self._give_up = give_up
        self._false_starts = 0
        self._setbacks = 0  # how often one was not started, while there were others
        self._told: set[int | None] = set()  # the errors of the system, since all were there, that were told
        self._worked = False  # whether there ever was one that was ready
        self._hope_until = 0.0  # where none is left
        self._hopeless = False
        self.ready = threading.Event()
        self.again_at: float | None = None
        self.lacking = 0

    def hire_missing(self) -> None:
        """Start the slaves that are missing, if it is time to, and there is hope."""
        if self._hopeless:
            return
        if self.again_at is not None and time.monotonic() < self.again_at:
            return
        self.again_at = None
        for _ in range(missing(self._slaves, self._wanted)):
            try:
                self._hire()
            except OSError as error:
                self._cannot_hire(error)
                return

    def _cannot_hire(self, error: OSError) -> None:
        """Try again later: the system has no file descriptor, process or memory to spare, which may pass."""
        if error.errno not in self._told:  # of each kind once, since it may be so for as long as the crew lives
            self._told.add(error.errno)
            log.warning("a slave cannot be started now: %s; it is tried again each second", error)
        self._try_later()
        if self._slaves:
            self._note_setback()
        elif not self.ready.is_set():
            self._count_false_start(error)  # there never were any: it may not pass at all

    def _try_later(self) -> None:
        self.again_at = time.monotonic() + HIRE_AGAIN_SECONDS
        self.lacking = min(self._wanted, missing(self._slaves, self._wanted))

    def note_ready(self) -> None:
        """Take note that a slave has become ready."""
        self._false_starts = 0
        self._worked = True
        # One that is tried again does not count before it is ready: it may end as those before it.
        self.lacking = min(self.lacking, missing([slave for slave in self._slaves if slave.ready], self._wanted))
        there = self._ready_slaves()
        if there >= self._wanted:
            self._told.clear()
        if there == len(self._slaves) and (there >= self._wanted or self._setbacks >= MAX_FALSE_STARTS):
            self._be_ready()

    def note_false_start(self, death: Death) -> None:
        """Try again: later, where there are others, which may be more lucky; a few times, where there are none."""
        if not self._slaves:
            self._count_false_start(death)
            return
        self._try_later()
        self._note_setback()

    def _note_setback(self) -> None:
        """Wait no longer for those that are missing, if it has happened too often that one was not started."""
        self._setbacks += 1
        if self._setbacks >= MAX_FALSE_STARTS and self._ready_slaves():
            self._be_ready()

    def _ready_slaves(self) -> int:
        return sum(slave.ready for slave in self._slaves)

    def _count_false_start(self, reason: object) -> None:
        now = time.monotonic()
        self._false_starts += 1
        if self._worked:
            if self._false_starts == 1:
                self._hope_until = now + HOPE_SECONDS
            self._try_later()
        if self._false_starts >= MAX_FALSE_STARTS and now >= self._hope_until:
            self.again_at = None
            self._hopeless = True
            self.ready.set()
            self._give_up(f"slaves cannot be started: {reason}")

    def _be_ready(self) -> None:
        if self.ready.is_set():
            return
        if (there := self._ready_slaves()) < self._wanted:
            log.warning("%d of %d slaves are ready; the others are not waited for", there, self._wanted)
        self.ready.set()
        self._begin()
