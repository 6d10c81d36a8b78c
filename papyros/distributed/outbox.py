"""What a slave host has to tell its master: gathered until a report goes, and known until that has arrived.

Reports are numbered, and each tells of one stay with a master. Nothing in here knows of lines or of slaves: these are
the affair of the host, whose lock is held by whoever calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from papyros.bundles import is_more_to_come
from papyros.deadlines import Deadline
from papyros.distributed.batches import HostReport, JobOutcome
from papyros.prints import keep_end, room_for

__all__ = ["Outbox", "ended_in"]

#: A report tells of outcomes of so many bytes, or of a single one.
REPORT_BYTES = 8 << 20

#: What jobs print has so much room while it waits to be reported.
PRINT_CHARACTERS = 1 << 20


class Outbox:
    """The report that is to go, and the one that is on its way.

    Args:
        lock: the lock of the host.

    Attributes:
        sequence: the number of the last report that was taken out.
        flying: the jobs that have ended as it tells, while it is on its way.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self.sequence = 0
        self.flying: list[tuple[str, int]] = []
        self._came = threading.Condition(lock)  # there is something to report
        self._told = threading.Condition(lock)  # ... and it was reported
        self._stay = ""
        self._report = HostReport.empty()
        self._printed = 0  # how much room what jobs print takes in it
        self._lent = 0  # how many slaves lend their places
        self._awaited = False  # whether somebody waits for what is on its way

    # What is to be told -----------------------------------------------------------------

    def finished(self, outcomes: Iterable[JobOutcome]) -> None:
        """Tell outcomes."""
        self._report.outcomes.extend(outcomes)
        self._came.notify()

    def died(self, deaths: Iterable[tuple[str, int, str]]) -> None:
        """Tell which jobs have lost their slaves, and how these died."""
        self._report.deaths.extend(deaths)
        self._came.notify()

    def returned(self, tags: Iterable[tuple[str, int]], reason: str = "") -> None:
        """Give jobs back; where they had been started, for a reason why they did not end."""
        self._report.returned.extend((*tag, reason) for tag in tags)
        self._came.notify()

    def held_up(self, tags: list[tuple[str, int]]) -> None:
        """Give jobs back, if there are some, since all slaves run jobs that take long."""
        if tags:
            self._report.held_up.append(True)
            self.returned(tags)

    def printed(self, tag: tuple[str, int], slave: str, text: str) -> None:
        """Tell what a job prints. A client that is far behind has the end of it; and nothing is to fill a message."""
        prints = self._report.prints
        prints.append((*tag, slave, text))
        self._printed = keep_end(prints, self._printed + room_for(text), PRINT_CHARACTERS)
        self._came.notify()

    def lent(self, places: int) -> None:
        """Tell that so many slaves lend their places."""
        self._lent = places
        self._report.lent[:] = [places]  # the last number counts, and while there is no master, it may change for long
        self._came.notify()

    def begin_stay(self, stay: str) -> None:
        """From now on, reports are of another stay."""
        if stay != self._stay:
            # These were held in the stay before: the master has given them to others, free of charge. But one may have
            # begun already, of whose jobs the master may have heard, though no answer says so.
            self._report.deaths.clear()
            self._report.returned.clear()
        self._stay = stay
        self._report.lent[:] = [self._lent]
        self.wake()  # who waits for news to tell is to tell them elsewhere

    def ended(self) -> list[tuple[str, int]]:
        """Return the jobs that have ended, as the next report is to tell."""
        return ended_in(self._report)

    # On its way -------------------------------------------------------------------------

    def take(self, patience: Callable[[], float] = lambda: 0.0) -> tuple[HostReport, str]:
        """Take out the next report, and say of which stay it tells; wait if there is nothing to tell.

        So many seconds, or until `wake` is called. A report of nothing shows that the host lives, also while a large
        batch of jobs is on its way to it.
        """
        while not any(self._report) and (seconds := patience()) > 0 and not self._came.wait(seconds):
            pass
        report, rest = self._report.split(REPORT_BYTES)
        flying, printed = ended_in(report), sum(room_for(text) for *_, text in rest.prints)
        # Only now, as memory may have lacked for that: what is taken out is on its way.
        self._report, self._printed, self.flying = rest, printed, flying
        # Nobody waits for a sign of life, which a master that does not answer may never take.
        self._awaited = report.is_owed()
        self.sequence += 1
        return report, self._stay

    def arrived(self) -> None:
        """The report that was on its way has arrived."""
        self._awaited = False
        self.flying = []
        self._told.notify_all()

    def is_owed(self) -> bool:
        """Whether something for which somebody waits has not arrived yet."""
        return self._awaited or self.is_any_left()

    def is_any_left(self) -> bool:
        """Whether something for which somebody waits is not on its way yet."""
        return self._report.is_owed()

    def await_told(self, deadline: Deadline) -> bool:
        """Wait until another report has arrived, or `wake` is called; False when the time is up."""
        return deadline.wait(self._told)

    def wake(self) -> None:
        """Have those look again that wait."""
        self._came.notify_all()
        self._told.notify_all()


def ended_in(report: HostReport) -> list[tuple[str, int]]:
    """Return the jobs that have ended as a report tells; not the bundles of which it says that more is to come."""
    return [(done.session, done.number) for done in report.outcomes if not is_more_to_come(done.outcome)]
