"""The future of a job: one of `concurrent.futures`, that costs little where nobody waits for it.

There may be a hundred thousand of them under way, and most are looked at when they are done. So what it takes to
wait, a condition and lists of who waits, is made when somebody does.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from papyros.deadlines import Deadline

if TYPE_CHECKING:
    from papyros.courier import Courier
    from papyros.outcome import Outcome

__all__ = ["JobFuture"]

# The words of `concurrent.futures`, which has no public names for them.
_PENDING, _FINISHED, _CANCELLED = "PENDING", "FINISHED", "CANCELLED"

#: In the place of a condition: there is none, and nobody will need one any more in order to wait. While a future is
#: being settled its outcome is there.
_SETTLED = object()


class JobFuture(Future[Any]):
    """The outcome of a job, as `concurrent.futures` shows it. Made by `MasterExecutor.submit`."""

    _state: str = _PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _number = 0

    def __init__(self, courier: Courier) -> None:
        # What the base class makes is made by `_condition`, or stands above.
        self._courier: Courier | None = courier

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override] # an attribute of the base class
        """What the base class waits with, and guards its lists with; made when it is asked for."""
        # Each step is one that cannot be divided: all who ask get the same, also while `_settle` comes between.
        own = self.__dict__
        made = own.get("_made")
        if made is None:
            own.setdefault("_waiters", [])
            own.setdefault("_done_callbacks", [])
            made = own.setdefault("_made", threading.Condition())
        if not isinstance(made, threading.Condition):  # it is settled; those who look at it want to lock it even so
            if made is not _SETTLED:
                self._note(made)  # `_settle` is about to do so: nobody who has a condition is to see another state
            own.setdefault("_waiters", [])
            own.setdefault("_done_callbacks", [])
            made = own.setdefault("_late", threading.Condition())
        condition: threading.Condition = made
        return condition

    def done(self) -> bool:
        """Return whether it is over: there is a result or an exception, or it was cancelled."""
        return self._state == _FINISHED or super().done()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, for which it waits up to `timeout` seconds, or raise the exception."""
        if self._state == _FINISHED and self._exception is None:
            return self._result
        try:
            self._wait(timeout)
            value = super().result(0)
            if self._exception is not None:
                raise self._exception  # one that is false, as its class will have it: older Pythons overlook those
            return value
        finally:
            del self  # the traceback refers to this frame, and the future to the exception: a cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception, for which it waits up to `timeout` seconds, or None where there is a result."""
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        """Wait until it is over, or the time is; in a way that Ctrl-C ends, whenever it comes."""
        deadline = Deadline(timeout if timeout is None else max(0.0, timeout))
        with self._condition:
            while not self.done() and deadline.wait(self._condition):
                pass

    def cancel(self) -> bool:
        """Cancel the job if it waits; return whether it is cancelled. One that runs goes on."""
        courier = self._courier
        if courier is not None:
            courier.withdraw([self])
        return self.cancelled()

    def running(self) -> bool:
        """Return whether a slave has been given the job, as far as the master knows."""
        courier = self._courier
        return courier is not None and courier.runs(self)

    def __repr__(self) -> str:
        text = super().__repr__()
        return text.replace("state=pending", "state=running", 1) if not self.done() and self.running() else text

    def _leave(self) -> None:
        """Be cancelled, and tell those who wait. Called once, by whoever took this future from its courier."""
        self._courier = None
        try:
            self._cancel()
        finally:  # callbacks may raise a SystemExit, and Ctrl-C comes anywhere
            self._tell_cancelled()

    def _cancel(self) -> None:
        super().cancel()

    def _tell_cancelled(self) -> None:
        """Tell those who wait, unless they are told already, that it is cancelled, if it is."""
        with self._condition:
            if self._state == _CANCELLED:
                self.set_running_or_notify_cancel()

    def _settle(self, outcome: Outcome) -> None:
        """Take the outcome, for good. Called once, by whoever took this future from its courier."""
        self._courier = None
        if self._state == _CANCELLED:  # in this moment, by another thread
            self._tell_cancelled()
        elif self.__dict__.setdefault("_made", outcome) is outcome:
            self._note(outcome)  # without a lock, since nobody has one, and nobody gets one before
            self.__dict__["_made"] = _SETTLED
        else:
            self._settle_locked(outcome)

    def _settle_locked(self, outcome: Outcome) -> None:
        try:
            if outcome.exception is None:
                self.set_result(outcome.value)
            else:
                self.set_exception(outcome.exception)
        except InvalidStateError:
            if not self.cancelled():
                raise
            self._tell_cancelled()  # another thread has cancelled it since `_settle` has looked

    def _note(self, outcome: Outcome) -> None:
        self._result, self._exception = outcome.value, outcome.exception
        self._state = _FINISHED
