"""Lanes: the queues through a master that keeps its books in a ledger.

What is added to a lane is popped from it, and mixes with nothing else: `addJob` and
`popProcessedJob` share one, and each `execute` has one of its own. All that a lane says of jobs
stands in the master's ledger, in a session; the master's lock guards it.
"""

from __future__ import annotations

from queue import Full
from typing import TYPE_CHECKING

from papyros.deadlines import FOREVER, Deadline
from papyros.entries import Entry, Session
from papyros.errors import MasterClosedError, PayloadError, PendingJobError
from papyros.jobs import Job, check_job, claim, forget_outcome, release, settle, terms_of
from papyros.outcome import Outcome

if TYPE_CHECKING:
    from papyros.bookkeeping import BookkeepingMaster

__all__ = ["Lane"]


class Lane:
    """One queue through a master: what is added here is popped here."""

    def __init__(self, master: BookkeepingMaster, session: Session) -> None:
        self._master = master
        self._session = session

    def add(self, job: Job, timeout: float | None = None) -> None:
        """Add a job; see `Master.addJob`."""
        master, session = self._master, self._session
        master._check_process()
        check_job(job)
        terms = master._terms(terms_of(job))
        deadline = FOREVER if timeout is None else Deadline(timeout)
        entry = Entry(session, 0, None, 0, terms)
        if not claim(job, entry):
            raise PendingJobError(f"{job!r} is pending already: pop or cancel it before it is added again")
        try:
            try:
                entry.payload, entry.size = master._pack(job)
            except PayloadError as error:
                entry.outcome = Outcome.failed(error)
            with master._lock:
                self._check_usable()
                if session.narrow and entry.outcome is None:
                    self._wait_for_room(job, deadline)
                number = entry.number = next(master._numbers)
                self._note(job, number)
                master._jobs[number] = job
                try:
                    master._ledger.enter(entry)
                    if entry.outcome is None:
                        master._work_came()
                    else:
                        master._outcomes_came()
                except BaseException:
                    master._ledger.discard(session, [number])
                    del master._jobs[number]
                    raise
                forget_outcome(job)
        except BaseException:
            release(job)
            raise

    def _note(self, job: Job, number: int) -> None:
        """Take note of a job that is about to be added. Called with the lock held."""

    def _wait_for_room(self, job: Job, deadline: Deadline) -> None:
        master, session = self._master, self._session
        while not session.has_room(*master._waiting_elsewhere()):
            if not master._await_room(deadline):
                waiting = len(session.line)
                jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
                raise Full(f"{jobs}, and there is no room for more; {job!r} was not added")
            self._check_usable()

    def _check_usable(self) -> None:
        self._master._check_usable()
        if self._session.dropped:
            raise MasterClosedError("the loop, or the job, that added jobs here has ended: it can add no more")

    def _await_outcome(self, deadline: Deadline) -> bool:
        return self._master._await_outcome(deadline)

    def pop(self, timeout: float | None = None) -> Job | None:
        """Return the next processed job, or None; see `Master.popProcessedJob`."""
        master, session = self._master, self._session
        deadline = FOREVER if timeout is None else Deadline(timeout)
        master._check_process()
        with master._lock:
            while (entry := master._ledger.pop_one(session)) is None:
                if not session.entries or master._closed:
                    return None
                if not self._await_outcome(deadline):
                    return None
            job = self._take_out(entry)
        return self._hand_over(job, entry)

    def pop_ready(self) -> Job | None:
        """Return a job that is processed already, or None."""
        master = self._master
        with master._lock:
            entry = master._ledger.pop_one(self._session)
            if entry is None:
                return None
            job = self._take_out(entry)
        return self._hand_over(job, entry)

    def _hand_over(self, job: Job, entry: Entry) -> Job:
        try:
            settle(job, self._master._unpack(job, entry))
        except BaseException:
            with self._master._lock:
                self._master._jobs[entry.number] = job
                self._master._ledger.put_back(entry, entry.outcome)
            raise
        return job

    def _take_out(self, entry: Entry) -> Job:
        master = self._master
        if self._session.bounded:
            master._work_came()
        job = master._jobs.pop(entry.number)
        if not master._jobs:
            master._jobs.clear()  # it would keep the room for as many as there ever were
        return job

    @property
    def closed(self) -> bool:
        """Whether the master was closed, or this lane."""
        return self._master._closed or self._session.dropped

    def close(self) -> None:
        """Drop all jobs of this lane, whatever their state."""
        master, session = self._master, self._session
        with master._lock:
            numbers = list(session.entries)
            master._ledger.drop(session.key)
            master._let_go(numbers)
            master._dropped(numbers)
