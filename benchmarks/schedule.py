"""How well jobs were spread over slaves: list schedules, and what was left idle. Arithmetic only."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Run", "best_list_schedule", "heavy_tail", "list_schedule", "longest_idle"]


class Run(NamedTuple):
    """A job that ran: the how manyth it was, on which slave, from when, until when."""

    number: int
    slave: int
    started: float
    ended: float


def list_schedule(durations: Iterable[float], slaves: int) -> float:
    """Return the makespan when whoever is idle takes the next job of the list at once."""
    free = [0.0] * slaves
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def best_list_schedule(durations: Sequence[float], slaves: int) -> float:
    """Return the makespan of the better one of two lists: as given, and longest first.

    Nobody who does not know the durations beforehand can do the second one,
    which is at most a third above the best schedule of all (Graham 1969).
    """
    return min(list_schedule(durations, slaves), list_schedule(sorted(durations, reverse=True), slaves))


def longest_idle(runs: Sequence[Run], begun: float, slaves: int) -> float:
    """Return the longest time that a slave was idle while there was a job that nobody had started yet.

    That job was then behind another one, or on its way. All jobs are taken to have been there at `begun`.
    """
    last_start = max(run.started for run in runs)
    by_slave: dict[int, list[Run]] = {}
    for run in runs:
        by_slave.setdefault(run.slave, []).append(run)
    longest = 0.0
    for own in by_slave.values():
        own.sort(key=lambda run: run.started)
        idle_since = begun
        for run in own:
            longest = max(longest, min(run.started, last_start) - idle_since)
            idle_since = run.ended
        longest = max(longest, last_start - idle_since)
    if len(by_slave) < slaves:
        longest = max(longest, last_start - begun)  # one of them never did anything
    return longest


def heavy_tail(count: int, median: float, longest: float, alpha: float = 1.2) -> list[float]:
    """Return durations of a Pareto distribution, cut off at `longest`, in an order that looks random.

    Always the same: evenly spaced quantiles, shuffled by a stride that shares no factor with their number.
    """
    scale = median / 2 ** (1 / alpha)
    stride = next(step for step in range(int(count * 0.618), count * 2) if _coprime(step, count))
    positions = [(position * stride) % count for position in range(count)]
    return [min(longest, scale / (1 - (position + 0.5) / count) ** (1 / alpha)) for position in positions]


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1
