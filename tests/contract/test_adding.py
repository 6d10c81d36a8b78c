"""What can be added, and what is refused; a refusal adds nothing."""

from __future__ import annotations

import queue

import pytest

import papyros
from tests.contract.jobs_for_tests import ForgetsSuper, Square, double, wait_at
from tests.support import PATIENCE, Background, at_most

BAD_TIMEOUTS = [
    (-1, ValueError),
    (float("nan"), ValueError),
    ("1", TypeError),
    (True, TypeError),
    ([], TypeError),
]


class Abstract(papyros.Job):
    """Overrides nothing."""


def plain_function():
    return 1


class Unhashable(type):
    """Of its classes, no table can be made."""

    def __eq__(cls, other):
        return cls is other

    __hash__ = None


@pytest.mark.parametrize(
    "candidate",
    [5, None, "job", plain_function, Square, double, papyros.Job, object(), 10**5000, Unhashable("Odd", (), {})()],
    ids=["int", "none", "str", "function", "class", "function job", "Job", "object", "huge int", "unhashable"],
)
def test_what_is_no_job_is_refused(make_master, candidate):
    master = make_master()
    with pytest.raises(papyros.NotAJobError) as caught:
        master.addJob(candidate)
    assert isinstance(caught.value, TypeError)
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob(0) is None


def test_the_refusal_says_what_was_probably_meant(make_master):
    master = make_master()
    with pytest.raises(papyros.NotAJobError, match=r"did you mean Square\(\.\.\.\)"):
        master.addJob(Square)
    with pytest.raises(papyros.NotAJobError, match=r"@papyros\.job"):
        master.addJob(plain_function)


@pytest.mark.parametrize("make", [papyros.Job, Abstract], ids=["Job", "subclass"])
def test_an_abstract_job_is_refused(make_master, make):
    master = make_master()
    with pytest.raises(papyros.NotAJobError, match="does not override __call__"):
        master.addJob(make(1))
    assert master.numPendingJobs() == 0


def test_a_job_whose_init_forgets_super_is_refused(make_master):
    master = make_master()
    with pytest.raises(papyros.NotAJobError, match=r"ForgetsSuper.*__init__"):
        master.addJob(ForgetsSuper(1))
    assert master.numPendingJobs() == 0


@pytest.mark.parametrize("priority", ["high", 1.5, None])
def test_a_priority_that_is_no_whole_number_is_refused(make_master, priority):
    master = make_master()
    job = Square(1)
    job.priority = priority
    with pytest.raises(TypeError, match="priority"):
        master.addJob(job)
    assert master.numPendingJobs() == 0
    job.priority = 0
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job


def test_a_pending_job_is_not_added_twice(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    job = Square(5)
    master.addJob(job)
    pending = master.numPendingJobs()
    with pytest.raises(papyros.PendingJobError, match="pending already"):
        master.addJob(job)
    assert master.numPendingJobs() == pending
    make_concurrent_master.gates.open_all()
    assert master.processedJobs(PATIENCE).count(job) == 1


def test_a_job_that_is_processed_but_not_popped_is_pending_still(make_master):
    master = make_master()
    first, second = Square(1), Square(2)
    master.addJob(first)
    master.addJob(second)
    assert master.popProcessedJob(PATIENCE) in (first, second)
    left = next(job for job in (first, second) if not _is_processed(job))
    with pytest.raises(papyros.PendingJobError):
        master.addJob(left)


def _is_processed(job):
    try:
        job.result
    except papyros.UnprocessedJobError:
        return False
    return True


def test_a_job_that_is_pending_in_one_master_is_refused_by_another(make_concurrent_master):
    first, second = make_concurrent_master(), make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_at(gate.path, "done")
    first.addJob(job)
    with pytest.raises(papyros.PendingJobError):
        second.addJob(job)
    assert second.numPendingJobs() == 0
    with pytest.raises(papyros.PendingJobError):
        list(second.execute([job]))
    assert second.popProcessedJob(0) is None
    gate.open()
    assert first.popProcessedJob(PATIENCE) is job
    assert job.result == "done"


def test_a_closed_master_takes_no_jobs(make_master):
    master = make_master()
    master.close()
    job = Square(1)
    with pytest.raises(papyros.MasterClosedError):
        master.addJob(job)
    with pytest.raises(papyros.MasterClosedError):
        list(master.execute([job]))
    assert master.numPendingJobs() == 0
    other = make_master()
    other.addJob(job)  # the refusal left no mark on the job
    assert other.popProcessedJob(PATIENCE) is job


def test_a_job_that_is_refused_keeps_the_result_it_has(make_master):
    master = make_master()
    job = Square(6)
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    master.close()
    with pytest.raises(papyros.MasterClosedError):
        master.addJob(job)
    assert job.result == 36


@pytest.mark.parametrize(("timeout", "error"), BAD_TIMEOUTS)
def test_a_bad_timeout_is_refused_and_nothing_added(make_master, timeout, error):
    master = make_master()
    job = Square(1)
    with pytest.raises(error, match="timeout"):
        master.addJob(job, timeout=timeout)
    assert master.numPendingJobs() == 0
    master.addJob(job, timeout=float("inf"))
    assert master.popProcessedJob(PATIENCE) is job


def test_adding_does_not_wait_for_the_jobs(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    with at_most(PATIENCE / 3):
        for number in range(500):
            master.addJob(Square(number))
    assert master.numPendingJobs() == 500 + make_concurrent_master.slaves


def fill(master):
    """Add jobs until there is no room, not even for jobs that were about to be handed out; return how many."""
    for added in range(100):
        try:
            master.addJob(Square(added), timeout=0.2)
        except queue.Full:
            return added
    raise AssertionError("there is always room")


def test_a_full_queue_refuses_at_once(make_concurrent_master):
    master = make_concurrent_master(max_waiting=3)
    make_concurrent_master.busy(master)
    assert fill(master) == 3
    pending = master.numPendingJobs()
    assert pending == 3 + make_concurrent_master.slaves
    job = Square(1)
    with at_most(PATIENCE / 3), pytest.raises(queue.Full, match=r"^3 jobs wait, and there is no room for more; Square"):
        master.addJob(job, timeout=0)
    assert master.numPendingJobs() == pending
    make_concurrent_master.gates.open_all()
    assert job not in master.processedJobs(PATIENCE)
    master.addJob(job, timeout=0)
    assert master.popProcessedJob(PATIENCE) is job


def test_a_full_queue_refuses_when_the_time_is_up(make_concurrent_master):
    master = make_concurrent_master(max_waiting=1)
    make_concurrent_master.busy(master)
    fill(master)
    with at_most(PATIENCE / 3), pytest.raises(queue.Full):
        master.addJob(Square(1), timeout=0.05)


def test_a_job_that_finds_no_room_keeps_the_result_it_has(make_concurrent_master):
    master = make_concurrent_master(max_waiting=1)
    job = Square(6)
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    make_concurrent_master.busy(master)
    fill(master)
    with pytest.raises(queue.Full):
        master.addJob(job, timeout=0)
    assert job.result == 36


def test_room_wakes_an_adder_that_waits(make_concurrent_master):
    master = make_concurrent_master(max_waiting=1)
    gate = make_concurrent_master.busy(master)
    fill(master)
    late = Square(99)
    adder = Background(master.addJob, late)
    gate.open()
    adder.result()
    assert late in master.processedJobs(PATIENCE)


def test_cancelling_wakes_an_adder_that_waits(make_concurrent_master):
    master = make_concurrent_master(max_waiting=1)
    make_concurrent_master.busy(master)
    fill(master)
    late = Square(99)
    adder = Background(master.addJob, late)
    master.cancelAllJobs()
    adder.result()
    make_concurrent_master.gates.open_all()
    assert late in master.processedJobs(PATIENCE)


def test_closing_wakes_an_adder_that_waits(make_concurrent_master, monkeypatch):
    monkeypatch.setattr("papyros.multithreaded.CLOSE_SECONDS", 0.2)
    master = make_concurrent_master(max_waiting=1)
    make_concurrent_master.busy(master)
    fill(master)
    adder = Background(master.addJob, Square(99))
    master.close()
    with pytest.raises(papyros.MasterClosedError):
        adder.result()


def test_where_jobs_run_in_pop_calls_a_full_queue_makes_room_by_running_one(make_master):
    master = make_master(max_waiting=1)
    jobs = [Square(number) for number in range(10)]
    for job in jobs:
        master.addJob(job, timeout=PATIENCE)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)


@pytest.mark.parametrize("option", ["max_waiting", "max_processed"])
@pytest.mark.parametrize(
    ("bound", "error"),
    [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("1", TypeError), (True, TypeError)],
)
def test_a_bad_bound_is_refused(make_master, option, bound, error):
    with pytest.raises(error, match=option):
        make_master(**{option: bound})


@pytest.mark.parametrize("name", ["MultiThreadedMaster", "MultiProcessMaster"])
@pytest.mark.parametrize(
    ("slaves", "error"),
    [(0, ValueError), (-2, ValueError), (1.0, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_a_bad_number_of_slaves_is_refused(name, slaves, error):
    with pytest.raises(error, match="slave"):
        getattr(papyros, name)(slaves)
