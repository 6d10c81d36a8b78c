"""How `Master.execute` feeds an iterable through a lane, with a bounded number of jobs in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Full
from typing import Any, Protocol

from papyros.deadlines import AT_ONCE, Deadline
from papyros.errors import MasterClosedError, PendingJobError
from papyros.jobs import Job, describe

__all__ = ["Execution"]

_END: Any = object()


class Lane(Protocol):
    """What an execution asks of a lane (`papyros.lanes`)."""

    @property
    def closed(self) -> bool:
        """Whether the lane, or its master, was closed."""

    def add_by(self, deadline: Deadline, job: Job) -> None:
        """Add a job."""

    def pop(self, timeout: float | None = None) -> Job | None:
        """Return the next processed job, or None."""

    def pop_at_once(self) -> Job | None:
        """Return the next one, if that needs no waiting."""

    def close(self) -> None:
        """Drop all jobs of this lane."""


class Execution:
    """One pass of an iterable of jobs through a lane of its own.

    Args:
        open_lane: makes the lane; called when the first job is asked for.
        jobs: the jobs, taken lazily.
        window: how many jobs are in flight at a time.
        ordered: whether to yield in the order of `jobs`.
        deadline: when it must be over.
        progress: whether to show a progress bar.
    """

    def __init__(
        self,
        open_lane: Callable[[], Lane],
        jobs: Iterable[Job],
        window: int,
        ordered: bool,
        deadline: Deadline,
        progress: bool,
    ) -> None:
        self._open_lane = open_lane
        self._jobs = jobs
        self._window = window
        self._ordered = ordered
        self._deadline = deadline
        self._bar = _progress_bar(jobs) if progress else None
        self._done = 0

    def __iter__(self) -> Generator[Job, None, None]:
        lane = self._open_lane()
        try:
            for job in self._run(lane):
                self._done += 1
                if self._bar is not None:
                    self._bar.update()
                yield job
        finally:
            lane.close()
            if self._bar is not None:
                self._bar.close()

    def _run(self, lane: Lane) -> Iterator[Job]:
        source = iter(self._jobs)
        queue = _InOrder() if self._ordered else _AsTheyCome()
        exhausted = False
        while True:
            while not exhausted and len(queue) < self._window:
                job = next(source, _END)
                if job is _END:
                    exhausted = True
                    break
                queue.check(job)
                if not self._add(lane, job):
                    yield from self._add_later(lane, job, queue)
                queue.add(job)
                # Yield what came meanwhile, so that the first ones do not wait for a slow source.
                while (processed := lane.pop_at_once()) is not None:
                    yield from queue.ready(processed)
                    if self._deadline.expired():
                        raise self._overdue()
            if exhausted and not len(queue):
                return
            yield from self._wait(lane, queue)

    def _wait(self, lane: Lane, queue: _AsTheyCome | _InOrder) -> Iterable[Job]:
        """Wait until a job is processed; return those that are to be yielded by that."""
        processed = lane.pop(self._deadline.remaining())
        if processed is not None:
            return queue.ready(processed)
        if self._deadline.expired():
            raise self._overdue()
        if lane.closed:
            raise MasterClosedError("the master was closed while it executed jobs; the others are dropped")
        return queue.rest()  # nothing is pending: all others were cancelled

    def _add(self, lane: Lane, job: Any) -> bool:
        """Add a job, if there is room for it; return whether there was."""
        if self._deadline.expired():
            raise self._overdue()
        try:
            lane.add_by(AT_ONCE, job)
        except Full:
            return False
        return True

    def _add_later(self, lane: Lane, job: Any, queue: _AsTheyCome | _InOrder) -> Iterator[Job]:
        """Add a job as soon as there is room; meanwhile yield what gets processed, since nobody else pops it."""
        while True:
            yield from self._wait(lane, queue)
            if not len(queue):
                self._wait_for_room(lane, job)  # others fill what room there is
                return
            if self._add(lane, job):
                return

    def _wait_for_room(self, lane: Lane, job: Any) -> None:
        try:
            lane.add_by(self._deadline, job)
        except Full:
            raise self._overdue() from None

    def _overdue(self) -> TimeoutError:
        done = "1 job was" if self._done == 1 else f"{self._done} jobs were"
        return TimeoutError(f"the time is up: {done} processed, the others are dropped")


class _AsTheyCome:
    """The jobs that were added and not yielded, when any order will do."""

    def __init__(self) -> None:
        self._flying = 0

    def __len__(self) -> int:
        return self._flying

    def check(self, job: Job) -> None:
        """Refuse a job that cannot be added now: here, the lane does so."""

    def add(self, job: Job) -> None:  # noqa: ARG002 - only the number matters here
        self._flying += 1

    def ready(self, processed: Job) -> Iterable[Job]:
        self._flying -= 1
        return (processed,)

    def rest(self) -> Iterator[Job]:
        self._flying = 0
        yield from ()


class _InOrder:
    """The jobs that were added and not yielded, when they are to be yielded in the order of adding."""

    def __init__(self) -> None:
        self._order: deque[Job] = deque()
        self._processed: set[int] = set()  # by id: jobs are told apart by identity, whatever their __eq__ says

    def __len__(self) -> int:
        return len(self._order)

    def check(self, job: Job) -> None:
        """Refuse a job that was processed, and is to be yielded when those before it are: its outcome would be lost."""
        if self._processed and id(job) in self._processed:
            raise PendingJobError(f"{describe(job)} is to be yielded before it is added again: it is processed already")

    def add(self, job: Job) -> None:
        self._order.append(job)

    def ready(self, processed: Job) -> Iterator[Job]:
        self._processed.add(id(processed))
        while self._order and id(self._order[0]) in self._processed:
            job = self._order.popleft()
            self._processed.discard(id(job))
            yield job

    def rest(self) -> Iterator[Job]:
        order, self._order = self._order, deque()
        for job in order:
            if id(job) in self._processed:
                self._processed.discard(id(job))
                yield job


def _progress_bar(jobs: Iterable[Job]) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install 'papyros[progress]'") from error
    try:
        total = len(jobs)  # type: ignore[arg-type]
    except TypeError:
        total = None
    return tqdm(total=total, unit="job")
