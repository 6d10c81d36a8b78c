"""A master without concurrency: jobs run in the calling thread, inside the calls that pop them.

For debugging (a breakpoint in a job works, and an exception is the original
object, frames and all), for comparison, and where nothing else is to be had.
"""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from papyros.bookkeeping import BookkeepingMaster
from papyros.current import Place
from papyros.deadlines import Deadline
from papyros.entries import Entry, Session
from papyros.family import Family
from papyros.jobs import Job
from papyros.keeping import wants_retry
from papyros.outcome import Outcome
from papyros.running import run_job
from papyros.status import SlaveStatus

__all__ = ["Interrupts", "SingleThreadedMaster"]

P = ParamSpec("P")
R = TypeVar("R")


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
        if self._tells_leftovers:
            # Nothing keeps this master until the end of the program; and whoever lets go of it has its jobs dropped.
            self._forgotten = weakref.finalize(self, self._leftovers.tell, at_exit=True)

    _runs_in_pops = True

    def _popReady(self) -> Job | None:
        return self._main.pop_ready()

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        return (SlaveStatus("the thread that pops", "what popProcessedJob runs"),)

    def _work_came(self) -> None:
        """Nobody is to be woken: the next pop runs the job."""

    def _stop(self) -> None:
        """Nothing runs outside of the callers' calls."""
        if self._tells_leftovers:
            self._forgotten.detach()

    def _await_outcome(self, deadline: Deadline) -> bool:
        return self._run_next() or deadline.wait(self._came)

    def _await_room(self, deadline: Deadline) -> bool:
        return self._run_next() or deadline.wait(self._room)

    def _await_child(self, session: Session, deadline: Deadline) -> bool:
        # Within the job that waits, so no other jobs than those that it waits for.
        with _held_interrupts() as interrupts:
            entry = self._ledger.assign_next(self._holder, session)
            if entry is not None:
                return self._run(entry, interrupts)
        return deadline.wait(self._came)

    def _run_next(self) -> bool:
        """Run the next waiting job, with the lock released meanwhile; False when there is none."""
        with _held_interrupts() as interrupts:
            batch = self._ledger.assign(self._holder, 1)
            return self._run(batch[0], interrupts) if batch else False

    def _run(self, entry: Entry, interrupts: Interrupts) -> bool:
        self._room.notify()
        self._lock.release()
        try:
            outcome = self._run_interruptibly(entry, interrupts)
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

    def _run_interruptibly(self, entry: Entry, interrupts: Interrupts) -> Outcome:
        place = Place(lambda: Family(self, entry), lambda: entry)
        token = place.enter()
        try:
            outcome = interrupts.let_through(run_job, entry.payload, threading.current_thread().name)
        finally:
            place.leave(token)
            place.end_job()
        if outcome.exception is not None and (interrupts.came or _quit_debugger(outcome.exception)):
            raise outcome.exception
        return outcome


def _wants_retry(entry: Entry, outcome: Outcome) -> bool:
    return outcome.exception is not None and wants_retry(entry.payload, outcome.exception)


class Interrupts:
    """A handler of Ctrl-C that holds it back while the books are changed.

    What comes while a job runs goes to the program's handler at once, and what that raises is noted: so Ctrl-C, which
    is the user's, can be told from a KeyboardInterrupt that the job raises, which is the job's.

    Args:
        handler: the program's own: Python's, which raises a KeyboardInterrupt, or that of `asyncio`, which does so when
            the second one comes.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], Any] = signal.default_int_handler) -> None:
        self.holding = True
        self.came = False  # and was raised: whatever job waits for whatever other one, it is for all of them
        self._held = False
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note of Ctrl-C, and raise it unless it is held back."""
        if self.holding:
            self._held = True
            return
        try:
            self._handler(number, frame)
        except BaseException:
            self.came = True
            raise

    def let_through(self, call: Callable[P, R], *args: P.args, **kwds: P.kwargs) -> R:
        """Make a call that Ctrl-C may interrupt."""
        self.holding = False
        try:
            self.raise_held()
            return call(*args, **kwds)
        finally:
            self.holding = True

    def raise_held(self) -> None:
        """Raise what was held back."""
        if self._held:
            self._held, self.holding = False, False
            self(signal.SIGINT, sys._getframe())


@contextmanager
def _held_interrupts() -> Iterator[Interrupts]:
    """Hold Ctrl-C back, if it would be handled in this thread, until the end or until it is let through."""
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if isinstance(before, Interrupts):  # in a job that waits for this one
        interrupts = before
        interrupts.holding = True
        try:
            yield interrupts
        finally:
            interrupts.holding = False
    elif callable(before):
        interrupts = Interrupts(before)
        signal.signal(signal.SIGINT, interrupts)
        try:
            yield interrupts
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        interrupts = Interrupts()  # which is told of none
        yield interrupts
    interrupts.raise_held()


def _quit_debugger(error: BaseException) -> bool:
    """Whether the user left a debugger in the job with ``quit``."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)
