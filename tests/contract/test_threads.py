"""One master, used by many threads at a time."""

from __future__ import annotations

import threading

import papyros
from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE, Background

THREADS = 10
JOBS = 60


def test_ten_threads_add_and_pop_every_job_once(make_master):
    master = make_master()
    start = threading.Barrier(THREADS)

    def add_and_pop(offset):
        jobs = [Square(offset + number) for number in range(JOBS)]
        start.wait(PATIENCE)
        for job in jobs:
            master.addJob(job, PATIENCE)
        # Each pops as many as it has added, so at any time there is one pending for everybody.
        return jobs, [master.popProcessedJob(PATIENCE) for _ in range(JOBS)]

    calls = [Background(add_and_pop, JOBS * number) for number in range(THREADS)]
    results = [call.result() for call in calls]
    added = [job for jobs, _ in results for job in jobs]
    popped = [job for _, jobs in results for job in jobs]
    assert None not in popped
    assert len(popped) == len(set(popped)) == THREADS * JOBS
    assert set(popped) == set(added)
    assert all(job.result == job.args[0] ** 2 for job in popped)
    assert master.numPendingJobs() == 0


def test_ten_threads_with_bounded_queues_get_every_job_once(make_master):
    master = make_master(max_waiting=5, max_processed=5)
    popped = []
    done = threading.Event()

    def add(offset):
        for number in range(JOBS // 2):
            master.addJob(Square(offset + number), PATIENCE)

    def pop():
        while not done.is_set():
            job = master.popProcessedJob(0.02)
            if job is not None:
                popped.append(job.result)

    poppers = [Background(pop) for _ in range(3)]
    adders = [Background(add, JOBS * number) for number in range(THREADS)]
    try:
        for adder in adders:
            adder.result()
    finally:
        done.set()
    for popper in poppers:
        popper.result()
    popped += [job.result for job in master.processedJobs(PATIENCE)]
    expected = [(JOBS * thread + number) ** 2 for thread in range(THREADS) for number in range(JOBS // 2)]
    assert sorted(popped) == sorted(expected)


def test_threads_execute_at_the_same_time_without_mixing(make_master):
    master = make_master()

    def run(offset):
        numbers = range(offset, offset + JOBS)
        return [job.result for job in master.execute(map(Square, numbers), ordered=True)]

    calls = [Background(run, JOBS * number) for number in range(5)]
    for number, call in enumerate(calls):
        assert call.result() == [n * n for n in range(JOBS * number, JOBS * (number + 1))]


def test_of_many_threads_that_add_the_same_job_one_succeeds(make_concurrent_master):
    masters = [make_concurrent_master() for _ in range(2)]
    # Distributed masters share the slaves of the cluster, so there one of them keeps all busy.
    for master in masters[:1] if make_concurrent_master.kind == "distributed" else masters:
        make_concurrent_master.busy(master)
    job = Square(8)
    start = threading.Barrier(8)

    def add(number):
        start.wait(PATIENCE)
        try:
            masters[number % 2].addJob(job)
        except papyros.PendingJobError:
            return 0
        return 1

    calls = [Background(add, number) for number in range(8)]
    assert sum(call.result() for call in calls) == 1
    make_concurrent_master.gates.open_all()
    found = [job for master in masters for job in master.processedJobs(PATIENCE)]
    assert found.count(job) == 1


def test_jobs_are_shared_out_among_threads_that_pop(make_master):
    master = make_master()
    for number in range(200):
        master.addJob(Square(number))
    poppers = [Background(lambda: list(iter(master.popProcessedJob, None))) for _ in range(4)]
    popped = [job for popper in poppers for job in popper.result()]
    assert len(popped) == len(set(popped)) == 200
