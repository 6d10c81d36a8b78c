"""Attacks on what travels: rows 8, 9, 12 and 13."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from pathlib import Path

import pytest

import papyros
from papyros.distributed.batches import (
    AddedJob,
    HostReport,
    JobOutcome,
    pack_definitions,
    pack_report,
    unpack_host_jobs,
)
from papyros.distributed.line import CallFailedError, Line
from papyros.distributed.naming import NameServer, ask_status
from papyros.distributed.seals import Seals, ticket_of
from papyros.distributed.security import Role
from papyros.encoded import encode_outcome
from papyros.errors import GroupNameError
from papyros.outcome import Outcome
from tests.attacks import jobs
from tests.faults.jobs import first
from tests.faults.test_remote_calls import process
from tests.support import PATIENCE, security, wait_until

EVIL_NAMES = [
    "../../etc/passwd",
    "x" * 1_000_000,
    "a\nb",
    "\x1b[2J\x1b[31mred",
    "",
    "a b",
    "-rf",
    "é",
    "a\0b",
    "a/b",
    ".",
]


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def trap(tmp_path):
    """Return bytes that leave a file when they are unpickled; see afterwards that nobody did."""
    path = tmp_path / "unpickled"
    yield pickle.dumps(Bomb(path))
    assert not path.exists(), "it was unpickled"


# Row 8 ----------------------------------------------------------------------------------


def enlist(line, key="rogue"):
    return line.call("enlist", key, 1)[0]["uid"]


def report(line, uid, *outcomes, key="rogue", number=1):
    message = pack_report(HostReport.empty()._replace(outcomes=list(outcomes)))
    assert line.call("report", key, number, uid, "any stay", message=message)[0]["taken"]


def test_attack_08_outcomes_of_jobs_that_it_was_not_given_are_dropped_and_counted(group, server, host_line, trap):
    client = group.client()
    client.addJob(first(group.folder, "mine"))
    group.wait_until_known(client, 1)
    uid = enlist(host_line)
    # It knows all but what only those know who were given the job.
    seal = Seals(security().key, client._key).seal_outcome(1, bytes(8), b"R" + trap)
    [number] = server.service._desk.clients[client._key].session.entries
    report(host_line, uid, JobOutcome(client._key, number, b"R" + trap, 0.0, "rogue/1", bytes(8), seal))
    assert ask_status(server.uri, security()).late == 1
    host_line.call("retire", "rogue")
    assert group.host().wait_ready(PATIENCE)
    assert client.popProcessedJob(PATIENCE).result == "mine"


def test_attack_08_outcomes_that_come_twice_or_late_are_dropped_and_counted(group, server, host_line):
    client = group.client()
    client.addJob(job := first(group.folder, "mine"))
    group.wait_until_known(client, 1)
    server.service._desk.clients[client._key].joined -= 60.0  # it has been here for too long to lack jobs
    uid = enlist(host_line)
    _, message = host_line.call("fetch", "rogue", 0, 0, 5.0)
    [given] = unpack_host_jobs(message)
    seals, ticket = Seals(security().key, client._key), ticket_of(given.seal)
    for number, value in enumerate(("one", "two", "three"), 1):
        encoded = encode_outcome(Outcome(value, None, "", "", 0.0), job)
        seal = seals.seal_outcome(given.number, ticket, encoded)
        report(host_line, uid, JobOutcome(client._key, given.number, encoded, 0.0, "h/1", ticket, seal), number=number)
        if number == 2:
            assert client.popProcessedJob(PATIENCE).result == "one"
    assert client.popProcessedJob() is None
    assert server.service._desk.ledger.sessions[client._key].counts.late >= 2
    host_line.call("retire", "rogue")


def test_attack_08_an_outcome_that_came_before_its_job_counts_only_with_the_ticket(group, server, host_line, trap):
    uid = enlist(host_line)
    report(host_line, uid, JobOutcome("somebody", 7, b"R" + trap, 0.0, "rogue/1"))
    desk = server.service._desk
    with desk.lock:
        client = desk.welcome("somebody")
        desk.add(client, [AddedJob(7, bytes(16), b"blob", papyros.terms.DEFAULT_TERMS, os.urandom(28))])
        assert client.session.counts.late == 1
        assert client.session.entries[7].payload is not None  # it waits for a slave
        desk.drop_client("somebody")
    host_line.call("retire", "rogue")


# Row 9 ----------------------------------------------------------------------------------


def waiting_entry(group, server, client):
    group.wait_until_known(client, 1)
    [entry] = server.service._desk.clients[client._key].session.entries.values()
    return entry


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("what", ["blob", "seal", "number", "class"])
def test_attack_09_a_job_that_was_tampered_with_is_not_unpickled(group, server, trap, what, size):
    client = group.client()
    client.addJob(first(group.folder, "x" * size))
    entry = waiting_entry(group, server, client)
    definition, blob, seal = entry.payload
    if what == "blob":
        entry.payload = (definition, trap + bytes(size), seal)
    elif what == "seal":
        entry.payload = (definition, blob, bytes(20) + bytes(seal[20:]))
    elif what == "number":
        entry.payload = (definition, blob, Seals(security().key, client._key).seal_job(99, definition, blob))
    else:
        other = pack_definitions({bytes(16): trap})
        with Line(server.uri, security(), Role.CLIENT) as line:
            line.call("define", client._key, {}, message=other)
        entry.payload = (bytes(16), blob, seal)
    assert group.host().wait_ready(PATIENCE)
    done = client.popProcessedJob(PATIENCE)
    assert isinstance(done.exception, papyros.SlaveLost)
    assert "was changed on its way" in str(done.exception)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("what", ["changed", "of another job", "unsealed"])
def test_attack_09_an_outcome_that_was_tampered_with_is_not_unpickled(group, server, trap, what, size):
    desk = server.service._desk
    take = desk.take_outcomes

    def tampered(outcomes, key):
        for done in outcomes:
            if what == "changed":
                done = done._replace(outcome=b"R" + trap + bytes(size))
            elif what == "of another job":
                seal = Seals(security().key, done.session).seal_outcome(done.number + 1, done.ticket, b"R" + trap)
                done = done._replace(outcome=b"R" + trap, seal=seal)
            else:
                done = done._replace(outcome=b"R" + trap, seal=bytes(28))
            take([done], key)

    desk.take_outcomes = tampered
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    client.addJob(first(group.folder, "x" * size))
    done = client.popProcessedJob(PATIENCE)
    assert isinstance(done.exception, papyros.PayloadError)
    assert "nothing of it was unpickled" in str(done.exception)


# Row 12 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVIL_NAMES, ids=range(len(EVIL_NAMES)))
def test_attack_12_hostile_names_of_groups_are_refused_in_a_short_printable_line(name, launch):
    if name == ".":
        name = ".hidden"
    with pytest.raises(GroupNameError) as caught:
        papyros.DistributedMaster(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    if "\0" not in name and len(name) < 100_000:
        part = launch.part(f"--group={name}", name="part")
        assert part.ended(PATIENCE) == 2
        assert len(part.text) < 600
        assert part.text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", EVIL_NAMES, ids=range(len(EVIL_NAMES)))
def test_attack_12_hostile_names_of_jobs_slaves_and_sessions_are_shown_escaped(group, server, host_line, name):
    with Line(server.uri, security(), Role.CLIENT) as line:
        line.call("join", name)
        message = memoryview(pack_definitions({bytes(16): b"definition"}))
        line.call("define", name, {bytes(16).hex(): name}, message=bytes(message))
        from papyros.distributed.batches import pack_added
        from papyros.terms import DEFAULT_TERMS

        added = pack_added([AddedJob(1, bytes(16), b"", DEFAULT_TERMS)])
        assert line.call("add", name, 1, 0.0, message=added)[0]["accepted"]
        enlist(host_line, name)
        host_line.call("tell", name, 10**6, [[name, name, 1, 0.5, 0, True]])
        shown = str(ask_status(server.uri, security()))
        assert all(part.isprintable() for part in shown.split("\n"))
        assert len(shown) < 1500
        line.call("leave", name)
        host_line.call("retire", name)


def test_attack_12_hostile_definitions_do_not_become_labels_that_are_no_labels(server):
    with Line(server.uri, security(), Role.CLIENT) as line:
        line.call("join", "x")
        for labels in ({"zz": "a"}, [], "text", {"00": {"a": "b"}}):
            with contextlib.suppress(CallFailedError):
                line.call("define", "x", labels, message=pack_definitions({}))
        assert line.call("identify")[0]
        line.call("leave", "x")


def test_attack_12_hostile_addresses_in_a_name_server_are_refused(group):
    names = NameServer(group.names, security())
    for uri in ("PYRO:x@[::1%25evil]:99999", "PYRO:" + "x" * 300 + "@h:1", "PYRO:papyros.master@\x1b[2J:80"):
        with contextlib.suppress(Exception):
            names._ask("register", f"papyros.master.{group.name}", uri, False)
        with pytest.raises(papyros.PapyrosError) as caught:
            papyros.DistributedMaster(group.name, str(group.names), host_master=False)
        assert str(caught.value).isprintable()


# Row 13 ---------------------------------------------------------------------------------


def test_attack_13_results_and_exceptions_that_end_programs_are_outcomes_like_others(group, server):
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit):
        client.addJob(jobs.raises(kind))
        assert type(client.popProcessedJob(PATIENCE).exception) is kind
        client.addJob(jobs.returns(kind))
        assert isinstance(client.popProcessedJob(PATIENCE).result, kind)
    client.addJob(jobs.returns_trap())
    done = client.popProcessedJob(PATIENCE)
    assert isinstance(done.exception, papyros.PayloadError)
    assert "SystemExit" in str(done.exception)
    assert process(client, [first(group.folder, "after")]) == ["'after'"]


def test_attack_13_content_that_is_no_call_ends_no_thread_of_the_master(server):
    from papyros.distributed.messages import CALL, RAISED, RESULT, receive_message, send_message

    sock = security().connect(*server.address, Role.CLIENT)
    with sock:
        for content in (None, [], 1, "x", {}, {"method": 1, "params": []}, {"method": "join", "params": {"key": 1}}):
            send_message(sock, CALL, 1, content)
            assert receive_message(sock, RESULT, RAISED).flags & RAISED
        for params in ([], [1], [{}], ["x", "y", "z"], [["x"]]):
            for method in ("join", "add", "collect", "cancel", "drop", "define"):
                send_message(sock, CALL, 1, {"method": method, "params": params}, os.urandom(50))
                receive_message(sock, RESULT, RAISED)
    wait_until(lambda: ask_status(server.uri, security()), "a status")
    with server.service._desk.lock:
        for key in list(server.service._desk.clients):
            server.service._desk.drop_client(key)


def test_attack_13_json_is_data():
    """What other serializers make objects of is, in a message, a dictionary like any other."""
    from papyros.distributed.messages import CALL, receive_message, send_message

    content = {"__class__": "builtins.SystemExit", "args": [3], "attributes": {}}
    near, far = socket.socketpair()
    with near, far:
        send_message(near, CALL, 1, content)
        assert receive_message(far, CALL).content == content
