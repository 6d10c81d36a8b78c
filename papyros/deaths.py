"""How processes end: their end is an event, each has a cause, and they take along what they have started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

__all__ = ["Death", "DeathWatch", "abandon", "cause_of", "reap", "signal_group"]


@dataclass(frozen=True)
class Death:
    """How a slave ended.

    Attributes:
        slave: its name, ``HOST/PID``.
        cause: the signal or the exit code, in words.
        lines: the last lines that it wrote to its standard error stream.
        memory: how much memory it had used, at most, and whether that was the likely cause; in words.
    """

    slave: str
    cause: str
    lines: tuple[str, ...]
    memory: str = ""

    def __str__(self) -> str:
        told = f"slave {self.slave} {self.cause}" + (f" ({self.memory})" if self.memory else "")
        return told + (", its last lines:\n" + "\n".join(f"    {line}" for line in self.lines) if self.lines else "")


class DeathWatch:
    """Makes the end of a process an event that a selector can wait for."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        if hasattr(os, "pidfd_open"):
            self.fd = os.pidfd_open(popen.pid)
            self._thread = None
        else:  # macOS: a thread waits, and closes its end of a pipe
            self.fd, end = os.pipe()
            self._thread = threading.Thread(target=self._wait_and_close, args=(end,), daemon=True)
            self._thread.start()

    def _wait_and_close(self, end: int) -> None:
        os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        os.close(end)

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, or the time is up; return whether it has."""
        poll = select.poll()  # which takes no file descriptor, of which there may be none left
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Let go of the file descriptor; the process has ended."""
        if self._thread is not None:
            self._thread.join()
        os.close(self.fd)


def abandon(popen: subprocess.Popen[bytes]) -> None:
    """End a process that nobody can look after."""
    popen.kill()
    popen.wait()
    for stream in (popen.stdout, popen.stderr):
        if stream is not None:
            stream.close()


def reap(popen: subprocess.Popen[bytes]) -> tuple[int | None, int]:
    """Return the exit code of a process that has ended, negative for a signal, and its peak memory in bytes.

    The code is None where somebody else has reaped it: a program may ignore SIGCHLD, or wait for all of its children.
    """
    try:
        _, status, usage = os.wait4(popen.pid, 0)
    except ChildProcessError:
        popen.returncode = 0  # so that nobody waits for it again
        return None, 0
    popen.returncode = os.waitstatus_to_exitcode(status)
    return popen.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process and to all of its group, if they are there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def cause_of(code: int | None) -> str:
    """Return an exit code in words, as `reap` tells it."""
    if code is None:
        return "ended, and its exit code is not known, since this program ignores SIGCHLD or reaps all of its children"
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
