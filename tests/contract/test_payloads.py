"""What cannot travel between processes is the outcome of its own job, and of no other."""

from __future__ import annotations

import sys
import threading

import pytest

import papyros
from tests.contract.jobs_for_tests import (
    EndsTheProgramWhenPickled,
    EndsTheProgramWhenUnpickled,
    ExplodesWhenPickled,
    ExplodesWhenUnpickled,
    LockedError,
    Square,
    UnloadableError,
    UnspeakableJob,
    call,
    echo,
    fail,
    make_lock,
    refill,
)
from tests.support import PATIENCE

LOCK_TYPE = type(threading.Lock())


def outcomes_of(master, *jobs):
    """Process the jobs between others, which must not be disturbed."""
    others = [Square(number) for number in range(6)]
    for job in (*others[:3], *jobs, *others[3:]):
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*jobs, *others}
    assert [job.result for job in others] == [0, 1, 4, 9, 16, 25]
    assert master.numPendingJobs() == 0
    return [job.exception for job in jobs]


@pytest.mark.parametrize(
    "argument",
    [threading.Lock(), ExplodesWhenPickled(), ExplodesWhenUnpickled(), EndsTheProgramWhenPickled()],
    ids=["lock", "explodes when pickled", "explodes when unpickled", "ends the program when pickled"],
)
def test_arguments_that_cannot_travel_are_the_outcome_of_their_job(make_process_master, argument):
    [error] = outcomes_of(make_process_master(), echo(argument))
    assert type(error) is papyros.PayloadError
    assert str(error)


def test_arguments_that_cannot_be_pickled_are_fine_where_nothing_is_copied(make_thread_master):
    lock = threading.Lock()
    master = make_thread_master()
    job = echo(lock)
    assert outcomes_of(master, job) == [None]
    assert job.result[0][0] is lock


def test_a_class_may_have_other_ideas_of_what_its_arguments_are(make_master):
    class Lists(papyros.Job):
        @property
        def args(self):
            return list(self._args)

        def __call__(self, *args):
            return args

    job = Lists(5, 6)
    assert outcomes_of(make_master(), job) == [None]
    assert job.result == (5, 6)


def test_what_is_no_text_in_the_search_path_is_passed_over(make_process_master, monkeypatch, tmp_path):
    """So does Python itself."""
    monkeypatch.setattr(sys, "path", [tmp_path, *sys.path])
    assert outcomes_of(make_process_master(), echo(1)) == [None]


def test_an_error_of_the_arguments_own_is_named(make_process_master):
    [packing, unpacking] = outcomes_of(
        make_process_master(), echo(ExplodesWhenPickled()), echo(ExplodesWhenUnpickled())
    )
    assert "exploded while it was packed" in f"{packing} {packing.__cause__!r}"
    assert "exploded while it was unpacked" in f"{unpacking} {unpacking.__cause__!r}"


@pytest.mark.parametrize(
    "make",
    [
        make_lock,
        ExplodesWhenPickled,
        ExplodesWhenUnpickled,
        EndsTheProgramWhenPickled,
        EndsTheProgramWhenUnpickled,
    ],
)
def test_a_result_that_cannot_travel_is_the_outcome_of_its_job(make_process_master, make):
    [error] = outcomes_of(make_process_master(), call(make))
    assert type(error) is papyros.PayloadError
    assert str(error)


def test_a_result_that_cannot_be_pickled_is_fine_where_nothing_is_copied(make_thread_master):
    job = call(make_lock)
    assert outcomes_of(make_thread_master(), job) == [None]
    assert isinstance(job.result, LOCK_TYPE)


@pytest.mark.parametrize("kind", [LockedError, UnloadableError])
def test_an_exception_that_cannot_travel_has_a_stand_in(make_process_master, kind):
    [error] = outcomes_of(make_process_master(), fail(kind, "some text"))
    assert type(error) is papyros.RemoteError
    assert error.type_name.endswith(kind.__qualname__)
    assert "some text" in str(error)
    assert "raise kind(*args)" in error.traceback


@pytest.mark.parametrize("kind", [LockedError, UnloadableError])
def test_an_exception_that_cannot_be_pickled_is_itself_where_nothing_is_copied(make_thread_master, kind):
    [error] = outcomes_of(make_thread_master(), fail(kind, "some text"))
    assert type(error) is kind


def test_attributes_that_cannot_be_pickled_are_the_outcome_of_their_job(make_process_master):
    job = Square(2)
    job.lock = threading.Lock()
    [error] = outcomes_of(make_process_master(), job)
    assert type(error) is papyros.PayloadError


def test_a_class_that_cannot_be_pickled_is_the_outcome_of_its_job(make_process_master):
    lock = threading.Lock()

    @papyros.job
    def holds_a_lock():
        with lock:
            return True

    [error] = outcomes_of(make_process_master(), holds_a_lock())
    assert type(error) is papyros.PayloadError


def test_a_master_cannot_travel_as_an_argument(make_process_master):
    master = make_process_master()
    [error] = outcomes_of(master, echo(master))
    assert type(error) is papyros.PayloadError
    assert "cannot be pickled" in f"{error} {error.__cause__!r}"


def test_a_job_whose_arguments_cannot_travel_can_be_added_again_elsewhere(make_process_master):
    job = echo(threading.Lock())
    outcomes_of(make_process_master(), job)
    outcomes_of(papyros.SingleThreadedMaster(), job)
    assert job.exception is None


def test_such_a_job_is_popped_by_execute_too(make_process_master):
    jobs = [Square(1), echo(threading.Lock()), Square(2)]
    assert list(make_process_master().execute(jobs, ordered=True)) == jobs
    assert [job.exception is None for job in jobs] == [True, False, True]


def test_a_job_that_cannot_be_shown_is_an_outcome_all_the_same(make_master):
    jobs = [UnspeakableJob(make_lock), UnspeakableJob(dict), UnspeakableJob(None)]
    errors = outcomes_of(make_master(), *jobs)
    assert jobs[1].result == {}
    assert type(errors[2]) is TypeError


def test_a_large_result_is_what_it_was_when_the_job_ended(make_process_master):
    master = make_process_master()
    for job in master.execute(map(refill, range(20))):
        assert {*job.result} == {*job.args}


def test_a_large_argument_is_what_it_was_when_the_job_was_added(make_process_master):
    argument = bytearray(2 << 20)
    jobs = []
    master = make_process_master()
    for byte in range(5):
        argument[:] = bytes([byte]) * len(argument)
        jobs.append(echo(argument))
        master.addJob(jobs[-1])
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert [{*job.result[0][0]} for job in jobs] == [{byte} for byte in range(5)]


def test_a_list_that_holds_itself_passes(make_master):
    loop = [1]
    loop.append(loop)
    job = echo(loop)
    assert outcomes_of(make_master(), job) == [None]
    [echoed] = job.result[0]
    assert echoed[1] is echoed


def test_a_deeply_nested_list_passes(make_master):
    nested = []
    for _ in range(150):
        nested = [nested]
    job = echo(nested)
    assert outcomes_of(make_master(), job) == [None]
    assert job.result == ((nested,), {})
