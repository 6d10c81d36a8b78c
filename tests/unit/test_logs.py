"""What Papyros logs keeps nobody waiting, though the handlers of a program write to a pipe that nobody reads."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import threading

import pytest

import papyros
from papyros.logs import logger_of, show_warnings
from tests.contract.jobs_for_tests import end_slave, hang
from tests.support import Background, none_to_spare, processed


@pytest.fixture
def full_pipe(monkeypatch):
    """A pipe that is full, to which all that is logged goes; what is read from it, to the end."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(into, b"x" * 4096)
    os.set_blocking(into, True)
    handler = logging.StreamHandler(os.fdopen(into, "w"))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    yield os.fdopen(out, "rb")
    handler.stream.close()


def test_a_slave_that_dies_is_told_of_to_nobody_and_time_limits_are_kept(full_pipe, tmp_path):
    with papyros.MultiProcessMaster(1) as master:
        lost = end_slave(str(tmp_path), "lost", "exit")
        assert Background(processed, master, lost).result() is lost
        late = hang(str(tmp_path), "late", "sleep")
        late.timeout = 0.2
        assert Background(processed, master, late).result() is late
        assert type(late.exception) is papyros.JobTimeout
    with full_pipe:
        read = b""
        while read.count(b"ended with exit code") < 3:
            read += os.read(full_pipe.fileno(), 1 << 16)


def test_what_has_room_is_logged_at_once(caplog):
    logger_of("papyros.test").warning("at %s", "once")
    assert caplog.messages == ["at once"]


class Interrupted(io.StringIO):
    """A stream that a signal comes for when it is first looked at."""

    looked_at = False

    def fileno(self):
        if not self.looked_at:
            self.looked_at = True
            signal.raise_signal(signal.SIGUSR1)
        return super().fileno()


def test_what_handles_a_signal_may_log_while_the_same_thread_does(monkeypatch):
    log = logger_of("papyros.test")
    stream = Interrupted()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    before = signal.signal(signal.SIGUSR1, lambda *_: log.warning("a signal came"))
    try:
        log.warning("something happened")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stream.getvalue() == "a signal came\nsomething happened\n"


def test_warnings_are_shown_once_and_not_where_a_program_handles_them_already(monkeypatch):
    root, ours = logging.getLogger(), logging.getLogger("papyros")
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    show_warnings()
    assert not ours.handlers
    monkeypatch.setattr(root, "handlers", [])
    show_warnings()
    show_warnings()
    assert len(ours.handlers) == 1


def test_a_record_for_which_no_thread_can_be_started_is_handed_on_with_the_next_one(full_pipe, monkeypatch):
    logger = logger_of("papyros.of_this_test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_to_spare)
        logger.warning("the first")
    logger.warning("the second")
    read = b""
    with full_pipe:
        while b"the second\n" not in read:
            read += os.read(full_pipe.fileno(), 1 << 16)
    assert b"the first\nthe second\n" in read


class NoFile(io.StringIO):
    """A stream that is no file, and says so in a way of its own."""

    def __init__(self, fileno):
        super().__init__()
        self.fileno = fileno


def refuse():
    raise NotImplementedError("no file here")


class Odd(logging.StreamHandler):
    """A handler that has no stream when it is asked for one."""

    @property
    def stream(self):
        raise LookupError("no stream here")

    @stream.setter
    def stream(self, stream):
        self.shown = stream

    def emit(self, record):
        self.shown.write(self.format(record) + self.terminator)


@pytest.mark.parametrize("fileno", [refuse, lambda: None, lambda: -1, lambda: 1 << 80])
@pytest.mark.parametrize("make", [logging.StreamHandler, Odd])
def test_what_is_no_file_takes_all_that_is_logged_whatever_it_says_of_that(monkeypatch, make, fileno):
    stream = NoFile(fileno)
    monkeypatch.setattr(logging.getLogger(), "handlers", [make(stream)])
    logger_of("papyros.test").warning("something happened")
    assert stream.getvalue() == "something happened\n"
