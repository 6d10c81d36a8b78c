"""The books of a master, and the way in and out of them, by which each job comes.

What is done for each job is done in here, and no more: what is so for some jobs or some masters only (bounds,
children, futures, engines that are to be woken) is asked of the lane, or of the master, when it is so. All that
is in the books is guarded by the master's lock.

This room is compiled. While its code runs, no handler of a signal does, so that Ctrl-C comes in between only where it
calls Python, or when it returns: then the result is gone, and the job with it. Therefore whoever calls hands over a
`Hand`, from which the caller can tell what has been done, and undo it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from papyros.courtesy import EVERY
from papyros.encoded import decode_outcome
from papyros.entries import FORGOTTEN, Entry, Session
from papyros.errors import PayloadError, PendingJobError
from papyros.jobs import Job, describe
from papyros.keeping import check_job, claim, forget_outcome, settle, terms_of
from papyros.ledger import Ledger
from papyros.outcome import Outcome
from papyros.wire import Packer

if TYPE_CHECKING:
    from papyros.bookkeeping import BookkeepingMaster
    from papyros.deadlines import Deadline
    from papyros.lanes import Lane

__all__ = ["Books", "Hand"]


class Hand:
    """What a call that adds, or pops, has in hand.

    Attributes:
        entry: what stands in the books of the job that was added, or taken out.
        job: the job that was taken out.
        former: the outcome that the job had when it was added.
    """

    __slots__ = ("entry", "former", "job")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.job: Any = None
        self.former: Outcome | None = None


class Books:
    """What a master keeps of its jobs.

    Args:
        master: whose books these are.
        lock: guards them.
        ledger: in which state each job is.
        numbers: of the jobs to come.

    Attributes:
        jobs: the jobs themselves, by their numbers.
        closed: whether the master takes no more jobs.
        forked: whether this is a copy, in a process that was forked.
        awaited: whether the engine is to be told of each job that is added (`_job_came`).
        packer: packs jobs, where no master has to be asked for that.
        decodes: whether the outcomes of slaves are decoded, and no master has to be asked for that.
        alters_terms: whether the master is to be asked for the terms of jobs, which may have others there.
    """

    def __init__(self, master: BookkeepingMaster, lock: Any, ledger: Ledger, numbers: Iterator[int]) -> None:
        self._master: Any = master
        self._lock = lock
        self._ledger = ledger
        self._numbers = numbers
        self.jobs: dict[int, Job] = {}
        self.closed = False
        self.forked = False
        self.awaited = True
        self.packer: Packer | None = None
        self.decodes = False
        self.alters_terms = False

    def enter(self, lane: Lane, closely: bool, session: Session, job: Job, deadline: Deadline, hand: Hand) -> None:
        """Add a job; see `Master.addJob`. The lane may have to look `closely` at each of them.

        Raises:
            BaseException: the caller is to undo what was done, as far as it was.
        """
        master = self._master
        if self.forked:
            master._check_process()
        check_job(job, self.packer is not None and self.packer.knows(type(job)))
        terms = terms_of(job)
        if self.alters_terms:
            terms = master._terms(terms)
        entry = Entry(session, 0, None, 0, terms)
        hand.former = former = job._outcome
        hand.entry = entry
        if not claim(job, entry):
            raise PendingJobError(f"{describe(job)} is pending already: pop or cancel it before it is added again")
        self._pack(job, entry)
        with self._lock:
            if self.closed or session.dropped or closely:
                lane._check_usable()
            if session.narrow and entry.outcome is None:
                lane._wait_for_room(job, deadline)
            told = self.awaited
            number = entry.number = next(self._numbers)
            try:
                self._write(job, entry, told, lane if closely else None)
                if former is not None:
                    forget_outcome(job)
            except BaseException:
                lane._take_back(entry)
                raise
        if told:
            master._job_added()
        if number % EVERY == 0:
            lane._give_way()

    def _pack(self, job: Job, entry: Entry) -> None:
        """Pack a job that is to be entered; one that cannot be packed has its outcome."""
        try:
            if self.packer is not None:
                payload = self.packer.pack_plainly(job)
                entry.payload = payload
                entry.size = len(payload[1])
            else:
                entry.payload, entry.size = self._master._pack(job)
        except PayloadError as error:
            entry.outcome = Outcome.failed(error)

    def _write(self, job: Job, entry: Entry, told: bool, lane: Lane | None) -> None:
        """Write a job into the books; tell its lane and the engine, if they want to be told. Called with the lock."""
        if lane is not None:
            lane._note(entry.number)
        self.jobs[entry.number] = job
        self._ledger.enter(entry)
        if entry.outcome is not None:
            self._master._outcomes_came()
        elif told:
            self._master._job_came()

    def take(self, lane: Lane, session: Session, deadline: Deadline | None, hand: Hand) -> Job | None:
        """Take out the job that was processed first, and give it its outcome; see `Lane.pop_by`.

        Raises:
            BaseException: the caller is to put back what the hand holds.
        """
        if self.forked:
            self._master._check_process()
        with self._lock:
            while not session.processed:
                if deadline is None or not session.entries or self.closed:
                    return None
                if not lane._await_outcome(deadline):
                    return None
            self._take_out(lane, session, hand)
        job: Job = hand.job
        entry = hand.entry
        assert entry is not None
        outcome = entry.outcome
        if self.decodes and type(outcome) is tuple:
            # What came of a slave: the outcome, encoded; the name of the slave; the seconds that it took.
            settle(job, decode_outcome(outcome[0], job, outcome[1], outcome[2]))
        else:
            settle(job, self._master._unpack(job, entry))
        return job

    def _take_out(self, lane: Lane, session: Session, hand: Hand) -> None:
        """Take out the job that was processed first. Called with the lock held."""
        entry = session.processed[0]
        hand.job = self.jobs[entry.number]
        hand.entry = entry
        try:
            self._ledger.pop_one(session)
            self.let_out(session, entry)
        except BaseException:
            if entry.state is FORGOTTEN:  # Ctrl-C may come when the ledger has done its part, but before it is heard
                lane._put_back(hand.job, entry)
            hand.entry = None
            raise

    def let_out(self, session: Session, entry: Entry) -> Job:
        """Take out a job that has left the ledger. Called with the lock held."""
        if session.bounded:
            self._master._work_came()
        job = self.jobs.pop(entry.number)
        if not self.jobs:
            self._master._let_go_of_room()
        return job
