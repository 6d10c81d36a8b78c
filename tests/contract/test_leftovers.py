"""A program that ends before its jobs do is told, once; one that wants no more of them, or fails, is not."""

from __future__ import annotations

import pytest

from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE

TOLD = "pending, added and not popped"


@pytest.fixture(autouse=True)
def _short_wait_for_threads(monkeypatch):
    # A thread cannot be stopped, so a master waits for it; here the tests know that in vain.
    monkeypatch.setattr("papyros.multithreaded.CLOSE_SECONDS", 0.2)


@pytest.fixture
def told(caplog):
    return lambda: [record.getMessage() for record in caplog.records if TOLD in record.getMessage()]


def test_a_master_that_is_closed_with_jobs_that_are_not_processed_says_so_once(make_concurrent_master, told):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    master.addJob(Square(1))
    pending = master.numPendingJobs()
    master.close()
    master.close()
    [text] = told()
    assert f"{type(master).__name__} ends with {pending} jobs pending" in text
    assert f"not processed, and so dropped: {pending})" in text
    assert "cancelAllJobs" in text


def test_nothing_is_said_when_all_jobs_are_popped(make_master, told):
    with make_master() as master:
        for number in range(3):
            master.addJob(Square(number))
        assert len(master.processedJobs(PATIENCE)) == 3
    assert told() == []


def test_nothing_is_said_of_jobs_that_the_program_has_cancelled(make_concurrent_master, told):
    with make_concurrent_master() as master:
        make_concurrent_master.busy(master)  # these go on, until the end
        master.addJob(Square(1))
        master.cancelAllJobs()
    assert told() == []


def test_nothing_is_said_beside_an_exception_that_leaves_the_block(make_master, told):
    master = make_master()
    for number in range(20):
        master.addJob(Square(number))
    with pytest.raises(ZeroDivisionError), master:
        1 / 0
    assert told() == []


def test_nothing_is_said_of_a_loop_that_is_left_early(make_master, told):
    with make_master() as master:
        for _ in master.execute(map(Square, range(100))):
            break
    assert told() == []
