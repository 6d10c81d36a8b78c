"""The peers that have to be installed: ``pip install '.[bench]'``. Each is imported only where it is measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.systems import SLAVES, Function, System

__all__ = ["PEERS"]


class Mpire(System):
    """mpire's `WorkerPool.map`, which sends chunks; a pool that once ran `apply` cannot `map` any more."""

    name = "mpire (chunks)"
    requires = distribution = "mpire"

    def load(self) -> None:
        import mpire  # noqa: F401

    def open(self) -> None:
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=SLAVES, keep_alive=True)

    def close(self) -> None:
        self.pool.terminate()

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        # One argument each, also where that is a list or an array.
        return self.pool.map(function, [(argument,) for argument in arguments], concatenate_numpy_output=False)

    def one(self, function: Function, argument: Any) -> Any:
        return self.each(function, [argument])[0]


class Loky(System):
    """loky's reusable executor, an executor of `concurrent.futures`."""

    name = "loky"
    requires = distribution = "loky"

    def load(self) -> None:
        import loky  # noqa: F401

    def open(self) -> None:
        from loky import get_reusable_executor

        self.executor = get_reusable_executor(max_workers=SLAVES)

    def close(self) -> None:
        self.executor.shutdown(kill_workers=True)

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        futures = [self.executor.submit(function, argument) for argument in arguments]
        return [future.result() for future in futures]

    def one(self, function: Function, argument: Any) -> Any:
        return self.executor.submit(function, argument).result()


class Joblib(System):
    """joblib's `Parallel`, which makes batches by itself; within a `with` block, so that workers stay."""

    name = "joblib (batches)"
    requires = distribution = "joblib"

    def load(self) -> None:
        import joblib  # noqa: F401

    def open(self) -> None:
        from joblib import Parallel

        self.parallel = Parallel(n_jobs=SLAVES)
        self.parallel.__enter__()

    def close(self) -> None:
        self.parallel.__exit__(None, None, None)

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        from joblib import delayed

        return self.parallel(delayed(function)(argument) for argument in arguments)

    def one(self, function: Function, argument: Any) -> Any:
        return self.each(function, [argument])[0]


class Dask(System):
    """dask.distributed's `LocalCluster` and `Client.submit`."""

    name = "dask.distributed"
    requires = distribution = "distributed"

    def load(self) -> None:
        import distributed  # noqa: F401

    def open(self) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=SLAVES, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        )
        self.client = Client(self.cluster)

    def close(self) -> None:
        self.client.close()
        self.cluster.close()

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        futures = [self.client.submit(function, argument, pure=False) for argument in arguments]
        return self.client.gather(futures)

    def one(self, function: Function, argument: Any) -> Any:
        return self.client.submit(function, argument, pure=False).result()


class Ray(System):
    """Ray's remote functions."""

    name = "Ray"
    requires = distribution = "ray"

    def __init__(self) -> None:
        self.remotes: dict[Function, Any] = {}

    def load(self) -> None:
        import ray  # noqa: F401

    def open(self) -> None:
        import ray

        ray.init(num_cpus=SLAVES, include_dashboard=False, log_to_driver=False, logging_level="error")

    def close(self) -> None:
        import ray

        ray.shutdown()

    def _remote(self, function: Function) -> Any:
        import ray

        if function not in self.remotes:
            self.remotes[function] = ray.remote(function)
        return self.remotes[function]

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        import ray

        remote = self._remote(function)
        return ray.get([remote.remote(argument) for argument in arguments])

    def one(self, function: Function, argument: Any) -> Any:
        import ray

        return ray.get(self._remote(function).remote(argument))


class Scoop(System):
    """SCOOP's `futures.submit`; its first worker is the program itself, which also works."""

    name = "SCOOP"
    requires = distribution = "scoop"
    # It is up before its program begins, and its program runs single calls, and most big ones, itself.
    rows = frozenset({"noop", "noop_main", "efficiency_1ms", "efficiency_10ms", "mixed", "naps"})

    def load(self) -> None:
        import scoop  # noqa: F401

    @classmethod
    def command(cls, arguments: Sequence[str]) -> list[str]:
        script = Path(__file__).with_name("session.py")
        return [sys.executable, "-m", "scoop", "-n", str(SLAVES), str(script), *arguments]

    def open(self) -> None:
        pass  # whoever runs `command` started it

    def close(self) -> None:
        pass

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        from scoop import futures

        submitted = [futures.submit(function, argument) for argument in arguments]
        return [future.result() for future in submitted]

    def one(self, function: Function, argument: Any) -> Any:
        from scoop import futures

        return futures.submit(function, argument).result()


class IPyParallel(System):
    """ipyparallel's load-balanced view."""

    name = "ipyparallel"
    requires = distribution = "ipyparallel"

    def load(self) -> None:
        import ipyparallel  # noqa: F401

    def open(self) -> None:
        import ipyparallel

        self.cluster = ipyparallel.Cluster(n=SLAVES, log_level=40)
        self.client = self.cluster.start_and_connect_sync(activate=False)
        self.view = self.client.load_balanced_view()

    def close(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()

    def each(self, function: Function, arguments: Iterable[Any]) -> Sequence[Any]:
        results = [self.view.apply_async(function, argument) for argument in arguments]
        return [result.get() for result in results]

    def one(self, function: Function, argument: Any) -> Any:
        return self.view.apply_sync(function, argument)


PEERS: tuple[type[System], ...] = (Mpire, Loky, Joblib, Dask, Ray, Scoop, IPyParallel)
