"""A master over any executor of `concurrent.futures`: pools of threads and processes, loky, MPI, batch systems."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ThreadPoolExecutor
from typing import Any

from papyros.current import Place, running_here
from papyros.deadlines import Deadline
from papyros.delegating import CLOSE_SECONDS, DelegatingMaster, Ticket
from papyros.ending import program_end
from papyros.entries import ASSIGNED, Entry, Session
from papyros.errors import MasterClosedError
from papyros.family import Family, WaitingParents
from papyros.jobs import Job
from papyros.keeping import wants_retry
from papyros.logs import logger_of
from papyros.outcome import Outcome
from papyros.parcels import run_parcel
from papyros.running import leave_fork, run_job
from papyros.wire import MAX_PAYLOAD_BYTES

__all__ = ["ExecutorMaster"]

log = logger_of(__name__)

#: A thread beside the executor that cannot be started is tried again after so long.
HELP_AGAIN_SECONDS = 1.0


class ExecutorMaster(DelegatingMaster):
    """Has jobs run by an executor.

    It stays open when this master is closed: it is its maker's. What it cannot do, this master cannot: a job that
    runs is not stopped; when its `timeout` is up, its outcome is a `JobTimeout` all the same, but it goes on. An
    executor that breaks, as one of processes does when one of these dies, is broken for good: each job then
    has a `SlaveLost` as outcome that says so.

    Args:
        executor: any `concurrent.futures.Executor`.
        slaves: how many jobs it is handed at a time; by default as many as it has workers, where it tells, and
            otherwise as there are CPUs. The `timeout` of a job counts from when it is handed over.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        packed: whether jobs travel as bytes, for which Papyros has to be installed where they run; by
            default not with a `ThreadPoolExecutor`, and otherwise always.
        max_bytes: the arguments, or the result, of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of waiting jobs take so many bytes or more.
        max_processed_bytes: no more jobs are handed over while results that wait to be popped take so many bytes
            or more; a single result may not be larger.
        echo: refused, if it is true: what jobs print stays with the executor.
    """

    def __init__(
        self,
        executor: Executor,
        slaves: int | None = None,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        *,
        packed: bool | None = None,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        echo: bool = False,
    ) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise TypeError(f"an ExecutorMaster is made of an executor, which has a submit(), not of {executor!r}")
        super().__init__(
            getattr(executor, "_max_workers", None) if slaves is None else slaves,
            max_waiting,
            max_processed,
            max_bytes=max_bytes,
            max_waiting_bytes=max_waiting_bytes,
            max_processed_bytes=max_processed_bytes,
            echo=echo,
        )
        self._executor = executor
        program_end.comes_before(executor)
        self._engine = f"the {type(executor).__name__}"
        self._packed = not _shares_memory(executor) if packed is None else packed
        self._parents = WaitingParents()  # jobs in this process that wait for their children
        self._helpers = 0  # threads that run such children
        self._beside: set[Entry] = set()  # what these run, or are about to

    _over_executor = True

    def _pack(self, job: Job) -> tuple[Any, int]:
        return super()._pack(job) if self._packed else (job, 0)

    def _submit(self, payload: Any, entry: Entry) -> Ticket:
        try:
            if not self._packed:
                return self._executor.submit(self._run_here, payload, entry)
            digest, blob = payload
            return self._executor.submit(run_parcel, self._packer.definitions[digest], blob, self._largest)
        except RuntimeError as error:
            if isinstance(error, BrokenExecutor) or not _was_shut_down(error):
                raise  # it concerns this job, unless the executor itself says that it is broken
            raise BrokenExecutor(str(error)) from error

    def _read(self, answer: Any) -> tuple[Any, float, int, bool]:
        if self._packed:
            return super()._read(answer)
        outcome, again = answer
        return outcome, outcome.seconds, 0, again

    def _stop(self) -> None:
        with self._lock:
            self._came.notify_all()  # for jobs that wait for others
        super()._stop()
        deadline = Deadline(0.0 if self._packed else CLOSE_SECONDS)
        own = running_here()  # a job that closes the master it runs on cannot end before
        with self._lock:
            while any(entry is not own for entry in self._flying) and deadline.wait(self._work):
                pass

    # Jobs in this process, and their children -------------------------------------------

    def _run_here(self, job: Job, entry: Entry) -> tuple[Outcome, bool]:
        place = Place(lambda: Family(self, entry), lambda: entry)
        token = place.enter()
        try:
            outcome = run_job(job, threading.current_thread().name)
            if self._forked:
                leave_fork(outcome)  # else a process that the job has forked would be another thread of the executor's
        finally:
            place.close(token)
        return outcome, outcome.exception is not None and wants_retry(job, outcome.exception)

    def _await_child(self, session: Session, deadline: Deadline) -> bool:
        if deadline.expired():
            return False
        with self._parents.waiting(session):
            self._help()
            return self._wait(deadline)

    def _free_places(self) -> int:
        return self._slaves - len(self._flying.keys() - self._beside)

    def _work_came(self) -> None:
        super()._work_came()
        self._help()

    def _hand_over(self, entry: Entry) -> None:
        super()._hand_over(entry)
        if entry.session.parent is not None:
            with self._lock:
                self._help()  # the executor may have no thread for it

    def _help(self) -> None:
        """Have jobs run beside the executor, whose threads wait for children of theirs. Called with the lock held.

        So many threads may do so as there are jobs that wait for their children: then one of these threads, at
        the least, is none that waits itself.
        """
        if self._helpers < len(self._parents) and not self._closed and self._needs_help():
            helper = threading.Thread(target=self._serve_beside, name="papyros-slave-beside", daemon=True)
            try:
                helper.start()  # it waits for the lock
            except RuntimeError as error:
                log.warning("jobs that wait for their children keep all slaves, and have to wait on: %s", error)
                self._alarm.set_earliest(time.monotonic() + HELP_AGAIN_SECONDS, self._help_again)
                return
            self._helpers += 1

    def _help_again(self) -> None:
        with self._lock:
            self._help()

    def _needs_help(self) -> bool:
        if self._free_places() <= 0 and any(session.assignable() for session in self._ledger.sessions.values()):
            return True
        return any(self._not_begun())

    def _not_begun(self) -> Iterator[Entry]:
        """Yield children that the executor was handed, and has no thread for."""
        for entry, ticket in self._tickets.items():
            runs = getattr(ticket, "running", bool)
            if entry.session.parent is not None and entry not in self._beside and not runs():
                yield entry

    def _serve_beside(self) -> None:
        child = self._next_beside()
        while child is not None:
            entry, job = child
            try:
                answer = self._run_here(job, entry)
            except BaseException as error:  # noqa: BLE001 - the outcome of the job tells it
                self._fail(entry, error)
            else:
                self._take(entry, answer)
            with self._lock:
                if entry not in self._beside:
                    return  # its time was up, and another thread took the place of this one
                self._beside.remove(entry)
            child = self._next_beside()

    def _overdue(self, entry: Entry, since: float) -> None:
        super()._overdue(entry, since)
        with self._lock:
            if entry in self._beside and entry.state is not ASSIGNED:
                self._beside.remove(entry)
                self._landed(entry)
                self._helpers -= 1
                self._help()

    def _next_beside(self) -> tuple[Entry, Job] | None:
        """Return a job that is to be run beside the executor; None when this thread is to end."""
        with self._lock:
            entry = None
            if self._helpers <= len(self._parents) and not self._closed:
                entry = self._assign_beside() or next(filter(self._take_back, list(self._not_begun())), None)
            if entry is None:
                self._helpers -= 1
                return None
            self._help()
            return entry, entry.payload

    def _assign_beside(self) -> Entry | None:
        for entry in self._ledger.assign(self._holder, 1):
            self._room.notify_all()
            self._flying[entry] = time.monotonic()
            self._beside.add(entry)
            self._set_alarm(entry)
            return entry
        return None

    def _take_back(self, entry: Entry) -> bool:
        ticket = self._tickets.get(entry)
        if ticket is None or entry.state is not ASSIGNED or entry in self._beside:
            return False
        self._beside.add(entry)
        self._lock.release()  # the ticket calls back
        try:
            taken = ticket.cancel()
        finally:
            self._lock.acquire()
        if not taken or entry.state is not ASSIGNED:
            self._beside.discard(entry)
            if taken:
                self._landed(entry)  # it was dropped meanwhile, and its ticket was not heard
            return False
        self._tickets.pop(entry, None)
        return True

    def _fail(self, entry: Entry, error: BaseException) -> None:
        if isinstance(error, CancelledError) and entry in self._beside:
            return  # it was taken back, to be run here
        super()._fail(entry, error)


def _was_shut_down(error: RuntimeError) -> bool:
    """Whether an executor says that it takes nothing any more: there is no type for that, but all have the word."""
    return isinstance(error, MasterClosedError) or "shutdown" in str(error)


def _shares_memory(executor: Executor) -> bool:
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", None)  # Python 3.14, of threads, but apart
    return isinstance(executor, ThreadPoolExecutor) and not (interpreters and isinstance(executor, interpreters))
