"""The master that a job sees where nothing of its own master can be reached: in a process of somebody else's executor.

Its children run in that process, one after the other, within the calls by which the job waits for them. So they take
up no place but that of their parent: nothing can lock up, however few processes there are. A child that has a
`timeout` runs in a thread of its own meanwhile, since somebody has to be there to look at the clock.
"""

from __future__ import annotations

import threading

from papyros.bookkeeping import ForOneJob
from papyros.entries import Entry
from papyros.errors import JobTimeout
from papyros.jobs import Job
from papyros.outcome import Outcome
from papyros.singlethreaded import Interrupts, SingleThreadedMaster

__all__ = ["NestedMaster", "open_family"]


class NestedMaster(ForOneJob, SingleThreadedMaster):
    """A master for one job, in its own thread."""

    _tells_leftovers = False  # what a job leaves behind goes with it
    _overdue: Outcome | None = None  # of the last child whose time was up

    def _run_interruptibly(self, entry: Entry, job: Job, interrupts: Interrupts) -> Outcome:
        seconds = entry.terms.timeout
        if seconds is None:
            return super()._run_interruptibly(entry, job, interrupts)
        outcomes: list[Outcome] = []

        def run() -> None:
            outcomes.append(SingleThreadedMaster._run_interruptibly(self, entry, job, Interrupts()))

        thread = threading.Thread(target=run, name="papyros-timed-child", daemon=True)
        interrupts.let_through(thread.start)
        interrupts.let_through(thread.join, min(seconds, threading.TIMEOUT_MAX))
        if outcomes:
            return outcomes[0]
        text = (
            f"{self._job_text(entry.number)} ran longer than its timeout of {seconds:g} s; it runs in the process of "
            "its parent, where it cannot be stopped, and it goes on"
        )
        self._overdue = Outcome.failed(JobTimeout(text), thread.name, seconds)
        return self._overdue

    def _wants_retry(self, job: Job, outcome: Outcome) -> bool:
        return outcome is not self._overdue and super()._wants_retry(job, outcome)


def open_family() -> NestedMaster:
    """Return a master for the job that runs here."""
    return NestedMaster()
