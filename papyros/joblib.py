"""joblib on any master, and with it scikit-learn: ``pip install 'papyros[joblib]'``.

To import this module registers the backend, once::

    import papyros.joblib

    with joblib.parallel_config(backend="papyros", master=master):
        ...
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from papyros.choosing import open_master
from papyros.cpus import usable_cpus
from papyros.executor import MasterExecutor
from papyros.master import Master

try:
    from joblib import register_parallel_backend
    from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase, SequentialBackend
except ImportError as error:
    raise ImportError("the backend for joblib needs joblib: pip install 'papyros[joblib]'") from error

__all__ = ["PapyrosBackend"]

#: So long a cluster that has no slaves yet is given for some to connect, before their number matters.
SLAVES_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.05


class PapyrosBackend(AutoBatchingMixin, ParallelBackendBase):
    """Has the tasks of a `joblib.Parallel` run as jobs of a master.

    Args:
        master: a master, which stays open; or a word of `papyros.open_master`; None = what that one opens by default.
            It has the slaves that it has anyway: `n_jobs` says how many tasks run at a time, and adds none.
        nesting_level: as joblib has it.
        inner_max_num_threads: None; other numbers joblib refuses here. Libraries use one thread in each slave anyway,
            unless the environment of the slaves says otherwise.
        options: the same.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        master: Master | str | None = None,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **options)
        self._chosen = master
        self._master: Master | None = master if isinstance(master, Master) else None
        self._executor: MasterExecutor | None = None
        self._lock = threading.Lock()
        self._places: float = math.inf  # how many more batches may run, where that is fewer than there are slaves
        self._line: deque[tuple[Callable[[], Any], Future[Any]]] = deque()  # those that wait for such a place

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at a time: the slaves of the master, or fewer if `n_jobs` says so.

        It is 2 at the least, unless `n_jobs` is 1 or None: joblib would take 1 for a wish to have all tasks run
        in the program itself, and a master with one slave may be a better place.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs == 1:
            return 1
        master = self._open()
        if master._runs_in_pops:
            return 1
        slaves = _number_of_slaves(master)
        return max(2, slaves + 1 + n_jobs if n_jobs < 0 else min(n_jobs, slaves))

    def _open(self) -> Master:
        if self._master is None:
            self._master = open_master(self._chosen if isinstance(self._chosen, str) else None)
        return self._master

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:  # noqa: ARG002 - joblib's
        """Begin to serve a `joblib.Parallel`; return how many tasks run at a time."""
        self.parallel = parallel
        count = self.effective_n_jobs(n_jobs)
        master = self._open()
        # Where all slaves are to work, the master has more than that ahead: else they would wait for each batch.
        self._places = count if 1 < count < _number_of_slaves(master) else math.inf
        self._executor = MasterExecutor(master)
        return count

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Have a batch of tasks run."""
        assert self._executor is not None, "joblib configures a backend before it submits to it"
        if self._places == math.inf:
            future = self._executor.submit(func)
        else:
            future = Future()
            with self._lock:
                self._line.append((func, future))
            self._hand_over()
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _hand_over(self) -> None:
        """Hand as many batches to the master as may run at a time: joblib comes with twice as many, or all."""
        while True:
            with self._lock:
                executor = self._executor
                if executor is None or not self._line or self._places < 1:
                    return
                self._places -= 1
                func, future = self._line.popleft()
            try:
                done = executor.submit(func)
            except BaseException as error:
                with self._lock:
                    self._places += 1
                future.set_exception(error)  # joblib waits for it, and nobody else would ever tell it
                if not isinstance(error, Exception):
                    raise  # the caller's Ctrl-C
            else:
                done.add_done_callback(partial(self._ended, future))

    def _ended(self, future: Future[Any], done: Future[Any]) -> None:
        with self._lock:
            self._places += 1
        if done.cancelled():
            future.cancel()
        elif (error := done.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())
        self._hand_over()

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what waits, since a task failed."""
        self._cancel_line()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = MasterExecutor(self._open()) if ensure_ready else None

    def terminate(self) -> None:
        """End, and close the master if it was opened here."""
        self._cancel_line()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        if self._master is not None and self._master is not self._chosen:
            self._master.close()
            self._master = None

    def _cancel_line(self) -> None:
        """Cancel what waits for a place. Called without the lock, since futures tell joblib, which has locks, too."""
        with self._lock:
            line, self._line = self._line, deque()
        for _, future in line:
            future.cancel()
            future.set_running_or_notify_cancel()  # otherwise those who wait for it would not hear of that

    def get_nested_backend(self) -> tuple[Any, Any]:
        """Run what tasks do in parallel themselves one after the other: all slaves are busy with such tasks."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def _number_of_slaves(master: Master) -> int:
    """Return how many slaves a master has, for which it is given a moment: those of a cluster connect when they can."""
    end = time.monotonic() + SLAVES_SECONDS
    while True:
        with contextlib.suppress(ConnectionError):
            if slaves := len(master.status().slaves):
                return slaves
        if time.monotonic() > end:
            return usable_cpus()  # so that tasks are on their way when there are some
        time.sleep(LOOK_AGAIN_SECONDS)


register_parallel_backend("papyros", PapyrosBackend)
