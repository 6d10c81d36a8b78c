"""What masters over engines of other people cannot do: it is refused in words, or told with the job."""

from __future__ import annotations

import pytest

import papyros
from tests.contract import engines
from tests.contract.conftest import ENGINES, MasterFactory
from tests.contract.jobs_for_tests import Square, end_slave, wait_and_note
from tests.support import PATIENCE, processed, wait_until

#: The standard library's always; the others where they are named.
HERE = ENGINES or ["threadpool", "processpool"]
STOP_NOTHING = [kind for kind in HERE if kind in ("threadpool", *engines.STOP_NOTHING)]
BREAKING = [kind for kind in HERE if kind in engines.POOLS]


def none_of(kinds, names):
    """Make a parameter of kinds of masters, which is skipped for a reason where there are none."""
    reason = f"none of {', '.join(names)} is among the engines of this run"
    return kinds or [pytest.param("", marks=pytest.mark.skip(reason=reason))]


@pytest.fixture
def standing():
    """Start what an engine keeps before leaks are counted."""
    for kind in HERE:
        engines.stand(kind)


@pytest.fixture
def make(request, gates):
    factory = MasterFactory(request.param, request, gates)
    yield factory
    factory.close()


over_engines = pytest.mark.parametrize("make", HERE, indirect=True)
where_nothing_is_stopped = pytest.mark.parametrize(
    "make", none_of(STOP_NOTHING, ("threadpool", *engines.STOP_NOTHING)), indirect=True
)
where_one_death_breaks_all = pytest.mark.parametrize("make", none_of(BREAKING, engines.POOLS), indirect=True)


def running(make, master, folder, timeout=None):
    """Add a job that waits at a gate, and wait until it does."""
    gate = make.gates()
    job = wait_and_note(str(folder), "job", gate.path)
    job.timeout = timeout
    master.addJob(job)
    gate.wait_for_arrivals()
    return job, gate


@over_engines
def test_prints_cannot_be_asked_for(make):
    with pytest.raises(ValueError, match=r"an? \w+Master cannot show what jobs print.* Leave echo out"):
        make(echo=True)
    assert processed(make(echo=False), Square(3)).result == 9


@where_nothing_is_stopped
def test_a_job_that_runs_is_not_cancelled_and_goes_on(make, tmp_path):
    master = make()
    job, gate = running(make, master, tmp_path)
    assert master.cancelJob(job) is False
    assert master.numPendingJobs() == 1
    gate.open()
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == "job"


@where_nothing_is_stopped
def test_a_job_whose_time_is_up_is_told_to_go_on_and_what_comes_of_it_is_dropped(make, tmp_path):
    master = make()
    job, gate = running(make, master, tmp_path, 2.0)
    assert master.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.JobTimeout
    assert "ran longer than its timeout of 2 s" in str(job.exception)
    assert "cannot stop it, and it goes on" in str(job.exception)
    gate.open()
    wait_until(lambda: master.status().late == 1, "its outcome to come, too late")
    assert type(job.exception) is papyros.JobTimeout
    assert processed(master, Square(3)).result == 9


@where_one_death_breaks_all
def test_an_executor_that_has_lost_a_process_is_told_of_each_job(make, tmp_path):
    master = make()
    ender = processed(master, end_slave(str(tmp_path), "ender", "kill"))
    assert type(ender.exception) is papyros.SlaveLost
    assert "did not process" in str(ender.exception)
    later = processed(master, Square(3))
    assert type(later.exception) is papyros.SlaveLost
    assert "is broken" in str(later.exception)
