"""A master that can be reached, and breaks the line of each client that would join."""

from __future__ import annotations

import pytest

from papyros import ClusterError
from papyros.distributed import client as client_module
from papyros.distributed.line import CallFailedError, Line, LineBrokenError
from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE, processed


def break_joins(monkeypatch, breaks):
    """Have so many attempts to join end with errors; return the list of all attempts."""
    attempts, really = [], Line.call

    def call(line, method, *args, **options):
        if method == "join":
            attempts.append(line)
            if len(attempts) <= breaks:
                raise LineBrokenError("just now") if len(attempts) % 2 else CallFailedError("KeyError", "a bug")
        return really(line, method, *args, **options)

    monkeypatch.setattr(Line, "call", call)
    return attempts


def test_a_client_that_cannot_join_makes_pauses_that_grow_and_gives_up(group, monkeypatch):
    """It once tried as fast as it could, whatever its timeout was."""
    group.master().register()
    monkeypatch.setattr(client_module, "JOIN_SECONDS", 0.5)
    attempts = break_joins(monkeypatch, 1000)
    with pytest.raises(ClusterError, match="breaks each connection"):
        group.client(timeout=0.6)
    assert 2 <= len(attempts) <= 12


def test_a_client_that_is_not_to_wait_joins_all_the_same_after_a_line_or_two_that_broke(group, monkeypatch):
    """The master may have been about to end."""
    group.master().register()
    attempts = break_joins(monkeypatch, 2)
    client = group.client(timeout=0.0)
    assert len(attempts) == 3
    group.host()
    assert processed(client, Square(7)).result == 49


@pytest.mark.parametrize("silence", [1e11, 1e-6])
def test_who_joins_keeps_to_bounds_that_a_master_does_not(group, silence):
    """Nobody can wait for so long, and a thread that tries to would end; nor is anybody to ask without a pause."""
    master = group.master()
    desk = master.service._desk
    desk.lease, grace = silence, desk.grace
    desk.grace = max(silence, grace)
    master.register()
    host, client = group.host(), group.client()
    assert host.wait_ready(PATIENCE)
    assert 0.1 <= host._silence <= 604800
    assert host._beat <= host._silence
    assert client._patience < client._silence <= 2 * 604800
    if silence > 1:  # else the host is given up all the time
        assert processed(client, Square(7)).result == 49
