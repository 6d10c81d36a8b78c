"""Deadlines, on a clock that only the test moves."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from papyros import deadlines
from papyros.deadlines import FEW, LOOK_SECONDS, Alarm, Deadline, SafeCondition
from tests.support import PATIENCE, Background


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(deadlines, "time", clock)
    return clock


class Conditionlike:
    """Notes for how long it was waited."""

    def __init__(self):
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)


def test_what_remains_shrinks_to_zero(clock):
    deadline = Deadline(5)
    assert deadline.remaining() == 5
    clock.now += 3
    assert deadline.remaining() == 2
    assert not deadline.expired()
    clock.now += 3
    assert deadline.remaining() == 0
    assert deadline.expired()


@pytest.mark.parametrize("timeout", [None, float("inf")])
def test_for_ever_never_ends(clock, timeout):
    deadline = Deadline(timeout)
    clock.now += 1e12
    assert deadline.remaining() is None
    assert not deadline.expired()


def test_zero_is_over_at_once_and_does_not_wait(clock):
    deadline = Deadline(0)
    condition = Conditionlike()
    assert deadline.expired()
    assert deadline.wait(condition) is False
    assert condition.waits == []


def test_waiting_waits_for_what_remains(clock):
    deadline = Deadline(5)
    clock.now += 1
    condition = Conditionlike()
    assert Background(deadline.wait, condition).result() is True
    assert condition.waits == [4]
    clock.now += 10
    assert deadline.wait(condition) is False


def test_waiting_for_ever_waits_without_a_bound(clock):
    condition = Conditionlike()
    assert Background(Deadline(None).wait, condition).result() is True
    assert condition.waits == [None]


def test_a_timeout_beyond_what_threads_can_wait_is_for_as_long_as_they_can(clock):
    condition = Conditionlike()
    assert Background(Deadline(1e300).wait, condition).result() is True
    assert condition.waits == [threading.TIMEOUT_MAX]


@pytest.mark.parametrize(("timeout", "waited"), [(None, LOOK_SECONDS), (5, LOOK_SECONDS), (0.25, 0.25)])
def test_the_main_thread_looks_for_signals_again_and_again(clock, timeout, waited):
    condition = Conditionlike()
    assert Deadline(timeout).wait(condition) is True
    assert condition.waits == [waited]


@pytest.mark.parametrize(
    ("timeout", "waited"), [(None, [LOOK_SECONDS] * 3), (2.5, [LOOK_SECONDS, LOOK_SECONDS, 0.5]), (0, [0])]
)
def test_who_waits_for_an_event_in_the_main_thread_looks_for_signals_too(clock, timeout, waited):
    """It is set after three seconds."""
    event = Conditionlike()

    def wait(seconds):
        event.waits.append(seconds)
        clock.now += seconds
        return clock.now >= 1003.0

    event.wait = wait
    assert Deadline(timeout).wait_for(event) is (timeout is None)
    assert event.waits == waited


def test_where_ctrl_c_is_ignored_as_in_slaves_nobody_looks_for_it(clock, monkeypatch):
    monkeypatch.setattr(deadlines.signal, "getsignal", lambda number: signal.SIG_IGN)
    condition = Conditionlike()
    assert Deadline(None).wait(condition) is True
    assert condition.waits == [None]


def test_any_whole_number_is_a_timeout(clock):
    assert Deadline(10**400).remaining() > threading.TIMEOUT_MAX


def test_a_lock_is_opened_for_as_long_as_others_need_it_and_mended_before():
    lock = threading.RLock()
    condition = SafeCondition(lock)
    mended = []

    def take():
        with lock:
            return True

    with lock, lock:
        with condition.opened(lambda: mended.append(lock._is_owned())):
            Background(take).result()
        assert mended == [True]
        assert lock._is_owned()
    assert not lock._is_owned()


def test_a_lock_of_somebody_else_is_left_alone():
    condition = SafeCondition(threading.RLock())
    with condition.opened(lambda: pytest.fail("nothing is to be mended")):
        pass


def test_a_notification_ends_the_wait():
    condition = threading.Condition()
    entered = threading.Event()
    returned = []

    def wait():
        with condition:
            entered.set()
            returned.append(Deadline(60).wait(condition))

    thread = threading.Thread(target=wait)
    thread.start()
    assert entered.wait(30)
    with condition:  # held by the other thread until it waits
        condition.notify()
    thread.join(30)
    assert returned == [True]


@pytest.mark.parametrize("timeout", [True, False, "1", b"1", [], {}, object(), 1j])
def test_what_is_no_number_is_refused(timeout):
    with pytest.raises(TypeError, match="a timeout is a number of seconds or None"):
        Deadline(timeout)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("-inf")])
def test_what_is_no_time_is_refused(timeout):
    with pytest.raises(ValueError, match="a timeout is None, or 0 or more seconds"):
        Deadline(timeout)


def test_calls_that_were_cancelled_do_not_come_and_are_not_kept():
    alarm, came = Alarm(), threading.Event()
    try:
        now = time.monotonic()
        tickets = [alarm.set(now + 3600, came.set) for _ in range(1000)]
        for ticket in tickets:
            alarm.cancel(ticket)
        assert not alarm._calls
        assert len(alarm._moments) <= FEW
        alarm.cancel(alarm.set(now, lambda: None))
        alarm.set(time.monotonic(), came.set)
        assert came.wait(PATIENCE)
    finally:
        alarm.close()
    alarm.cancel(tickets[0])
