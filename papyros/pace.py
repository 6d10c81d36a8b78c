"""How fast the jobs of a crew go, as far as is known, and how many of them a slave should therefore have.

Arithmetic only: what is sent to whom is decided in `papyros.feeding`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Final

from papyros.shares import LONG_SECONDS

__all__ = ["AHEAD_BYTES", "MOST_A_SECOND", "Pace"]

#: A slave is sent so many seconds' worth of jobs ahead, as far as durations are known.
AHEAD_SECONDS: Final = 0.3
AHEAD_JOBS: Final = 1000

#: ... nor more than so many bytes of them: what is on its way to one slave is not on its way to another.
AHEAD_BYTES: Final = 4 << 20

#: Few quick jobs go to few slaves, so many seconds' worth to each: to wake one takes about as long.
PART_SECONDS: Final = 0.0005

#: No crew is given more jobs than this in a second.
MOST_A_SECOND: Final = 100_000

#: To carry so many bytes to a slave takes about a second.
BYTES_A_SECOND: Final = 1e9

#: The weight of the newest batch in the moving averages.
FRESHNESS: Final = 0.25


class Pace:
    """Moving averages of how long tasks take, of how many bytes they are, and of how many jobs, with bundles."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._usual = 0.0  # without the slowest tenth: where slaves compete for CPUs, some seem to take very long
        self._bytes: float | None = None
        self._jobs = 1.0

    def learn(self, seconds: Sequence[float], jobs: Sequence[int]) -> None:
        """Take note of how long the tasks of a batch took, and how many jobs each of them was."""
        usual = sorted([spent / count for spent, count in zip(seconds, jobs, strict=True)])
        if len(usual) > 2:
            usual = usual[: -max(1, len(usual) // 10)]
        mean = sum(usual) / len(usual)
        self._usual = mean if self._seconds is None else _moved(self._usual, mean)
        self._seconds = _moved(self._seconds, sum(seconds) / len(seconds))

    def weigh(self, size: int, tasks: int, jobs: int) -> None:
        """Take note of so many tasks that were sent, of so many bytes and jobs together."""
        self._bytes = _moved(self._bytes, size / tasks)
        self._jobs = _moved(self._jobs, jobs / tasks)

    @property
    def target(self) -> int:
        """How many jobs a slave should have: one that runs, and some ahead."""
        if self._seconds is None or self._seconds >= LONG_SECONDS:
            return 1
        ahead = min(
            AHEAD_JOBS / self._jobs,
            AHEAD_SECONDS / max(1e-6, self._seconds),
            AHEAD_BYTES / max(1.0, self._bytes or 0.0),
        )
        return 1 + max(1, int(ahead))

    def jobs_in(self, seconds: float) -> int:
        """Return how many jobs take about so many seconds, at least one."""
        if not self._seconds:
            return 1
        return max(1, int(seconds * self._jobs / self._seconds))

    def parts(self, jobs: int) -> int:
        """Return for how many slaves so many jobs are worth the while."""
        if self._seconds is None:
            return jobs
        seconds = self._seconds + (self._bytes or 0.0) / BYTES_A_SECOND
        return max(1, min(jobs, int(jobs * seconds / PART_SECONDS)))

    def slaves(self, cpus: int) -> int:
        """Return how many slaves are enough for as many jobs as there can be, on so many CPUs."""
        if self._seconds is None:
            return sys.maxsize
        carried = (self._bytes or 0.0) / self._jobs / BYTES_A_SECOND
        return max(cpus, math.ceil(MOST_A_SECOND * (self._usual + carried)))


def _moved(known: float | None, mean: float) -> float:
    return mean if known is None else known + FRESHNESS * (mean - known)
