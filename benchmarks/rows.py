"""The rows of the table: what is measured of each system, in a session that lasts as long as its process."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import work
from benchmarks.processes import exact_cpu_seconds, tree
from benchmarks.schedule import Run, best_list_schedule, heavy_tail, list_schedule, longest_idle
from benchmarks.systems import SLAVES, Function, System

__all__ = ["ROWS", "Row", "Session"]

MEBIBYTE = 1 << 20


class Row(NamedTuple):
    """What is measured.

    Attributes:
        title: what it is called in tables.
        unit: of the figure.
        more_is_better: whether it is a rate or an efficiency, not a time.
    """

    title: str
    unit: str
    more_is_better: bool


#: In the order in which they are measured.
ROWS = {
    "start": Row("start to first result", "s", False),
    "noop": Row("no-op jobs, one by one", "jobs/s", True),
    "noop_main": Row("no-op jobs of `__main__`", "jobs/s", True),
    "latency": Row("a single job, median", "us", False),
    "echo_bytes": Row("1 MiB in and out, bytes", "MB/s", True),
    "echo_numpy": Row("1 MiB in and out, array", "MB/s", True),
    "efficiency_1ms": Row("efficiency, 1 ms jobs", "", True),
    "efficiency_10ms": Row("efficiency, 10 ms jobs", "", True),
    "useful_1ms": Row("useful part of all processor time, 1 ms jobs", "", True),
    "useful_10ms": Row("useful part of all processor time, 10 ms jobs", "", True),
    "mixed": Row("computing, makespan / best list schedule", "", False),
    "mixed_in_order": Row("computing, makespan / list schedule in the order of adding", "", False),
    "mixed_idle": Row("computing, longest idle while a job waits", "us", False),
    "naps": Row("sleeping, makespan / best list schedule", "", False),
    "naps_in_order": Row("sleeping, makespan / list schedule in the order of adding", "", False),
    "naps_idle": Row("sleeping, longest idle while a job waits", "us", False),
}

#: Rows that come from one measurement, by the row that stands for it.
TOGETHER = {
    "efficiency_1ms": ("useful_1ms",),
    "efficiency_10ms": ("useful_10ms",),
    "mixed": ("mixed_in_order", "mixed_idle"),
    "naps": ("naps_in_order", "naps_idle"),
}


class Session:
    """Measures one system, once.

    Args:
        system: what to measure.
        main: the no-op function that is defined in `__main__`.
        seconds: how long a measurement of a rate is to take, about.
    """

    def __init__(self, system: System, main: Function, seconds: float = 1.0) -> None:
        self.system = system
        self.main = main
        self.seconds = seconds
        self.rate = 0.0  # of no-op jobs, as far as is known

    def run(self, rows: frozenset[str], note: Callable[[str, float], None]) -> None:
        """Measure the rows in their order, and note each figure as soon as it is there."""
        self.system.load()
        started = time.perf_counter()
        self.system.open()
        try:
            if self.system.one(work.noop, 1) != 1:
                raise RuntimeError("the first result is not what it should be")
            if "start" in rows:
                note("start", time.perf_counter() - started)
            for row in ROWS:
                measure = getattr(self, f"_{row}", None)
                if measure is not None and row in rows:
                    for name, figure in measure().items():
                        note(name, figure)
        finally:
            self.system.close()

    def _noop(self) -> dict[str, float]:
        return {"noop": self._noop_rate(work.noop)}

    def _noop_main(self) -> dict[str, float]:
        return {"noop_main": self._noop_rate(self.main)}

    def _noop_rate(self, function: Function) -> float:
        rate = self._rate(function, 200)  # also the warm-up
        rate = self._rate(function, _between(200, rate * self.seconds / 10, 20_000))
        self.rate = self._rate(function, _between(200, rate * self.seconds, 200_000))
        return self.rate

    def _rate(self, function: Function, count: int) -> float:
        started = time.perf_counter()
        results = self.system.each(function, range(count))
        seconds = time.perf_counter() - started
        if sum(results) != count * (count - 1) // 2:
            raise RuntimeError(f"the results of {count} jobs are not those that they should be")
        return count / seconds

    def _latency(self) -> dict[str, float]:
        samples: list[float] = []
        deadline = time.perf_counter() + self.seconds
        while len(samples) < 20 or (len(samples) < 1000 and time.perf_counter() < deadline):
            started = time.perf_counter()
            self.system.one(work.noop, 1)
            samples.append(time.perf_counter() - started)
        return {"latency": statistics.median(samples) * 1e6}

    def _echo_bytes(self) -> dict[str, float]:
        return {"echo_bytes": self._echo(os.urandom(MEBIBYTE))}

    def _echo_numpy(self) -> dict[str, float]:
        try:
            import numpy as np
        except ImportError:
            return {}
        return {"echo_numpy": self._echo(np.arange(MEBIBYTE // 8, dtype=np.float64))}

    def _echo(self, payload: Any) -> float:
        """Return the megabytes a second, those that go in and those that come out."""
        length = len(payload)
        self.system.each(work.noop, [payload] * 4)
        count = _between(16, 100 * self.seconds, 200)
        started = time.perf_counter()
        results = self.system.each(work.noop, [payload] * count)
        seconds = time.perf_counter() - started
        if [len(result) for result in results] != [length] * count:
            raise RuntimeError("what came back is not what was sent")
        return 2 * MEBIBYTE * count / seconds / 1e6

    def _efficiency_1ms(self) -> dict[str, float]:
        return self._efficiency("1ms", 0.001)

    def _efficiency_10ms(self) -> dict[str, float]:
        return self._efficiency("10ms", 0.010)

    def _efficiency(self, name: str, duration: float) -> dict[str, float]:
        count = int(2 * SLAVES * self.seconds / duration)
        if self.rate:
            count = _between(50, min(count, 3 * self.seconds * self.rate), count)  # slow systems are not to take ages
        self.system.each(work.burn, [duration] * 20)
        processes = tree(os.getpid())
        before, started = exact_cpu_seconds(processes), time.perf_counter()
        self.system.each(work.burn, [duration] * count)
        wall, spent = time.perf_counter() - started, exact_cpu_seconds(processes) - before
        useful = count * duration
        found = {f"efficiency_{name}": efficiency(useful, wall)}
        if spent >= useful:  # else those who work are not among the processes that this one started
            found[f"useful_{name}"] = useful / spent
        return found

    def _mixed(self) -> dict[str, float]:
        return self._mixture("mixed", work.timed_burn)

    def _naps(self) -> dict[str, float]:
        return self._mixture("naps", work.timed_nap)

    def _mixture(self, name: str, function: Function) -> dict[str, float]:
        count = int(500 * self.seconds)
        if self.rate:
            count = _between(100, 2 * self.seconds * self.rate, count)
        durations = heavy_tail(count, median=0.002, longest=0.1)
        self.system.each(function, [(number, 0.0) for number in range(20)])
        begun = time.monotonic()
        runs = [Run(*result) for result in self.system.each(function, list(enumerate(durations)))]
        makespan = time.monotonic() - begun
        return mixture(name, runs, begun, makespan)


def efficiency(useful: float, wall: float) -> float:
    """Return which part of the time of all slaves was useful work."""
    return useful / (SLAVES * wall)


def mixture(name: str, runs: list[Run], begun: float, makespan: float) -> dict[str, float]:
    """Return the figures of mixed jobs: against list schedules of the durations as they turned out."""
    took = [run.ended - run.started for run in sorted(runs)]  # in the order of adding
    return {
        name: makespan / best_list_schedule(took, SLAVES),
        f"{name}_in_order": makespan / list_schedule(took, SLAVES),
        f"{name}_idle": longest_idle(runs, begun, SLAVES) * 1e6,
    }


def _between(least: float, wanted: float, most: float) -> int:
    return int(max(least, min(wanted, most)))
