"""Whatever a job does to its slave costs it that slave, and no other job anything."""

from __future__ import annotations

import os

import pytest

import papyros
from tests.contract.families import note
from tests.contract.jobs_for_tests import Square, starts
from tests.contract.vandals import HARMLESS, VANDALS, spoil
from tests.support import PATIENCE, processed

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="what is open is found by /proc only")


@pytest.mark.parametrize("how", VANDALS)
def test_what_a_job_does_to_its_slave_costs_no_other_job_anything(make_process_master, tmp_path, how):
    master = make_process_master(slaves=1)
    squares = [Square(number) for number in range(40)]
    vandal = spoil(str(tmp_path), "vandal", how)
    for job in (*squares[:10], vandal, *squares[10:]):
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*squares, vandal}
    assert [job.result for job in squares] == [number * number for number in range(40)]
    if how in HARMLESS:
        assert vandal.result == how
    else:
        assert type(vandal.exception) is papyros.SlaveLost
        assert 3 <= len(starts(tmp_path, "vandal")) <= 4, "one before it may have been blamed, until it is told apart"
    assert processed(master, Square(3)).result == 9


@pytest.mark.parametrize("how", sorted(VANDALS.keys() - HARMLESS))
def test_a_vandal_that_may_run_once_runs_once_nor_do_others_run_twice(make_process_master, tmp_path, how):
    master = make_process_master(slaves=1)
    jobs = [note(str(tmp_path), f"job{number}") for number in range(20)]
    vandal = spoil(str(tmp_path), "vandal", how)
    for job in (*jobs[:5], vandal, *jobs[5:]):
        job.at_most_once = True
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*jobs, vandal}
    assert len(starts(tmp_path, "vandal")) == 1
    assert type(vandal.exception) is papyros.SlaveLost
    for number, job in enumerate(jobs):
        # What had just become of those before it may be refused, together with what the vandal has made up. Where all
        # traces are gone, of those behind it, too, nobody can know that they were not started.
        may_be_lost = number < 5 or how == "wipe_all"
        assert job.exception is None or (may_be_lost and type(job.exception) is papyros.SlaveLost)
        assert len(starts(tmp_path, f"job{number}")) <= 1
        assert job.exception is not None or job.result == f"job{number}"
