"""joblib on masters, and the libraries that are built on it."""

from __future__ import annotations

import pytest

from tests.executor.functions import fail_at

joblib = pytest.importorskip("joblib")


def square(number):
    return number * number


def squares_up_to(number):
    return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(square)(each) for each in range(number)))


@pytest.fixture
def backend(make_master):
    import papyros.joblib  # noqa: F401 - registers the backend

    master = make_master()
    with joblib.parallel_config(backend="papyros", master=master):
        yield master
    assert master.numPendingJobs() == 0


def test_tasks_run_on_the_master(backend):
    assert joblib.Parallel()(joblib.delayed(square)(each) for each in range(300)) == [each**2 for each in range(300)]


def test_results_can_be_had_as_they_come(backend):
    found = joblib.Parallel(return_as="generator")(joblib.delayed(square)(each) for each in range(50))
    assert list(found) == [each**2 for each in range(50)]


def test_a_task_that_fails_ends_all(backend):
    with pytest.raises(ValueError, match="no luck with 5"):
        joblib.Parallel()(joblib.delayed(fail_at)(5, each) for each in range(50))
    assert joblib.Parallel()(joblib.delayed(square)(each) for each in range(3)) == [0, 1, 4]


def test_tasks_may_have_tasks(backend):
    assert joblib.Parallel()(joblib.delayed(squares_up_to)(each) for each in range(5)) == [0, 0, 1, 5, 14]


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
