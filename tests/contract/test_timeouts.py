"""A job with a timeout does not run longer, whatever it does, and harms nobody else when it is stopped."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref

import pytest

import papyros
from tests.contract.jobs_for_tests import (
    Square,
    fail_until,
    hang,
    leave_children,
    starts,
    wait_and_note,
    wait_at,
    where,
)
from tests.support import PATIENCE, at_most, gone, wait_until

#: How long after its timeout a job may be stopped, at the most.
SLACK = 2.0

WAYS = ["sleep", "busy", "deaf", "sum", "regex"]


def limited(job, timeout=0.5):
    job.timeout = timeout
    return job


@pytest.mark.alone
@pytest.mark.parametrize("way", WAYS)
def test_a_job_is_stopped_in_time_whatever_it_does(make_process_master, tmp_path, way):
    """Also C code that keeps the interpreter's lock, and code that will not listen to signals."""
    master = make_process_master(slaves=1)
    job = limited(hang(str(tmp_path), "job", way))
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    over = time.monotonic()
    [(started, pid)] = starts(tmp_path, "job")
    assert 0.4 <= over - started <= 0.5 + SLACK  # it leaves its mark a little after it is started
    assert type(job.exception) is papyros.JobTimeout
    assert isinstance(job.exception, TimeoutError)
    assert "timeout of 0.5 s" in str(job.exception)
    assert f"/{pid}" in str(job.exception)
    wait_until(lambda: gone(pid), "the slave to be gone")
    with pytest.raises(papyros.JobTimeout):
        job.result


def test_a_slave_that_was_stopped_is_replaced(make_process_master, tmp_path):
    master = make_process_master(slaves=2)
    for number in range(make_process_master.slaves):
        master.addJob(limited(hang(str(tmp_path), f"job{number}", "busy"), 0.3))
    assert len(master.processedJobs(PATIENCE)) == make_process_master.slaves
    gate = make_process_master.gates()
    for _ in range(make_process_master.slaves):
        master.addJob(wait_at(gate.path, "here"))
    gate.wait_for_arrivals(make_process_master.slaves)
    gate.open()
    assert [job.result for job in master.processedJobs(PATIENCE)] == ["here"] * make_process_master.slaves


def test_others_are_not_harmed(make_process_master, tmp_path):
    """Neither the job that runs beside it, nor those that were to come after it."""
    master = make_process_master(slaves=2)
    before = master.status().lost
    gate = make_process_master.gates()
    neighbour = wait_and_note(str(tmp_path), "neighbour", gate.path)
    late = limited(hang(str(tmp_path), "late", "busy"))
    others = [Square(number) for number in range(50)]
    master.addJob(neighbour)
    gate.wait_for_arrivals()
    for job in (*others[:25], late, *others[25:]):
        master.addJob(job)
    found = [master.popProcessedJob(PATIENCE) for _ in range(51)]
    assert set(found) == {late, *others}
    assert all(job.result == job.args[0] ** 2 for job in others)
    gate.open()
    assert master.popProcessedJob(PATIENCE) is neighbour
    assert neighbour.result == "neighbour"
    assert len(starts(tmp_path, "neighbour")) == len(starts(tmp_path, "late")) == 1
    assert master.status().lost == before, "a slave that was stopped is not one that was lost"


def test_many_jobs_run_late_one_after_the_other(make_process_master, tmp_path):
    master = make_process_master(slaves=2)
    # A slave that has just started has to import what they need, which is of their time.
    jobs = [limited(hang(str(tmp_path), f"job{number}", "sleep"), 1.0) for number in range(8)]
    squares = [Square(number) for number in range(40)]
    for number, job in enumerate(jobs):
        for square in squares[5 * number : 5 * number + 5]:
            master.addJob(limited(square, 30))
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*jobs, *squares}
    assert [type(job.exception) for job in jobs] == [papyros.JobTimeout] * 8, [repr(job.exception) for job in jobs]
    assert all(job.result == job.args[0] ** 2 for job in squares)
    assert [len(starts(tmp_path, f"job{number}")) for number in range(8)] == [1] * 8


def test_the_time_that_a_job_waits_does_not_count(make_concurrent_master):
    master = make_concurrent_master(slaves=1)
    gate = make_concurrent_master.busy(master)
    jobs = [limited(Square(number), 1.0) for number in range(10)]  # so long may anything take on a busy machine
    for job in jobs:
        master.addJob(job)
    assert master.popProcessedJob(1.3) is None
    gate.open()
    processed = master.processedJobs(PATIENCE)
    assert set(jobs) <= set(processed)
    assert [job.result for job in jobs] == [number * number for number in range(10)]


def test_a_timeout_is_no_exception_that_leads_to_another_try(make_process_master, tmp_path):
    master = make_process_master(slaves=1)
    master.addJob(Square(1))
    assert master.popProcessedJob(PATIENCE) is not None  # the slave has imported what the job needs
    job = limited(hang(str(tmp_path), "job", "sleep"))
    job.retries, job.backoff = 3, 0.0
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.JobTimeout
    assert len(starts(tmp_path, "job")) == 1


def test_each_try_has_the_whole_time(make_process_master, tmp_path):
    """Retries do not add up to the timeout of one."""
    master = make_process_master()
    job = limited(fail_until(str(tmp_path), "job", 4), 1.5)
    job.retries, job.backoff = 3, 0.4
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == 4


def test_a_job_with_a_timeout_can_be_added_again(make_process_master, tmp_path):
    master = make_process_master()
    gate = make_process_master.gates()
    job = limited(wait_and_note(str(tmp_path), "job", gate.path), 0.3)
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.JobTimeout
    gate.open()
    job.timeout = None
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == "job"


@pytest.mark.parametrize("how", ["child", "session"])
def test_what_the_job_started_goes_with_it(make_process_master, tmp_path, how):
    master = make_process_master()
    job = limited(leave_children(str(tmp_path), how), 2)
    master.addJob(job)
    child = int(wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the child"))
    try:
        assert master.popProcessedJob(PATIENCE) is job
        assert type(job.exception) is papyros.JobTimeout
        wait_until(lambda: gone(child), "the child to be gone", 5)
    finally:
        if not gone(child):
            os.kill(child, 9)


def test_the_timeout_of_a_class_holds_for_its_jobs(make_process_master):
    @papyros.job(timeout=0.3)
    def long():
        while True:
            pass

    master = make_process_master()
    job = long()
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.JobTimeout
    assert str(job.exception).startswith("long() ran longer than its timeout of 0.3 s")


def test_in_execute_the_others_are_yielded_all_the_same(make_process_master, tmp_path):
    jobs = [Square(number) for number in range(6)]
    jobs.insert(3, limited(hang(str(tmp_path), "job", "busy"), 0.3))
    found = list(make_process_master().execute(jobs, ordered=True))
    assert found == jobs
    assert [type(job.exception) for job in found].count(papyros.JobTimeout) == 1


# Threads cannot be stopped. -----------------------------------------------------------------


def test_a_thread_goes_on_but_the_outcome_is_there_in_time_and_another_takes_its_place():
    release, done = threading.Event(), threading.Event()

    @papyros.job(timeout=0.3)
    def outlast():
        release.wait(PATIENCE)
        done.set()
        return "too late"

    with papyros.MultiThreadedMaster(1) as master:
        job, next_job = outlast(), where()
        master.addJob(job)
        master.addJob(next_job)
        try:
            with at_most(0.3 + SLACK):
                assert master.popProcessedJob(PATIENCE) is job
                assert master.popProcessedJob(PATIENCE) is next_job
            assert type(job.exception) is papyros.JobTimeout
            assert "cannot be stopped and goes on" in str(job.exception)
            assert job.slave in str(job.exception)
            assert next_job.slave != job.slave
            assert not done.is_set()
            assert len(master.status().slaves) == 1, "the one that goes on does not count"
        finally:
            release.set()
        assert done.wait(PATIENCE)
        wait_until(lambda: master.status().late == 1, "its late outcome to be counted")
        assert type(job.exception) is papyros.JobTimeout, "the first outcome stays"
        master.addJob(job)
        assert master.popProcessedJob(PATIENCE) is job
        assert job.result == "too late"


def test_a_thread_that_is_done_in_time_is_kept():
    with papyros.MultiThreadedMaster(1) as master:
        slaves = set()
        for number in range(50):
            master.addJob(limited(Square(number), 1.0))
            slaves.add(master.popProcessedJob(PATIENCE).slave)
        gate = threading.Event()
        assert not gate.wait(1.1)  # until the time of the last one is up
        master.addJob(where())
        assert {master.popProcessedJob(PATIENCE).slave} == slaves
        assert len(slaves) == 1


def test_all_threads_may_be_late_and_all_are_replaced():
    release = threading.Event()

    @papyros.job(timeout=0.2)
    def outlast():
        release.wait(PATIENCE)

    with papyros.MultiThreadedMaster(3) as master:
        late = [outlast() for _ in range(9)]
        try:
            for job in late:
                master.addJob(job)
            master.addJob(Square(4))
            [square] = set(master.processedJobs(PATIENCE)) - set(late)
            assert square.result == 16
            assert all(type(job.exception) is papyros.JobTimeout for job in late)
        finally:
            release.set()


def test_nobody_stops_a_job_in_the_single_thread(tmp_path):
    """As its class says: there is nobody to do so. The result is delivered, however late."""
    master = papyros.SingleThreadedMaster()
    release = threading.Event()

    @papyros.job(timeout=0.05)
    def outlast():
        return release.wait(0.2)

    job = outlast()
    master.addJob(job)
    assert master.popProcessedJob(0) is job
    assert job.result is False
    assert job.seconds >= 0.2


def test_what_has_ended_in_time_is_not_kept_until_its_time_would_be_up():
    class Large:
        pass

    with papyros.MultiThreadedMaster(1) as master:
        job = papyros.job(timeout=3600)(Large)()
        master.addJob(job)
        assert master.popProcessedJob(PATIENCE) is job
        result = weakref.ref(job.result)
        del job
        master.addJob(Square(1))  # the thread has nothing of the one before in its hands any more
        assert master.popProcessedJob(PATIENCE).result == 1
        wait_until(lambda: gc.collect() >= 0 and result() is None, "the result to be forgotten")
