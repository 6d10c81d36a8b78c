"""The alarm calls at its time, from one thread, and lets go when it is closed."""

from __future__ import annotations

import threading
import time

import pytest

import papyros
from papyros.deadlines import Alarm
from tests.support import PATIENCE, Background, at_most, none_to_spare, refuse_threads, wait_until


@pytest.fixture
def alarm():
    alarm = Alarm()
    yield alarm
    alarm.close()


def alarms():
    return [thread for thread in threading.enumerate() if thread.name == "papyros-alarm"]


def test_without_a_call_there_is_no_thread(alarm):
    assert alarms() == []


def test_calls_come_in_the_order_of_their_moments_and_not_before(alarm):
    now, done, calls = time.monotonic(), threading.Event(), []
    for delay in (0.15, 0.05, 0.1, 0.0, -1.0):
        alarm.set(now + delay, lambda delay=delay: calls.append((delay, time.monotonic() - now)))
    alarm.set(now + 0.2, done.set)
    assert done.wait(PATIENCE)
    assert [delay for delay, _ in calls] in ([0.0, -1.0, 0.05, 0.1, 0.15], [-1.0, 0.0, 0.05, 0.1, 0.15])
    assert all(delay <= called for delay, called in calls)
    assert len(alarms()) == 1


def test_calls_of_one_moment_come_in_the_order_of_setting(alarm):
    moment, done, calls = time.monotonic() + 0.05, threading.Event(), []
    for number in range(20):
        alarm.set(moment, lambda number=number: calls.append(number))
    alarm.set(moment, done.set)
    assert done.wait(PATIENCE)
    assert calls == list(range(20))


def test_an_earlier_call_that_is_set_later_is_not_overslept(alarm):
    done = threading.Event()
    alarm.set(time.monotonic() + 1000, done.clear)
    alarm.set(time.monotonic() + 0.01, done.set)
    assert done.wait(PATIENCE)


@pytest.mark.parametrize("moment", [1e300, float("inf")])
def test_a_moment_that_never_comes_is_waited_for_without_harm(alarm, moment):
    done = threading.Event()
    alarm.set(moment, done.clear)
    alarm.set(time.monotonic(), done.set)
    assert done.wait(PATIENCE)
    assert len(alarms()) == 1


def test_a_call_may_set_another_one(alarm):
    done, left = threading.Event(), [50]

    def again():
        left[0] -= 1
        if left[0]:
            alarm.set(time.monotonic(), again)
        else:
            done.set()

    alarm.set(time.monotonic(), again)
    assert done.wait(PATIENCE)


def test_a_call_that_raises_does_not_keep_the_others_from_coming(alarm, caplog):
    """Otherwise one thread that cannot be started would end all retries and timeouts."""
    done = threading.Event()

    def fail():
        raise RuntimeError("no luck")

    alarm.set(time.monotonic(), fail)
    alarm.set(time.monotonic() + 0.01, done.set)
    assert done.wait(5)
    assert "no luck" in caplog.text


def test_closing_forgets_what_is_to_come_and_ends_the_thread(alarm):
    called = []
    alarm.set(time.monotonic() + 1000, lambda: called.append(1))
    with at_most(5):
        alarm.close()
        alarm.close()
    assert alarms() == []
    alarm.set(time.monotonic(), lambda: called.append(2))
    assert alarms() == []
    assert called == []


def test_closing_waits_for_the_call_that_is_under_way(alarm):
    begun, release, ended = threading.Event(), threading.Event(), []

    def call():
        begun.set()
        release.wait(PATIENCE)
        ended.append(1)

    alarm.set(time.monotonic(), call)
    assert begun.wait(PATIENCE)
    threading.Timer(0.05, release.set).start()
    alarm.close()
    assert ended == [1]


def test_a_call_may_close_its_alarm(alarm):
    done = threading.Event()

    def call():
        alarm.close()
        done.set()

    alarm.set(time.monotonic(), call)
    assert done.wait(PATIENCE)


def test_an_alarm_for_which_no_thread_can_be_started_comes_with_the_next_one(alarm, monkeypatch):
    """A job may have taken all that there are; whoever sets the alarm, in the crew's thread, say, is not to fail."""
    calls, done = [], threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_to_spare)
        alarm.set(time.monotonic(), lambda: calls.append("first"))
    assert alarms() == []
    alarm.set(time.monotonic(), done.set)
    assert done.wait(PATIENCE)
    assert calls == ["first"]


def test_an_alarm_for_which_no_thread_could_be_started_comes_when_somebody_looks(alarm, monkeypatch, caplog):
    done = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_to_spare)
        alarm.set_earliest(time.monotonic(), done.set)
        alarm.look()
    assert alarms() == []
    assert len(caplog.messages) == 1, "it is said once"
    alarm.look()
    assert done.wait(PATIENCE)


def test_without_a_call_nobody_starts_a_thread_by_looking(alarm):
    alarm.look()
    alarm.set(time.monotonic() + 1000, print)
    alarm.close()
    alarm.look()
    assert alarms() == []


def test_of_calls_at_the_earliest_moment_there_is_one_however_often_it_was_asked_for(alarm):
    calls, done = [], threading.Event()

    def call():
        calls.append(time.monotonic())
        done.set()

    now = time.monotonic()
    for delay in (1000.0, 0.05, 500.0, 0.02, 300.0):
        alarm.set_earliest(now + delay, call)
    assert len(alarm._calls) == 1
    assert done.wait(PATIENCE)
    assert calls[0] - now >= 0.02
    assert not alarm._calls
    done.clear()
    alarm.set_earliest(time.monotonic(), call)  # since it was called, nothing was asked for
    assert done.wait(PATIENCE)


@papyros.job(retries=1, backoff=0.01)
def fail_once(failed):
    if not failed.is_set():
        failed.set()
        raise ValueError("not now")
    return "now"


@pytest.mark.parametrize("kind", [papyros.SingleThreadedMaster, papyros.MultiThreadedMaster])
def test_a_job_is_tried_again_though_there_was_no_thread_for_the_alarm_when_it_failed(kind, monkeypatch):
    """Nobody but who waits for it is awake by then, and not in the main thread."""
    with kind() as master:
        job = fail_once(threading.Event())
        with monkeypatch.context() as patch:
            refuse_threads(patch, "papyros-alarm")
            master.addJob(job)
            waiting = Background(master.popProcessedJob)
            wait_until(lambda: master._alarm.in_want, "an alarm that is in want of a thread")
        assert waiting.result(10) is job
        assert job.result == "now"
