"""Why a slave died: the traces that the system keeps of want of memory.

Nothing in here is needed to run jobs; where a system does not tell, nothing is known.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["oom_kills", "tell_memory"]

_PROC = Path("/proc")
_GB = 1 << 30
_MB = 1 << 20


def oom_kills() -> int:
    """Return how many processes the system has killed, here, for want of memory."""
    kills = _counter(_PROC / "vmstat", "oom_kill")
    with contextlib.suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            group = line.rpartition(":")[2].lstrip("/")
            kills += _counter(Path("/sys/fs/cgroup") / group / "memory.events", "oom_kill")
    return kills


def _counter(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def tell_memory(peak: int, before: int, killed_for_memory: bool) -> str:
    """Tell the peak memory of a process, in bytes, and whether it died of that.

    A peak that is not above what it was `before` any job may be that of the
    parent, which Linux hands on: how much less the process used is not known.
    """
    own = peak >= before + _MB * 2
    told = f"its memory was {peak / _MB:.0f} MB at its peak" if own else f"its memory was below {peak / _MB:.0f} MB"
    available = _available()
    if killed_for_memory:
        told += "; memory was the likely cause: the system killed a process for want of it"
    elif available is not None and ((own and peak > available) or available < _GB // 4):
        told += f"; memory may have been the cause: this machine has {available / _MB:.0f} MB to spare now"
    return told


def _available() -> int | None:
    with contextlib.suppress(OSError, ValueError, LookupError):
        for line in (_PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
