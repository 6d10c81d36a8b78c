"""Deadlines and alarms: how a `timeout` in seconds becomes a moment on the monotonic clock."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator

from papyros.logs import logger_of

log = logger_of(__name__)


__all__ = ["AT_ONCE", "FOREVER", "LOOK_SECONDS", "Alarm", "Deadline", "SafeCondition"]

#: The main thread waits for so many seconds at a time. A signal that comes after Python has looked for signals, and
#: before it waits for a lock, ends no wait: who pressed Ctrl-C then would wait for whatever the program waits for.
LOOK_SECONDS = 1.0

#: Of whole numbers that are much larger than this, there is no float.
LARGEST = 1e300

#: So many calls that were cancelled may be kept in mind, beside as many as there are others.
FEW = 64


class Deadline:
    """The moment at which a wait is over.

    Args:
        timeout: seconds from now; None = for ever, 0 = do not wait.

    Raises:
        TypeError: the timeout is no number.
        ValueError: the timeout is negative, or not a number at all (nan).
    """

    __slots__ = ("_moment",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
                raise TypeError(f"a timeout is a number of seconds or None, not {timeout!r}")
            if isinstance(timeout, int) and timeout > LARGEST:
                timeout = LARGEST
            if math.isnan(timeout) or timeout < 0:
                raise ValueError(f"a timeout is None, or 0 or more seconds, not {timeout!r}")
        self._moment = None if timeout is None or math.isinf(timeout) else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Return how many seconds are left, 0 when none are; None = for ever."""
        if self._moment is None:
            return None
        return max(0.0, self._moment - time.monotonic())

    def expired(self) -> bool:
        """Return whether the time is up."""
        return self._moment is not None and time.monotonic() >= self._moment

    def wait(self, condition: threading.Condition, most: float = math.inf) -> bool:
        """Wait until `condition` is notified, or the time is up, or for no reason; return False, at once, if it is up.

        So what is waited for is to be looked at after each wait, which takes no more than `most` seconds.
        """
        if self.expired():
            return False
        seconds = self._slice()
        if most < math.inf:
            seconds = most if seconds is None else min(most, seconds)
        condition.wait(seconds)
        return True

    def wait_for(self, event: threading.Event) -> bool:
        """Wait until `event` is set, or the time is up; return whether it is set."""
        while not event.wait(self._slice()):
            if self.expired():
                return False
        return True

    def _slice(self) -> float | None:
        """Return for how many seconds to wait before one looks again."""
        remaining = self.remaining()
        # Not in a slave, where Ctrl-C is nobody's: its job would take its place back, and lend it again, each second.
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            return LOOK_SECONDS if remaining is None else min(remaining, LOOK_SECONDS)
        return None if remaining is None else min(remaining, threading.TIMEOUT_MAX)


class SafeCondition(threading.Condition):
    """A condition whose lock is held after a wait that was interrupted, too.

    Ctrl-C may come just when a wait has let go of the lock, or while it takes it again; then `threading.Condition`
    leaves without it. Only an `RLock` knows whose it is, so the lock is to be one of these.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until notified or the time is up; see `threading.Condition.wait`."""
        try:
            return super().wait(timeout)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # it may not be ours
                self.release()
            self.acquire()
            self.notify_all()  # somebody may have notified this one instead of another
            raise

    def is_mine(self) -> bool:
        """Return whether the calling thread holds the lock."""
        return bool(self._is_owned())  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def opened(self, mend: Callable[[], None]) -> Iterator[None]:
        """Let go of the lock, if this thread holds it, and take it as many times again in the end.

        A handler of a signal, or a finalizer, runs in a thread that may hold the lock, in the midst of a change of what
        it guards. That is mended first.
        """
        if self.is_mine():
            mend()
        times = 0
        with contextlib.suppress(RuntimeError):  # it is not ours, or not any more
            while True:
                self.release()
                times += 1
        try:
            yield
        finally:
            for _ in range(times):
                self.acquire()


#: The deadline of those who wait however long it takes.
FOREVER = Deadline(None)

#: The deadline of those who do not wait: it is past for good.
AT_ONCE = Deadline(0)


class Alarm:
    """Calls functions at given moments, from a thread that exists only once there is something to call.

    Attributes:
        in_want: whether the system had no such thread to spare. Then somebody is to `look` again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[int, Callable[[], None]] = {}
        self._earliest: dict[Callable[[], None], tuple[float, int]] = {}  # when, and by which ticket
        self._moments: list[tuple[float, int]] = []  # when to call which; some may have been cancelled
        self._tickets = itertools.count(1)
        self._thread: threading.Thread | None = None
        self.in_want = False
        self._closed = False

    def set(self, moment: float, call: Callable[[], None]) -> int:
        """Have `call` called at a moment of the monotonic clock; return a ticket, to `cancel` that."""
        ticket = next(self._tickets)
        with self._changed:
            if not self._closed:
                self._set(moment, ticket, call)
        return ticket

    def set_earliest(self, moment: float, call: Callable[[], None]) -> None:
        """Have `call` called once, at the earliest of the moments for which that was asked since it was called last."""
        with self._changed:
            if self._closed:
                return
            known, former = self._earliest.get(call, (math.inf, 0))
            if known <= moment:
                self._start()  # it may not have started when it should
                return
            self._cancel(former)
            ticket = next(self._tickets)
            self._set(moment, ticket, call)
            self._earliest[call] = moment, ticket

    def cancel(self, ticket: int) -> None:
        """Forget a call, and what it holds, if it has not come yet."""
        with self._changed:
            self._cancel(ticket)

    def look(self) -> None:
        """Start the thread, if it was not to be had when something was set; for whoever is awake at times anyway."""
        if self._thread is None and self._calls:
            with self._changed:
                if not self._closed:
                    self._start()

    def _set(self, moment: float, ticket: int, call: Callable[[], None]) -> None:
        self._calls[ticket] = call
        heapq.heappush(self._moments, (moment, ticket))
        self._start()
        self._changed.notify()

    def _cancel(self, ticket: int) -> None:
        self._calls.pop(ticket, None)
        if len(self._moments) > 2 * len(self._calls) + FEW:
            self._moments = [entry for entry in self._moments if entry[1] in self._calls]
            heapq.heapify(self._moments)

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._serve, name="papyros-alarm", daemon=True)
        try:
            thread.start()
            self._thread, self.in_want = thread, False
        except RuntimeError as error:
            if not self.in_want:
                log.warning("an alarm has to wait until there is a thread for it: %s", error)
            self.in_want = True

    def close(self) -> None:
        """Forget all calls, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._moments or self._moments[0][0] > time.monotonic()):
                    wait = self._moments[0][0] - time.monotonic() if self._moments else None
                    self._changed.wait(wait if wait is None else min(max(wait, 0.0), threading.TIMEOUT_MAX))
                if self._closed:
                    return
                ticket = heapq.heappop(self._moments)[1]
                call = self._calls.pop(ticket, None)
                if call is None:
                    continue  # it was cancelled
                if self._earliest.get(call, (0.0, 0))[1] == ticket:
                    del self._earliest[call]
            try:
                call()
            except BaseException:
                log.exception("an alarm failed")  # the others are to come all the same
