"""Queues are bounded in bytes as well: who adds too much waits, and a result that is too large harms nobody else."""

from __future__ import annotations

import contextlib
import queue

import pytest

import papyros
from tests.contract.jobs_for_tests import Square, blob, double, wait_at
from tests.support import PATIENCE, Background, wait_until

MB = 1 << 20


def add_until_full(master, size):
    """Add jobs with arguments of that size; return those for which there was room."""
    jobs = []
    with contextlib.suppress(queue.Full):
        while len(jobs) < 60:
            job = double(b"x" * size)
            master.addJob(job, 0.2)
            jobs.append(job)
    return jobs


def test_adding_is_refused_while_the_waiting_arguments_take_too_many_bytes(make_process_master):
    master = make_process_master(slaves=2, max_waiting_bytes=MB)
    gate = make_process_master.busy(master)
    jobs = add_until_full(master, MB // 4)
    # Some may be on their way to the slaves already.
    assert 4 <= len(jobs) <= 4 + 4 * make_process_master.slaves
    assert master.numPendingJobs() == make_process_master.slaves + len(jobs)
    gate.open()
    assert set(jobs) <= set(master.processedJobs(PATIENCE))
    assert all(len(job.result) == MB // 2 for job in jobs)


def test_adding_waits_until_there_is_room_in_bytes(make_process_master):
    master = make_process_master(slaves=2, max_waiting_bytes=MB)
    gate = make_process_master.busy(master)
    adder = Background(lambda: [master.addJob(double(b"x" * (MB // 4)), PATIENCE) for _ in range(60)])
    wait_until(lambda: master.numPendingJobs() >= make_process_master.slaves + 4, "as many as there is room for")
    assert adder.running
    gate.open()
    found = []
    while len(found) < 60 + make_process_master.slaves:
        job = master.popProcessedJob(0.05)  # None where those that were added are popped, and the next is to come
        if job is not None:
            found.append(job)
    adder.result()


def test_one_job_that_is_larger_than_the_bound_finds_room_all_the_same(make_process_master):
    master = make_process_master(max_waiting_bytes=1000)
    for _ in range(3):
        job = double(b"x" * MB)
        master.addJob(job, PATIENCE)
        assert master.popProcessedJob(PATIENCE) is job
        assert len(job.result) == 2 * MB


def test_cancelling_makes_room_in_bytes(make_process_master):
    master = make_process_master(slaves=2, max_waiting_bytes=1000)
    make_process_master.busy(master)
    jobs = add_until_full(master, 1000)
    assert master.cancelJob(jobs[-1])
    master.addJob(double(b"x" * 1000), PATIENCE)


def test_a_result_that_is_larger_than_the_bound_is_the_outcome_of_its_job_alone():
    with papyros.MultiProcessMaster(2, max_processed_bytes=MB) as master:
        large, others = blob(2 * MB), [Square(number) for number in range(20)]
        for job in (*others[:10], large, *others[10:]):
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == {large, *others}
        assert type(large.exception) is papyros.PayloadTooLargeError
        assert f"{MB:,} bytes" in str(large.exception)
        assert all(job.result == job.args[0] ** 2 for job in others)


def test_results_that_nobody_pops_do_not_pile_up(make_process_master, tmp_path):
    from tests.contract.jobs_for_tests import note_start, starts

    folder = str(tmp_path)

    @papyros.job
    def heavy(size):
        note_start(folder, "heavy")
        return b"x" * size

    master = make_process_master(slaves=2, max_processed_bytes=MB)
    jobs = [heavy(MB // 4) for _ in range(60)]
    for job in jobs:
        master.addJob(job)
    wait_until(lambda: len(starts(folder, "heavy")) >= 4, "the bound to be reached")
    # What has been assigned before the first sizes were known may still come.
    first = master.popProcessedJob(PATIENCE)
    assert len(starts(folder, "heavy")) <= 30
    rest = master.processedJobs(PATIENCE)
    assert {first, *rest} == set(jobs)
    assert all(len(job.result) == MB // 4 for job in jobs)


def test_no_more_results_come_than_fit_but_for_one_of_each_slave():
    with papyros.MultiProcessMaster(2, max_processed_bytes=5 * MB) as master:
        for _ in range(100):
            master.addJob(blob(MB))
        wait_until(lambda: "not popped" in master.status().stalled, "the bound to be reached")
        assert 5 <= master.status().processed <= 5 + 2
        assert len(master.processedJobs(PATIENCE)) == 100


def test_results_that_are_smaller_than_those_before_come_though_nobody_pops():
    with papyros.MultiProcessMaster(1, max_processed_bytes=5 * MB) as master:
        for job in (blob(4 * MB), *map(Square, range(200))):
            master.addJob(job)
        wait_until(lambda: master.status().processed == 201, "all results")
        assert len(master.processedJobs(PATIENCE)) == 201


def test_all_bounds_together_let_every_job_through(make_process_master):
    master = make_process_master(max_waiting=3, max_processed=3, max_waiting_bytes=100_000, max_processed_bytes=200_000)
    adder = Background(lambda: [master.addJob(double(b"x" * 50_000), PATIENCE) for _ in range(60)])
    found = []
    while len(found) < 60:
        job = master.popProcessedJob(0.05)
        if job is not None:
            found.append(len(job.result))
    adder.result()
    assert found == [100_000] * 60


@pytest.mark.parametrize("ordered", [False, True])
def test_execute_passes_through_bounds_in_bytes(make_process_master, ordered):
    master = make_process_master(max_waiting_bytes=100_000, max_processed_bytes=200_000)
    jobs = [double(b"x" * 50_000) for _ in range(60)]
    found = list(master.execute(iter(jobs), ordered=ordered, timeout=PATIENCE / 3))
    assert found == jobs if ordered else set(found) == set(jobs)


def test_execute_in_order_goes_on_while_the_first_one_takes_its_time(make_process_master):
    """Results that wait for the first one's turn are in the client's hands: they must not stop it."""
    master = make_process_master(slaves=2, max_processed_bytes=200_000)
    gate = make_process_master.gates()
    jobs = [wait_at(gate.path, "first"), *(double(b"x" * 50_000) for _ in range(30)), wait_at(gate.path, "last")]
    found = Background(lambda: list(master.execute(iter(jobs), ordered=True, timeout=PATIENCE)))
    gate.wait_for_arrivals(2)  # the last one has begun, so all between have been through
    gate.open()
    assert found.result() == jobs


@pytest.mark.parametrize("name", ["max_waiting_bytes", "max_processed_bytes"])
@pytest.mark.parametrize("bound", [0, -1, 1.5, "1", True, [1]])
def test_a_bound_that_makes_no_sense_is_refused(name, bound):
    with pytest.raises((TypeError, ValueError), match=name):
        papyros.MultiProcessMaster(1, **{name: bound})
