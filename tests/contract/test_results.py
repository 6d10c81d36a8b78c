"""What was added comes back: the same object, with its result."""

from __future__ import annotations

import copy
import os
import threading

import pytest

import papyros
from tests.contract.jobs_for_tests import Scaled, Square, double, echo, wait_at, where
from tests.support import PATIENCE


def popped(master):
    job = master.popProcessedJob(PATIENCE)
    assert job is not None, "a pending job was not processed in time"
    return job


def test_the_same_object_comes_back_with_its_result(make_master):
    master = make_master()
    job = Square(12)
    master.addJob(job)
    assert popped(master) is job
    assert job.result == 144
    assert job.exception is None
    assert job.seconds >= 0
    assert isinstance(job.slave, str)
    assert job.slave


def test_many_jobs_come_back_once_each(make_master):
    master = make_master()
    jobs = [Square(number) for number in range(300)]
    for job in jobs:
        master.addJob(job)
    processed = master.processedJobs(PATIENCE)
    assert len(processed) == 300
    assert set(processed) == set(jobs)
    assert all(job.result == number * number for number, job in enumerate(jobs))
    assert master.numPendingJobs() == 0


def test_arguments_and_named_arguments_reach_the_job(make_master):
    master = make_master()
    master.addJob(echo(1, [2, 3], self=4, timeout="late", priority=None))
    assert popped(master).result == ((1, [2, 3]), {"self": 4, "timeout": "late", "priority": None})


def test_a_job_that_returns_none_has_a_result_too(make_master):
    master = make_master()
    job = wait_at_open_gate(make_master, None)
    master.addJob(job)
    assert popped(master) is job
    assert job.result is None
    assert job.exception is None


def wait_at_open_gate(make_master, value):
    gate = make_master.gates()
    gate.open()
    return wait_at(gate.path, value)


def test_a_job_that_returns_an_exception_has_not_raised_it(make_master):
    master = make_master()
    job = wait_at_open_gate(make_master, ValueError("just a value"))
    master.addJob(job)
    popped(master)
    assert job.exception is None
    assert isinstance(job.result, ValueError)


def test_a_pending_job_has_no_result_yet(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    job = Square(3)
    master.addJob(job)
    for look in (
        lambda: job.result,
        lambda: job.exception,
        lambda: job.slave,
        lambda: job.seconds,
    ):
        with pytest.raises(papyros.UnprocessedJobError, match=r"Square\(3\)"):
            look()


def test_job_classes_may_be_defined_in_functions(make_master):
    factor = 3

    class Local(papyros.Job):
        def __call__(self, number):
            return factor * number

    @papyros.job
    def local(number):
        return factor + number

    master = make_master()
    jobs = [Local(5), local(5)]
    for job in jobs:
        master.addJob(job)
    master.processedJobs(PATIENCE)
    assert [job.result for job in jobs] == [15, 8]


def test_functions_without_a_name_of_their_own_can_be_jobs(make_master):
    def plain(number):
        return number + 1

    incremented = papyros.job(plain)  # the name `plain` stays the function's
    negated = papyros.job(lambda number: -number)
    master = make_master()
    jobs = [incremented(1), negated(1)]
    for job in jobs:
        master.addJob(job)
    master.processedJobs(PATIENCE)
    assert [job.result for job in jobs] == [2, -1]


def test_attributes_that_the_user_sets_travel_with_the_job(make_master):
    master = make_master()
    scaled, plain = Scaled(5), Scaled(5)
    scaled.scale = 3
    master.addJob(scaled)
    master.addJob(plain)
    master.processedJobs(PATIENCE)
    assert (scaled.result, plain.result) == (15, 5)


def test_arguments_are_those_of_the_moment_of_adding(make_process_master):
    # On masters of threads nothing is copied, so a later change may or may not be seen there.
    master = make_process_master()
    make_process_master.busy(master)
    numbers = [1, 2]
    job = echo(numbers)
    master.addJob(job)
    numbers.append(3)
    make_process_master.gates.open_all()
    master.processedJobs(PATIENCE)
    assert job.result == (([1, 2],), {})


def test_a_popped_job_can_be_added_again(make_master):
    master = make_master()
    job = double([1])
    for _ in range(3):
        master.addJob(job)
        assert popped(master) is job
        assert job.result == [1, 1]


def test_a_popped_job_can_be_added_to_another_master(make_master):
    first, second = make_master(), make_master()
    job = Square(7)
    first.addJob(job)
    popped(first)
    second.addJob(job)
    assert popped(second) is job
    assert job.result == 49


def test_a_copy_of_a_pending_job_is_a_job_of_its_own(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    job = Square(4)
    master.addJob(job)
    twin = copy.copy(job)
    master.addJob(twin)
    make_concurrent_master.gates.open_all()
    assert {job, twin} <= set(master.processedJobs(PATIENCE))
    assert job.result == twin.result == 16


def test_jobs_can_be_keys_of_a_dictionary(make_master):
    master = make_master()
    names = {Square(2): "two", Square(3): "three"}
    for job in names:
        master.addJob(job)
    assert {names[job]: job.result for job in master.processedJobs(PATIENCE)} == {"two": 4, "three": 9}


def test_large_arguments_and_results_pass(make_master):
    master = make_master()
    blob = os.urandom(3 << 20)
    master.addJob(double(blob))
    assert popped(master).result == blob + blob


def test_jobs_run_in_the_calling_thread_in_threads_or_in_other_processes(make_master):
    master = make_master()
    master.addJob(where())
    pid, thread = popped(master).result
    assert (pid == os.getpid()) is make_master.in_process
    assert ((pid, thread) == (os.getpid(), threading.get_ident())) is (make_master.kind == "singlethreaded")


def test_slaves_work_at_the_same_time(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    for value in range(2):
        master.addJob(wait_at(gate.path, value))
    gate.wait_for_arrivals(2)
    gate.open()
    assert sorted(job.result for job in master.processedJobs(PATIENCE)) == [0, 1]


def test_slaves_work_at_the_same_time_after_one_was_idle(make_concurrent_master):
    """A slave that waits for work must not be counted on twice."""
    master = make_concurrent_master(slaves=2)
    for _ in range(20):
        master.addJob(Square(1))
        popped(master)
        gate = make_concurrent_master.gates()
        for value in range(2):
            master.addJob(wait_at(gate.path, value))
        gate.wait_for_arrivals(2)
        gate.open()
        assert len(master.processedJobs(PATIENCE)) == 2


def test_a_job_may_use_a_master_of_its_own(make_master):
    @papyros.job
    def boss(numbers):
        with papyros.SingleThreadedMaster() as inner:
            return [job.result for job in inner.execute(map(Square, numbers), ordered=True)]

    master = make_master()
    master.addJob(boss([1, 2, 3]))
    assert popped(master).result == [1, 4, 9]


def client_program(master):
    """Do what users do; return what became of each job, as a set."""
    from tests.contract.jobs_for_tests import TwoArguments, fail, fail_visibly

    jobs = [Square(number) for number in range(20)]
    jobs += [double("ab"), fail(KeyError, "k"), fail_visibly(8), fail(TwoArguments, 7, "seven")]
    jobs += [fail(SystemExit, 3), fail(KeyboardInterrupt), double(None)]
    for job in jobs:
        master.addJob(job)
    outcomes = set()
    for job in iter(lambda: master.popProcessedJob(timeout=PATIENCE), None):
        if job.exception is None:
            outcomes.add((repr(job), repr(job.result)))
        else:
            outcomes.add((repr(job), type(job.exception).__name__, str(job.exception)))
    return outcomes


def test_the_same_program_has_the_same_outcomes_on_every_master(make_master):
    outcomes = client_program(make_master())
    assert outcomes == client_program(papyros.SingleThreadedMaster())
    assert len(outcomes) == 27
