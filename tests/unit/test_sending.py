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
from tests.support import PATIENCE, Background


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


def test_a_master_without_room_for_a_message_is_asked_with_nothing_in_hand_and_what_is_withheld_never_goes():
    """It was sent the same jobs each second, large as they might be, for as long as it had enough."""
    sent = SentJobs()
    for number in (1, 2, 3):
        sent.add(Entry(Session("client"), number, (bytes(16), b"blob"), 4))
    sent.leaving = {1, 2, 3}
    client = SimpleNamespace(_key="session", _sent=sent, _lock=threading.RLock(), _note_left=lambda left: None)
    client._joined = threading.Condition(client._lock)
    sender = Sender(client)
    sender._values = SimpleNamespace(send=lambda line, packer, needed: None)
    client._packer = SimpleNamespace(definitions={})
    sender._batch = [AddedJob(number, bytes(16), b"blob", DEFAULT_TERMS) for number in (1, 2, 3)]
    came = []

    class Line:
        def __init__(self, accepted, wanted=()):
            self.accepted, self.wanted = accepted, set(wanted)

        def call(self, method, key, sequence, patience, message):
            assert method == "add"
            came.append((sequence, [job.number for job in unpack_added(memoryview(b"".join(message)))]))
            with client._lock:
                withheld = sender.withhold(self.wanted)
                assert withheld == (self.wanted if sent.refused else set())
                sent.take_out(withheld, withheld)
            return {"known": True, "accepted": self.accepted, "left": (0, 0, 1)}, b""

    sender._send_batch(Line(False, [1]))
    assert sent.refused
    for line in (Line(False, [1]), Line(False), Line(True, [2]), Line(True, [3])):
        sender._send_batch(line)
    assert came == [(0, [1, 2, 3]), (0, []), (0, []), (0, []), (1, [3])]
    assert not sender.unwanted
    assert not sender._batch
    assert not sent.refused


def test_a_call_between_goes_before_the_next_question_for_room():
    """Such questions come one after the other, each for a second: whoever cancels would wait for as long as they do."""
    client = SimpleNamespace(_key="session", _sent=SentJobs(), _lock=threading.RLock(), _note_left=lambda left: None)
    client._joined = threading.Condition(client._lock)
    client._sent.refused = True
    sender = Sender(client)
    sender._values = SimpleNamespace(send=lambda line, packer, needed: None)
    client._packer = SimpleNamespace(definitions={})
    calls, busy, asked = [], threading.Event(), threading.Event()

    class Line:
        def call(self, method, *args, message):
            if method == "cancel":
                busy.set()
                asked.wait(0.1)  # it is not asked meanwhile; it would not wait for this call, as the real line does
            else:
                asked.set()
            calls.append(method)
            return {"known": True, "accepted": True, "left": (0, 0, 1)}, b""

    sender.line = Line()
    guest = Background(lambda: sender.call_between("cancel", message=b""))
    assert busy.wait(PATIENCE)
    sender._send_batch(sender.line)
    guest.result()
    assert calls == ["cancel", "add"]
    assert not sender._guests
