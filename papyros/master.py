"""The contract of a master, in prose, and what can be derived from it.

Where a job runs is the affair of the implementations; this module knows none of
them. One test suite (``tests/contract``) states the contract and runs on each.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from papyros.deadlines import Deadline
from papyros.jobs import Job
from papyros.status import Status

if TYPE_CHECKING:
    from typing import Self

    from papyros.executor import MasterExecutor

__all__ = ["Master"]

J = TypeVar("J", bound=Job)


class Master(ABC):
    """Keeps jobs, has them processed, and gives them back.

    A job is *waiting* when it was added, *assigned* when a slave was given it,
    *processed* when it has an outcome, and *popped* when the client took it
    back; or *cancelled* before that. *Pending* jobs are those that were
    added and neither popped nor cancelled.

    Each job that was added is popped once, as the same object, with its
    outcome, whatever that is. Every timeout is in seconds: None = for ever,
    0 = do not wait. Masters may be used by several threads at a time; they
    cannot be pickled, nor used in a forked child.
    """

    #: Whether jobs run inside the calls that pop them.
    _runs_in_pops = False

    @abstractmethod
    def addJob(self, job: Job, timeout: float | None = None) -> None:
        """Add a job.

        Args:
            job: what to process; its arguments are taken as they are now.
            timeout: how long to wait for room, where the number of waiting jobs is bounded.

        Raises:
            queue.Full: there was no room in time.
            NotAJobError: `job` is none, or its class is abstract.
            PendingJobError: the job is pending already, here or in another master.
            MasterClosedError: the master was closed.
            TypeError: an option of the job, or `timeout`, is of the wrong type.
            ValueError: one of these is out of bounds.

        Whatever is raised, nothing was added. A job whose arguments cannot be
        pickled, where they need to be, is added and processed at once: its
        outcome is a `PayloadError`.
        """

    @abstractmethod
    def popProcessedJob(self, timeout: float | None = None) -> Job | None:
        """Return the next processed job, or None.

        None is returned at once when nothing is pending, and otherwise when
        the time is up. Jobs come in the order in which they get processed.

        Raises:
            TypeError: `timeout` is no number of seconds.
            ValueError: it is negative.
        """

    @abstractmethod
    def execute(
        self,
        jobs: Iterable[J],
        ordered: bool = False,
        timeout: float | None = None,
        progress: bool = False,
    ) -> Iterator[J]:
        """Process all jobs of an iterable, and yield them as they come.

        Jobs are taken from the iterable lazily and a bounded number of them is
        in flight at a time, so it may be endless. They do not mix with jobs
        that were added otherwise. Leaving the loop early cancels what waits
        and drops what runs.

        Args:
            jobs: the jobs to process.
            ordered: whether to yield them in the order of the iterable.
            timeout: seconds for the whole of it.
            progress: whether to show a progress bar (needs tqdm: ``pip install 'papyros[progress]'``).

        Raises:
            TimeoutError: the time is up; the jobs not yielded by then are dropped.
            MasterClosedError: the master was closed, before or meanwhile.
        """

    @abstractmethod
    def cancelJob(self, job: Job) -> bool:
        """Discard a job, also while it runs; return whether it was discarded.

        A running job is stopped by ending its slave, which is replaced; a
        thread cannot be stopped, so there a job that was started is not
        discarded. A cancelled job is never popped; it may be added again.
        """

    @abstractmethod
    def cancelAllJobs(self) -> None:
        """Discard all jobs that no slave was given yet; it has no effect on assigned ones."""

    @abstractmethod
    def numPendingJobs(self) -> int:
        """Return how many jobs this client added that were neither popped nor cancelled."""

    @abstractmethod
    def status(self) -> Status:
        """Return a snapshot of what the master and its slaves do; print it to read it.

        A closed master has no slaves, and counts the processed jobs that can still be popped.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of slaves, threads, processes, sockets and names, in bounded time.

        Jobs that are not processed are dropped; those that are can still be
        popped. To close a master twice is harmless.
        """

    def processedJobs(self, timeout: float | None = None) -> list[Job]:
        """Return all jobs that get processed within `timeout` seconds in total.

        With None, wait until nothing is pending.
        """
        deadline = Deadline(timeout)
        jobs: list[Job] = []
        while (job := self.popProcessedJob(deadline.remaining())) is not None:
            jobs.append(job)
            if deadline.expired():
                jobs.extend(iter(self._popReady, None))
                break
        return jobs

    def executor(self) -> MasterExecutor:
        """Return a `concurrent.futures.Executor` whose calls are jobs of this master.

        Shutting it down does not close the master.
        """
        # By name, since a contract imports none of those who use it.
        executor: MasterExecutor = importlib.import_module("papyros.executor").MasterExecutor(self)
        return executor

    def _popReady(self) -> Job | None:
        """Return a job that is processed already, or None."""
        return self.popProcessedJob(0)

    @property
    def _words(self) -> str:
        """What this master is called in a text."""
        name = type(self).__name__
        return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            f"{self._words} cannot be pickled: it belongs to this process; let the other one make a master of its own"
        )
