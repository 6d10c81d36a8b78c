"""Ctrl-C, SIGTERM and a terminal that goes, for the parts of a cluster: once is a request, twice is an order."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

__all__ = ["StopSignals"]

#: What a process is sent whose terminal goes; not all systems have it.
HANGUP = getattr(signal, "SIGHUP", None)


class StopSignals:
    """An event that SIGINT, SIGTERM and SIGHUP set; a second signal ends the process at once.

    Unless that is SIGHUP: the system and the shell may both send it. Where it is ignored, it stays so: see `nohup`.

    Whoever waits for a lock does not hear of a signal that another thread is given, or
    that comes just before the lock is waited for. So the interpreter's wakeup
    file descriptor is waited for instead: it is written to as the signal comes, in
    whatever thread. That also allows `set` in a signal handler, which a lock forbids.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._is_set = False
        self._wakeup = -1
        self._before: dict[int, Any] = {}
        #: The number of the signal that came, or 0.
        self.number = 0

    def set(self) -> None:
        """Request the end."""
        self._is_set = True
        with contextlib.suppress(OSError):  # full, or closed by now
            os.write(self._in, b"\0")

    def is_set(self) -> bool:
        """Return whether the end was requested."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the end is requested; return whether it was, in time. For the main thread only."""
        deadline = None if timeout is None else time.monotonic() + timeout
        # Of those that take any file descriptor, however many there are, and none of their own: there may be none left.
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while not self._is_set:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    break
                if selector.select(remaining):
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._out, 4096)
        return self._is_set

    def __enter__(self) -> Self:
        self._wakeup = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
            numbers.append(HANGUP)
        for number in numbers:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._wakeup)
        # The lifeline may still call `set`: the descriptors are closed with the process.

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the frame does not matter
        if self.number:
            if number == HANGUP:
                return
            # The kernel ends the slaves with this process.
            os._exit(128 + number)
        self.number = number
        self._is_set = True
