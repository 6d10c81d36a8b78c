"""When jobs come back, and how long a client waits for them."""

from __future__ import annotations

from functools import partial

import pytest

from tests.contract.jobs_for_tests import Square, leave_mark, nap, wait_at
from tests.contract.test_adding import BAD_TIMEOUTS
from tests.support import PATIENCE, Background, at_most, is_all_sent, wait_until


def test_with_nothing_pending_none_comes_at_once(make_master):
    master = make_master()
    with at_most(PATIENCE / 3):
        assert master.popProcessedJob() is None
        assert master.popProcessedJob(timeout=PATIENCE) is None
        assert master.popProcessedJob(timeout=0) is None
        assert master.processedJobs() == []


def test_after_the_last_job_none_comes_at_once(make_master):
    master = make_master()
    master.addJob(Square(1))
    assert master.popProcessedJob() is not None
    with at_most(PATIENCE / 3):
        assert master.popProcessedJob() is None


def test_none_comes_when_the_time_is_up(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_at(gate.path, "late")
    master.addJob(job)
    with at_most(PATIENCE / 3):
        assert master.popProcessedJob(timeout=0) is None
        assert master.popProcessedJob(timeout=0.05) is None
    assert master.numPendingJobs() == 1
    gate.open()
    assert master.popProcessedJob(timeout=PATIENCE) is job


def test_a_job_that_gets_processed_wakes_who_waits_for_it(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_at(gate.path)
    master.addJob(job)
    popper = Background(master.popProcessedJob)
    gate.wait_for_arrivals()
    assert popper.running
    gate.open()
    assert popper.result() is job


@pytest.mark.parametrize(("timeout", "error"), BAD_TIMEOUTS)
def test_a_bad_timeout_is_refused(make_master, timeout, error):
    master = make_master()
    for _ in range(2):  # with nothing pending, and with something
        with pytest.raises(error, match="timeout"):
            master.popProcessedJob(timeout)
        with pytest.raises(error, match="timeout"):
            master.processedJobs(timeout)
        with pytest.raises(error, match="timeout"):
            list(master.execute([], timeout=timeout))
        if master.numPendingJobs() == 0:
            master.addJob(Square(1))
    assert master.numPendingJobs() == 1


def test_a_loop_of_pops_ends_after_the_last_job(make_master):
    master = make_master()
    for number in range(25):
        master.addJob(Square(number))
    assert sorted(job.result for job in iter(master.popProcessedJob, None)) == [n * n for n in range(25)]


def test_a_loop_of_pops_with_a_timeout_ends_after_the_last_job(make_master):
    master = make_master()
    for number in range(25):
        master.addJob(Square(number))
    with at_most(PATIENCE):
        # For as long as a slave may take to start; after the last job that would be too long.
        jobs = list(iter(lambda: master.popProcessedJob(timeout=PATIENCE), None))
    assert sorted(job.result for job in jobs) == [n * n for n in range(25)]


def test_a_loop_of_pops_without_waiting_ends(make_master):
    master = make_master()
    jobs = {Square(number) for number in range(25)}
    for job in jobs:
        master.addJob(job)
    found = set()
    while found != jobs:
        found.update(iter(lambda: master.popProcessedJob(timeout=0), None))
    assert master.numPendingJobs() == 0


def test_jobs_may_be_added_in_the_loop_that_pops(make_master):
    master = make_master()
    master.addJob(nap(0, 5))
    seen = []
    for job in iter(master.popProcessedJob, None):
        seen.append(job.result)
        if job.result > 0:
            master.addJob(nap(0, job.result - 1))
    assert seen == [5, 4, 3, 2, 1, 0]


def test_processed_jobs_returns_what_is_processed_in_time(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    quick, slow = Square(3), wait_at(gate.path)
    master.addJob(slow)
    gate.wait_for_arrivals()
    master.addJob(quick)
    found = []
    with at_most(PATIENCE):
        while not found:
            found = master.processedJobs(timeout=0.3)
    assert found == [quick]
    assert master.processedJobs(timeout=0) == []
    gate.open()
    assert master.processedJobs() == [slow]


def test_the_time_of_processed_jobs_is_that_of_all_jobs_together(make_master):
    master = make_master()
    master.addJob(nap(0))
    assert master.popProcessedJob(PATIENCE) is not None  # slaves are up
    for _ in range(200):
        master.addJob(nap(0.05))
    with at_most(PATIENCE / 3):
        while not (found := master.processedJobs(timeout=0.5)):
            pass  # none in time, on a machine that has much else to do
    assert len(found) < 150
    assert master.numPendingJobs() == 200 - len(found)
    master.cancelAllJobs()


def test_pending_jobs_are_counted_through_their_life(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    assert master.numPendingJobs() == 0
    gate = make_concurrent_master.busy(master)
    busy = make_concurrent_master.slaves
    jobs = [Square(number) for number in range(20)]
    for count, job in enumerate(jobs, start=1):
        master.addJob(job)
        assert master.numPendingJobs() == busy + count
    assert master.cancelJob(jobs[-1])
    assert master.numPendingJobs() == busy + 19
    gate.open()
    left = busy + 19
    while left:
        assert master.popProcessedJob(PATIENCE) is not None
        left -= 1
        assert master.numPendingJobs() == left


def test_no_more_jobs_run_than_may_wait_to_be_popped(make_master, tmp_path):
    master = make_master(max_processed=2)
    for number in range(30):
        master.addJob(leave_mark(str(tmp_path), f"mark-{number}"))
    for popped in range(30):
        assert len(list(tmp_path.glob("mark-*"))) <= popped + 2
        assert master.popProcessedJob(PATIENCE) is not None
    assert master.popProcessedJob() is None
    assert len(list(tmp_path.glob("mark-*"))) == 30


def test_a_bound_on_processed_jobs_does_not_keep_a_slave_idle(make_concurrent_master):
    master = make_concurrent_master(slaves=2, max_processed=2)
    gate = make_concurrent_master.gates()
    for _ in range(2):
        master.addJob(wait_at(gate.path))
    gate.wait_for_arrivals(2)
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == 2


def test_both_bounds_together_let_every_job_through(make_master):
    master = make_master(max_waiting=2, max_processed=2)
    adder = Background(lambda: [master.addJob(Square(number), PATIENCE) for number in range(50)])
    results = []
    while len(results) < 50:
        job = master.popProcessedJob(0.05)
        if job is not None:
            results.append(job.result)
    adder.result()
    assert sorted(results) == [number * number for number in range(50)]


def test_higher_priority_first_and_within_one_the_order_of_adding(make_thread_master):
    master = make_thread_master(slaves=1)
    gate = None if make_thread_master.kind == "singlethreaded" else make_thread_master.busy(master)
    jobs = []
    for number, priority in enumerate([0, 5, -1, 5, 0, 9, -1, 0]):
        job = nap(0, (priority, number))
        job.priority = priority
        jobs.append(job)
        master.addJob(job)
    if gate is not None:
        gate.open()
        assert master.popProcessedJob(PATIENCE).result == "busy"
    order = [job.result for job in iter(master.popProcessedJob, None)]
    assert order == sorted(order, key=lambda result: (-result[0], result[1]))


def test_higher_priority_overtakes_what_was_not_handed_out_yet(make_process_master):
    """Some jobs may be with a slave, or on their way, already; all others are overtaken."""
    master = make_process_master(slaves=1)
    gate = make_process_master.busy(master)
    for number in range(30):
        master.addJob(nap(0.01, ("low", number)))
    for number in range(30):
        job = nap(0.01, ("high", number))
        job.priority = 3
        master.addJob(job)
    if make_process_master.kind == "distributed":
        wait_until(partial(is_all_sent, master), "all have come to where jobs are assigned")
    gate.open()
    order = [job.result for job in iter(lambda: master.popProcessedJob(PATIENCE), None)]
    order = [result for result in order if result != "busy"]
    assert len(order) == 60
    last = max(order.index(("high", number)) for number in range(30))
    assert sum(kind == "low" for kind, _ in order[:last]) <= 15


def test_the_priority_of_a_class_holds_for_its_jobs(make_thread_master):
    from tests.contract.jobs_for_tests import urgent

    master = make_thread_master(slaves=1)
    gate = None if make_thread_master.kind == "singlethreaded" else make_thread_master.busy(master)
    master.addJob(Square(1))
    master.addJob(urgent(2))
    if gate is not None:
        gate.open()
        assert master.popProcessedJob(PATIENCE).result == "busy"
    assert [job.result for job in iter(master.popProcessedJob, None)] == [2, 1]
