"""The switchboard: what goes wrong with one caller is no affair of the others."""

from __future__ import annotations

import errno

import pytest

from papyros.distributed.bells import Bell, Waiting
from papyros.distributed.daemon import Daemon, offer
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.security import Role
from tests.support import security


class Talker:
    """Answers at length, at once or after a while."""

    @offer(Role.CLIENT)
    def talk(self, size):
        return "x" * size

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
