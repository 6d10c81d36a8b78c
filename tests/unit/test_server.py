"""A master at work whose name server is no help: it looks after its own all the same, and ends in order."""

from __future__ import annotations

import contextlib
import threading

import pytest

from papyros import GroupTakenError, KeyRefusedError, VersionMismatchError
from papyros.distributed.batches import AddedJob, JobOutcome
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.messages import CALL, _pack, send_message
from papyros.distributed.naming import Address
from papyros.distributed.seals import SEAL_BYTES
from papyros.distributed.security import Role
from papyros.distributed.server import MasterServer
from papyros.terms import Terms
from tests.support import Clock, security, wait_until


class FakeNames:
    """A name server that answers nothing any more, once a master is registered, and in the end raises an error."""

    def __init__(self, error=None):
        self.asked = threading.Event()
        self.over = threading.Event()
        self.closed = False
        self._error = error

    def register(self, group, uri, may_replace):
        pass

    def stay_registered(self, group, uri, hosted):
        self.asked.set()
        self.over.wait()

    def unregister(self, group, uri):
        if self._error is not None:
            raise self._error

    def close(self):
        self.closed = True


def serve(names):
    server = MasterServer("lab", Address("127.0.0.1", 1), security(), lease=0.4, grace=0.4)
    server._names = names
    server.register()
    return server


def test_who_is_silent_is_given_up_also_while_the_name_server_is_silent():
    """The thread that asks the name server once looked after both, and nobody was given up while it waited."""
    names = FakeNames()
    server = serve(names)
    desk = server.service._desk
    try:
        assert names.asked.wait(10)
        with desk.lock:
            desk.enlist("a silent host", 1)
            desk.welcome("a silent client")
        wait_until(lambda: not desk.hosts and not desk.clients, "an end to those who are silent", 10)
        assert not names.over.is_set()
    finally:
        names.over.set()
        server.close()


@pytest.mark.parametrize(
    "error", [KeyRefusedError("another key"), VersionMismatchError("another version"), AssertionError("a bug")]
)
def test_a_master_lets_go_of_everything_though_the_name_cannot_be_taken_back(error):
    names = FakeNames(error)
    names.over.set()
    server = serve(names)
    if isinstance(error, AssertionError):
        with pytest.raises(AssertionError):
            server.close()
    else:
        server.close()
    assert names.closed  # and no thread or socket is left, as for all tests


def test_a_master_whose_end_is_interrupted_lets_go_of_everything(monkeypatch):
    """Ctrl-C once left one that was registered, and served everybody, but gave up nobody who was silent."""
    names, unregistered = FakeNames(), []
    monkeypatch.setattr(names, "unregister", lambda *what: unregistered.append(what))
    server = serve(names)
    assert names.asked.wait(10)

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(server._keeper, "join", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            server.close()
        assert unregistered == [("lab", server.uri)]
        assert names.closed
        with pytest.raises(LineBrokenError):
            Line(server.uri, security(), Role.CLIENT)
    finally:
        names.over.set()


def test_a_master_both_threads_of_which_break_down_at_the_same_time_ends(monkeypatch):
    """Each closes it, and once waited for the other one then."""
    both = threading.Barrier(2)

    class Closing(threading.Event):
        def is_set(self):
            known = super().is_set()
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            return known

    class Names(FakeNames):
        def stay_registered(self, group, uri, hosted):
            raise GroupTakenError("another one has the name")

    def sweep():
        raise AssertionError("a bug")

    server = MasterServer("lab", Address("127.0.0.1", 1), security(), lease=0.4, on_over=lambda _: server.close())
    server._names, server._closing = Names(), Closing()
    monkeypatch.setattr(server.service, "sweep", sweep)
    server.register()
    wait_until(lambda: server._names.closed, "its end", 10)


@pytest.mark.parametrize("error", [KeyRefusedError("another key"), VersionMismatchError("another version")])
def test_a_master_says_once_that_the_name_server_takes_it_no_more_and_goes_on(error, caplog):
    """And once more when that happens again; it does not end, since those who are connected are served all the same."""
    answers = iter([error, error, error, None, error, None])
    over = threading.Event()

    class Names(FakeNames):
        def stay_registered(self, group, uri, hosted):
            answer = next(answers, over)
            if answer is over:
                over.set()
            elif answer is not None:
                raise answer

    server = serve(Names())
    try:
        assert over.wait(10)
        with server.service._desk.lock:
            server.service._desk.welcome("a client")
    finally:
        server.close()
    assert caplog.messages == [f"{error}; the master goes on for those who are connected"] * 2


#: More than systems take of what nobody receives.
LARGE_BYTES = 32 << 20


@pytest.fixture
def unregistered():
    """A master that no name server knows, and that sweeps nobody out; its clock is set by hand."""
    server = MasterServer("lab", Address("127.0.0.1", 1), security())
    server._names = FakeNames()
    server.service._desk.clock = Clock()
    yield server
    server.close()


@pytest.mark.parametrize("role", [Role.CLIENT, Role.SLAVE_HOST])
def test_who_receives_something_large_bit_by_bit_is_not_silent(unregistered, role):
    """A client's jobs would be dropped over a result that takes longer than the grace time, and a host's given away."""
    desk = unregistered.service._desk
    with Line(unregistered.uri, security(), role) as line:
        line.call("join", "one") if role is Role.CLIENT else line.call("enlist", "one", 1)
        with desk.lock:
            if role is Role.CLIENT:
                one, call = desk.clients["one"], ("collect", ["one", 0, False, 0.0])
                done = JobOutcome("one", 1, bytes(LARGE_BYTES), 0.0, "")
                desk.ledger.settle(one.session, 1, done, LARGE_BYTES)
            else:
                one, call = desk.hosts["one"], ("fetch", ["one", 0, 0, 0.0])
                job = AddedJob(1, bytes(16), bytes(LARGE_BYTES), Terms(), bytes(SEAL_BYTES))
                desk.add(desk.welcome("a client"), [job])
        send_message(line._sock, CALL, 2, {"method": call[0], "params": call[1]})
        line._sock.recv(1)  # it is on its way
        for _ in range(3):
            desk.clock.now += 1000.0
            wait_until(lambda: line._sock.recv(1 << 14) and one.seen == desk.clock.now, f"{one} is heard of", 10)


@pytest.mark.parametrize("role", [Role.CLIENT, Role.SLAVE_HOST])
def test_who_sends_something_large_bit_by_bit_is_not_silent(unregistered, role):
    desk = unregistered.service._desk
    with Line(unregistered.uri, security(), role) as line:
        line.call("join", "one") if role is Role.CLIENT else line.call("enlist", "one", 1)
        one = desk.clients["one"] if role is Role.CLIENT else desk.hosts["one"]
        whole = memoryview(b"".join(_pack(CALL, 2, {"method": "identify", "params": []}, bytes(LARGE_BYTES), 0)))
        pieces = iter([whole[start : start + (1 << 14)] for start in range(0, len(whole), 1 << 14)])
        for _ in range(3):
            desk.clock.now += 1000.0
            wait_until(lambda: line._sock.sendall(next(pieces)) or one.seen == desk.clock.now, f"{one} is heard of", 10)


@pytest.mark.parametrize("silence", ["lease", "grace"])
@pytest.mark.parametrize("seconds", [0.001, 1e11])
def test_a_silence_that_is_shorter_or_longer_than_makes_sense_is_refused(silence, seconds):
    with pytest.raises(ValueError, match=f"{silence} is a number of seconds from 0.1 to 604800"):
        MasterServer("lab", Address("127.0.0.1", 1), security(), **{silence: seconds})
