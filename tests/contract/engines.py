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
    try:
        return papyros.ExecutorMaster(executor, slaves, **options), partial(executor.shutdown, wait=True)
    except BaseException:
        executor.shutdown()
        raise


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


STOPPED = (
    "what runs in this executor is not stopped, and the time that a job may take counts from when it is handed over"
)
BROKEN = "an executor of processes that loses one is broken for good: see tests/executor/test_executor_master.py"
PRINTS = "what jobs print stays with the engine"
INSIDE = "in a process of an executor, the children of a job run in that process, while it waits for them"
NAMES = "whose slaves they are is told by the engine"

ONCE = "Dask starts a job again whose worker died, so a job that may run at most once is refused"
CODE = "Dask has exceptions pickled by tblib, which loses the code of a SystemExit"

SHARED = "an engine has places of its own for the children of jobs, and lends none of those that its master has"
THREADS = "Dask runs jobs in threads: one that runs is not stopped, and one that ends its process takes others along"

SLOW = "15,000 jobs take Dask minutes"

#: What engines cannot do: of a module, all tests, or those with a fixture or a name.
CANNOT = [
    (KINDS, "test_echo", "", PRINTS),
    (["processpool", "loky"], "test_families", "make_concurrent_master", INSIDE),
    (["processpool", "loky"], "test_families", "make_process_master", INSIDE),
    (["dask"], "test_families", "make_process_master", THREADS),
    (["dask", "ray"], "test_families", "test_children_are_charged_to_the_client_of_their_parent", SHARED),
    (["processpool", "loky", "dask"], "test_cancelling", "make_process_master", STOPPED),
    (["processpool", "loky", "dask"], "test_timeouts", "make_process_master", STOPPED),
    (["processpool", "loky", "dask", "ray"], "test_losing_slaves", "make_process_master", BROKEN),
    (["processpool", "loky", "dask", "ray"], "test_status", "make_process_master", NAMES),
    (["processpool", "loky", "dask"], "test_retries", "make_process_master", STOPPED),
    (["loky"], "test_options", "test_any_time_to_come_is_a_timeout", STOPPED),
    (["ray"], "test_timeouts", "test_a_job_is_stopped_in_time_whatever_it_does", NAMES),
    (["dask"], "test_losing_slaves", "test_a_job_that_may_run_once_has_a_result_where_nothing_happens", ONCE),
    (["dask"], "test_executor", "test_memory_stays_flat", SLOW),
    (["dask"], "test_exceptions", "test_sys_exit_is_an_outcome_with_its_code", CODE),
]


def cannot(kind: str, item: pytest.Item) -> str:
    """Return why an engine cannot do what a test asks for, or nothing."""
    for kinds, module, what, reason in CANNOT:
        marks = {"", getattr(item, "originalname", ""), *getattr(item, "fixturenames", ())}
        named = item.path.stem == module and what in marks
        if kind in kinds and named:
            return reason
    return ""
