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
        ray.init("local", num_cpus=4, include_dashboard=False, logging_level="ERROR")
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


STOPPED = "what runs in this executor is not stopped, which test_refusals shows; what never ends keeps its place"
HANDED = "the time that a job may take counts from when it is handed over, and a process that is to run it starts then"
KILLED = "Dask counts the deaths of workers itself, and tells the master of the last one only"
TOLD = "how a worker of Ray died, and what it said last, is in Ray's logs; tests/engines tests what is told"
SWEPT = "Ray ends what a worker has started, but not what went to a session of its own"
ASKED = "Ray turns SIGTERM into a SystemExit of the job, which is its outcome"
BROKEN = "an executor of processes that loses one is broken for good, which test_refusals shows"
PRINTS = "what jobs print stays with the engine; to ask for it is refused, which test_refusals shows"
INSIDE = "in a process of an executor, the children of a job run in that process, while it waits for them"
NAMES = "how many slaves there are, and what they are called, is the engine's affair"
VALUES = "engines hold no shared values: these travel with each job, as they are then"
ONCE = "Dask starts a job again whose worker died, so a job that may run at most once is refused"
CODE = "Dask has exceptions pickled by tblib, which loses the code of a SystemExit"
SHARED = "an engine has places of its own for the children of jobs, and lends none of those that its master has"
SPOILED = "a job that closes, or writes to, what its worker has open harms an engine in the engine's own ways"
THREADS = "Dask runs jobs in threads: one that ends its process takes others along"
SLOW = "15,000 jobs take Dask minutes"

#: Those that stop nothing that runs.
STOP_NOTHING = ["processpool", "loky", "dask"]
POOLS = ["processpool", "loky"]
PROCESSES = [*STOP_NOTHING, "ray"]

#: What needs that a job is stopped that runs, by module.
STOPS = {
    "test_timeouts": [
        "test_a_job_is_stopped_in_time_whatever_it_does",
        "test_a_slave_that_was_stopped_is_replaced",
        "test_others_are_not_harmed",
        "test_many_jobs_run_late_one_after_the_other",
        "test_a_timeout_is_no_exception_that_leads_to_another_try",
        "test_what_the_job_started_goes_with_it",
        "test_the_timeout_of_a_class_holds_for_its_jobs",
        "test_in_execute_the_others_are_yielded_all_the_same",
    ],
    "test_cancelling": [
        "test_a_job_that_runs_is_stopped_and_never_popped",
        "test_a_job_that_was_stopped_may_be_added_again",
        "test_stopping_a_job_harms_no_other",
        "test_a_job_that_may_run_once_can_be_stopped",
        "test_stopping_the_last_job_wakes_who_waits_for_it",
        "test_stopping_a_job_makes_room_for_those_that_a_bound_held_back",
        "test_a_job_is_stopped_or_popped_but_never_both_and_never_goes_on",
    ],
    "test_retries": ["test_a_late_failure_does_not_bring_a_cancelled_job_back"],
    "test_families": [
        "test_a_parent_that_is_cancelled_takes_its_children_along",
        "test_a_parent_whose_time_is_up_takes_its_children_along",
        "test_a_closed_master_does_not_wait_for_families",
    ],
}

#: What counts deaths of slaves, or has their story, in test_losing_slaves.
AT_MOST_ONCE = [
    "test_a_job_that_may_run_once_is_started_once",
    "test_a_job_that_may_run_once_tells_of_its_death",
    "test_a_job_that_may_run_once_has_a_result_where_nothing_happens",
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

#: What needs that children run while their parent does something else, in test_families.
BESIDE = [
    "test_what_is_left_of_a_family_goes_when_the_parent_ends",
    "test_a_job_that_is_tried_again_adds_its_children_anew",
    "test_children_are_charged_to_the_client_of_their_parent",
]

#: What tells shared values that are held by slaves from such as travel with each job, in test_sharing.
HELD = [
    "test_two_handles_of_one_value_are_one_value_where_it_arrives",
    "test_a_view_of_memory_keeps_its_form",
    "test_arrays_arrive_as_views_that_cannot_be_changed",
    "test_what_is_changed_after_the_first_job_was_added_does_not_travel",
    "test_what_cannot_be_pickled_is_the_outcome_of_each_job_with_it",
    "test_a_value_is_held_once_a_machine_and_let_go_of_with_its_handle",
]

#: What engines cannot do: of a module, tests by their names, or all with a fixture.
CANNOT = [
    (KINDS, "test_echo", "make_process_master", PRINTS),
    *[(STOP_NOTHING, module, name, STOPPED) for module, names in STOPS.items() for name in names],
    # All of these, in that module, end or kill a slave.
    (POOLS, "test_losing_slaves", "make_process_master", BROKEN),
    *[(["dask"], "test_losing_slaves", name, ONCE) for name in AT_MOST_ONCE],
    *[(["dask"], "test_losing_slaves", name, KILLED) for name in COUNTED],
    (["dask", "ray"], "test_losing_slaves", "test_a_flood_of_quick_jobs_costs_no_slave", NAMES),
    (["dask", "ray"], "test_losing_slaves", "test_a_job_that_spoils_the_connection_of_its_slave_is_charged", SPOILED),
    *[(["ray"], "test_losing_slaves", name, TOLD) for name in LAST_WORDS],
    (["ray"], "test_losing_slaves", "test_a_job_that_ends_its_slave_is_tried_three_times[ray-terminate]", ASKED),
    (["ray"], "test_losing_slaves", "test_a_job_that_may_run_once_is_started_once[ray-terminate]", ASKED),
    (["ray"], "test_losing_slaves", "test_what_a_dead_slave_had_started_is_swept_up[ray-session]", SWEPT),
    (POOLS, "test_sharing", "test_a_slave_that_takes_the_place_of_a_dead_one_has_the_value_too", BROKEN),
    *[(PROCESSES, "test_sharing", name, VALUES) for name in HELD],
    *[(POOLS, "test_families", name, INSIDE) for name in BESIDE],
    (POOLS, "test_families", "test_a_child_that_ends_its_slave_harms_itself_only", BROKEN),
    (POOLS, "test_families", "test_a_parent_that_dies_takes_its_children_along_and_adds_them_anew", BROKEN),
    (["dask"], "test_families", "test_a_child_that_ends_its_slave_harms_itself_only", KILLED),
    (["dask"], "test_families", "test_a_parent_that_dies_takes_its_children_along_and_adds_them_anew", THREADS),
    (["dask", "ray"], "test_families", "test_children_are_charged_to_the_client_of_their_parent", SHARED),
    (PROCESSES, "test_status", "test_slaves_that_are_processes_have_a_host_and_a_pid", NAMES),
    (POOLS, "test_status", "test_deaths_and_retries_are_counted", BROKEN),
    (["dask"], "test_status", "test_deaths_and_retries_are_counted", KILLED),
    (["loky"], "test_options", "test_any_time_to_come_is_a_timeout[loky-0.5]", HANDED),
    (["loky"], "test_options", "test_any_time_to_come_is_a_timeout[loky-1]", HANDED),
    (["ray"], "test_timeouts", "test_a_job_is_stopped_in_time_whatever_it_does", HANDED),
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
