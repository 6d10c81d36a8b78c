"""The same work as plain job classes, as a user of Papyros writes them: no option is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import papyros
from benchmarks import work

__all__ = ["JOBS", "Burn", "Noop", "TimedBurn", "TimedNap"]


class Noop(papyros.Job):
    """Returns its argument."""

    def __call__(self, value: Any) -> Any:
        """Return the argument."""
        return value


class Burn(papyros.Job):
    """Computes for so many seconds of processor time."""

    def __call__(self, seconds: float) -> None:
        """Compute."""
        work.burn(seconds)


class TimedBurn(papyros.Job):
    """Computes, and tells who did it and when."""

    def __call__(self, job: tuple[int, float]) -> tuple[int, int, float, float]:
        """Compute."""
        return work.timed_burn(job)


class TimedNap(papyros.Job):
    """Sleeps, and tells who did it and when."""

    def __call__(self, job: tuple[int, float]) -> tuple[int, int, float, float]:
        """Sleep."""
        return work.timed_nap(job)


#: The job class of each function.
JOBS: dict[Callable[[Any], Any], type[papyros.Job]] = {
    work.noop: Noop,
    work.burn: Burn,
    work.timed_burn: TimedBurn,
    work.timed_nap: TimedNap,
}
