"""Masters over other people's engines, for the contract's tests.

They run on these instead of on the masters of this package where the environment names some:
``PAPYROS_ENGINES=threadpool,processpool pytest tests/contract``.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import pytest

import papyros

KINDS = ["threadpool", "processpool", "loky", "dask", "ray"]
IN_PROCESS = ["threadpool"]


def make(kind: str, slaves: int, options: dict[str, Any]) -> tuple[papyros.Master, Callable[[], Any]]:
    """Return a master over an engine, and what ends that engine."""
    if kind == "dask":
        from papyros.engines.dask import DaskMaster

        return DaskMaster(_dask(), slaves, **options), lambda: None
    if kind == "ray":
        from papyros.engines.ray import RayMaster

        return RayMaster(slaves=slaves, **options), lambda: None
    executor = _executor(kind, slaves)
    return papyros.ExecutorMaster(executor, slaves, **options), partial(_end, executor)


def _end(executor: Any) -> None:
    for process in dict(getattr(executor, "_processes", None) or {}).values():
        process.kill()  # it may run a job that never ends
    executor.shutdown(wait=True, cancel_futures=True)


def _executor(kind: str, slaves: int) -> Any:
    if kind == "threadpool":
        return ThreadPoolExecutor(slaves)
    if kind == "processpool":
        return ProcessPoolExecutor(slaves, mp_context=multiprocessing.get_context("forkserver"))
    loky = pytest.importorskip("loky")
    return loky.ProcessPoolExecutor(slaves)


@cache
def stand(kind: str) -> Any:
    """Start what an engine never ends again, before leaks are counted."""
    if kind == "dask":
        return _dask()
    if kind == "ray":
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR")
        return ray
    if kind in ("processpool", "loky"):
        with _executor(kind, 1) as executor:
            executor.submit(abs, 1).result()
    return None


@cache
def _dask() -> Any:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None)
    return distributed.Client(cluster)


#: What an engine cannot do, by the names of the tests that ask for it.
CANNOT: dict[str, list[tuple[str, str]]] = {}


def cannot(kind: str, item: pytest.Item) -> str:
    """Return why an engine cannot do what a test asks for, or nothing."""
    for reason, names in CANNOT.get(kind, []):
        if item.originalname in names.split():
            return reason
    return ""
