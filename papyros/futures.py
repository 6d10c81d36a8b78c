"""The names of `concurrent.futures`, for programs that are to run on masters with nothing but an import changed.

::

    from papyros.futures import ProcessPoolExecutor, as_completed

The executors here make a master of their own, and close it when they are shut down.
"""

from __future__ import annotations

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
from typing import Any

from papyros.checks import check_slaves
from papyros.executor import MasterExecutor
from papyros.master import Master
from papyros.multiprocess import MultiProcessMaster
from papyros.multithreaded import MultiThreadedMaster

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


class _OwnMasterExecutor(MasterExecutor):
    """An executor whose master is nobody else's."""

    def __init__(self, master: Master) -> None:
        self._begin(master, master.close)


class ThreadPoolExecutor(_OwnMasterExecutor):
    """Calls functions in threads of this process; see `MasterExecutor` and `MultiThreadedMaster`.

    Args:
        max_workers: the number of threads.
        thread_name_prefix: accepted; threads are named by their master.
        initializer: refused, see `ProcessPoolExecutor`.
        initargs: the same.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",  # noqa: ARG002 - see above
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),  # noqa: ARG002 - see above
    ) -> None:
        _refuse_initializer(initializer)
        threads = _number_of(max_workers) or min(MOST_THREADS, check_slaves(None) + MORE_THREADS)
        super().__init__(MultiThreadedMaster(threads))


class ProcessPoolExecutor(_OwnMasterExecutor):
    """Calls functions in processes of this machine; see `MasterExecutor` and `MultiProcessMaster`.

    Args:
        max_workers: the number of processes.
        mp_context: accepted; slaves are fresh interpreters, whatever it says.
        initializer: refused: a slave that takes the place of a dead one begins at any time. Let the functions
            prepare what they need, and keep it (``functools.cache``).
        initargs: the same.
        max_tasks_per_child: accepted; a slave is replaced when it dies.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,  # noqa: ARG002 - see above
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),  # noqa: ARG002 - see above
        *,
        max_tasks_per_child: int | None = None,  # noqa: ARG002 - see above
    ) -> None:
        _refuse_initializer(initializer)
        super().__init__(MultiProcessMaster(_number_of(max_workers)))


def _number_of(max_workers: int | None) -> int | None:
    if max_workers is not None and isinstance(max_workers, int) and max_workers <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
    return max_workers


def _refuse_initializer(initializer: object) -> None:
    if initializer is not None:
        raise ValueError(
            f"slaves call no initializer, here {initializer!r}: let the functions prepare what they need, once "
            "(functools.cache keeps it)"
        )
