"""A master without concurrency: jobs run in the calling thread, inside the calls that pop them.

For debugging (a breakpoint in a job works, and an exception is the original
object, frames and all), for comparison, and where nothing else is to be had.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from papyros.bookkeeping import BookkeepingMaster
from papyros.current import Place
from papyros.deadlines import Deadline
from papyros.entries import Entry, Session
from papyros.family import Family
from papyros.jobs import Job, wants_retry
from papyros.outcome import Outcome
from papyros.running import run_job
from papyros.status import SlaveStatus

__all__ = ["SingleThreadedMaster"]


class SingleThreadedMaster(BookkeepingMaster):
    """Runs each job when it is about to be popped, in the thread that pops.

    A timeout does not interrupt a job: `popProcessedJob` runs one, however
    long that takes, and returns it, so that loops with ``timeout=0`` end here
    too; nor does the `timeout` of a job stop it, since nobody is there to do
    so. Where the number of waiting jobs is bounded, `addJob` makes room by
    running one.

    Args:
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
    """

    def __init__(self, max_waiting: int | None = None, max_processed: int | None = None) -> None:
        super().__init__(max_waiting, max_processed)
        self._holder = self._ledger.enlist("caller", 1)

    _runs_in_pops = True

    def _popReady(self) -> Job | None:
        return self._main.pop_ready()

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        return (SlaveStatus("the thread that pops", "what popProcessedJob runs"),)

    def _work_came(self) -> None:
        """Nobody is to be woken: the next pop runs the job."""

    def _stop(self) -> None:
        """Nothing runs outside of the callers' calls."""

    def _await_outcome(self, deadline: Deadline) -> bool:
        return self._run_next() or deadline.wait(self._came)

    def _await_room(self, deadline: Deadline) -> bool:
        return self._run_next() or deadline.wait(self._room)

    def _await_child(self, session: Session, deadline: Deadline) -> bool:
        # Within the job that waits, so no other jobs than those that it waits for.
        entry = self._ledger.assign_next(self._holder, session)
        return self._run(entry) if entry is not None else deadline.wait(self._came)

    def _run_next(self) -> bool:
        """Run the next waiting job, with the lock released meanwhile; False when there is none."""
        batch = self._ledger.assign(self._holder, 1)
        return self._run(batch[0]) if batch else False

    def _run(self, entry: Entry) -> bool:
        self._room.notify()
        self._lock.release()
        try:
            outcome = self._run_interruptibly(entry)
        except BaseException:
            # It was the user who interrupted, not the job who raised: the job goes back.
            self._lock.acquire()
            reason = "it was interrupted with Ctrl-C, or left in a debugger"
            self._ledger.give_back(self._holder, [entry], reason if entry.terms.once else None)
            self._outcomes_came()
            raise
        self._lock.acquire()
        self._finish(entry, outcome, outcome.seconds, again=_wants_retry(entry, outcome))
        self._outcomes_came()
        return True

    def _run_interruptibly(self, entry: Entry) -> Outcome:
        place = Place(lambda: Family(self, entry))
        token = place.enter()
        try:
            with _interrupts() as interrupted:
                outcome = run_job(entry.payload, threading.current_thread().name)
        finally:
            place.leave(token)
            place.end_job()
        if outcome.exception is not None and (interrupted or _quit_debugger(outcome.exception)):
            raise outcome.exception
        return outcome


def _wants_retry(entry: Entry, outcome: Outcome) -> bool:
    return outcome.exception is not None and wants_retry(entry.payload, outcome.exception)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Tell Ctrl-C, which is the user's, from a KeyboardInterrupt that a job raises, which is the job's."""
    interrupted: list[int] = []
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if isinstance(before, _Note):
        yield before.interrupted  # of the job that waits for this one: whoever is interrupted, it is for both
        return
    if before is not signal.default_int_handler:
        yield interrupted
        return
    note = _Note(interrupted)
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Note:
    """A handler of signals that notes that one came, and does what Python does by itself."""

    def __init__(self, interrupted: list[int]) -> None:
        self.interrupted = interrupted

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        self.interrupted.append(number)
        return signal.default_int_handler(number, frame)


def _quit_debugger(error: BaseException) -> bool:
    """Whether the user left a debugger in the job with ``quit``."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)
