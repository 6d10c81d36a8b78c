"""Ctrl-C at any moment while a program submits: it is raised, and the executor goes on, and ends."""

from __future__ import annotations

from functools import partial

from papyros.executor import MasterExecutor
from tests.contract.test_interrupts import moments, real_interrupts  # noqa: F401 - a fixture that all of these use
from tests.support import PATIENCE, Background


def started(master):
    """Return an executor that has its thread: what an interrupt does to the start of one is Python's affair."""
    executor = MasterExecutor(master)
    executor.submit(abs, 0).result(PATIENCE)
    return executor


def test_a_submit_that_was_interrupted_is_raised_and_keeps_no_executor_from_its_end(make_master):
    master = make_master()
    for interruption in moments(at_least=15):
        executor = started(master)
        future = interruption.of(executor.submit, abs, -1)
        if interruption.raised:
            assert not master._runs_in_pops or master.numPendingJobs() == 0
        else:
            assert future.result(PATIENCE) == 1
        assert executor.submit(abs, -2).result(PATIENCE) == 2
        Background(partial(executor.shutdown, cancel_futures=True)).result()
    master.close()


def test_a_job_can_be_submitted_again_after_an_interrupt(make_master):
    master = make_master()
    for interruption in moments(at_least=15):
        with started(master) as executor:
            job = executor._calls.job(abs, (-3,), {})
            interruption.of(executor.submit, job)
            if interruption.raised and master._runs_in_pops:
                assert executor.submit(job).result(PATIENCE) == 3
                assert job.result == 3
    master.close()
