"""What processes use, as Linux tells: processor time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["children", "cpu_seconds", "exact_cpu_seconds", "resident_bytes", "tree"]

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used, in user's and in system's mode.

    Read from ``/proc/PID/stat``, in hundredths of a second for each process.
    """
    return sum(_ticks(pid) for pid in pids) / TICK


def _ticks(pid: int) -> int:
    # The name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def exact_cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that the threads which processes have now have used, to the nanosecond.

    For processes that do so little that a hundredth of a second is a long time; where the kernel does not keep
    these numbers, the hundredths it is.
    """
    pids = list(pids)
    try:
        threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((thread / "schedstat").read_text(encoding="utf-8").split()[0]) for thread in threads) / 1e9
    except FileNotFoundError:
        return cpu_seconds(pids)


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and that live."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text(encoding="utf-8").split())
    return found


def tree(pid: int) -> list[int]:
    """Return a process and all that descends from it."""
    return [pid, *(below for child in children(pid) for below in tree(child))]
