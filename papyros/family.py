"""The master that a job sees where its children are kept in the books of this process: with threads, or without."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

from papyros.bookkeeping import EXECUTE_WINDOW, BookkeepingMaster
from papyros.deadlines import Deadline
from papyros.entries import Entry, Session
from papyros.errors import MasterClosedError
from papyros.execution import Execution
from papyros.jobs import Job
from papyros.keeping import keeper_of
from papyros.lanes import Lane
from papyros.master import Master
from papyros.status import Status

__all__ = ["Family", "WaitingParents"]

J = TypeVar("J", bound=Job)


class WaitingParents(Counter[Entry]):
    """Jobs of this process that wait for their children, and in how many threads. Used with the master's lock held."""

    @contextlib.contextmanager
    def waiting(self, session: Session) -> Iterator[None]:
        """Count the parent of a session in, as long as it waits."""
        parent = session.parent
        assert parent is not None
        self[parent] += 1
        try:
            yield
        finally:
            self[parent] -= 1
            if not self[parent]:
                del self[parent]


class Family(Master):
    """The children of one job, in lanes of their own of the master that runs it.

    Args:
        master: that master.
        parent: the job.
    """

    def __init__(self, master: BookkeepingMaster, parent: Entry) -> None:
        self._master = master
        self._parent = parent
        self._lanes: list[_FamilyLane] = []
        self._closed = False
        self._runs_in_pops = master._runs_in_pops
        self._main = self._open_lane()

    # What a place asks for --------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the job has closed it."""
        return self._closed

    def end(self) -> None:
        """Drop all children that are left."""
        self._closed = True
        for lane in self._lanes:
            lane.close()

    # The contract -----------------------------------------------------------------------

    def addJob(self, job: Job, timeout: float | None = None) -> None:
        """Add a child; see `Master.addJob`."""
        self._main.add(job, timeout)

    def popProcessedJob(self, timeout: float | None = None) -> Job | None:
        """Return the next processed child, or None; see `Master.popProcessedJob`."""
        return self._main.pop(timeout)

    def _popReady(self) -> Job | None:
        return self._main.pop_ready()

    def execute(
        self,
        jobs: Iterable[J],
        ordered: bool = False,
        timeout: float | None = None,
        progress: bool = False,
    ) -> Iterator[J]:
        """Process all jobs of an iterable as children, and yield them as they come; see `Master.execute`."""
        deadline = Deadline(timeout)
        self._master._check_process()
        self._check_usable()
        execution = Execution(self._open_lane, jobs, EXECUTE_WINDOW, ordered, deadline, progress)
        return cast("Iterator[J]", iter(execution))

    def cancelJob(self, job: Job) -> bool:
        """Discard a child; see `Master.cancelJob`."""
        entry = keeper_of(job)
        if not isinstance(entry, Entry) or entry.session.parent is not self._parent:
            return False
        return self._master.cancelJob(job)

    def cancelAllJobs(self) -> None:
        """Discard all children that no slave was given yet; see `Master.cancelAllJobs`."""
        self._master._check_process()
        with self._master._lock:
            for lane in self._lanes:
                lane.cancel_waiting()

    def numPendingJobs(self) -> int:
        """Return how many children are pending; see `Master.numPendingJobs`."""
        self._master._check_process()
        with self._master._lock:
            return sum(lane.pending for lane in self._lanes)

    def status(self) -> Status:
        """Return a snapshot of the master that runs the job; see `Master.status`."""
        if self._closed:
            return Status(f"{self._words} that is closed", processed=self.numPendingJobs())
        return self._master.status()

    def close(self) -> None:
        """Drop the children that are not processed; see `Master.close`. The master of the program stays open."""
        self._closed = True
        if self._master._forked:
            return  # what is to be dropped belongs to the process that this one was forked from
        with self._master._lock:
            for lane in self._lanes:
                lane.discard_unprocessed()

    # Inside -----------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closed:
            raise MasterClosedError("the job has closed this master, or has ended: it takes no more jobs")

    def _open_lane(self) -> _FamilyLane:
        lane = _FamilyLane(self, self._master, self._master._open_family(self._parent))
        with self._master._lock:  # a job may have threads
            self._lanes = [known for known in self._lanes if not known.dropped] + [lane]
        if self._closed:
            lane.close()  # it was closed meanwhile, when it could not know of this one
        self._check_usable()
        return lane


class _FamilyLane(Lane):
    """A lane for children."""

    looks_closely = True

    def __init__(self, family: Family, *rest: Any) -> None:
        super().__init__(*rest)
        self._family = family

    def _check_usable(self) -> None:
        super()._check_usable()
        self._family._check_usable()

    def _await_outcome(self, deadline: Deadline) -> bool:
        return self._master._await_child(self._session, deadline)

    @property
    def closed(self) -> bool:
        return super().closed or self._family.closed

    @property
    def pending(self) -> int:
        return self._session.pending

    @property
    def dropped(self) -> bool:
        return self._session.dropped

    def cancel_waiting(self) -> None:
        """Discard what waits. Called with the lock held."""
        self._master._let_go(self._master._ledger.cancel_waiting(self._session))

    def discard_unprocessed(self) -> None:
        """Discard what has no outcome. Called with the lock held."""
        self._master._discard_unprocessed(self._session)
