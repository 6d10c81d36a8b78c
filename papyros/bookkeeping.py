"""A master that keeps its books in a ledger: all of the contract but the work itself.

`BookkeepingMaster` guards one ledger with one lock and lets callers wait on it.
What an implementation adds is an engine that takes assigned jobs out of the
ledger and brings outcomes back, and a way to pack jobs for the trip to where
they run. No engine is in here.

A master's jobs are kept in *lanes* (`papyros.lanes`).
"""

from __future__ import annotations

import atexit
import itertools
import math
import os
import sys
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from papyros.books import Books
from papyros.checks import check_bound
from papyros.deadlines import FOREVER, LOOK_SECONDS, Alarm, Deadline, SafeCondition
from papyros.entries import ASSIGNED, PROCESSED, WAITING, Counts, Entry, Session
from papyros.errors import MasterClosedError, SlaveLost
from papyros.execution import Execution
from papyros.jobs import Job, describe
from papyros.keeping import keeper_of, release
from papyros.lanes import Lane
from papyros.ledger import Ledger
from papyros.leftovers import Leftovers
from papyros.master import Master
from papyros.memory import give_memory_back
from papyros.outcome import Outcome
from papyros.status import SlaveStatus, Status
from papyros.story import tell_deaths
from papyros.terms import Terms

__all__ = ["BookkeepingMaster", "ForOneJob", "snapshot"]

J = TypeVar("J", bound=Job)

#: How many jobs `execute` keeps in flight.
EXECUTE_WINDOW = 1000

#: A table of jobs that takes so much has held a flood of them, some 50,000 (see `papyros.memory.FLOOD_JOBS`).
FLOOD_BOOK_BYTES = 2 << 20


class BookkeepingMaster(Master):
    """The base of masters that keep jobs in a `Ledger`.

    Args:
        max_waiting: at most so many jobs wait; None = any number.
        max_processed: at most so many processed jobs wait to be popped, so that no more
            jobs are assigned until some are; None = any number.
        max_waiting_bytes: jobs wait for room while those that wait take so many bytes or more.
        max_processed_bytes: no more jobs are assigned while results that wait take so many bytes or more.
        ledger: the books to keep, where they differ from a plain `Ledger`.
    """

    def __init__(
        self,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._max_waiting = check_bound("max_waiting", max_waiting)
        self._bounds = (
            self._max_waiting,
            check_bound("max_processed", max_processed),
            check_bound("max_waiting_bytes", max_waiting_bytes),
            check_bound("max_processed_bytes", max_processed_bytes),
        )
        self._pid = os.getpid()
        self._lock = threading.RLock()  # nobody takes it twice, but it knows whose it is; see SafeCondition
        #: Notified when an outcome came, or none will come any more.
        self._came = SafeCondition(self._lock)
        #: Notified when there is room for another waiting job.
        self._room = SafeCondition(self._lock)
        self._ledger = ledger or Ledger(lost=lambda losses: Outcome.failed(SlaveLost(tell_deaths(losses))))
        self._numbers = itertools.count(1)
        self._lane_keys = itertools.count(1)
        self._books = Books(self, self._lock, self._ledger, self._numbers)
        self._jobs = self._books.jobs
        _FORKS.tell(self)
        self._alarm = Alarm()
        main = self._open_session(*self._bounds)
        self._main = Lane(self, main)
        self._leftovers = Leftovers(self._words, main)

    # What an implementation provides ----------------------------------------------------

    #: Whether the program is told of jobs that it adds and never pops.
    _tells_leftovers = True

    #: Whether an executor does the work, which may end sooner than the program.
    _over_executor = False

    #: Whether a job that was assigned can be stopped.
    _can_stop = False

    def _stop_running(self, entries: Sequence[Entry]) -> None:
        """Stop jobs that were assigned, and that nobody wants any more. Called with the lock held."""

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        """Return what the slaves do. Called with the lock held."""
        return ()

    def _pack(self, job: Job) -> tuple[Any, int]:
        """Return the payload of a job and its size in bytes, for the ledger.

        Raises:
            PayloadError: the job cannot travel.
        """
        return job, 0

    def _unpack(self, job: Job, entry: Entry) -> Outcome:  # noqa: ARG002 - the job is for those who decode
        """Return the outcome of a job that was popped, as the client is to see it. Called without the lock."""
        return cast(Outcome, entry.outcome)

    @abstractmethod
    def _work_came(self) -> None:
        """Wake the engine: there may be jobs to assign. Called with the lock held."""

    def _job_came(self) -> None:
        """As `_work_came`, of a job that was added. Called with the lock held; then `_job_added` without it."""
        self._work_came()

    def _job_added(self) -> None:
        """Wake the engine, if `_job_came` has not. Called without the lock."""

    def _load(self) -> tuple[int, int] | None:
        """Return how many jobs slaves have, or are on their way to them, and how many slaves there are.

        None where no thread of this master sends them. Called without the lock.
        """
        return None

    @abstractmethod
    def _stop(self) -> None:
        """End the engine, in bounded time. Called once, without the lock."""

    def _await_outcome(self, deadline: Deadline) -> bool:
        """Wait, with the lock held, until an outcome may have come; False when the time is up."""
        return self._wait(deadline)

    def _await_room(self, deadline: Deadline) -> bool:
        """Wait, with the lock held, until there may be room; False when the time is up."""
        return deadline.wait(self._room)

    def _family_ended(self, session: Session) -> None:
        """Take note that the session of the children of a job was dropped. Called with the lock held."""

    def _await_child(self, session: Session, deadline: Deadline) -> bool:  # noqa: ARG002 - for those who run it here
        """Wait as `_await_outcome` does, in a job that runs, for an outcome of a job that it has added."""
        return self._wait(deadline)

    def _wait(self, deadline: Deadline) -> bool:
        """Wait, with the lock held, until something is told to those who wait for outcomes; False when the time is up.

        If there is no thread for the alarm, nobody else may be awake to look for one again.
        """
        self._alarm.look()
        return deadline.wait(self._came, LOOK_SECONDS if self._alarm.in_want else math.inf)

    def _terms(self, terms: Terms) -> Terms:
        """Return the terms of a job, as this master has them."""
        return terms

    def _dropped(self, numbers: Sequence[int]) -> None:
        """Take note that nobody wants these jobs any more. Called with the lock held."""

    def _withdraw(self, session: Session, numbers: Sequence[int]) -> list[int]:
        """Discard those jobs that no slave was given yet; return their numbers. Called without the lock."""
        with self._lock, self._mending():
            withdrawn = [number for number in numbers if self._ledger.cancel(session, number)]
            self._let_go(withdrawn)
        return withdrawn

    def _wake_in_child(self) -> None:
        """Take note that this process was forked, in which the master is no more than a copy. Called at the fork."""
        self._books.forked = True

    def _is_assigned(self, session: Session, number: int) -> bool:
        """Return whether a slave was given a job and has not processed it. Called without the lock."""
        entry = session.entries.get(number)
        return entry is not None and entry.state is ASSIGNED

    def _waiting_elsewhere(self) -> tuple[int, int]:
        """How many jobs, of how many bytes, that the ledger counts as assigned still wait, further down the line."""
        return 0, 0

    # The contract -----------------------------------------------------------------------

    def addJob(self, job: Job, timeout: float | None = None) -> None:
        """Add a job; see `Master.addJob`."""
        self._main.add_by(FOREVER if timeout is None else Deadline(timeout), job)

    def popProcessedJob(self, timeout: float | None = None) -> Job | None:
        """Return the next processed job, or None; see `Master.popProcessedJob`."""
        return self._main.pop_by(FOREVER if timeout is None else Deadline(timeout))

    def execute(
        self,
        jobs: Iterable[J],
        ordered: bool = False,
        timeout: float | None = None,
        progress: bool = False,
    ) -> Iterator[J]:
        """Process all jobs of an iterable and yield them as they come; see `Master.execute`."""
        deadline = Deadline(timeout)
        self._check_process()
        with self._lock:
            self._check_usable()
        window = min(self._max_waiting or EXECUTE_WINDOW, EXECUTE_WINDOW)
        execution = Execution(self._open_lane, jobs, window, ordered, deadline, progress)
        return cast("Iterator[J]", iter(execution))

    def cancelJob(self, job: Job) -> bool:
        """Discard a job, also while it runs, where that can be; see `Master.cancelJob`."""
        self._check_process()
        with self._lock, self._mending():
            entry = self._entry_of(job)
            if entry is None or entry.state is PROCESSED:
                return False
            if not self._ledger.cancel(entry.session, entry.number):
                if not self._can_stop:
                    return False
                self._ledger.discard(entry.session, [entry.number])
                self._stop_running([entry])
            self._let_go([entry.number])
            return True

    def cancelAllJobs(self) -> None:
        """Discard all jobs that no slave was given yet; see `Master.cancelAllJobs`."""
        self._check_process()
        with self._lock, self._mending():
            self._leftovers.renounce()
            for session in self._own_sessions():
                self._let_go(self._ledger.cancel_waiting(session))

    def numPendingJobs(self) -> int:
        """Return how many jobs are pending; see `Master.numPendingJobs`."""
        self._check_process()
        with self._lock:
            return sum(session.pending for session in self._own_sessions())

    def status(self) -> Status:
        """Return a snapshot; see `Master.status`."""
        self._check_process()
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> Status:
        if self._closed:
            return snapshot(f"{self._words} that is closed", self._ledger, ())
        return snapshot(self._words, self._ledger, self._slaves_now())

    def close(self) -> None:
        """Let go of everything; see `Master.close`."""
        if self._forked:
            return  # what is to be let go belongs to the process that this one was forked from
        with self._lock:
            if self._closed:
                return
            self._books.closed = True
        try:
            if self._tells_leftovers:
                self._leftovers.tell()
            with self._came.opened(self._mend):  # others need the lock to end
                self._alarm.close()
                self._stop()
        finally:  # after a Ctrl-C, too: others may wait for jobs that nobody will process any more
            with self._lock, self._mending():
                for session in self._own_sessions():
                    self._discard_unprocessed(session)
        atexit.unregister(self._end_with_program)

    def _end_with_program(self) -> None:
        """Close the master at the end of a program that did not."""
        if self._tells_leftovers and not self._closed:
            self._leftovers.tell(at_exit=True)
        self.close()

    # Inside -----------------------------------------------------------------------------

    @property
    def _closed(self) -> bool:
        return self._books.closed

    @property
    def _forked(self) -> bool:
        return self._books.forked

    def _open_lane(self) -> Lane:
        return Lane(self, self._open_session(*self._bounds))

    def _open_session(self, *bounds: int | None) -> Session:
        with self._lock:
            return self._ledger.open(next(self._lane_keys), *bounds)

    def _open_family(self, parent: Entry) -> Session:
        """Open a session for the children of a job; it has no bounds, for nobody but the job could make room."""
        with self._lock:
            if parent.state is not ASSIGNED:
                raise MasterClosedError("the job has an outcome already, so it can add no more jobs")
            return self._ledger.open(next(self._lane_keys), parent=parent)

    def _own_sessions(self) -> list[Session]:
        """The sessions of this program; those of the children of jobs are the jobs' affair."""
        return [session for session in self._ledger.sessions.values() if session.parent is None]

    def _discard_unprocessed(self, session: Session) -> None:
        """Discard the jobs of a session that have no outcome. Called with the lock held."""
        unprocessed = [number for number, entry in session.entries.items() if entry.state is not PROCESSED]
        self._ledger.discard(session, unprocessed)
        self._let_go(unprocessed)

    def _check_process(self) -> None:
        """Refuse to work in a forked child, before the lock is taken: a thread that is not here may hold it."""
        if self._forked:
            raise RuntimeError(
                f"this {type(self).__name__} belongs to process {self._pid}, from which this one was forked; "
                "make a master of its own here"
            )

    def _check_usable(self) -> None:
        if self._closed:
            raise MasterClosedError(f"this {type(self).__name__} is closed: it takes no more jobs")

    @contextmanager
    def _mending(self) -> Iterator[None]:
        """Put the books right if Ctrl-C comes in the midst of a change of them. Used with the lock held."""
        try:
            yield
        except GeneratorExit:
            raise  # Ctrl-C came before what this is about had begun; by now somebody else may hold the lock
        except BaseException:
            self._mend()
            raise

    def _mend(self) -> None:
        """Put the books right, and let go of jobs that have left the ledger. Called with the lock held."""
        self._ledger.mend()
        self._let_go([number for number, job in self._jobs.items() if not self._is_kept(job)])

    def _is_kept(self, job: Job) -> bool:
        entry = keeper_of(job)
        if not isinstance(entry, Entry) or self._ledger.sessions.get(entry.session.key) is not entry.session:
            return False
        return entry.session.entries.get(entry.number) is entry

    def _let_go(self, numbers: Iterable[int]) -> None:
        """Let go of jobs that left the ledger unprocessed. Called with the lock held."""
        for number in numbers:
            release(self._jobs[number])
            del self._jobs[number]  # after that: what is interrupted in between is mended by what is still here
        self._let_go_of_orphans()
        self._let_go_of_room()
        self._room.notify_all()
        self._came.notify_all()
        if not self._closed:
            self._work_came()  # what they took of a bound may be free for others now

    def _let_go_of_room(self) -> None:
        """Let go of what the books took of memory, where all jobs have left them. Called with the lock held."""
        if self._jobs:
            return
        flood = sys.getsizeof(self._jobs) >= FLOOD_BOOK_BYTES
        self._jobs.clear()  # it would keep the room for as many as there ever were
        if flood:
            give_memory_back()

    def _finish(self, entry: Entry, outcome: Any, seconds: float, size: int = 0, again: bool = False) -> None:
        """Take an outcome; `again` if the job failed and wants a retry. Called with the lock held."""
        if not again:
            self._ledger.finish(entry.session, entry.number, outcome, seconds, size)
            return
        self._ledger.finish(entry.session, entry.number, outcome, seconds, size, lambda delay: time.monotonic() + delay)
        if entry.delayed:
            self._alarm.set_earliest(self._ledger.next_wake() or 0.0, self._wake_delayed)
            if self._alarm.in_want:
                self._came.notify_all()

    def _wake_delayed(self) -> None:
        with self._lock:
            woken = self._ledger.wake(time.monotonic())
            if (moment := self._ledger.next_wake()) is not None:
                self._alarm.set_earliest(moment, self._wake_delayed)
            for _ in range(max(1, woken)):  # each of them may have a slave of its own
                self._work_came()
            self._came.notify_all()
            self._room.notify_all()

    def _entry_of(self, job: Job) -> Entry | None:
        """Return the entry of a job that this master keeps, or None. Called with the lock held."""
        entry = keeper_of(job)
        return entry if isinstance(entry, Entry) and self._jobs.get(entry.number) is job else None

    def _job_text(self, number: int) -> str:
        """Return a job in words. Called with the lock held."""
        job = self._jobs.get(number)
        return describe(job) if job is not None else "a job that nobody wants any more"

    def _outcomes_came(self) -> None:
        """Wake those who wait to pop. Called with the lock held, after `finish`."""
        self._let_go_of_orphans()
        self._came.notify_all()

    def _let_go_of_orphans(self) -> None:
        """Stop what is left of families that lost their parents. Called with the lock held."""
        for session, entries in self._ledger.take_orphans():
            self._family_ended(session)
            for entry in entries:
                if (job := self._jobs.pop(entry.number, None)) is not None:
                    release(job)
            if self._can_stop and (running := [entry for entry in entries if entry.holder is not None]):
                self._stop_running(running)


class ForOneJob(BookkeepingMaster):
    """What masters for the children of one job have in common, whatever else they are."""

    @property
    def closed(self) -> bool:
        """Whether the job has closed it."""
        return self._closed

    def end(self) -> None:
        """Drop the children that are left."""
        self.close()


class _Forks:
    """Has masters know when they wake up in a forked child; to ask the system each time costs more than a pop."""

    def __init__(self) -> None:
        self._masters: weakref.WeakSet[BookkeepingMaster] = weakref.WeakSet()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._mark)

    def tell(self, master: BookkeepingMaster) -> None:
        self._masters.add(master)

    def _mark(self) -> None:
        for master in list(self._masters):
            master._wake_in_child()


#: One for each process: of what is called at a fork, nothing is ever taken back, and a program may make many masters.
_FORKS = _Forks()


def snapshot(master: str, ledger: Ledger, slaves: tuple[SlaveStatus, ...], clients: int = 1) -> Status:
    """Return a status, with the numbers that a ledger knows."""
    sessions = list(ledger.sessions.values())
    counts = Counts()
    for each in (ledger.past, *(session.counts for session in sessions)):
        counts.add_up(each)
    waiting = sum(len(session.line) + session.delayed for session in sessions)
    assignable = sum(session.assignable() for session in sessions)
    bundled = sum(session.jobs_in(WAITING) for session in sessions)
    processed = sum(len(session.processed) + len(session.delivery.entries) for session in sessions)
    return Status(
        master=master,
        slaves=slaves,
        clients=clients,
        waiting=waiting + bundled,
        held=waiting - assignable + (0 if assignable else bundled),
        assigned=sum(session.assigned + session.jobs_in(ASSIGNED) for session in sessions),
        processed=processed + sum(session.jobs_in(PROCESSED) for session in sessions),
        lost=counts.lost,
        retried=counts.retried,
        late=counts.late,
    )
