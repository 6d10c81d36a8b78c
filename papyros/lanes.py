"""Lanes: the queues through a master that keeps its books in a ledger.

What is added to a lane is popped from it, and mixes with nothing else: `addJob` and
`popProcessedJob` share one, and each `execute` has one of its own. All that a lane says of jobs
stands in the master's ledger, in a session; the master's lock guards it.
"""

from __future__ import annotations

import _thread
import contextlib
from queue import Full
from typing import TYPE_CHECKING

from papyros.books import Hand
from papyros.courtesy import Courtesy
from papyros.deadlines import AT_ONCE, FOREVER, Deadline
from papyros.entries import WAITING, Entry, Session
from papyros.errors import MasterClosedError
from papyros.jobs import Job, describe
from papyros.keeping import claim, forget_outcome, keeper_of, put_outcome, release
from papyros.outcome import Outcome

if TYPE_CHECKING:
    from papyros.bookkeeping import BookkeepingMaster

__all__ = ["Lane"]


#: Whoever keeps the books for longer than this may wait for the very thread that wants to have them.
SOON_SECONDS = 1.0


class Lane:
    """One queue through a master: what is added here is popped here."""

    #: Whether this lane has to do with each job that is added: it overrides `_check_usable`, or `_note`.
    looks_closely = False

    def __init__(self, master: BookkeepingMaster, session: Session) -> None:
        self._master = master
        self._books = master._books
        self._session = session
        self._courtesy = Courtesy()

    def add(self, job: Job, timeout: float | None = None) -> None:
        """Add a job; see `Master.addJob`."""
        self.add_by(FOREVER if timeout is None else Deadline(timeout), job)

    def add_by(self, deadline: Deadline, job: Job) -> None:
        """Add a job, as `add` does, by a moment that may be that of many of them."""
        hand = Hand()
        try:
            self._books.enter(self, self.looks_closely, self._session, job, deadline, hand)
        except BaseException:
            if hand.entry is not None:
                self._undo_add(job, hand.entry, hand.former)
            raise

    def _undo_add(self, job: Job, entry: Entry, former: Outcome | None) -> None:
        """Leave a job as it was before it was added; Ctrl-C comes anywhere, also when all is done."""
        if keeper_of(job) is not entry:
            return  # another one keeps it, or somebody has popped it meanwhile
        if self._session.entries.get(entry.number) is entry:
            with self._master._lock:
                self._take_back(entry)
        if keeper_of(job) is entry:
            if former is not None:
                put_outcome(job, former)
            release(job)

    def _take_back(self, entry: Entry) -> None:
        """Take a job out of the books again, as far as it is there. Called with the lock held."""
        master, session, number = self._master, self._session, entry.number
        master._ledger.mend()
        if session.entries.get(number) is entry:
            held = entry.holder is not None
            master._ledger.discard(session, [number])
            if held and master._can_stop:
                master._stop_running([entry])
            master._dropped([number])
            master._jobs.pop(number, None)
        elif entry.state is WAITING:  # it was not there yet; otherwise somebody has popped it
            master._jobs.pop(number, None)
        master._let_go([])

    def _note(self, number: int) -> None:
        """Take note of a job that is about to be added. Called with the lock held."""

    def _give_way(self) -> None:
        """Give way to those who send jobs, if it is time to. Called now and then, without the lock."""
        if (load := self._master._load()) is not None:
            self._courtesy.after_adding(len(self._session.entries), len(self._session.line), *load)

    def _wait_for_room(self, job: Job, deadline: Deadline) -> None:
        master, session = self._master, self._session
        while not session.has_room(*master._waiting_elsewhere()):
            if not master._await_room(deadline):
                waiting = len(session.line) + session.delayed + master._waiting_elsewhere()[0]
                jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
                raise Full(f"{jobs}, and there is no room for more; {describe(job)} was not added")
            self._check_usable()

    def _check_usable(self) -> None:
        if self._master._closed:
            self._master._check_usable()
        if self._session.dropped:
            raise MasterClosedError("the loop, or the job, that added jobs here has ended: it can add no more")

    def _await_outcome(self, deadline: Deadline) -> bool:
        return self._master._await_outcome(deadline)

    def pop(self, timeout: float | None = None) -> Job | None:
        """Return the next processed job, or None; see `Master.popProcessedJob`."""
        return self.pop_by(FOREVER if timeout is None else Deadline(timeout))

    def pop_ready(self) -> Job | None:
        """Return a job that is processed already, or None."""
        return self.pop_by(None)

    def pop_at_once(self) -> Job | None:
        """Return a job that is processed already, or can be run here and now; costs little where there is none."""
        if self._session.processed or self._master._runs_in_pops:
            return self.pop_by(AT_ONCE)
        return None

    def pop_by(self, deadline: Deadline | None) -> Job | None:
        """Return the next processed job, by a moment that may be that of many of them; if None, one that is ready."""
        hand = Hand()
        try:
            return self._books.take(self, self._session, deadline, hand)
        except BaseException:
            if hand.entry is not None:
                with self._master._lock:
                    self._put_back(hand.job, hand.entry)
            raise

    def _put_back(self, job: Job, entry: Entry) -> None:
        """Undo a pop, of which the caller does not have the job. Called with the lock held."""
        forget_outcome(job)
        claim(job, entry)
        self._master._jobs[entry.number] = job
        self._master._ledger.put_back(entry, entry.outcome)
        self._master._came.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the master was closed, or this lane."""
        return self._master._closed or self._session.dropped

    def close(self) -> None:
        """Drop all jobs of this lane, whatever their state. May be called at any moment, in any thread."""
        if self._master._forked:
            return  # they are the affair of the process that this one was forked from
        if self._master._came.is_mine() or not self._drop_soon():
            # A loop that nobody knows any more was found by the garbage collector, or left by a handler of a signal: in
            # the midst of a change of the books; or with some other lock in hand, for which somebody waits who changes
            # them. So the work is left to another thread.
            with contextlib.suppress(RuntimeError):  # there is none to spare: then they go with the master
                _thread.start_new_thread(self._drop, ())

    def _drop_soon(self) -> bool:
        """Drop all jobs of this lane if the lock can be had soon; return whether it could."""
        master = self._master
        try:
            if not master._lock.acquire(timeout=SOON_SECONDS):
                return False
            self._drop()
        finally:
            if master._came.is_mine():  # Ctrl-C may come when it was just taken
                master._lock.release()
        return True

    def _drop(self) -> None:
        master, session = self._master, self._session
        with master._lock, master._mending():
            numbers = list(session.entries)
            master._ledger.drop(session.key)
            master._let_go(numbers)
            master._dropped(numbers)
