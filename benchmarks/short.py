"""The short form, for continuous integration: Papyros against the standard library, and against what was recorded.

A ratio of two things measured in turns on one machine says something on another
machine, too; so ratios are recorded, never figures. They do depend on the number
of cores, which is recorded beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.ratios import CLUSTER, EXECUTOR, POOL, PROCESSES, TOLERANCE, advantage, fallen
from benchmarks.running import Figures, run_rounds
from benchmarks.systems import by_name

__all__ = ["REFERENCE", "check", "measure", "record"]

REFERENCE = Path(__file__).with_name("reference.json")

#: What is compared: a row, and whose figures. The latency of a pool, whose processes wait in a lock for the next
#: job, changes with the load of the machine in another way than ours; that of an executor does not.
COMPARISONS = [
    (row, ours, peer)
    for row in ("noop", "latency", "echo_bytes")
    for ours in (PROCESSES, CLUSTER)
    for peer in (POOL, EXECUTOR)
    if (row, peer) != ("latency", POOL)
]
ROWS = ("noop", "latency", "echo_bytes")
ROUNDS = 3
SECONDS = 0.3

Advantages = dict[str, float]


def advantages(figures: Figures) -> Advantages:
    """Return all advantages by their names; more is better for all of them."""
    found = {}
    for row, ours, peer in COMPARISONS:
        value = advantage(figures, row, ours, peer)
        if value is not None:
            found[f"{row}: {ours} / {peer}"] = value
    return found


def measure(rounds: int = ROUNDS) -> Advantages:
    """Measure all advantages.

    Raises:
        RuntimeError: one of the systems failed.
    """
    systems = [by_name()[name] for name in (PROCESSES, POOL, CLUSTER, EXECUTOR)]
    figures, problems = run_rounds(systems, ROWS, rounds, SECONDS)
    if problems:
        raise RuntimeError("; ".join(problems))
    return advantages(figures)


def record(path: Path = REFERENCE) -> None:
    """Measure, and write down what is found."""
    found = {name: round(value, 3) for name, value in measure(2 * ROUNDS + 1).items()}
    text = json.dumps({"machine": describe_machine(), "advantages": found}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


def check(path: Path = REFERENCE, measure: Callable[[], Advantages] = measure) -> int:
    """Measure and compare; what fell is measured once more, since machines are busy at times. Returns an exit code."""
    recorded: Advantages = json.loads(path.read_text(encoding="utf-8"))["advantages"]
    now = measure()
    _show(now, recorded)
    low = fallen(now, recorded)
    if low:
        print(f"fell by more than a third, and is measured once more: {', '.join(low)}", file=sys.stderr)
        again = measure()
        _show(again, recorded)
        low = {name: both for name, both in fallen(again, recorded).items() if name in low}
    for name, (value, before) in low.items():
        print(
            f"FAILED {name}: {value:.2f} times, twice below {TOLERANCE:.2f} of the recorded {before:.2f} times",
            file=sys.stderr,
        )
    return 1 if low else 0


def _show(now: Advantages, recorded: Advantages) -> None:
    width = max(map(len, _names(now, recorded)))
    print(f"{'times better than the peer':{width}}       now  recorded")
    for name in _names(now, recorded):
        print(f"{name:{width}}  {_text(now.get(name)):>8}  {_text(recorded.get(name)):>8}")


def _names(now: Advantages, recorded: Advantages) -> Iterable[str]:
    return {**recorded, **now}


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
