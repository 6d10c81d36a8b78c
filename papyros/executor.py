"""Executors of `concurrent.futures` over masters: for programs, and libraries, that speak that language."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from papyros.calls import calls_of
from papyros.courier import courier_of
from papyros.executormaster import ExecutorMaster
from papyros.jobfuture import JobFuture
from papyros.logs import logger_of
from papyros.master import Master

__all__ = ["ExecutorMaster", "JobFuture", "MasterExecutor"]

log = logger_of(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class MasterExecutor(Executor):
    """A `concurrent.futures.Executor` over any master: calls become its jobs, and their outcomes come to futures.

    Functions, lambdas, closures, bound methods and partials can be called, wherever
    the jobs run. A job class stands for its jobs, which keep their options: ``submit(download, url)`` is tried
    again as often as ``@papyros.job(retries=3)`` says. A job is submitted as it is, and is given its outcome
    just before its future is.

    The jobs do not mix with those that are added to the master in other ways. `submit` waits for room, where
    the master bounds how many jobs wait. A future's callbacks are called by one thread for all of
    them, which must not wait for other futures of the same executor.

    With a `SingleThreadedMaster`, each call is made by `submit`, in the thread that calls it.

    Args:
        master: who has the jobs processed. It stays open when the executor is shut down.
    """

    def __init__(self, master: Master) -> None:
        if not isinstance(master, Master):
            raise TypeError(f"a MasterExecutor is made of a master, not of {master!r}")
        self._begin(master)

    def _begin(
        self,
        master: Master,
        at_end: Callable[[], None] | None = None,
        is_fatal: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self._master = master
        self._calls = calls_of(master)
        self._courier = courier_of(master, at_end, is_fatal)
        self._forgotten = weakref.finalize(self, self._courier.forget)
        self._forgotten.atexit = False

    @property
    def master(self) -> Master:
        """The master whose jobs the calls become."""
        return self._master

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have ``fn(*args, **kwargs)`` called; return the future of it.

        Raises:
            RuntimeError: the executor was shut down; as `MasterClosedError`, if it is the master that was closed.
            TypeError: `fn` cannot be called, or is a job and comes with further arguments.
        """
        job = self._calls.job(fn, args, kwargs)
        future = JobFuture(self._courier)
        self._courier.send(job, future)
        return cast("Future[R]", future)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Return an iterator like that of the builtin `map`, whose calls are made meanwhile.

        Args:
            fn: what to call.
            iterables: what it is called with. Without a `buffersize`, they are taken to their end at once.
            timeout: how many seconds after the call of `map` the last result may be asked for.
            chunksize: accepted, as other executors have it, and not needed: masters make batches of their own.
            buffersize: how many results, at most, are under way or not asked for; the iterables are taken
                from as results are, and may be endless. It is as in Python 3.14, on all versions.

        Raises:
            TimeoutError: by the iterator; a result is not there in time.
            Exception: by the iterator, in place of the result: what the call raised.
        """
        if isinstance(chunksize, bool) or not isinstance(chunksize, int):
            raise TypeError(f"chunksize is a whole number, not {chunksize!r}")
        if chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, not {chunksize}")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError(f"buffersize must be an integer or None, not {buffersize!r}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be None or > 0, not {buffersize}")
        end = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        futures = deque(self.submit(fn, *args) for args in islice(calls, buffersize))
        return _results(self if buffersize else None, fn, futures, calls, end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down, and wait for all calls; after a Ctrl-C only for those that run already."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted:
            log.warning("interrupted: calls that wait are cancelled, those that run are waited for; Ctrl-C ends that")
        self.shutdown(wait=True, cancel_futures=interrupted)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let go of what the executor holds.

        Args:
            wait: whether to wait until all calls are done.
            cancel_futures: whether to cancel those that no slave was given yet.
        """
        self._forgotten.detach()
        self._courier.end()
        if cancel_futures:
            self._courier.withdraw()
        if wait:
            self._courier.join()


def _results(
    executor: MasterExecutor | None,
    fn: Callable[..., R],
    futures: deque[Future[R]],
    calls: Iterator[tuple[Any, ...]],
    end: float | None,
) -> Iterator[R]:
    """Yield results in order. No result is kept alive by what waits here; an executor is, while it has more to call."""
    try:
        while futures:
            if executor is not None:
                if (args := next(calls, None)) is None:
                    executor = None
                else:
                    futures.append(executor.submit(fn, *args))
                del args
            yield _result(futures.popleft(), end)
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future[R], end: float | None) -> R:
    try:
        return future.result() if end is None else future.result(max(0.0, end - time.monotonic()))
    finally:
        future.cancel()  # if it was not there in time; and a reference of a traceback to its own future is a cycle
        del future
