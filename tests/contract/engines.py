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
    # A LocalCluster that has lost a worker closes it for good after this time, although that was replaced meanwhile.
    pytest.importorskip("dask").config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    cluster = distributed.LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None)
    return distributed.Client(cluster)


STOPPED = "what runs in this executor is not stopped, so a job that would not end by itself keeps its place for good"
HANDED = "the time that a job may take counts from when it is handed over, and a process that is to run it starts then"
KILLED = "Dask counts the deaths of workers itself, and tells the master of the last one only"
TOLD = "how a worker of Ray died, and what it said last, is in Ray's logs; tests/engines tests what is told"
SWEPT = "Ray ends what a worker has started, but not what went to a session of its own"
ASKED = "Ray turns SIGTERM into a SystemExit of the job, which is its outcome"
BROKEN = "an executor of processes that loses one is broken for good: see tests/executor/test_executor_master.py"
PRINTS = "what jobs print stays with the engine"
INSIDE = "in a process of an executor, the children of a job run in that process, while it waits for them"
NAMES = "whose slaves they are is told by the engine"

ONCE = "Dask starts a job again whose worker died, so a job that may run at most once is refused"
CODE = "Dask has exceptions pickled by tblib, which loses the code of a SystemExit"

SHARED = "an engine has places of its own for the children of jobs, and lends none of those that its master has"
THREADS = "Dask runs jobs in threads: one that runs is not stopped, and one that ends its process takes others along"

SLOW = "15,000 jobs take Dask minutes"

#: Of test_timeouts: jobs that would not end by themselves.
NEVER_ENDING = [
    "test_a_job_is_stopped_in_time_whatever_it_does",
    "test_a_slave_that_was_stopped_is_replaced",
    "test_others_are_not_harmed",
    "test_many_jobs_run_late_one_after_the_other",
    "test_a_timeout_is_no_exception_that_leads_to_another_try",
    "test_what_the_job_started_goes_with_it",
    "test_the_timeout_of_a_class_holds_for_its_jobs",
    "test_in_execute_the_others_are_yielded_all_the_same",
]

# Of test_losing_slaves.
AT_MOST_ONCE = [
    "test_a_job_that_may_run_once_is_started_once",
    "test_a_job_that_may_run_once_tells_of_its_death",
    "test_of_many_jobs_that_may_run_once_none_runs_twice_when_slaves_are_killed",
    "test_only_the_last_lines_of_a_talkative_slave_are_told",
    "test_the_last_lines_are_told_to_a_client_that_sees_what_is_printed",
    "test_what_a_dead_slave_had_started_is_swept_up",
]
COUNTED = [
    "test_a_job_that_ends_its_slave_is_tried_three_times",
    "test_a_job_that_ends_its_slave_tells_of_each_death",
    "test_a_slave_that_somebody_else_kills_costs_its_job_one_try_of_three",
]
LAST_WORDS = [
    "test_a_job_that_ends_its_slave_tells_of_each_death",
    "test_a_job_that_may_run_once_tells_of_its_death",
    "test_only_the_last_lines_of_a_talkative_slave_are_told",
    "test_the_last_lines_are_told_to_a_client_that_sees_what_is_printed",
]

#: What engines cannot do: of a module, all tests, or those with a fixture or a name.
CANNOT = [
    (KINDS, "test_echo", "", PRINTS),
    (["processpool", "loky"], "test_families", "make_concurrent_master", INSIDE),
    (["processpool", "loky"], "test_families", "make_process_master", INSIDE),
    (["dask"], "test_families", "make_process_master", THREADS),
    (["dask", "ray"], "test_families", "test_children_are_charged_to_the_client_of_their_parent", SHARED),
    (["processpool", "loky", "dask"], "test_cancelling", "make_process_master", STOPPED),
    *[(["processpool", "loky", "dask"], "test_timeouts", name, STOPPED) for name in NEVER_ENDING],
    (["processpool", "loky"], "test_losing_slaves", "make_process_master", BROKEN),
    *[(["dask"], "test_losing_slaves", name, ONCE) for name in AT_MOST_ONCE],
    *[(["dask"], "test_losing_slaves", name, KILLED) for name in COUNTED],
    *[(["ray"], "test_losing_slaves", name, TOLD) for name in LAST_WORDS],
    (["ray"], "test_losing_slaves", "test_a_job_that_ends_its_slave_is_tried_three_times[ray-terminate]", ASKED),
    (["ray"], "test_losing_slaves", "test_a_job_that_may_run_once_is_started_once[ray-terminate]", ASKED),
    (["ray"], "test_losing_slaves", "test_what_a_dead_slave_had_started_is_swept_up[ray-session]", SWEPT),
    (["processpool", "loky", "dask", "ray"], "test_status", "make_process_master", NAMES),
    (["processpool", "loky", "dask"], "test_retries", "make_process_master", STOPPED),
    (["loky"], "test_options", "test_any_time_to_come_is_a_timeout", STOPPED),
    (["ray"], "test_timeouts", "test_a_job_is_stopped_in_time_whatever_it_does", NAMES),
    (["dask"], "test_losing_slaves", "test_a_job_that_may_run_once_has_a_result_where_nothing_happens", ONCE),
    (["dask"], "test_ending", "test_memory_stays_flat", SLOW),
    (["dask"], "test_exceptions", "test_sys_exit_is_an_outcome_with_its_code", CODE),
]


def cannot(kind: str, item: pytest.Item) -> str:
    """Return why an engine cannot do what a test asks for, or nothing."""
    for kinds, module, what, reason in CANNOT:
        marks = {"", item.name, getattr(item, "originalname", ""), *getattr(item, "fixturenames", ())}
        named = item.path.stem == module and what in marks
        if kind in kinds and named:
            return reason
    return ""
