"""A master without concurrency: jobs run in the calling thread, inside the calls that pop them.

For debugging (a breakpoint in a job works, and an exception is the original
object, frames and all), for comparison, and where nothing else is to be had.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Any, ParamSpec, TypeVar

from papyros.bookkeeping import BookkeepingMaster
from papyros.current import Place
from papyros.deadlines import Deadline
from papyros.entries import Entry, Session
from papyros.family import Family
from papyros.jobs import Job
from papyros.keeping import wants_retry
from papyros.outcome import Outcome
from papyros.running import leave_fork, run_job
from papyros.status import SlaveStatus

__all__ = ["Interrupts", "SingleThreadedMaster"]

P = ParamSpec("P")
R = TypeVar("R")


def _numbers(names: str) -> tuple[int, ...]:
    return tuple(getattr(signal, name) for name in names.split() if hasattr(signal, name))


#: Signals of timers, which a job may have set for itself.
_ALARMS = _numbers("SIGALRM SIGVTALRM SIGPROF")

#: Signals whose handlers raise in programs that there are, as far as the system has them. To ask for each takes time.
_SIGNALS = _numbers("SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGXCPU SIGBREAK") + _ALARMS

Handler = Callable[[int, FrameType | None], Any]


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
        self._since: dict[Entry, float] = {}  # when each job that runs was started: one, or some that wait for another
        if self._tells_leftovers:
            # Nothing keeps this master until the end of the program; and whoever lets go of it has its jobs dropped.
            self._forgotten = weakref.finalize(self, self._leftovers.tell, at_exit=True)

    _runs_in_pops = True

    def _popReady(self) -> Job | None:
        return self._main.pop_ready()

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        name = "the thread that pops"
        if not self._since:
            return (SlaveStatus(name),)
        entry, since = next(reversed(self._since.items()))  # the one that runs, not those that wait for it
        return (SlaveStatus(name, self._job_text(entry.number), time.monotonic() - since),)

    def _work_came(self) -> None:
        """Nobody is to be woken: the next pop runs the job."""

    def _stop(self) -> None:
        """Nothing runs outside of the callers' calls."""
        if self._tells_leftovers:
            self._forgotten.detach()

    def _await_outcome(self, deadline: Deadline) -> bool:
        return self._run_next() or self._wait(deadline)

    def _await_room(self, deadline: Deadline) -> bool:
        return self._run_next() or deadline.wait(self._room)

    def _await_child(self, session: Session, deadline: Deadline) -> bool:
        # Within the job that waits, so no other jobs than those that it waits for.
        with _held_interrupts() as interrupts:
            entry = self._ledger.assign_next(self._holder, session)
            if entry is not None:
                return self._run(entry, interrupts)
        return self._wait(deadline)

    def _run_next(self) -> bool:
        """Run the next waiting job, with the lock released meanwhile; False when there is none."""
        with _held_interrupts() as interrupts:
            batch = self._ledger.assign(self._holder, 1)
            return self._run(batch[0], interrupts) if batch else False

    def _run(self, entry: Entry, interrupts: Interrupts) -> bool:
        self._room.notify_all()  # those who wait may do so for room in different queues
        self._since[entry] = time.monotonic()
        job = entry.payload  # which the entry has no more, should the master be closed meanwhile
        self._lock.release()
        try:
            outcome = self._run_interruptibly(entry, job, interrupts)
        except BaseException:
            # It was the user who interrupted, not the job who raised: the job goes back.
            self._lock.acquire()
            del self._since[entry]
            reason = "it was interrupted with Ctrl-C or by another signal, or left in a debugger"
            self._ledger.give_back(self._holder, [entry], reason if entry.terms.once else None)
            self._outcomes_came()
            raise
        self._lock.acquire()
        del self._since[entry]
        self._finish(entry, outcome, outcome.seconds, again=self._wants_retry(job, outcome))
        self._outcomes_came()
        return True

    def _wants_retry(self, job: Job, outcome: Outcome) -> bool:
        return outcome.exception is not None and wants_retry(job, outcome.exception)

    def _run_interruptibly(self, entry: Entry, job: Job, interrupts: Interrupts) -> Outcome:
        place = Place(lambda: Family(self, entry), lambda: entry)
        token = place.enter()
        before, interrupts.came = interrupts.came, False  # what its parent went on in spite of is not for its children
        try:
            outcome = interrupts.let_through(run_job, job, threading.current_thread().name)
            if self._forked:
                leave_fork(outcome)  # else a process that the job has forked would go on with the program
            if outcome.exception is not None and (interrupts.came or _quit_debugger(outcome.exception)):
                raise outcome.exception
        finally:
            place.close(token)
            interrupts.came = interrupts.came or before
        return outcome


class Interrupts:
    """A handler of Ctrl-C, and of other signals that the program handles itself, that holds them back.

    That is, while the books are changed, since handlers may raise. What comes while a job runs goes to the program's
    handler at once. That it raises is noted: so Ctrl-C, which is the user's, can be told from a KeyboardInterrupt that
    the job raises, which is the job's; but an alarm may be one that the job has set for itself.

    Args:
        handlers: the program's own, by the numbers of their signals: that of Ctrl-C is Python's, which raises a
            KeyboardInterrupt, or that of `asyncio`, which does so when the second one comes.
    """

    def __init__(self, handlers: Mapping[int, Handler] = MappingProxyType({})) -> None:
        self.holding = True
        self.came = False  # and was raised while this job ran, or one that it waits for: it is for all of them
        self.over = False  # it only passes on what comes, since somebody was interrupted while it stepped back
        self._held: list[int] = []
        self._handlers = handlers

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal, and pass it to its handler unless it is held back."""
        if self.holding:
            if number not in self._held:
                self._held.append(number)
            return
        try:
            self._handlers[number](number, frame)
        except BaseException:
            self.came = self.came or number not in _ALARMS
            raise

    def let_through(self, call: Callable[P, R], *args: P.args, **kwds: P.kwargs) -> R:
        """Make a call that signals may interrupt."""
        self.holding = False
        try:
            while self._held:
                self(self._held.pop(0), sys._getframe())
            return call(*args, **kwds)
        finally:
            self.holding = True

    @classmethod
    def of_program(cls, found: Mapping[int, Any]) -> Interrupts:
        """Return one for the signals that the program handles itself, given what was found to handle them."""
        own = {n: handler._handlers[n] if isinstance(handler, Interrupts) else handler for n, handler in found.items()}
        return cls({number: handler for number, handler in own.items() if callable(handler)})

    def take_the_place(self) -> None:
        """Handle these signals from now on."""
        for number in self._handlers:
            signal.signal(number, self)

    def step_back(self) -> None:
        """Let the program's handlers have these signals again, but for those that a job handles in another way now."""
        self.over = True  # one of them may raise before all have theirs
        self.holding = False
        try:
            self._restore()
        except BaseException:
            self._restore()
            raise

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is self:
                signal.signal(number, handler)

    def pass_on(self) -> None:
        """Have what was held back come now: all of it, also if the handler of one raises."""
        try:
            while self._held:
                signal.raise_signal(self._held.pop(0))
        finally:
            if self._held:
                self.pass_on()


@contextmanager
def _held_interrupts() -> Iterator[Interrupts]:
    """Hold signals back, if they would be handled in this thread, until the end or until they are let through."""
    in_main = threading.current_thread() is threading.main_thread()
    found = {number: signal.getsignal(number) for number in _SIGNALS} if in_main else {}
    outer = [handler for handler in found.values() if isinstance(handler, Interrupts) and not handler.over]
    if outer:  # in a job that waits for this one
        interrupts = outer[0]
        interrupts.holding = True
        try:
            yield interrupts
        finally:
            interrupts.holding = False
            interrupts.pass_on()
    else:
        interrupts = Interrupts.of_program(found)
        try:
            interrupts.take_the_place()
            yield interrupts
        finally:
            interrupts.step_back()
            interrupts.pass_on()


def _quit_debugger(error: BaseException) -> bool:
    """Whether the user left a debugger in the job with ``quit``."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and issubclass(type(error), bdb.BdbQuit)
