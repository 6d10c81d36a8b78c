"""How processes end: their end is an event, each has a cause, and they take along what they have started."""

from __future__ import annotations

import contextlib
import errno
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
        self._thread: threading.Thread | None = None
        try:
            self.fd = os.pidfd_open(popen.pid)
        except AttributeError:  # macOS, and Pythons that were built for old systems
            self._watch_by_thread()
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # the kernel, or a sandbox, has none to give
                raise
            self._watch_by_thread()

    def _watch_by_thread(self) -> None:
        """Have a thread wait, and close its end of a pipe."""
        self.fd, end = os.pipe()
        self._thread = threading.Thread(target=self._wait_and_close, args=(end,), daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            for fd in (self.fd, end):
                os.close(fd)
            raise OSError(errno.EAGAIN, str(error)) from error

    def _wait_and_close(self, end: int) -> None:
        try:
            _await_end(self._popen.pid)
        finally:
            os.close(end)

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, or the time is up; return whether it has."""
        poll = select.poll()  # which takes no file descriptor, of which there may be none left
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Let go of the file descriptor; the process has ended, or is left to itself."""
        if self._thread is not None and self.wait(0.0):
            self._thread.join()
        os.close(self.fd)


def _await_end(pid: int) -> None:
    """Wait until a child has ended, and leave it to be reaped."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):  # somebody else has reaped it: see `reap`
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    elif sys.platform != "linux":  # macOS has it from Python 3.13 on
        event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        with contextlib.closing(select.kqueue()) as queue, contextlib.suppress(ProcessLookupError):  # it has ended
            queue.control([event], 1)


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
    Also where it has not ended, since the system cannot end it, whose disk is gone, say: nobody waits for that.
    """
    try:
        pid, status, usage = os.wait4(popen.pid, os.WNOHANG)
    except ChildProcessError:
        pid = 0
    if not pid:
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
        return (
            "ended, or cannot be ended by the system, and its exit code is not known: "
            "this program ignores SIGCHLD, or reaps all of its children, if it has ended"
        )
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
