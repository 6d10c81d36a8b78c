"""What a client receives, by itself: with a stand-in for the client, and no network."""

from __future__ import annotations

import threading
import weakref
from collections import UserString
from types import SimpleNamespace

import pytest

from papyros.deadlines import SafeCondition
from papyros.distributed import receiving as receiving_module
from papyros.distributed.line import LineBrokenError
from papyros.distributed.receiving import Receiver

ANSWER = {"known": True, "number": 1, "news": True, "left": (0, 0, 1), "slaves": 1}


class Books:
    """What a client believes of jobs that were sent: there are none."""

    def __len__(self):
        return 0

    def let_go_of_room(self):
        pass


class FakeClient:
    """A client that is with the master `old`, and what its receiver asks."""

    def __init__(self, line):
        self._lock = threading.RLock()
        self._joined = SafeCondition(self._lock)
        self._news = threading.Condition(self._lock)
        self._stop_event = threading.Event()
        self._trouble = False
        self._limited = self._limits_results = False
        self._uri, self._stay, self._key = "old", "stay with old", "session"
        self._patience = self._silence = 1.0
        self._finder = SimpleNamespace(line=line, start_command="")
        self._packer = SimpleNamespace(kept=SimpleNamespace(stale=False))
        self._sent = Books()
        self.taken = []
        self._exchange = SimpleNamespace(checked=lambda done: done, take=lambda done: self.taken.append(len(done)))
        self.lost = []
        self._receiver = Receiver(self)

    def _lose_master(self):
        self.lost.append(self._uri)

    def _tell_why(self, error, uri, when):
        pass

    def _note_left(self, left):
        pass

    def _outcomes_came(self):
        pass

    def move(self):
        """Go to another master, as the sender does."""
        with self._lock:
            self._uri, self._stay = "new", "stay with new"
            self._receiver.begin_anew()


class FakeLine:
    """A line that answers what a function returns, until it is broken."""

    def __init__(self, uri, answer):
        self.uri = uri
        self.broken = threading.Event()
        self._answer = answer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def abort(self):
        self.broken.set()

    def call(self, *arguments, **options):
        if self.broken.is_set():
            raise LineBrokenError("it was broken")
        return self._answer(self)


@pytest.mark.parametrize("when", ["while it connects", "while it waits for an answer"])
def test_the_receiver_goes_along_at_once_when_another_master_takes_over(when):
    """It once knew where to receive, and of which stay that is, from two moments, and stayed with the old one."""
    asked = []

    def line(uri, silence):
        if uri == "old" and when == "while it connects":
            client.move()
        return FakeLine(uri, answer)

    def answer(line):
        asked.append(line.uri)
        if line.uri == "old":
            client.move()
            assert line.broken.is_set(), "it waits for as long as the old master lets it"
            raise LineBrokenError("it was broken")
        client._stop_event.set()
        return {**ANSWER, "news": False}, b""

    client = FakeClient(line)
    client._receiver.run()
    assert asked == (["new"] if when == "while it connects" else ["old", "new"])
    assert not client.lost, "the new one is not given up for what came of the old one"


def test_the_receiver_lets_go_of_what_came_before_it_waits_for_more(monkeypatch):
    """It kept the last result that came until the next one did, however large, when everybody else had let go of it."""

    class Outcome(UserString):
        pass

    came, kept = [], []

    def unpack(_):
        outcome = Outcome("x" * 1000)
        came.append(weakref.ref(outcome))
        return [outcome]

    def answer(_):
        kept.extend(reference for reference in came if reference() is not None)
        if len(came) == 2:
            client._stop_event.set()
            return {**ANSWER, "news": False}, b""
        return ANSWER, b""

    monkeypatch.setattr(receiving_module, "unpack_message", lambda _: (b"[]", b""))
    monkeypatch.setattr(receiving_module, "unpack_outcomes", unpack)
    client = FakeClient(lambda uri, silence: FakeLine(uri, answer))
    client._receiver.run()
    assert client.taken == [1000, 1000]
    assert not kept


def test_outcomes_are_acknowledged_when_all_of_them_were_taken(monkeypatch):
    """Memory may end before: then they come again."""
    acknowledged, outcomes = [], [b"a", b"bb"]

    def answer(_):
        if len(client.taken) > 2:
            client._stop_event.set()
        return ANSWER, b""

    def take(done):
        client.taken.append(done)
        if client.taken == [b"a", b"bb"]:
            raise MemoryError

    class Line(FakeLine):
        def call(self, method, key, number, *rest):
            acknowledged.append(number)
            return super().call()

    monkeypatch.setattr(receiving_module, "unpack_message", lambda _: (b"[]", b""))
    monkeypatch.setattr(receiving_module, "unpack_outcomes", lambda _: outcomes)
    client = FakeClient(lambda uri, silence: Line(uri, answer))
    client._exchange.take = take
    monkeypatch.setattr(client._receiver, "_take_stock", lambda: None)
    client._receiver.run()
    assert acknowledged == [0, 0, 1]
    assert client.taken == [b"a", b"bb", b"a", b"bb", b"a", b"bb"]
    assert client.lost == ["old"], "it is connected anew"
