"""Seeking a master: whoever is found in the place of its name server is waited for, and what breaks is not hurried."""

from __future__ import annotations

import itertools

import pytest

from papyros import ClusterError, KeyRefusedError, NameServerNotFoundError, VersionMismatchError
from papyros.distributed import seeker as seeker_module
from papyros.distributed.line import LineRefusedError
from papyros.distributed.naming import Address
from papyros.distributed.security import Role
from papyros.distributed.seeker import CALM_SECONDS, LAST_DELAY, Pauses, Seeker
from tests.support import security


class Clock:
    """Where time passes only when somebody is told to wait."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(seeker_module, "time", clock)
    monkeypatch.setattr(seeker_module.random, "uniform", lambda low, high: (low + high) / 2)
    return clock


class Stop:
    """Never set, and waited for in no time; what is waited for is noted."""

    def __init__(self):
        self.waited = []

    def wait(self, seconds):
        self.waited.append(seconds)
        return False


#: What may be in the place of a name server, or of a master, until those are back; and the words for it.
LACKS = [
    (NameServerNotFoundError("nobody answers"), "a name server at 127.0.0.1:1: nobody answers"),
    (KeyRefusedError("another key"), "a name server at 127.0.0.1:1 with the same key and version; another key"),
    (VersionMismatchError("too old"), "a name server at 127.0.0.1:1 with the same key and version; too old"),
    (LineRefusedError("its key"), "a master of the group 'lab' with the same key and version; its key"),
    (ClusterError("its address"), "a master of the group 'lab' that can be reached; its address"),
]


def test_whoever_is_there_instead_of_a_master_is_told_of_and_waited_for():
    """A name server with another key once ended each slave host and each client that sought a master there."""
    told, found = [], iter([*(lack for lack, _ in LACKS), "a line"])

    class Found(Seeker):
        def find(self):
            what = next(found)
            if isinstance(what, Exception):
                raise what
            return what

    stop = Stop()
    seeker = Found("lab", Address("127.0.0.1", 1), security(), Role.CLIENT, stop, told.append)
    assert seeker.seek() == "a line"
    assert told == [f"waiting for {words}" for _, words in LACKS]
    assert len(stop.waited) == len(LACKS)


def test_pauses_grow_to_a_bound_while_something_breaks_again_and_again(clock):
    pauses = Pauses()
    waited = [pauses.next() for _ in range(20)]
    assert waited[0] < 0.1
    assert all(first < second for first, second in itertools.pairwise(waited) if second < LAST_DELAY)
    assert waited[-1] == LAST_DELAY


def test_what_did_not_break_for_a_while_is_tried_again_soon(clock):
    pauses = Pauses()
    waited = [pauses.next() for _ in range(20)]
    clock.now += CALM_SECONDS - 1
    assert pauses.next() == LAST_DELAY, "it broke only just now"
    clock.now += CALM_SECONDS + 1
    assert pauses.next() == waited[0]
