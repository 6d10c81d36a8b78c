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
from papyros.deadlines import Deadline
from papyros.entries import Entry
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

    def _run_next(self) -> bool:
        """Run the next waiting job, with the lock released meanwhile; False when there is none."""
        batch = self._ledger.assign(self._holder, 1)
        if not batch:
            return False
        [entry] = batch
        self._room.notify()
        self._lock.release()
        try:
            outcome = _run_interruptibly(entry)
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


def _wants_retry(entry: Entry, outcome: Outcome) -> bool:
    return outcome.exception is not None and wants_retry(entry.payload, outcome.exception)


def _run_interruptibly(entry: Entry) -> Outcome:
    with _interrupts() as interrupted:
        outcome = run_job(entry.payload, threading.current_thread().name)
    if outcome.exception is not None and (interrupted or _quit_debugger(outcome.exception)):
        raise outcome.exception
    return outcome


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Tell Ctrl-C, which is the user's, from a KeyboardInterrupt that a job raises, which is the job's."""
    interrupted: list[int] = []

    def note(number: int, frame: FrameType | None) -> Any:
        interrupted.append(number)
        return signal.default_int_handler(number, frame)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield interrupted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quit_debugger(error: BaseException) -> bool:
    """Whether the user left a debugger in the job with ``quit``."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)
