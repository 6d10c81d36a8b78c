"""When whoever adds jobs gives way to the threads that send them."""

from __future__ import annotations

import threading

import pytest

import papyros
from papyros import LocalCluster, MultiProcessMaster
from papyros.courtesy import ENOUGH, EVERY, PERIOD_SECONDS, SERIES_SECONDS, Courtesy
from tests.contract.jobs_for_tests import double
from tests.support import PATIENCE, Clock


class Time(Clock):
    """Passes while somebody sleeps, and notes when."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(self.now)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def courtesy(time) -> Courtesy:
    courtesy = Courtesy(time, time.sleep)
    courtesy.after_adding(1, 1, 0, 2)  # the first one of a series
    return courtesy


def test_a_job_by_itself_waits_for_nobody(courtesy, time):
    for _ in range(100):
        time.now += 0.01
        courtesy.after_adding(1, 1, 0, 2)
        courtesy.after_adding(1, 0, 1, 2)
    assert not time.sleeps


def test_a_series_gives_way_now_and_then_for_a_while(courtesy, time):
    began = time.now
    for kept in range(2, 100_000):
        courtesy.after_adding(kept, kept - 2, 2, 2)
        time.now += PERIOD_SECONDS / 10
    assert began < time.sleeps[0] < began + PERIOD_SECONDS
    assert time.sleeps[-1] < began + SERIES_SECONDS
    assert min(later - sooner for sooner, later in zip(time.sleeps, time.sleeps[1:], strict=False)) >= PERIOD_SECONDS
    assert len(time.sleeps) > SERIES_SECONDS / PERIOD_SECONDS / 2


def test_it_does_not_for_longer_because_all_that_was_added_is_taken_at_once(courtesy, time):
    """Or a program that adds many quick jobs would send them a few at a time, for as long as it adds any."""
    began = time.now
    for kept in range(2, 100_000):
        courtesy.after_adding(kept, kept % 3, 2, 2)
        time.now += PERIOD_SECONDS / 10
    assert time.sleeps[-1] < began + SERIES_SECONDS


def test_another_series_begins_where_all_that_was_added_before_has_been_popped(courtesy, time):
    for kept in range(2, 200):
        courtesy.after_adding(kept, 1, 2, 2)
        time.now += SERIES_SECONDS / 50
    time.sleeps.clear()
    courtesy.after_adding(EVERY, 5, 2, 2)
    assert time.sleeps


def test_another_series_begins_after_jobs_by_ones(courtesy, time):
    for _ in range(100):
        time.now += SERIES_SECONDS / 5
        courtesy.after_adding(1, 1, 0, 2)
    courtesy.after_adding(EVERY, 5, 2, 2)
    assert time.sleeps


def test_a_few_jobs_at_a_time_are_one_series(courtesy, time):
    for _ in range(1000):
        courtesy.after_adding(4, 1, 3, 2)
        time.now += SERIES_SECONDS / 50
    assert time.sleeps[-1] < SERIES_SECONDS + time.sleeps[0]


def test_it_does_not_where_nothing_waits(courtesy, time):
    courtesy.after_adding(3, 0, 3, 2)
    assert not time.sleeps


def test_it_does_not_while_slaves_have_enough_to_do(courtesy, time):
    courtesy.after_adding(100, 50, 2 * ENOUGH, 2)
    assert not time.sleeps
    courtesy.after_adding(100, 50, 2 * ENOUGH - 1, 2)
    assert time.sleeps


def test_slaves_of_which_nobody_has_heard_count_as_one(courtesy, time):
    courtesy.after_adding(100, 50, ENOUGH, 0)
    assert not time.sleeps
    courtesy.after_adding(100, 50, ENOUGH - 1, 0)
    assert time.sleeps


def test_the_next_series_gives_way_anew(courtesy, time):
    time.now += 10
    courtesy.after_adding(1, 1, 0, 2)
    assert not time.sleeps
    courtesy.after_adding(2, 2, 0, 2)
    assert time.sleeps


def test_a_series_after_a_break_gives_way_anew_though_jobs_of_the_one_before_are_there(courtesy, time):
    time.now += SERIES_SECONDS - PERIOD_SECONDS / 2
    courtesy.after_adding(50, 1, 0, 2)
    time.now += PERIOD_SECONDS / 2
    courtesy.after_adding(51, 1, 0, 2)  # the series is over
    assert len(time.sleeps) == 1
    time.now += 10
    courtesy.after_adding(52, 1, 0, 2)
    assert len(time.sleeps) == 2


def check(master: papyros.Master, monkeypatch) -> None:
    slept = threading.Event()
    monkeypatch.setattr(master._main._courtesy, "_sleep", lambda _: slept.set())
    monkeypatch.setattr(master._main._courtesy, "_clock", lambda: 100.0)
    for number in range(EVERY):
        master.addJob(double(number))
    assert slept.is_set()


def test_a_master_of_processes_gives_way_where_slaves_have_yet_to_start(monkeypatch):
    with MultiProcessMaster(1) as master:
        check(master, monkeypatch)
        assert len(list(master.processedJobs(PATIENCE))) == EVERY


def test_a_client_gives_way_where_nothing_is_sent_yet(monkeypatch):
    with LocalCluster(slaves=1) as cluster, cluster.master() as master:
        with master._lock:  # or what was added first may be sent by now
            check(master, monkeypatch)
        assert len(list(master.processedJobs(PATIENCE))) == EVERY


def test_a_job_whose_adding_is_interrupted_meanwhile_was_not_added(monkeypatch):
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    jobs = [double(number) for number in range(EVERY)]
    with MultiProcessMaster(1) as master:
        monkeypatch.setattr(master._main._courtesy, "_sleep", interrupt)
        monkeypatch.setattr(master._main._courtesy, "_clock", lambda: 100.0)
        for job in jobs[:-1]:
            master.addJob(job)
        with pytest.raises(KeyboardInterrupt):
            master.addJob(jobs[-1])
        monkeypatch.undo()
        assert master.numPendingJobs() == len(jobs) - 1
        assert {job.result for job in master.processedJobs(PATIENCE)} == set(range(0, 2 * len(jobs) - 2, 2))
        master.addJob(jobs[-1])
        assert master.popProcessedJob(PATIENCE) is jobs[-1]
