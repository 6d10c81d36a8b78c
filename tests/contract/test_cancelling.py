"""A cancelled job is never popped; one that runs is stopped, where that is possible, and nobody else is harmed."""

from __future__ import annotations

import contextlib

import pytest

import papyros
from tests.contract.jobs_for_tests import Square, hang, leave_mark, starts, wait_and_note, wait_at
from tests.support import PATIENCE, gone, wait_until


def test_where_nothing_is_assigned_yet_every_job_can_be_cancelled():
    master = papyros.SingleThreadedMaster()
    jobs = [Square(number) for number in range(5)]
    for job in jobs:
        master.addJob(job)
    assert all(master.cancelJob(job) for job in jobs[:3])
    assert master.numPendingJobs() == 2
    master.cancelAllJobs()
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob() is None


def test_a_cancelled_job_is_never_popped_and_never_run(make_concurrent_master, tmp_path):
    master = make_concurrent_master()
    gate = make_concurrent_master.busy(master)
    jobs = [leave_mark(str(tmp_path), f"mark-{number}") for number in range(40)]
    for job in jobs:
        master.addJob(job)
    cancelled = [job for job in jobs if master.cancelJob(job)]
    # Some may have been handed out ahead of need, but never many, and never all.
    assert len(cancelled) >= 40 - 2 * make_concurrent_master.slaves
    assert master.numPendingJobs() == make_concurrent_master.slaves + 40 - len(cancelled)
    gate.open()
    processed = set(master.processedJobs(PATIENCE))
    assert processed & set(jobs) == set(jobs) - set(cancelled)
    assert len(list(tmp_path.glob("mark-*"))) == 40 - len(cancelled)
    for job in cancelled:
        with pytest.raises(papyros.UnprocessedJobError):
            job.result


def test_cancelling_twice_is_harmless(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    for number in range(10):
        master.addJob(Square(number))
    last = Square(10)
    master.addJob(last)
    assert master.cancelJob(last) is True
    assert master.cancelJob(last) is False


def test_a_cancelled_job_can_be_added_again(make_concurrent_master):
    first, second = make_concurrent_master(), make_concurrent_master()
    gate = make_concurrent_master.busy(first)
    for number in range(10):
        first.addJob(Square(number))
    job, other = Square(10), Square(11)
    first.addJob(job)
    first.addJob(other)
    assert first.cancelJob(job)
    assert first.cancelJob(other)
    first.addJob(job)
    gate.open()
    second.addJob(other)
    assert job in first.processedJobs(PATIENCE)
    assert second.popProcessedJob(PATIENCE) is other


def test_cancelling_all_jobs_leaves_those_that_run(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.busy(master)
    for number in range(40):
        master.addJob(Square(number))
    master.cancelAllJobs()
    slaves = make_concurrent_master.slaves
    left = master.numPendingJobs()
    assert slaves <= left <= 3 * slaves
    gate.open()
    processed = master.processedJobs(PATIENCE)
    assert len(processed) == left
    assert sum(job.result == "busy" for job in processed) == slaves


def test_what_is_not_pending_here_cannot_be_cancelled(make_master):
    master, other = make_master(), make_master()
    job = Square(3)
    assert master.cancelJob(job) is False
    other.addJob(job)
    assert master.cancelJob(job) is False
    assert other.popProcessedJob(PATIENCE) is job
    assert other.cancelJob(job) is False
    assert job.result == 9
    master.cancelAllJobs()
    assert master.numPendingJobs() == 0


@pytest.mark.parametrize("candidate", [5, None, "job", object()])
def test_what_is_no_job_cannot_be_cancelled(make_master, candidate):
    master = make_master()
    with contextlib.suppress(papyros.NotAJobError):  # to be told so is as good
        assert master.cancelJob(candidate) is False


def test_cancelling_the_last_job_wakes_who_waits_for_it(make_thread_master):
    from tests.support import Background, Gate

    master = make_thread_master(slaves=1)
    gate: Gate | None = None
    if make_thread_master.kind == "singlethreaded":
        return  # there, who pops runs the job, so nobody waits
    gate = make_thread_master.busy(master)
    job = Square(1)
    master.addJob(job)
    poppers = [Background(master.popProcessedJob) for _ in range(2)]
    assert master.cancelJob(job)
    gate.open()
    results = [popper.result() for popper in poppers]
    assert sorted(result is None for result in results) == [False, True]


# Jobs that run. -----------------------------------------------------------------------------


def running(master, job, folder, name):
    """Add the job and wait until it runs; return the process in which it does."""
    known = len(starts(folder, name))
    master.addJob(job)
    return wait_until(lambda: starts(folder, name)[known:], f"{name} to run")[-1][1]


@pytest.mark.parametrize("way", ["sleep", "busy", "deaf", "sum"])
def test_a_job_that_runs_is_stopped_and_never_popped(make_process_master, tmp_path, way):
    master = make_process_master(slaves=1)
    lost = master.status().lost
    job = hang(str(tmp_path), "job", way)
    pid = running(master, job, tmp_path, "job")
    assert master.cancelJob(job) is True
    assert master.cancelJob(job) is False
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob() is None
    wait_until(lambda: gone(pid), "its slave to be gone", 5)
    with pytest.raises(papyros.UnprocessedJobError):
        job.result
    master.addJob(Square(3))
    assert master.popProcessedJob(PATIENCE).result == 9
    assert len(starts(tmp_path, "job")) == 1
    assert master.status().lost == lost, "a slave that was stopped is not one that was lost"


def test_a_job_that_was_stopped_may_be_added_again(make_process_master, tmp_path):
    master = make_process_master()
    gate = make_process_master.gates()
    job = wait_and_note(str(tmp_path), "job", gate.path)
    for _ in range(3):
        running(master, job, tmp_path, "job")
        assert master.cancelJob(job)
    gate.open()
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == "job"
    assert len(starts(tmp_path, "job")) == 4
    assert master.popProcessedJob(0) is None


def test_stopping_a_job_harms_no_other(make_process_master, tmp_path):
    master = make_process_master(slaves=2)
    gate = make_process_master.gates()
    neighbour = wait_and_note(str(tmp_path), "neighbour", gate.path)
    running(master, neighbour, tmp_path, "neighbour")
    for number in range(5):
        job = hang(str(tmp_path), f"job{number}", "busy")
        running(master, job, tmp_path, f"job{number}")
        behind = [Square(number) for number in range(20)]
        for other in behind:
            master.addJob(other)
        assert master.cancelJob(job)
        found = [master.popProcessedJob(PATIENCE) for _ in behind]
        assert set(found) == set(behind)
        assert all(other.result == other.args[0] ** 2 for other in behind)
    gate.open()
    assert master.popProcessedJob(PATIENCE) is neighbour
    assert neighbour.result == "neighbour"
    assert len(starts(tmp_path, "neighbour")) == 1


def test_a_job_that_may_run_once_can_be_stopped(make_process_master, tmp_path):
    master = make_process_master()
    job = hang(str(tmp_path), "job", "sleep")
    job.at_most_once = True
    running(master, job, tmp_path, "job")
    assert master.cancelJob(job) is True
    master.addJob(Square(3))
    assert master.popProcessedJob(PATIENCE).result == 9
    assert master.popProcessedJob(0) is None
    assert len(starts(tmp_path, "job")) == 1


def test_stopping_the_last_job_wakes_who_waits_for_it(make_process_master, tmp_path):
    from tests.support import Background

    master = make_process_master()
    job = hang(str(tmp_path), "job", "sleep")
    running(master, job, tmp_path, "job")
    poppers = [Background(master.popProcessedJob) for _ in range(2)]
    assert master.cancelJob(job)
    assert [popper.result() for popper in poppers] == [None, None]


def test_stopping_a_job_makes_room_for_those_that_a_bound_held_back(make_process_master, tmp_path):
    master = make_process_master(max_processed=1)
    job = hang(str(tmp_path), "job", "sleep")
    running(master, job, tmp_path, "job")
    master.addJob(Square(5))
    assert master.popProcessedJob(0.1) is None
    assert master.cancelJob(job)
    assert master.popProcessedJob(PATIENCE).result == 25


def test_cancelling_all_jobs_stops_none_that_runs(make_process_master, tmp_path):
    master = make_process_master()
    gate = make_process_master.gates()
    job = wait_and_note(str(tmp_path), "job", gate.path)
    running(master, job, tmp_path, "job")
    master.cancelAllJobs()
    assert master.numPendingJobs() == 1
    gate.open()
    assert master.popProcessedJob(PATIENCE) is job
    assert len(starts(tmp_path, "job")) == 1


def test_a_thread_is_not_stopped_and_its_job_is_popped(gates, tmp_path):
    gate = gates()
    with papyros.MultiThreadedMaster(1) as master:
        job = wait_and_note(str(tmp_path), "job", gate.path)
        running(master, job, tmp_path, "job")
        assert master.cancelJob(job) is False
        assert master.numPendingJobs() == 1
        gate.open()
        assert master.popProcessedJob(PATIENCE) is job
        assert job.result == "job"


def test_a_job_is_stopped_or_popped_but_never_both_and_never_goes_on(make_process_master, tmp_path):
    """Cancel at any moment of a job's life: on its way, about to start, running, about to end."""
    master = make_process_master(slaves=2)
    cancelled, left = [], []
    for number in range(60):
        job = Square(number) if number % 3 else hang(str(tmp_path), f"job{number}", "sleep")
        master.addJob(job)
        if number % 4 == 3:
            found = master.popProcessedJob(0.002 * (number % 8))
            left += [found] if found else []
        if job not in left:
            stopped = master.cancelJob(job)
            assert stopped or number % 3, "a job that hangs has no outcome yet"
            if stopped:
                cancelled.append(job)
    left += master.processedJobs(PATIENCE)
    assert len(left) == len(set(left))
    assert not set(left) & set(cancelled)
    assert len(left) + len(cancelled) == 60
    # None of the slaves is kept busy by a job that nobody wants.
    gate = make_process_master.gates()
    for _ in range(make_process_master.slaves):
        master.addJob(wait_at(gate.path))
    gate.wait_for_arrivals(make_process_master.slaves)
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == make_process_master.slaves
