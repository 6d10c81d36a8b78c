"""What it is to run a job: call it, time it, and catch whatever it raises; and what becomes of those that it forks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any, NoReturn

from papyros.jobs import Job
from papyros.outcome import Outcome
from papyros.sharing import arrived

__all__ = ["leave_fork", "run_job"]


def run_job(job: Job, slave: str) -> Outcome:
    """Call the job with its arguments and return the outcome.

    Everything that can be raised is an outcome, SystemExit and
    KeyboardInterrupt too: no job ends the loop of the slave that runs it.
    """
    started = time.perf_counter()
    try:
        args, kwds = arrived(job.args, job.kwds)
        value = job(*args, **kwds)
    except BaseException as error:  # noqa: BLE001 - see above
        seconds = time.perf_counter() - started
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            BaseException.with_traceback(error, error.__traceback__.tb_next)  # begin with the job's own frame
        return Outcome.failed(error, slave, seconds)
    return Outcome(value, None, "", slave, time.perf_counter() - started)


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
