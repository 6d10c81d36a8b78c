"""The switchboard: what goes wrong with one caller is no affair of the others."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from papyros.distributed.bells import Bell, Waiting
from papyros.distributed.daemon import Daemon, offer
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.messages import called_on
from papyros.distributed.security import Role, Security
from tests.support import Background, fork, security, wait_until


class Talker:
    """Answers at length, at once or after a while."""

    @offer(Role.CLIENT)
    def talk(self, size):
        return "x" * size

    @offer(Role.CLIENT)
    def note(self, what):
        return called_on().setdefault("noted", what)

    @offer(Role.CLIENT)
    def talk_later(self, size):
        return Waiting(lambda over: "x" * size if over else Bell().ticket(), 0.05)


@pytest.mark.parametrize("method", ["talk", "talk_later"])
def test_an_answer_that_is_too_large_ends_one_connection_only(method, monkeypatch):
    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()
    uri = f"PYRO:talker@127.0.0.1:{daemon.port}"
    try:
        with Line(uri, security(), Role.CLIENT) as other, Line(uri, security(), Role.CLIENT) as line:
            monkeypatch.setattr("papyros.distributed.messages.MAX_MESSAGE_BYTES", 10_000)
            with pytest.raises(LineBrokenError):
                line.call(method, 20_000)
            assert other.call(method, 10)[0] == "x" * 10
    finally:
        daemon.close()


def test_what_is_noted_of_a_connection_is_known_on_that_one_only():
    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()
    uri = f"PYRO:talker@127.0.0.1:{daemon.port}"
    try:
        with Line(uri, security(), Role.CLIENT) as one, Line(uri, security(), Role.CLIENT) as other:
            assert [line.call("note", what)[0] for line, what in ((one, "1"), (other, "2"), (one, "3"))] == list("121")
    finally:
        daemon.close()


def test_a_shortage_of_memory_ends_one_connection_only_and_is_told(monkeypatch, caplog):
    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()
    uri = f"PYRO:talker@127.0.0.1:{daemon.port}"
    really, shortages = daemon._switchboard._exchange, iter([MemoryError()])

    def exchange(caller, events):
        for shortage in shortages:
            raise shortage
        really(caller, events)

    try:
        with Line(uri, security(), Role.CLIENT) as other, Line(uri, security(), Role.CLIENT) as line:
            assert other.call("talk", 10)[0] == line.call("talk", 10)[0]  # both are known
            monkeypatch.setattr(daemon._switchboard, "_exchange", exchange)
            with pytest.raises(LineBrokenError):
                line.call("talk", 10)
            assert other.call("talk", 10)[0] == "x" * 10
    finally:
        daemon.close()
    [told] = [record for record in caplog.records if "no memory" in record.getMessage()]
    assert (told.levelname, told.exc_info) == ("WARNING", None)


def test_a_call_for_whose_answer_there_is_no_memory_is_told_and_may_be_made_again(monkeypatch, caplog):
    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()

    def receive(*_):
        raise MemoryError

    try:
        with Line(f"PYRO:talker@127.0.0.1:{daemon.port}", security(), Role.CLIENT) as line:
            monkeypatch.setattr("papyros.distributed.line.receive_message", receive)
            with pytest.raises(LineBrokenError, match="no memory"):
                line.call("talk", 10)
            assert line.broken, "the answer is still on its way"
    finally:
        daemon.close()
    assert sum("there is no memory for what" in message for message in caplog.messages) == 1


def test_a_shortage_of_descriptors_is_told_once_and_passes(monkeypatch, caplog):
    failures = iter([OSError(errno.EMFILE, "Too many open files")] * 5)

    class Short:
        """A socket that accepts nobody, for a while."""

        def __init__(self, sock):
            self._sock = sock

        def accept(self):
            for failure in failures:
                raise failure
            return self._sock.accept()

        def __getattr__(self, name):
            return getattr(self._sock, name)

    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    monkeypatch.setattr(daemon, "_sock", Short(daemon._sock))
    daemon.start()
    try:
        with Line(f"PYRO:talker@127.0.0.1:{daemon.port}", security(), Role.CLIENT) as line:
            assert line.call("talk", 10)[0] == "x" * 10
    finally:
        daemon.close()
    assert sum("cannot be accepted" in message for message in caplog.messages) == 1


def test_a_daemon_ends_though_a_forked_process_has_copies_of_its_sockets():
    """Of a program that hosts a master, and has a pool of processes, say; to close them here once ended nothing."""
    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()
    wait, go_on = os.pipe()
    with Line(f"PYRO:talker@127.0.0.1:{daemon.port}", security(), Role.CLIENT) as line:
        assert line.call("talk", 10)[0] == "x" * 10
        child = fork()
        if not child:
            os.close(go_on)
            os.read(wait, 1)
            os._exit(0)
        try:
            Background(daemon.close).result(10)
            with pytest.raises(LineBrokenError):
                line.call("talk", 10, timeout=10.0)
            Daemon("127.0.0.1", daemon.port, security(), Role.MASTER, Talker()).close()
        finally:
            os.close(go_on)
            os.close(wait)
            os.waitpid(child, 0)


@pytest.mark.parametrize("refused", ["register", "modify"])
def test_who_cannot_be_watched_is_hung_up_on_and_nobody_else(refused, monkeypatch, caplog):
    """The system has a bound on what is watched, and takes memory for it; that once was the end of the master."""
    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()
    uri = f"PYRO:talker@127.0.0.1:{daemon.port}"
    selector = daemon._switchboard._selector
    really, shortages = getattr(selector, refused), iter([OSError(errno.ENOSPC, "No space left on device")])

    def refuse(sock, *how):
        for shortage in shortages:
            if refused == "modify":
                selector.unregister(sock)  # as selectors do then
            raise shortage
        return really(sock, *how)

    try:
        with Line(uri, security(), Role.CLIENT) as other:
            assert other.call("talk", 10)[0] == "x" * 10
            monkeypatch.setattr(selector, refused, refuse)
            with Line(uri, security(), Role.CLIENT) as line, pytest.raises(LineBrokenError):
                line.call("talk", 32 << 20)  # at once is sent only a part of it
            assert other.call("talk", 10)[0] == "x" * 10
            wait_until(lambda: len(daemon._connections) == 1, "a place that is given back")
    finally:
        daemon.close()
    assert sum("No space left" in message for message in caplog.messages) == (refused == "register")


@pytest.mark.parametrize("error", [MemoryError(), AssertionError("a bug")])
def test_the_place_of_a_stranger_is_given_back_whatever_ended_its_greeting(error, monkeypatch, caplog):
    def fail(*_):
        raise error

    daemon = Daemon("127.0.0.1", 0, security(), Role.MASTER, Talker())
    daemon.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Security, "accept", fail)
            with socket.create_connection(("127.0.0.1", daemon.port), 10) as stranger:
                assert stranger.recv(1) == b"", "it is hung up on"
            wait_until(lambda: not daemon._greeters and not daemon._strangers, "a place that is given back")
        with Line(f"PYRO:talker@127.0.0.1:{daemon.port}", security(), Role.CLIENT) as line:
            assert line.call("talk", 10)[0] == "x" * 10
    finally:
        daemon.close()
    assert [record.levelname for record in caplog.records] == [
        "ERROR" if isinstance(error, AssertionError) else "WARNING"
    ]
