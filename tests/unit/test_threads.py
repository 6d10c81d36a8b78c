"""Threads that others wait for: what ends one that nobody foresaw is told, and nobody waits for ever."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

import papyros
from papyros.current import Place
from papyros.delegating import DelegatingMaster
from papyros.futurelane import FutureLane
from papyros.threads import worker
from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE, Bug, processed


def test_what_ends_a_thread_is_told_in_words(caplog):
    def fail():
        raise SystemExit("nobody foresaw this")

    told = []
    thread = worker("papyros-test", fail, told.append)
    thread.start()
    thread.join(PATIENCE)
    assert told == ["the thread papyros-test broke down (SystemExit: nobody foresaw this); the log has the traceback"]
    assert "broke down" in caplog.text
    assert thread.daemon


def test_nothing_is_told_of_a_thread_that_does_its_work():
    told = []
    thread = worker("papyros-test", lambda: None, told.append)
    thread.start()
    thread.join(PATIENCE)
    assert told == []


def test_a_job_whose_thread_breaks_down_says_so_and_another_thread_goes_on(monkeypatch):
    with papyros.MultiThreadedMaster(1) as master:
        bug = Bug.put_into(monkeypatch, Place, "end_job", loose=True)
        lost = processed(master, Square(3))
        assert type(lost.exception) is papyros.SlaveLost
        assert Bug.TEXT in str(lost.exception)
        bug.loose = False
        assert processed(master, Square(4)).result == 16


def test_jobs_that_nobody_will_hand_to_an_engine_say_so(monkeypatch):
    with ThreadPoolExecutor(1) as pool, papyros.ExecutorMaster(pool) as master:
        assert processed(master, Square(3)).result == 9
        Bug.put_into(monkeypatch, DelegatingMaster, "_set_alarm", loose=True)
        for _ in range(2):
            lost = processed(master, Square(4))
            assert type(lost.exception) is papyros.SlaveLost
            assert Bug.TEXT in str(lost.exception)


@pytest.mark.parametrize("method", ["take", "unpack"])
def test_futures_that_nobody_will_settle_say_so(monkeypatch, method):
    with papyros.MultiThreadedMaster(1) as master:
        executor = master.executor()
        assert executor.submit(pow, 2, 3).result(PATIENCE) == 8
        Bug.put_into(monkeypatch, FutureLane, method, loose=True)
        error = executor.submit(pow, 2, 4).exception(PATIENCE)
        if error is None:  # the thread was beyond the bug already
            with contextlib.suppress(papyros.SlaveLost):
                error = executor.submit(pow, 2, 4).exception(PATIENCE)
        assert error is None or type(error) is papyros.SlaveLost
        with pytest.raises(papyros.SlaveLost, match=f"{Bug.TEXT}.*make another executor"):
            executor.submit(pow, 2, 5)
        executor.shutdown()
