"""From figures to ratios, and from ratios to verdicts. Arithmetic only."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from benchmarks.rows import ROWS
from benchmarks.running import Figures

__all__ = ["TARGETS", "TOLERANCE", "Target", "Verdict", "advantage", "fallen", "judge", "quotient"]

CLUSTER, PROCESSES = "DistributedMaster", "MultiProcessMaster"
CLUSTER_FUTURES, PROCESS_FUTURES = "MasterExecutor over LocalCluster", "MasterExecutor over MultiProcessMaster"
POOL, EXECUTOR, SPAWN = "Pool.imap_unordered", "ProcessPoolExecutor", "ProcessPoolExecutor (spawn)"
BARE = "two bare processes"

#: A ratio may fall to so much of the recorded one: by a third.
TOLERANCE = 2 / 3


class Target(NamedTuple):
    """What is to be reached.

    Attributes:
        row: the row that is measured.
        ours: the master.
        peer: whose figure ours is divided by; nobody's if empty.
        bound: the least quotient, or the largest where less is better.
        peer_row: the row of that figure, if it is another one.
    """

    row: str
    ours: str
    peer: str
    bound: float
    peer_row: str = ""

    def __str__(self) -> str:
        sign = ">=" if ROWS[self.row].more_is_better else "<="
        than = f" x {self.peer}" if self.peer else ""
        if self.peer_row:
            than = f" x {ROWS[self.peer_row].title}"
        return f"{sign} {self.bound:g}{than}"


TARGETS = (
    Target("noop", CLUSTER, POOL, 2),
    Target("noop", CLUSTER, EXECUTOR, 8),
    Target("noop", CLUSTER, "SCOOP", 25),
    Target("noop", CLUSTER, "Ray", 40),
    Target("noop", CLUSTER, "dask.distributed", 130),
    Target("noop", PROCESSES, POOL, 3),
    Target("noop", PROCESSES, "mpire (chunks)", 0.5),
    Target("noop", CLUSTER_FUTURES, CLUSTER, 0.5),
    Target("noop", CLUSTER_FUTURES, EXECUTOR, 4),
    Target("noop", PROCESS_FUTURES, PROCESSES, 0.5),
    Target("noop", PROCESS_FUTURES, EXECUTOR, 4),
    Target("noop_main", CLUSTER, CLUSTER, 0.75, "noop"),
    Target("noop_main", PROCESSES, PROCESSES, 0.75, "noop"),
    Target("latency", CLUSTER, EXECUTOR, 1.5),
    Target("latency", PROCESSES, EXECUTOR, 0.8),
    *(
        target
        for row in ("echo_bytes", "echo_numpy")
        for target in (
            Target(row, CLUSTER, EXECUTOR, 0.6),
            Target(row, CLUSTER, "dask.distributed", 1),
            Target(row, CLUSTER, "Ray", 2),
            Target(row, PROCESSES, EXECUTOR, 1.5),
        )
    ),
    Target("efficiency_1ms", CLUSTER, "", 0.95),
    Target("efficiency_10ms", CLUSTER, "", 0.98),
    Target("efficiency_1ms", PROCESSES, "", 0.97),
    Target("efficiency_10ms", PROCESSES, "", 0.99),
    # What the machine gives at most is less than 1 while others use it, too.
    Target("efficiency_1ms", CLUSTER, BARE, 0.95),
    Target("efficiency_10ms", CLUSTER, BARE, 0.98),
    Target("efficiency_1ms", PROCESSES, BARE, 0.97),
    Target("efficiency_10ms", PROCESSES, BARE, 0.99),
    *(Target(row, master, "", 1.05) for master in (CLUSTER, PROCESSES) for row in ("mixed", "naps")),
    # Longer than one round trip, no job is to wait behind another one while a slave is idle.
    *(
        Target(row, master, master, 1, "latency")
        for master in (CLUSTER, PROCESSES)
        for row in ("mixed_idle", "naps_idle")
    ),
    Target("start", CLUSTER, "dask.distributed", 1.5),
    Target("start", PROCESSES, SPAWN, 1.2),
)


class Verdict(NamedTuple):
    """A target, what was measured, and whether it was reached."""

    target: Target
    quotient: float
    reached: bool


def quotient(figures: Figures, row: str, ours: str, peer: str = "", peer_row: str = "") -> float | None:
    """Return the median of the quotients of all rounds, or None where something was not measured."""
    above = figures.get(ours, {}).get(row)
    if not above:
        return None
    if not peer:
        return statistics.median(above)
    below = figures.get(peer, {}).get(peer_row or row)
    if not below:
        return None
    if len(above) != len(below):  # one of them failed in a round
        return statistics.median(above) / statistics.median(below)
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def judge(figures: Figures) -> list[Verdict]:
    """Return a verdict for each target whose figures there are."""
    verdicts = []
    for target in TARGETS:
        found = quotient(figures, target.row, target.ours, target.peer, target.peer_row)
        if found is not None:
            reached = found >= target.bound if ROWS[target.row].more_is_better else found <= target.bound
            verdicts.append(Verdict(target, found, reached))
    return verdicts


def advantage(figures: Figures, row: str, ours: str, peer: str) -> float | None:
    """Return how many times better than the peer's our figure is: more than 1 is better, whatever the row."""
    found = quotient(figures, row, ours, peer)
    if found is None:
        return None
    return found if ROWS[row].more_is_better else 1 / found


def fallen(now: dict[str, float], recorded: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Return those advantages that fell by more than a third, with what they are now and what was recorded.

    What Papyros loses, it loses to all peers. An advantage over one of them only, which fell while that over another
    one of the same row held, tells of that peer: processes that pass a lock from one to the other run twice as fast
    on one machine as on the next, beside others that hardly differ.

    Args:
        now: by names such as `row: ours / peer`.
        recorded: likewise.

    Raises:
        KeyError: one that was recorded was not measured.
    """
    low = {name: (now[name], before) for name, before in recorded.items() if now[name] < TOLERANCE * before}
    held = {_of_ours(name) for name in recorded.keys() - low.keys()}
    return {name: both for name, both in low.items() if _of_ours(name) not in held}


def _of_ours(name: str) -> str:
    """Return what of ours an advantage tells of: the row and the system."""
    return name.partition(" / ")[0]
