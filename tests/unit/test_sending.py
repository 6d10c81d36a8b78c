"""What a client sends, by itself: with a stand-in for the client, and no network."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from papyros.distributed import batches as batches_module
from papyros.distributed import sending as sending_module
from papyros.distributed.batches import AddedJob, unpack_added, unpack_definitions
from papyros.distributed.line import LineBrokenError
from papyros.distributed.sending import Sender
from papyros.distributed.sent import SentJobs
from papyros.entries import Entry, Session
from papyros.terms import DEFAULT_TERMS


class FakeLine:
    """A line that breaks when jobs are sent over it."""

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True

    def call(self, method, *args, **kwds):
        raise LineBrokenError("there is no memory")


def test_a_client_whose_lines_break_again_and_again_makes_pauses_that_grow(monkeypatch):
    """Without, it made connections as fast as it could, for as long as there was no memory for what it sends."""
    stop, lines, pauses = threading.Event(), [], []

    class Pauses:
        def next(self):
            pauses.append(len(lines))
            if len(pauses) == 3:
                stop.set()
            return 0.0

    def again():
        assert len(lines) < 20, "there is no end to it"
        lines.append(FakeLine())
        return lines[-1]

    def broken(line):
        raise LineBrokenError("there is no memory")

    monkeypatch.setattr(sending_module, "Pauses", Pauses)
    client = SimpleNamespace(
        _key="session", _stop_event=stop, _finder=SimpleNamespace(again=again), _join=lambda line: True
    )
    sender = Sender(client)
    monkeypatch.setattr(sender, "_send_on", broken)
    sender.line = first = FakeLine()
    sender.run()
    assert pauses == [0, 1, 2], "one before each line but the first"
    assert all(line.closed for line in (first, *lines))


def test_definitions_go_in_messages_of_a_bounded_size_and_once(monkeypatch):
    """What is larger than that goes by itself; what was sent before a line broke is not sent again."""
    monkeypatch.setattr(batches_module, "DEFINITIONS_BYTES", 10)
    definitions = {bytes([number]): bytes(size) for number, size in enumerate([4, 4, 4, 30, 4])}
    packer = SimpleNamespace(definitions=definitions, labels=dict.fromkeys(definitions, "a label"))
    sender = Sender(SimpleNamespace(_key="session", _packer=packer))
    monkeypatch.setattr(sender, "_values", SimpleNamespace(send=lambda line, packer, needed: None))
    sent, breaks = [], [2]

    class Line:
        def call(self, method, key, labels, message):
            assert method == "define"
            if len(sent) in breaks:
                breaks.clear()
                raise LineBrokenError("just now")
            sent.append(unpack_definitions(memoryview(message)))
            assert labels == {digest.hex(): "a label" for digest in sent[-1]}
            return {"known": True}, b""

    needed = {*definitions, b"of jobs that were cancelled"}
    with pytest.raises(LineBrokenError):
        sender._define(Line(), needed)
    sender._define(Line(), needed)
    assert all(len(part) == 1 or sum(map(len, part.values())) <= 10 for part in sent)
    assert sorted(digest for part in sent for digest in part) == sorted(definitions)
    sender._define(Line(), needed)
    assert sorted(digest for part in sent for digest in part) == sorted(definitions), "nothing once more"


def test_what_is_withheld_while_the_master_takes_the_message_is_dropped_behind_it(monkeypatch):
    """It had no room for the message before, and is asked again all the time."""
    sent = SentJobs()
    for number in (1, 2, 3):
        sent.add(Entry(Session("client"), number, (bytes(16), b"blob"), 4))
    sent.leaving = {1, 2, 3}
    client = SimpleNamespace(_key="session", _sent=sent, _lock=threading.RLock(), _note_left=lambda left: None)
    client._joined = threading.Condition(client._lock)
    sender = Sender(client)
    monkeypatch.setattr(sender, "_define", lambda line, needed: None)
    sender._batch = [AddedJob(number, bytes(16), b"blob", DEFAULT_TERMS) for number in (1, 2, 3)]
    came = []

    class Line:
        def __init__(self, accepted, withheld):
            self.accepted, self.withheld = accepted, withheld

        def call(self, method, *args, message):
            came.append([job.number for job in unpack_added(memoryview(b"".join(message)))])
            with client._lock:
                assert sender.withhold(self.withheld) == (set(self.withheld) if sent.refused else set())
            return {"known": True, "accepted": self.accepted, "left": (0, 0, 1)}, b""

    sender._send_batch(Line(False, [1]))
    assert sent.refused
    assert not sender.unwanted, "it might have been taken"
    sender._send_batch(Line(False, [1]))
    sent.take_out({1}, {1})
    sender._send_batch(Line(True, [2]))
    assert came == [[1, 2, 3], [1, 2, 3], [2, 3]]
    assert sender.unwanted == [1, 2]
    assert not sender._batch
    assert not sent.refused
