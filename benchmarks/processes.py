"""What processes use, as Linux tells: processor time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "PAGE",
    "children",
    "cpu_seconds",
    "exact_cpu_seconds",
    "proportional_bytes",
    "received_bytes",
    "resident_bytes",
    "tree",
]

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

#: A system call, and where in the kernel's ``struct tcp_info`` a number is.
_PIDFD_GETFD = 438
_BYTES_RECEIVED = 128


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used, in user's and in system's mode.

    Read from ``/proc/PID/stat``, in hundredths of a second for each process.
    """
    return sum(_ticks(pid) for pid in pids) / TICK


def _ticks(pid: int) -> int:
    # The name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


#: Of the clocks of a process, the one that the kernel's scheduler keeps.
_OF_ALL_THREADS = 2


def exact_cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes have used, with threads of theirs that have ended, to the nanosecond.

    For processes that do so little that a hundredth of a second is a long time. It is what the clock of a process says,
    whose number the C library would make of the process's in the same way (see clock_getcpuclockid(3)).
    """
    return sum(time.clock_gettime_ns(~pid << 3 | _OF_ALL_THREADS) for pid in pids) / 1e9


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * PAGE


def proportional_bytes(pids: Iterable[int]) -> int:
    """Return how much memory processes have, of what they share with others their part only."""
    found = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        found += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return found


def received_bytes(pid: int) -> int:
    """Return how many bytes have come to a process that this one has started, on the TCP connections that it has now.

    ``/proc/PID/io`` does not count those. So the sockets are borrowed, and the kernel is asked.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    found = 0
    pidfd = os.pidfd_open(pid)
    try:
        for number in map(int, os.listdir(f"/proc/{pid}/fd")):
            fd = libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
            if fd < 0:
                continue  # it was closed meanwhile
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
                found += int.from_bytes(info[_BYTES_RECEIVED : _BYTES_RECEIVED + 8], "little")
    finally:
        os.close(pidfd)
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and that live."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, (thread / "children").read_text(encoding="utf-8").split())
    return found


def tree(pid: int) -> list[int]:
    """Return a process and all that descends from it."""
    return [pid, *(below for child in children(pid) for below in tree(child))]
