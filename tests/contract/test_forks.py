"""A job may fork: the process that it has forked is its own affair, and no slave."""

from __future__ import annotations

import pytest

from tests.contract.jobs_for_tests import FORK_ENDS, Square, fork_and_wait, fork_within
from tests.support import PATIENCE


@pytest.mark.parametrize("how", FORK_ENDS)
def test_a_process_that_a_job_has_forked_ends_when_it_comes_back_from_the_job(make_process_master, how):
    """It is no second slave, on the connection of the first."""
    master = make_process_master(slaves=2)
    squares = [Square(number) for number in range(20)]
    forks = [fork_and_wait(how) for _ in range(4)]
    for number, job in enumerate(squares):
        if number % 5 == 0:
            master.addJob(forks[number // 5])
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*squares, *forks}
    assert all(job.result == job.args[0] ** 2 for job in squares)
    assert [job.result for job in forks] == [FORK_ENDS[how]] * 4


def test_a_process_that_a_job_has_forked_leaves_masters_of_its_parent_alone(make_process_master):
    """It waits for nothing that is theirs, and closes nothing, as it comes out of their `with` statements."""
    master = make_process_master(slaves=2)
    jobs = [fork_within("executor"), fork_within("master")]
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert [job.result for job in jobs] == [3, 3]


@pytest.mark.parametrize("make_thread_master", ["singlethreaded", "multithreaded"], indirect=True)
@pytest.mark.parametrize("how", FORK_ENDS)
def test_a_process_that_a_job_has_forked_here_does_not_go_on_as_a_second_program(make_thread_master, how):
    """It has a copy of the books, and would run all that waits once more; and then, the rest of the program."""
    master = make_thread_master(slaves=1)
    jobs = [fork_and_wait(how), *[Square(number) for number in range(5)]]
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert jobs[0].result == FORK_ENDS[how]
