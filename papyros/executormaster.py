"""A master over any executor of `concurrent.futures`: pools of threads and processes, loky, MPI, batch systems."""

from __future__ import annotations

import concurrent.futures
import threading
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from typing import Any

from papyros.deadlines import Deadline
from papyros.delegating import DelegatingMaster, Ticket
from papyros.errors import MasterClosedError
from papyros.jobs import Job, wants_retry
from papyros.outcome import Outcome
from papyros.parcels import run_parcel
from papyros.running import run_job
from papyros.terms import Terms
from papyros.wire import MAX_PAYLOAD_BYTES

__all__ = ["ExecutorMaster"]

#: How long `close` waits for what runs in threads, as that of a `MultiThreadedMaster` does.
CLOSE_SECONDS = 5.0


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
        )
        self._executor = executor
        self._engine = f"the {type(executor).__name__}"
        self._packed = not _shares_memory(executor) if packed is None else packed

    def _pack(self, job: Job) -> tuple[Any, int]:
        return super()._pack(job) if self._packed else (job, 0)

    def _submit(self, payload: Any, terms: Terms) -> Ticket:  # noqa: ARG002 - executors know no terms
        try:
            if not self._packed:
                return self._executor.submit(_run_here, payload)
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
        super()._stop()
        deadline = Deadline(0.0 if self._packed else CLOSE_SECONDS)
        with self._lock:
            while self._flying and deadline.wait(self._work):
                pass


def _run_here(job: Job) -> tuple[Outcome, bool]:
    outcome = run_job(job, threading.current_thread().name)
    return outcome, outcome.exception is not None and wants_retry(job, outcome.exception)


def _was_shut_down(error: RuntimeError) -> bool:
    """Whether an executor says that it takes nothing any more: there is no type for that, but all have the word."""
    return isinstance(error, MasterClosedError) or "shutdown" in str(error)


def _shares_memory(executor: Executor) -> bool:
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", None)  # Python 3.14, of threads, but apart
    return isinstance(executor, ThreadPoolExecutor) and not (interpreters and isinstance(executor, interpreters))
