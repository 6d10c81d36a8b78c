"""What a slave does with outcomes that wait to be sent."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
from array import array

import pytest

from papyros.frames import FrameReader, split_column
from papyros.protocol import ORDINAL, OUTCOMES, PRINTED
from papyros.slate import SLATE_BYTES, Slate
from papyros.slave import LEFT_SECONDS, Slave
from papyros.telling import GATHER_SECONDS, PAUSE_SECONDS
from tests.support import PATIENCE, Background, wait_until

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


#: More than a socket has room for.
LONG = bytes(range(256)) * 20_000


class Enough(Exception):
    """What a job's handler of a signal raises."""


@contextlib.contextmanager
def interrupted(crew, handler):
    """Have a handler interrupt this thread, once, after something has come to the crew."""
    came = threading.Event()

    def handle(*_):
        if not came.is_set():
            came.set()
            handler()

    def interrupt():
        poll = select.poll()
        poll.register(crew, select.POLLIN)
        assert poll.poll(PATIENCE * 1000)
        while not came.wait(0.01):  # what is compiled lets the handler run only when it waits for the crew again
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    interrupting = Background(interrupt)
    try:
        yield
    finally:
        interrupting.result()
        signal.signal(signal.SIGUSR1, before)


def received(reader, number):
    """Return so many frames."""
    frames = []
    while len(frames) < number:
        frames += reader.read()
    return [(frame.kind, frame.number, bytes(frame.body)) for frame in frames]


def test_what_is_left_of_a_frame_whose_sending_a_signal_has_ended_goes_before_the_next_one(slave):
    """An alarm of a job's own, say: the crew would take what follows for the rest of that frame."""
    made, crew = slave
    reader = FrameReader(crew)

    def ring():
        raise Enough

    for number in range(10):
        with pytest.raises(Enough), interrupted(crew, ring):
            made._teller.send(PRINTED, number, LONG)
        receiving = Background(received, reader, 2)
        made._teller.send(PRINTED, number, b"next")
        assert receiving.result() == [(PRINTED, number, LONG), (PRINTED, number, b"next")]


def test_what_a_handler_of_a_signal_sends_goes_after_the_frame_that_it_interrupts(slave):
    made, crew = slave
    receiving = []

    def say_so():
        made._teller.send(PRINTED, 2, b"a signal has come")
        receiving.append(Background(received, FrameReader(crew), 2))

    with interrupted(crew, say_so):
        made._teller.send(PRINTED, 1, LONG)
    assert receiving[0].result() == [(PRINTED, 1, LONG), (PRINTED, 2, b"a signal has come")]
