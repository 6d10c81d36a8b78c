"""Options that make no sense are refused when the job is added, in words that name the job; nothing is added then."""

from __future__ import annotations

import math

import pytest

import papyros
from tests.contract.jobs_for_tests import Square, fail_until
from tests.support import PATIENCE

INF, NAN = math.inf, math.nan

BAD_TYPES = {
    "priority": ["high", 1.5, None, True, False, [1]],
    "timeout": ["soon", b"1", True, False, [1], 1j],
    "retries": ["3", 1.0, 0.0, None, True, False, (1,)],
    "backoff": ["1", None, True, False, [0.1], 1j],
    "retryable": [ValueError, [ValueError], "ValueError", (1,), ("ValueError",), (int,), (ValueError(),), None],
    "at_most_once": ["no", "yes", 1, 0, None, [True]],
}
BAD_VALUES = {
    "timeout": [0, 0.0, -1, -0.001, NAN, -INF],
    "retries": [-1, -(10**9)],
    "backoff": [-1, -0.001, NAN, INF, -INF],
}
#: Beyond what a float can hold; the second one not even as text.
HUGE = [10**400, 10**5000]


def cases(table):
    return [pytest.param(name, value, id=f"{name}={value!r}") for name, values in table.items() for value in values]


def assert_refused(master, error, **options):
    job = Square(12345)
    for name, value in options.items():
        setattr(job, name, value)
    with pytest.raises(error, match=r"Square\(12345\)"):
        master.addJob(job)
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob(0) is None
    for name in options:
        delattr(job, name)
    master.addJob(job)  # it is nobody's
    assert master.popProcessedJob(PATIENCE) is job


@pytest.mark.parametrize(("name", "value"), cases(BAD_TYPES))
def test_an_option_of_the_wrong_type_is_refused_and_nothing_added(name, value):
    assert_refused(papyros.SingleThreadedMaster(), TypeError, **{name: value})


@pytest.mark.parametrize(("name", "value"), cases(BAD_TYPES))
def test_the_decorator_refuses_an_option_of_the_wrong_type_at_once(name, value):
    with pytest.raises(TypeError, match=f"the {name} of @papyros.job is"):
        papyros.job(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(BAD_VALUES))
def test_the_decorator_refuses_an_option_out_of_bounds_at_once(name, value):
    with pytest.raises(ValueError, match=f"the {name} of @papyros.job"):
        papyros.job(**{name: value})


def test_the_decorator_refuses_options_that_contradict_each_other():
    with pytest.raises(ValueError, match=r"@papyros.job has 3 retries, but is to run at most once"):
        papyros.job(retries=3, at_most_once=True)


@pytest.mark.parametrize(("name", "value"), cases(BAD_VALUES))
def test_an_option_out_of_bounds_is_refused_and_nothing_added(name, value):
    assert_refused(papyros.SingleThreadedMaster(), ValueError, **{name: value})


@pytest.mark.parametrize("name", ["priority", "timeout", "retries", "backoff"])
@pytest.mark.parametrize("value", HUGE, ids=["no float", "no text"])
def test_a_number_that_nobody_can_compute_with_is_refused_and_nothing_added(name, value):
    assert_refused(papyros.SingleThreadedMaster(), ValueError, **{name: value})


def test_numbers_may_be_as_large_as_floats(make_master):
    master = make_master()
    jobs = [Square(number) for number in range(4)]
    jobs[0].priority, jobs[1].priority, jobs[2].retries, jobs[3].backoff = 10**250, -(10**250), 10**250, 10**250
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)


def test_every_master_refuses_the_same(make_master):
    master = make_master()
    assert_refused(master, ValueError, timeout=10**400)
    assert_refused(master, ValueError, timeout=-1)
    assert_refused(master, ValueError, retries=-1)
    assert_refused(master, ValueError, at_most_once=True, retries=1)
    assert_refused(master, TypeError, backoff="1")
    assert_refused(master, TypeError, retryable=ValueError)


def test_what_may_run_once_cannot_be_retried():
    assert_refused(papyros.SingleThreadedMaster(), ValueError, at_most_once=True, retries=2)


def test_options_of_a_class_are_checked_as_well():
    class Odd(papyros.Job):
        timeout = -5

        def __call__(self):
            return 1

    master = papyros.SingleThreadedMaster()
    with pytest.raises(ValueError, match=r"Odd\(\) is -5"):
        master.addJob(Odd())
    assert master.numPendingJobs() == 0


def test_execute_refuses_them_too(make_master):
    job = Square(12345)
    job.retries = -1
    with pytest.raises(ValueError, match=r"Square\(12345\)"):
        list(make_master().execute([job]))


def test_a_refused_job_does_not_hold_up_those_before_and_after(make_master):
    master = make_master()
    bad = Square(3)
    bad.timeout = 0
    master.addJob(Square(2))
    with pytest.raises(ValueError, match=r"Square\(3\)"):
        master.addJob(bad)
    master.addJob(Square(4))
    assert sorted(job.result for job in master.processedJobs(PATIENCE)) == [4, 16]


@pytest.mark.parametrize("timeout", [1, 0.5, 3600, 1e7, 1e12, 1e300, INF])
def test_any_time_to_come_is_a_timeout(make_master, timeout):
    """Also one that is further away than the operating system can be asked to wait."""
    master = make_master()
    jobs = [Square(number) for number in range(4)]
    for job in jobs:
        job.timeout = timeout
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert [job.result for job in jobs] == [0, 1, 4, 9]


def test_any_number_of_retries_may_be_had(make_thread_master, tmp_path):
    """Without a delay, for ever and ever is a number of retries."""
    master = make_thread_master()
    tries = []

    @papyros.job(retries=10**9, backoff=0.0)
    def fail_often():
        tries.append(1)
        if len(tries) < 1500:
            raise ValueError
        return len(tries)

    job = fail_often()
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == 1500


def test_a_whole_number_of_seconds_is_a_number_of_seconds(make_master, tmp_path):
    master = make_master()
    job = fail_until(str(tmp_path), "job", 2)
    job.retries, job.backoff, job.timeout = 1, 0, 60
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE).result == 2
