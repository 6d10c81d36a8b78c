"""What a slave does with outcomes that wait to be sent."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import socket
import sys
import threading
import time
from array import array

import pytest

from papyros.frames import FrameReader, split_column
from papyros.protocol import ORDINAL, OUTCOMES
from papyros.slate import SLATE_BYTES, Slate
from papyros.slave import LEFT_SECONDS, Slave
from papyros.telling import GATHER_SECONDS, PAUSE_SECONDS
from tests.support import PATIENCE, wait_until

pytestmark = pytest.mark.compiled

JOB = (b"\0\0\0\0", 1, 0, 0, b"")


@pytest.fixture
def slave():
    """A slave, and the connection of its crew."""
    ours, its = socket.socketpair()
    tokens, crews = os.pipe()
    ours.settimeout(PATIENCE)
    with ours, its, contextlib.closing(Slate(mmap.mmap(-1, SLATE_BYTES))) as slate:
        yield Slave(its, tokens, slate), ours
    os.close(tokens)
    os.close(crews)


@pytest.fixture
def guarded(slave):
    """The same, with the thread that sends outcomes while a job runs."""
    made, crew = slave
    guard = threading.Thread(target=made._teller.serve_as_guard)
    guard.start()
    yield made, crew
    crew.close()
    note(made, b"nobody hears of this", long_ago=True)
    guard.join(PATIENCE)
    assert not guard.is_alive()


def give_jobs(slave):
    """Give a slave jobs that wait, so that what comes of others need not be sent; return when that was."""
    slave._queue.extend([JOB] * 10)
    slave._few = 0
    slave._teller._flushed = time.monotonic()  # nor because nothing has been for long
    return slave._teller._flushed


def note(slave, outcome, seconds=0.01, long_ago=False):
    """Have a slave end a job, while others are there; return when that was."""
    now = give_jobs(slave)
    slave._note_end(0, outcome, seconds, now - PATIENCE if long_ago else now)
    return now


def heard(crew):
    """Return the outcomes of the next message."""
    (frame,) = FrameReader(crew).read()
    assert frame.kind == OUTCOMES
    after = ORDINAL.size + 8 * frame.number
    assert len(array("d", bytes(frame.body[ORDINAL.size : after]))) == frame.number
    return [bytes(outcome) for outcome in split_column(frame.body, frame.number, after)]


def test_outcomes_that_wait_are_sent_while_a_job_runs(guarded):
    slave, crew = guarded
    noted = note(slave, b"one")
    note(slave, b"two")
    assert heard(crew) == [b"one", b"two"]
    assert time.monotonic() - noted >= GATHER_SECONDS


def test_what_has_come_after_the_last_message_waits_for_as_long(guarded):
    slave, crew = guarded
    note(slave, b"one")
    slave._flush()  # between two jobs
    noted = note(slave, b"two")
    assert heard(crew) == [b"one"]
    assert heard(crew) == [b"two"]
    assert time.monotonic() - noted >= GATHER_SECONDS


def test_the_guard_that_has_gone_to_rest_is_woken(guarded):
    slave, crew = guarded
    for outcome in (b"one", b"two"):
        note(slave, outcome)
        assert heard(crew) == [outcome]
        wait_until(lambda: not slave._teller._guarded.is_set(), "the guard rests")


def test_the_guard_has_its_turn_between_two_jobs_that_leave_it_none(guarded, monkeypatch):
    slave, crew = guarded
    monkeypatch.setattr("papyros.telling.LOOK_SECONDS", PATIENCE)

    def guard_sleeps():
        if not slave._teller.waits:
            note(slave, b"one")  # again, where the guard slept and woke up before anybody looked
        due = slave._teller._guard_due
        return due if due < math.inf else None

    interval = sys.getswitchinterval()
    sys.setswitchinterval(PATIENCE)  # from now on a thread has the interpreter's lock until it waits for something
    try:
        due = wait_until(guard_sleeps, "the guard sleeps")
        while time.monotonic() <= due:
            pass  # a job that does not let go of the interpreter's lock
        note(slave, b"two")
        assert slave._teller._guard_due != due
    finally:
        sys.setswitchinterval(interval)
    while (told := heard(crew)) == [b"one"]:
        pass  # of a sleep that nobody saw
    assert told == [b"one", b"two"]


def test_a_slave_sends_itself_what_would_be_late_at_the_end_of_the_next_job(slave):
    made, crew = slave
    seconds = 0.4 * GATHER_SECONDS
    now = give_jobs(made)
    made._note_end(0, b"one", seconds, now + PAUSE_SECONDS)
    made._note_end(0, b"two", seconds, now + seconds)
    assert made._teller.waits
    made._note_end(0, b"three", seconds, now + 2 * seconds)
    assert heard(crew) == [b"one", b"two", b"three"]


def test_a_slave_asks_for_more_when_half_of_its_jobs_are_left_unless_these_take_long(slave):
    made, crew = slave
    now = give_jobs(made)
    made._few = len(made._queue)
    made._note_end(0, b"one", LEFT_SECONDS / len(made._queue), now + PAUSE_SECONDS)
    assert made._teller.waits
    made._queue.pop()
    made._note_end(0, b"two", LEFT_SECONDS / 2 / len(made._queue), now + 2 * PAUSE_SECONDS)
    assert heard(crew) == [b"one", b"two"]


def test_the_rest_of_a_bundle_whose_tokens_are_gone_for_good_is_left_to_others(slave, monkeypatch):
    monkeypatch.setattr("papyros.slave.TOKEN_SECONDS", 0.05)
    made, _ = slave
    os.set_blocking(made._tokens, False)
    assert not made._may_go_on(b"\0\0\0\0")
    assert made._tokens_gone
