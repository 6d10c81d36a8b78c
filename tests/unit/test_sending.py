"""What a client sends, by itself: with a stand-in for the client, and no network."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from papyros.distributed import batches as batches_module
from papyros.distributed import sending as sending_module
from papyros.distributed.batches import unpack_definitions
from papyros.distributed.line import LineBrokenError
from papyros.distributed.sending import Sender


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
