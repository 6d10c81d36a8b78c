"""joblib on masters, and the libraries that are built on it."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time

import pytest

import papyros
from tests.executor.functions import fail_at
from tests.support import PATIENCE, Background, wait_until

joblib = pytest.importorskip("joblib")


def square(number):
    return number * number


def whereabouts(number):
    time.sleep(0.001)
    return os.getpid(), threading.current_thread().name


def squares_up_to(number):
    return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(square)(each) for each in range(number)))


@pytest.fixture
def backend(make_master):
    import papyros.joblib  # noqa: F401 - registers the backend

    master = make_master()
    with joblib.parallel_config(backend="papyros", master=master):
        yield master
    wait_until(lambda: master.numPendingJobs() == 0, "what ran when a task failed has ended")


def test_tasks_run_on_the_master(backend):
    assert joblib.Parallel()(joblib.delayed(square)(each) for each in range(300)) == [each**2 for each in range(300)]


@pytest.mark.parametrize("n_jobs", [-2, 5])
def test_tasks_run_in_slaves_even_if_there_is_only_one(make_concurrent_master, n_jobs):
    import papyros.joblib  # noqa: F401 - registers the backend

    here = whereabouts(0)
    master = make_concurrent_master(1)
    with joblib.parallel_config(backend="papyros", master=master):
        found = set(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(whereabouts)(each) for each in range(9)))
        assert here not in found
        assert joblib.Parallel(n_jobs=1)([joblib.delayed(whereabouts)(0)]) == [here]


def test_slaves_of_a_cluster_that_are_not_there_yet_are_waited_for():
    import papyros.joblib

    with papyros.LocalCluster(3) as cluster, cluster.master() as master:
        with joblib.parallel_config(backend="papyros", master=master):
            assert joblib.effective_n_jobs(-1) == 3
            found = set(joblib.Parallel()(joblib.delayed(whereabouts)(each) for each in range(9)))
        assert os.getpid() not in {pid for pid, _ in found}


@pytest.mark.parametrize(("n_jobs", "count"), [(-1, 6), (-2, 5), (-5, 2), (-9, 2), (2, 2), (9, 6), (1, 1)])
def test_n_jobs_counts_as_joblib_does(n_jobs, count):
    import papyros.joblib

    with papyros.MultiThreadedMaster(6) as master, joblib.parallel_config(backend="papyros", master=master):
        assert joblib.effective_n_jobs(n_jobs) == count
        with pytest.raises(ValueError, match="no meaning"):
            joblib.effective_n_jobs(0)


@pytest.mark.parametrize(("n_jobs", "ahead"), [(2, "2 * n_jobs"), (3, "all")])
def test_no_more_tasks_run_at_a_time_than_n_jobs_says(n_jobs, ahead):
    """Who has memory for two only says so, and joblib comes with more ahead."""
    import papyros.joblib

    lock, running, most = threading.Lock(), 0, 0

    def run(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return number

    with papyros.MultiThreadedMaster(6) as master, joblib.parallel_config(backend="papyros", master=master):
        # A new one each time: after a failure, one of joblib's may still have what it was to hand over.
        options = {"n_jobs": n_jobs, "pre_dispatch": ahead, "batch_size": 1}
        assert joblib.Parallel(**options)(joblib.delayed(run)(each) for each in range(40)) == list(range(40))
        assert most == n_jobs
        with pytest.raises(ValueError, match="no luck with 5"):
            joblib.Parallel(**options)(joblib.delayed(fail_at)(5, each) for each in range(50))
        assert joblib.Parallel(**options)(joblib.delayed(square)(each) for each in range(3)) == [0, 1, 4]


@pytest.mark.parametrize("ahead", ["2 * n_jobs", "all"])
def test_who_waits_is_told_when_the_master_is_closed_meanwhile(ahead):
    import papyros.joblib

    master = papyros.MultiThreadedMaster(4)

    def program():
        with joblib.parallel_config(backend="papyros", master=master):
            parallel = joblib.Parallel(n_jobs=2, pre_dispatch=ahead, batch_size=1)
            return parallel(joblib.delayed(close_at)(master, 5, each) for each in range(50))

    running = Background(program)
    with pytest.raises(papyros.MasterClosedError):
        running.result()


def close_at(master, number, each):
    if each >= number:  # else another one may do all that is left meanwhile
        threading.Thread(target=master.close).start()  # it waits for jobs that run
        wait_until(lambda: master._closed)


@pytest.mark.parametrize("end", ["abort_everything", "terminate"])
def test_what_waits_for_a_place_is_cancelled_at_the_end(end):
    from papyros.joblib import PapyrosBackend

    gate = threading.Event()
    with papyros.MultiThreadedMaster(4) as master:
        backend = PapyrosBackend(master)
        backend.configure(2)
        begun, told = [], []
        futures = [backend.submit(lambda: begun.append(True) or gate.wait(PATIENCE), told.append) for _ in range(6)]
        wait_until(lambda: len(begun) == 2 and len(backend._line) == 4)  # those that run are not cancelled
        getattr(backend, end)()
        assert concurrent.futures.wait(futures[2:], PATIENCE).done == set(futures[2:])
        assert [future.cancelled() for future in futures[2:]] == [True] * 4
        assert told == futures[2:]
        gate.set()


def test_results_can_be_had_as_they_come(backend):
    found = joblib.Parallel(return_as="generator")(joblib.delayed(square)(each) for each in range(50))
    assert list(found) == [each**2 for each in range(50)]


def test_a_task_that_fails_ends_all(backend):
    with pytest.raises(ValueError, match="no luck with 5"):
        joblib.Parallel()(joblib.delayed(fail_at)(5, each) for each in range(50))
    assert joblib.Parallel()(joblib.delayed(square)(each) for each in range(3)) == [0, 1, 4]


def test_tasks_may_have_tasks(backend):
    assert joblib.Parallel()(joblib.delayed(squares_up_to)(each) for each in range(5)) == [0, 0, 1, 5, 14]


def test_a_job_that_runs_in_the_call_that_pops_it_has_its_tasks_there():
    import papyros.joblib

    def parent():
        with joblib.parallel_config(backend="papyros", master=papyros.current_master()):
            assert joblib.effective_n_jobs(4) == 1
            return joblib.Parallel(n_jobs=4)(joblib.delayed(whereabouts)(each) for each in range(5))

    with papyros.SingleThreadedMaster() as master, master.executor() as executor:
        assert executor.submit(parent).result(0) == [whereabouts(0)] * 5


def test_a_master_can_be_named(monkeypatch):
    import papyros.joblib

    monkeypatch.setenv("PAPYROS_MASTER", "threads:2")
    for options in ({}, {"master": "threads:3"}, {"master": "serial"}):
        with joblib.parallel_config(backend="papyros", **options):
            assert joblib.Parallel(n_jobs=2)(joblib.delayed(square)(each) for each in range(9))[8] == 64
    with joblib.parallel_config(backend="papyros", master="nowhere"), pytest.raises(papyros.ConfigError):
        joblib.Parallel(n_jobs=2)([joblib.delayed(square)(1)])


def test_a_grid_search_of_scikit_learn(backend):
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "kernel": ["linear", "rbf"]}, n_jobs=-1)
    search.fit(*datasets.load_iris(return_X_y=True))
    assert search.best_params_ == {"C": 1, "kernel": "linear"}


def test_an_optimization_of_scipy(make_master):
    optimize = pytest.importorskip("scipy.optimize")
    with make_master().executor() as executor:
        found = optimize.differential_evolution(
            optimize.rosen, [(-2, 2)] * 2, seed=1, workers=executor.map, updating="deferred", maxiter=30
        )
    assert found.x == pytest.approx([1, 1], abs=1e-3)
