"""What became of a job: a result, or an exception with its traceback as text.

An `Outcome` is made where a job runs, survives a trip between processes and is
read through the job it belongs to. How the trip is made is `papyros.encoded`'s
affair; nothing in here pickles, runs a job or knows a master.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

from papyros.errors import RemoteTraceback

__all__ = ["Outcome", "describe_exception", "frames_of"]


class Outcome:
    """The result of a job, or the exception that it raised.

    Attributes:
        value: what the job returned; None where it raised.
        exception: what the job raised; None where it returned.
        traceback: the text of the exception's traceback, as the process that ran the job would print it.
        slave: who ran the job, as ``HOST/PID``, or the name of a thread.
        seconds: how long the job ran.
    """

    __slots__ = ("_frames", "exception", "seconds", "slave", "traceback", "value")

    def __init__(
        self,
        value: Any = None,
        exception: BaseException | None = None,
        traceback: str = "",
        slave: str = "",
        seconds: float = 0.0,
    ) -> None:
        self.value = value
        self.exception = exception
        self.traceback = traceback
        self.slave = slave
        self.seconds = seconds
        self._frames = frames_of(exception) if exception is not None else None

    @classmethod
    def failed(cls, exception: BaseException, slave: str = "", seconds: float = 0.0) -> Outcome:
        """Return the outcome of a job that raised `exception` in this process."""
        text = describe_exception(exception)
        attach_traceback(exception, text)
        return cls(None, exception, text, slave, seconds)

    @classmethod
    def failed_elsewhere(cls, exception: BaseException, text: str, slave: str = "", seconds: float = 0.0) -> Outcome:
        """Return the outcome of a job that raised `exception` in another process.

        The traceback's text becomes the exception's `traceback` and, as its
        `__cause__`, part of what Python prints when nobody catches it.
        """
        attach_traceback(exception, text)
        BaseException.__setattr__(exception, "__cause__", RemoteTraceback(text))
        return cls(None, exception, text, slave, seconds)

    def exception_anew(self) -> BaseException:
        """Return the exception, to be raised once more: the frames of an earlier time would pile up."""
        assert self.exception is not None
        return BaseException.with_traceback(self.exception, self._frames)


def attach_traceback(exception: BaseException, text: str) -> None:
    """Set `exception.traceback`, unless its class has a property of that name, whatever it thinks of attributes."""
    with contextlib.suppress(Exception):
        BaseException.__setattr__(exception, "traceback", text)


def frames_of(exception: BaseException) -> TracebackType | None:
    """Return the frames of a traceback, whatever the exception's class thinks of attributes."""
    frames: TracebackType | None = BaseException.__getattribute__(exception, "__traceback__")
    return frames


def describe_exception(exception: BaseException) -> str:
    """Return the traceback of `exception` as text, even when its `__str__` raises."""
    try:
        return "".join(_traceback().format_exception(exception))
    except BaseException as error:  # noqa: BLE001 - the user's __str__ or __repr__ may raise anything at all
        return (
            f"Traceback (most recent call last):\n{_describe_frames(exception)}"
            f"{type(exception).__qualname__}: <its text cannot be had: {type(error).__name__}>\n"
        )


def _describe_frames(exception: BaseException) -> str:
    try:
        return "".join(_traceback().format_tb(frames_of(exception)))
    except BaseException as error:  # noqa: BLE001 - a program may have another module of that name
        return f"  <its frames cannot be told: {type(error).__name__}>\n"


def _traceback() -> Any:
    """Return what describes exceptions: the module of that name, or, where it cannot be loaded any more, less than it.

    It is loaded when it is needed: with all that it needs, it is a tenth of what a slave would load before its first
    job. A job may have left no file descriptor to load it by, and no memory.
    """
    try:
        import traceback
    except BaseException:  # noqa: BLE001 - whatever a module of a program's own, by that name, may raise
        return _Plain
    return traceback if hasattr(traceback, "format_exception") else _Plain


class _Plain:
    """Describes exceptions without lines of sources, causes and notes, and needs nothing for that."""

    @staticmethod
    def format_exception(exception: BaseException) -> list[str]:
        frames = _Plain.format_tb(frames_of(exception))
        return ["Traceback (most recent call last):\n", *frames, f"{type(exception).__qualname__}: {exception}\n"]

    @staticmethod
    def format_tb(trace: TracebackType | None) -> list[str]:
        lines = []
        while trace is not None:
            code = trace.tb_frame.f_code
            lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n')
            trace = trace.tb_next
        return lines
