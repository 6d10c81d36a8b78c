"""The names of `concurrent.futures`, for programs that are to run on masters with nothing but an import changed.

::

    from papyros.futures import ProcessPoolExecutor, as_completed

The executors here make a master of their own, and close it when they are shut down.
"""

from __future__ import annotations

import concurrent.futures
import operator
from collections.abc import Callable
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,  # noqa: A004 - the name that it has there, of the builtin
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

from papyros.checks import check_slaves
from papyros.entries import Entry
from papyros.errors import SlaveLost
from papyros.executor import MasterExecutor
from papyros.jobs import Job
from papyros.master import Master
from papyros.multiprocess import MultiProcessMaster
from papyros.multithreaded import MultiThreadedMaster
from papyros.outcome import Outcome
from papyros.preparing import Preparation, PreparedCalls

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
]

#: What threads mostly do is wait, so there may be more of them than CPUs; as many as `concurrent.futures` makes.
MORE_THREADS = 4
MOST_THREADS = 32


class _ThreadsUnpreparedError(BrokenThreadPool):
    """The initializer of a pool of threads has failed."""


class _ProcessesUnpreparedError(BrokenProcessPool):
    """The initializer of a pool of processes has failed."""


class _CallLostError(SlaveLost, BrokenProcessPool):
    """The processes that made a call died: programs that know no `SlaveLost` catch what they would expect to."""


class _ProcessPoolMaster(MultiProcessMaster):
    """A master that tells of processes which died as a pool of the standard library does."""

    def _unpack(self, job: Job, entry: Entry) -> Outcome:
        outcome = super()._unpack(job, entry)
        if type(outcome.exception) is SlaveLost and not outcome.slave:  # otherwise the job itself has raised it
            return Outcome.failed(_CallLostError(*outcome.exception.args))
        return outcome


class _OwnMasterExecutor(MasterExecutor):
    """An executor whose master is nobody else's.

    Args:
        master: the master.
        slaves: how many slaves it has.
        initializer: what to call in each slave before its first job; None = nothing.
        initargs: what with.
        failure: what its failure is told by.
    """

    def __init__(
        self,
        master: Master,
        slaves: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        failure: type[BrokenExecutor],
    ) -> None:
        self._max_workers = slaves  # where libraries look for it
        if initializer is None:
            self._begin(master, master.close)
        else:
            preparation = Preparation(initializer, tuple(initargs), failure)
            self._begin(master, master.close, preparation.has_raised)
            self._calls = PreparedCalls(preparation)


class ThreadPoolExecutor(_OwnMasterExecutor, concurrent.futures.ThreadPoolExecutor):
    """Calls functions in threads of this process; see `MasterExecutor` and `MultiThreadedMaster`.

    It passes for one of `concurrent.futures`, as ``asyncio`` wants it for ``loop.set_default_executor``, but shares
    nothing with it.

    Args:
        max_workers: the number of threads.
        thread_name_prefix: accepted, and of no effect: threads are named by their master.
        initializer: is called in each thread before its first call. If it fails, the executor is broken: what
            waits, and what is submitted later, gets a ``BrokenThreadPool``.
        initargs: what the initializer is called with.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",  # noqa: ARG002 - see above
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        _check_initializer(initializer)
        threads = _number_of(max_workers) or min(MOST_THREADS, check_slaves(None) + MORE_THREADS)
        super().__init__(MultiThreadedMaster(threads), threads, initializer, initargs, _ThreadsUnpreparedError)


class ProcessPoolExecutor(_OwnMasterExecutor):
    """Calls functions in processes of this machine; see `MasterExecutor` and `MultiProcessMaster`.

    A process that dies is replaced, and its call is made again, three times in all; then it ends with a
    `papyros.SlaveLost`, which is a ``BrokenProcessPool`` here. All other calls go on.

    Args:
        max_workers: the number of processes.
        mp_context: accepted, and of no effect: slaves are fresh interpreters, as with ``spawn``, whatever it says.
        initializer: is called in each process before its first call, also in one that takes the place of another that
            died. If it fails, the executor is broken: what waits, and what is submitted later, gets a
            ``BrokenProcessPool``.
        initargs: what the initializer is called with.
        max_tasks_per_child: refused, unless it is None: slaves are not replaced as long as they live.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,  # noqa: ARG002 - see above
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        _check_initializer(initializer)
        if max_tasks_per_child is not None:
            raise ValueError(
                f"max_tasks_per_child is None, not {max_tasks_per_child!r}: slaves are replaced when they die, and not "
                "after a number of calls. A call that leaks can be made in a process of its own, by the call itself"
            )
        processes = check_slaves(_number_of(max_workers))
        super().__init__(_ProcessPoolMaster(processes), processes, initializer, initargs, _ProcessesUnpreparedError)


def _number_of(max_workers: int | None) -> int | None:
    if max_workers is None:
        return None
    number = operator.index(max_workers)  # one of numpy, too
    if number <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
    return number


def _check_initializer(initializer: object) -> None:
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be a callable, not {initializer!r}")
