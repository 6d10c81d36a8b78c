"""What a client sends, by itself: with a stand-in for the client, and no network."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from papyros.distributed import sending as sending_module
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
