"""What it is to run a job: call it, time it, and catch whatever it raises; and what becomes of those that it forks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any, NoReturn

from papyros.jobs import FunctionJob, Job
from papyros.keeping import arguments_of
from papyros.outcome import Outcome, frames_of
from papyros.sharing import Shared, arrived

__all__ = ["leave_fork", "run_job"]

#: The named arguments of a job that has none.
_NONE: dict[str, Any] = {}


def run_job(job: Job, slave: str) -> Outcome:
    """Call the job with its arguments and return the outcome.

    Everything that can be raised is an outcome, SystemExit and
    KeyboardInterrupt too: no job ends the loop of the slave that runs it.
    """
    started = time.perf_counter()
    try:
        value = _call(job, type(job))
    except BaseException as error:  # noqa: BLE001 - see above
        seconds = time.perf_counter() - started
        _begin_with_the_job(error)
        return Outcome.failed(error, slave, seconds)
    return Outcome(value, None, "", slave, time.perf_counter() - started)


def _call(job: Any, kind: Any) -> Any:
    """Call a job of this class with its arguments. Most have no named ones, and do without a dictionary of these."""
    args: tuple[Any, ...] = arguments_of(job)
    kwds: dict[str, Any] = job.kwds if job._kwds is not None or kind.kwds is not Job.kwds else _NONE
    if kwds or Shared in map(type, args):
        args, kwds = arrived(args, kwds)
    if kwds:
        return job(*args, **kwds)
    if kind.__call__ is FunctionJob.__call__:  # which does no more than this
        return kind.function(*args)
    return job(*args)


def _begin_with_the_job(error: BaseException) -> None:
    """Have a traceback begin with the frame of the job, or of the function that it was made of."""
    trace = frames_of(error)
    for ours in (run_job, _call, FunctionJob.__call__):
        if trace is not None and trace.tb_next is not None and trace.tb_frame.f_code is ours.__code__:
            trace = trace.tb_next
    BaseException.with_traceback(error, trace)


def leave_fork(outcome: Outcome) -> NoReturn:
    """End a process that a job has forked, and that came back from the job, as a program of its own would have."""
    code: Any = 0
    if isinstance(outcome.exception, SystemExit):
        code = outcome.exception.code
    elif outcome.exception is not None:
        code = outcome.traceback
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit((code or 0) & 0xFF)
