"""Faults, row 12 and 13: half-open, half-closed, reset, cut after some bytes, held up."""

from __future__ import annotations

import threading

import pytest

from papyros.distributed import messages
from papyros.distributed.line import SILENCE_SECONDS, CallFailedError, Line, LineBrokenError
from papyros.distributed.naming import NameServer, ask_status
from papyros.distributed.security import Role
from papyros.distributed.service import PATIENCE_SECONDS
from tests.faults import jobs
from tests.faults.test_remote_calls import process
from tests.faults.wire import Wire
from tests.support import PATIENCE, at_most, security, wait_until

#: A side that hears nothing, though its messages are acknowledged, notices that within so many seconds: it waits
#: for as long as its question may, and then for as long as a network may be silent.
NOTICED = PATIENCE_SECONDS + SILENCE_SECONDS + 10.0


@pytest.fixture
def server(group):
    server = group.master()
    server.register()
    return server


@pytest.fixture
def wire(group, server):
    """A wire to the master, which is all that the group's name tells of."""
    wire = Wire(server.address.host, server.address.port)
    uri = f"{server.uri.rpartition(':')[0]}:{wire.port}"
    names = NameServer(group.names, security())
    names.unregister(group.name, server.uri)
    names._ask("register", f"papyros.master.{group.name}", uri, False)
    server._names.stay_registered = lambda *_: None  # it is to leave that as it is
    yield wire
    group.close()
    wire.close()


def traces(group, name, count=10):
    return [jobs.first(group.folder, f"{name}{number}") for number in range(count)]


def wanted(name, count=10):
    return sorted(f"'{name}{number}'" for number in range(count))


def check_once(group):
    assert set(jobs.starts(group.folder).values()) == {1}


@pytest.mark.parametrize("after", [1, 39, 40, 100, 200, 400, 1000])
def test_row_12_connections_that_are_cut_after_some_bytes_are_made_again(group, wire, after):
    wire.cut_after = after
    host = group.host()
    wait_until(lambda: wire.made >= 3, "some connections that were cut")
    wire.cut_after = None
    assert host.wait_ready(PATIENCE)
    client = group.client()
    assert process(client, traces(group, "before")) == wanted("before")
    wire.cut_after = after
    wire.reset()
    for job in traces(group, "during"):
        client.addJob(job)
    made = wire.made
    wait_until(lambda: wire.made >= made + 6, "connections that were cut")
    wire.cut_after = None
    assert len(process(client, [])) == 10
    assert process(client, traces(group, "after")) == wanted("after")


@pytest.mark.parametrize("what", ["reset", "half_close"])
def test_row_12_connections_that_end_are_made_again_and_nothing_runs_twice(group, wire, gates, what):
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    gate = gates()
    client.addJob(jobs.wait_at(group.folder, "held", gate.path))
    gate.wait_for_arrivals()
    made = wire.made
    getattr(wire, what)()
    wait_until(lambda: wire.made >= made + 3, "new connections of the client and the slave host")
    gate.open()
    assert process(client, traces(group, "more")) == sorted([*wanted("more"), "'held'"])
    check_once(group)


@pytest.mark.slow
def test_row_12_connections_that_are_half_open_are_given_up(group, wire):
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    assert process(client, traces(group, "before")) == wanted("before")
    wire.half_open()
    assert process(client, traces(group, "after"), NOTICED) == wanted("after")
    check_once(group)


@pytest.mark.parametrize("what", ["reset", "half_close"])
def test_row_12_a_call_on_a_connection_that_ends_is_an_error(server, wire, what):
    uri = f"{server.uri.rpartition(':')[0]}:{wire.port}"
    with Line(uri, security(), Role.CLIENT) as line, at_most(3.0):
        line.call("join", "somebody")
        getattr(wire, what)()
        with pytest.raises(LineBrokenError):
            line.call("collect", "somebody", 0, False, PATIENCE)
        with pytest.raises(LineBrokenError):
            line.call("join", "somebody")  # also later
    with Line(uri, security(), Role.CLIENT) as line:
        assert line.call("join", "somebody")[0]["known"]
        line.call("leave", "somebody")


def test_a_question_that_is_larger_than_any_message_is_refused_and_the_line_goes_on(server, monkeypatch):
    with Line(server.uri, security(), Role.CLIENT) as line:
        monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 1 << 10)
        with pytest.raises(CallFailedError, match="is larger than any may be"):
            line.call("drop", "somebody", message=bytes(1 << 10))
        assert line.call("join", "somebody")[0]["known"]
        line.call("leave", "somebody")


def test_row_12_a_question_over_a_half_open_connection_ends_in_time(server, wire):
    uri = f"{server.uri.rpartition(':')[0]}:{wire.port}"
    with Line(uri, security(), Role.CLIENT) as line, at_most(3.0):
        wire.half_open()
        with pytest.raises(LineBrokenError):
            line.call("status", timeout=1.0)
    assert ask_status(uri, security()).waiting == 0


def test_row_08_requests_and_replies_that_are_late_change_nothing(group, wire):
    wire.delay = 0.05
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    assert process(client, traces(group, "late")) == wanted("late")
    check_once(group)
    wire.delay = 0.0


def test_row_13_a_network_that_is_gone_for_a_second_makes_no_job_run_twice(group, wire, gates):
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    gate = gates()
    client.addJob(jobs.wait_at(group.folder, "held", gate.path))
    gate.wait_for_arrivals()
    wire.pause()
    threading.Timer(1.0, wire.resume).start()
    gate.open()
    assert process(client, traces(group, "more")) == sorted([*wanted("more"), "'held'"])
    check_once(group)
