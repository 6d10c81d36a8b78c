"""A job that fails is tried again as often as it wants, and no oftener; its last exception is its outcome."""

from __future__ import annotations

import contextlib
import queue
from itertools import pairwise

import pytest

import papyros
from tests.contract.jobs_for_tests import (
    SpoilsItself,
    Square,
    TwoArguments,
    fail,
    fail_once_the_gate_is_open,
    fail_until,
    starts,
)
from tests.support import PATIENCE, processed, wait_until

NEVER = 10**6


def retried(job, retries, backoff=0.0, **options):
    job.retries, job.backoff = retries, backoff
    for name, value in options.items():
        setattr(job, name, value)
    return job


def wait_for_tries(master, before, number):
    """Wait until so many tries have failed; a cluster had some before."""
    wait_until(lambda: master.status().retried >= before + number, f"{number} failed tries")


def test_without_retries_a_job_is_started_once(make_master, tmp_path):
    job = processed(make_master(), fail_until(str(tmp_path), "job", NEVER))
    assert str(job.exception) == "attempt 1 fails"
    assert len(starts(tmp_path, "job")) == 1


def test_a_job_that_succeeds_at_the_third_try_has_a_result(make_master, tmp_path):
    master = make_master()
    before = master.status().retried
    job = processed(master, retried(fail_until(str(tmp_path), "job", 3), 5))
    assert job.result == 3
    assert job.exception is None
    assert len(starts(tmp_path, "job")) == 3
    assert master.status().retried - before == 2
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob(0) is None


@pytest.mark.parametrize("retries", [1, 3])
def test_a_job_that_always_fails_delivers_its_last_exception(make_master, tmp_path, retries):
    job = processed(make_master(), retried(fail_until(str(tmp_path), "job", NEVER), retries))
    assert type(job.exception) is ValueError
    assert str(job.exception) == f"attempt {retries + 1} fails"
    assert "attempt {number} fails" in job.exception.traceback
    assert len(starts(tmp_path, "job")) == retries + 1


def test_the_delay_begins_as_asked_and_grows_to_twice_as_much(make_master, tmp_path):
    job = processed(make_master(), retried(fail_until(str(tmp_path), "job", NEVER), 3, 0.1))
    moments = [moment for moment, _ in starts(tmp_path, "job")]
    delays = [later - earlier for earlier, later in pairwise(moments)]
    for delay, least in zip(delays, [0.1, 0.2, 0.4], strict=True):
        assert least - 0.005 <= delay <= least + 3, delays
    assert str(job.exception) == "attempt 4 fails"


def test_others_run_while_a_job_waits_for_its_next_try(make_master, tmp_path):
    master = make_master(slaves=1)
    late = retried(fail_until(str(tmp_path), "late", 2), 1, 3 * PATIENCE)
    master.addJob(late)
    wait_until(lambda: late_started(master, tmp_path), "the first try")
    others = [Square(number) for number in range(20)]
    for job in others:
        master.addJob(job)
    assert {master.popProcessedJob(PATIENCE) for _ in others} == set(others)
    assert len(starts(tmp_path, "late")) == 1
    assert master.cancelJob(late)


def late_started(master, folder):
    """In the single thread, nothing runs outside of the calls that pop."""
    if isinstance(master, papyros.SingleThreadedMaster):
        assert master.popProcessedJob(0.01) is None
    return starts(folder, "late")


def test_a_job_that_waits_for_its_next_try_is_pending_and_waiting(make_concurrent_master, tmp_path):
    master = make_concurrent_master()
    before = master.status().retried
    job = retried(fail_until(str(tmp_path), "job", NEVER), 1, 100)
    master.addJob(job)
    wait_for_tries(master, before, 1)
    assert master.numPendingJobs() == 1
    assert master.popProcessedJob(0) is None
    # A slave is shown with its job for a moment longer.
    status = wait_until(lambda: "a retry is due later" in (s := master.status()).stalled and s, "it waits")
    assert status.waiting == 1
    assert "stalled" in str(status)
    assert master.cancelJob(job) is True
    assert master.numPendingJobs() == 0
    assert len(starts(tmp_path, "job")) == 1


def test_cancelling_all_jobs_discards_those_that_wait_for_their_next_try(make_concurrent_master, tmp_path):
    master = make_concurrent_master()
    before = master.status().retried
    for number in range(3):
        master.addJob(retried(fail_until(str(tmp_path), f"job{number}", NEVER), 1, 100))
    wait_for_tries(master, before, 3)
    # A cluster hears of it a moment later.
    wait_until(lambda: master.cancelAllJobs() or not master.numPendingJobs(), "all cancelled")
    assert master.popProcessedJob(PATIENCE) is None


def test_a_cancelled_job_that_waited_for_its_next_try_starts_afresh(make_concurrent_master, tmp_path):
    master = make_concurrent_master()
    before = master.status().retried
    job = retried(fail_until(str(tmp_path), "job", NEVER), 2, 100)
    master.addJob(job)
    wait_for_tries(master, before, 1)
    wait_until(lambda: master.cancelJob(job), "it can be cancelled")
    job.backoff = 0.0
    processed(master, job)
    assert len(starts(tmp_path, "job")) == 4


def test_closing_does_not_wait_for_the_next_try(make_master, tmp_path):
    master = make_master()
    master.addJob(retried(fail_until(str(tmp_path), "job", NEVER), 1, 1000))
    master.popProcessedJob(0.2)
    master.close()
    assert master.popProcessedJob(PATIENCE) is None
    assert master.numPendingJobs() == 0


def test_only_exceptions_of_the_types_that_are_named_lead_to_another_try(make_master, tmp_path):
    master = make_master()
    named = retried(fail_until(str(tmp_path), "named", 2, ConnectionResetError), 3, retryable=(OSError, KeyError))
    other = retried(fail_until(str(tmp_path), "other", 2, ValueError), 3, retryable=(OSError, KeyError))
    nothing = retried(fail_until(str(tmp_path), "nothing", 2, OSError), 3, retryable=())
    for job in (named, other, nothing):
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {named, other, nothing}
    assert named.result == 2
    assert str(other.exception) == "attempt 1 fails"
    assert str(nothing.exception) == "attempt 1 fails"
    assert [len(starts(tmp_path, name)) for name in ("named", "other", "nothing")] == [2, 1, 1]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_to_end_a_program_is_retried_only_if_that_is_asked_for(make_master, tmp_path, kind):
    master = make_master()
    plain = processed(master, retried(fail_until(str(tmp_path), "plain", 2, kind), 1))
    assert type(plain.exception) is kind
    asked = processed(master, retried(fail_until(str(tmp_path), "asked", 2, kind), 1, retryable=(BaseException,)))
    assert asked.result == 2


def test_an_exception_that_cannot_travel_well_is_retried_all_the_same(make_master):
    master = make_master()
    before = master.status().retried
    job = processed(master, retried(fail(TwoArguments, 7, "seven"), 2))
    assert (type(job.exception), job.exception.code) == (TwoArguments, 7)
    assert master.status().retried - before == 2


def test_retries_are_an_option_of_the_decorator(make_master, tmp_path):
    folder = str(tmp_path)

    @papyros.job(retries=2, backoff=0.0, retryable=(ValueError,))
    def flaky():
        return fail_until.function(folder, "flaky", 3)

    assert processed(make_master(), flaky()).result == 3


def test_execute_retries_too_and_keeps_the_order(make_master, tmp_path):
    jobs = [retried(fail_until(str(tmp_path), f"job{n}", 1 + n % 3), 2, 0.01) for n in range(12)]
    results = [job.result for job in make_master().execute(jobs, ordered=True)]
    assert results == [1 + n % 3 for n in range(12)]


def test_a_popped_job_that_is_added_again_has_all_its_retries_again(make_master, tmp_path):
    master = make_master()
    job = retried(fail_until(str(tmp_path), "job", NEVER), 1)
    processed(master, job)
    processed(master, job)
    assert len(starts(tmp_path, "job")) == 4


@pytest.mark.parametrize(
    ("name", "value"), [("retries", None), ("retries", "x"), ("retryable", None), ("retryable", 3)]
)
def test_a_job_that_spoils_its_own_options_has_an_outcome(make_master, name, value):
    """What a job assigns to itself while it runs is its own affair."""
    master = make_master()
    job = processed(master, SpoilsItself(name, value))
    assert type(job.exception) is ValueError
    assert processed(master, Square(3)).result == 9


def test_jobs_that_wait_for_their_next_try_take_up_room(make_concurrent_master, tmp_path):
    """Otherwise a client that adds jobs which fail would fill its memory, whatever bound it has set."""
    master = make_concurrent_master(slaves=2, max_waiting=5)
    added = 0
    with contextlib.suppress(queue.Full):
        for number in range(200):
            master.addJob(retried(fail_until(str(tmp_path), f"job{number}", NEVER), 1, 1000), 0.5)
            added += 1
    assert 5 <= added < 200  # beside those that wait, some were given to slaves ahead of need


def test_a_late_failure_does_not_bring_a_cancelled_job_back(make_process_master, tmp_path):
    master = make_process_master()
    gate = make_process_master.gates()
    job = retried(fail_once_the_gate_is_open(str(tmp_path), "job", gate.path), 5)
    master.addJob(job)
    gate.wait_for_arrivals()
    assert master.cancelJob(job)
    gate.open()
    assert processed(master, Square(2)).result == 4
    assert master.numPendingJobs() == 0
    assert len(starts(tmp_path, "job")) == 1
