"""What a system under measurement does; and those that need no installation: Papyros and the standard library."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar

__all__ = ["SLAVES", "System", "by_name", "missing"]

#: How many slaves, workers, processes each system has.
SLAVES = 2

Function = Callable[[Any], Any]


class System(ABC):
    """Something that runs functions in processes.

    Attributes:
        name: what it is called in tables.
        requires: the module without which it cannot be measured.
        distribution: what that comes from, for its version; empty for the standard library.
        rows: the rows that are measured; None = all.
    """

    name: ClassVar[str]
    requires: ClassVar[str] = ""
    distribution: ClassVar[str] = ""
    rows: ClassVar[frozenset[str] | None] = None

    @abstractmethod
    def open(self) -> None:
        """Start it, with `SLAVES` slaves; need not wait until they are ready."""

    @abstractmethod
    def close(self) -> None:
        """End it."""

    @abstractmethod
    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        """Submit calls one by one, as its manual says for many small calls, and return all results."""

    @abstractmethod
    def one(self, function: Function, argument: Any) -> Any:
        """Submit one call and return its result."""

    def load(self) -> None:  # noqa: B027 - most have nothing to do here
        """Import what it needs, before the clock that measures its start runs."""

    def prepare(self, function: Function, job_class: type[Any]) -> None:  # noqa: B027 - only Papyros knows job classes
        """Take note of the job class that does what a function of `__main__` does."""

    @classmethod
    def command(cls, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs a session of this system."""
        return [sys.executable, "-m", "benchmarks.session", *arguments]


class _Papyros(System):
    def __init__(self) -> None:
        self.master: Any = None
        self.classes: dict[Function, type[Any]] = {}

    def load(self) -> None:
        from benchmarks.jobs import JOBS

        self.classes.update(JOBS)

    def prepare(self, function: Function, job_class: type[Any]) -> None:
        self.classes[function] = job_class

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        master, job_class = self.master, self.classes[function]
        for argument in arguments:
            master.addJob(job_class(argument))
        return [job.result for job in iter(master.popProcessedJob, None)]

    def one(self, function: Function, argument: Any) -> Any:
        self.master.addJob(self.classes[function](argument))
        return self.master.popProcessedJob().result


class PapyrosProcesses(_Papyros):
    """`MultiProcessMaster`."""

    name = "MultiProcessMaster"
    distribution = "papyros"

    def load(self) -> None:
        import papyros.multiprocess  # noqa: F401 - so that `open` does not

        super().load()

    def open(self) -> None:
        import papyros

        self.master = papyros.MultiProcessMaster(SLAVES)

    def close(self) -> None:
        self.master.close()


class PapyrosCluster(_Papyros):
    """`DistributedMaster`, with a `LocalCluster`: three more processes, loopback TCP."""

    name = "DistributedMaster"
    distribution = "papyros"

    def load(self) -> None:
        import papyros.distributed  # noqa: F401 - so that `open` does not

        super().load()

    def open(self) -> None:
        import papyros

        self.cluster = papyros.LocalCluster(SLAVES)
        self.master = self.cluster.master()

    def close(self) -> None:
        self.cluster.close()


class _Futures(_Papyros):
    """Calls by futures: what these cost, over a master."""

    rows = frozenset({"noop", "latency"})

    def load(self) -> None:
        import papyros.executor  # noqa: F401 - so that `open` does not

        super().load()

    def open(self) -> None:
        super().open()  # type: ignore[safe-super] # of the class that makes the master
        self.executor = self.master.executor()

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        return _results_of(self.executor, function, arguments)

    def one(self, function: Function, argument: Any) -> Any:
        return self.executor.submit(function, argument).result()


class ProcessesExecutor(_Futures, PapyrosProcesses):
    """`MasterExecutor` over a `MultiProcessMaster`."""

    name = "MasterExecutor over MultiProcessMaster"


class ClusterExecutor(_Futures, PapyrosCluster):
    """`MasterExecutor` over a `DistributedMaster`."""

    name = "MasterExecutor over LocalCluster"


class Pool(System):
    """`multiprocessing.Pool.imap_unordered`, without a chunk size."""

    name = "Pool.imap_unordered"

    def open(self) -> None:
        self.pool = multiprocessing.Pool(SLAVES)

    def close(self) -> None:
        self.pool.close()  # not `terminate`: it may wait for ever for a worker that its signal has missed
        self.pool.join()

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        return list(self.pool.imap_unordered(function, arguments))

    def one(self, function: Function, argument: Any) -> Any:
        return self.pool.apply(function, (argument,))


class PoolMap(Pool):
    """`multiprocessing.Pool.map`, which makes chunks."""

    name = "Pool.map (chunks)"

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        return self.pool.map(function, arguments)

    def one(self, function: Function, argument: Any) -> Any:
        return self.pool.map(function, [argument])[0]


def _results_of(executor: Any, function: Function, arguments: Iterable[Any]) -> list[Any]:
    futures = [executor.submit(function, argument) for argument in arguments]
    return [future.result() for future in futures]


class Executor(System):
    """`concurrent.futures.ProcessPoolExecutor`."""

    name = "ProcessPoolExecutor"
    method: ClassVar[str | None] = None

    def open(self) -> None:
        self.executor = ProcessPoolExecutor(SLAVES, mp_context=multiprocessing.get_context(self.method))

    def close(self) -> None:
        self.executor.shutdown()

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        return _results_of(self.executor, function, arguments)

    def one(self, function: Function, argument: Any) -> Any:
        return self.executor.submit(function, argument).result()


class SpawningExecutor(Executor):
    """The same with fresh interpreters, as Papyros has them: how long it takes to start."""

    name = "ProcessPoolExecutor (spawn)"
    method = "spawn"
    rows = frozenset({"start"})


class Bare(System):
    """No system at all: each of two processes is forked with its half of the work. The ceiling for efficiency."""

    name = "two bare processes"
    rows = frozenset({"efficiency_1ms", "efficiency_10ms"})

    def open(self) -> None:
        self._context = multiprocessing.get_context("fork")

    def close(self) -> None:
        pass

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        work = list(arguments)

        def loop(part: Sequence[Any]) -> None:
            for argument in part:
                function(argument)

        assert threading.active_count() == 1, "a process with threads is not to be forked"
        halves = [self._context.Process(target=loop, args=(work[n::SLAVES],)) for n in range(SLAVES)]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
            if half.exitcode:
                raise RuntimeError(f"a bare process ended with exit code {half.exitcode}")
        return work

    def one(self, function: Function, argument: Any) -> Any:
        return function(argument)


OWN: tuple[type[System], ...] = (PapyrosProcesses, PapyrosCluster, ProcessesExecutor, ClusterExecutor)
STANDARD: tuple[type[System], ...] = (Pool, PoolMap, Executor, SpawningExecutor, Bare)


def by_name() -> dict[str, type[System]]:
    """Return all systems that there are, whether installed or not."""
    from benchmarks.peers import PEERS

    return {system.name: system for system in (*OWN, *STANDARD, *PEERS)}


def missing(system: type[System]) -> str:
    """Return why a system cannot be measured here, or nothing."""
    if system.requires and importlib.util.find_spec(system.requires) is None:
        return f"{system.name} is skipped: there is no module {system.requires}; pip install '.[bench]' brings it"
    return ""
