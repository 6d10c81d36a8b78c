"""Shared values that are changed on their way, or are not where they should be: nothing of them is unpickled."""

from __future__ import annotations

import errno
import time

import pytest

import papyros
from papyros.distributed import host as host_module
from papyros.distributed import hostvalues
from papyros.store import Held
from tests.contract.jobs_for_tests import Square
from tests.contract.sharing import pick
from tests.faults import jobs
from tests.support import PATIENCE, wait_until


def share_with_master(group):
    """A job that waits at a master, with the value that it needs; there is no slave host yet."""
    server = group.master()
    server.register()
    client = group.client()
    job = jobs.look(group.folder, "looks", papyros.shared(memoryview(bytes(100_000))))
    client.addJob(job)
    group.wait_until_known(client, 1)
    return server, client, job


def test_a_value_that_was_changed_at_the_master_is_not_unpickled(group):
    server, client, job = share_with_master(group)
    with server.service._desk.lock:
        [known] = server.service._desk.clients.values()
        [digest] = known.values
        known.values[digest] = Held.of([b"something else"])
    group.host()
    assert client.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.SlaveLost
    assert "was changed on its way" in str(job.exception)
    assert not jobs.starts(group.folder)


def test_what_a_client_sends_under_the_digest_of_something_else_is_refused_by_the_master(group):
    _, client, _ = share_with_master(group)
    other = Held.of([b"something else"])
    line, key = client._sender.line, client._key
    answer, _ = line.call("share", key, "00" * 32, other.size, 0, message=other.read(0, other.size))
    assert answer == {"known": True, "filled": -1}
    assert bytes(32) not in group.values()


@pytest.mark.slow
def test_jobs_whose_value_the_master_does_not_have_are_told_of_in_the_end(group):
    server, client, job = share_with_master(group)
    with server.service._desk.lock:
        [known] = server.service._desk.clients.values()
        known.values.clear()
    group.host()
    assert client.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.SlaveLost
    assert "does not have a shared value" in str(job.exception)


def test_a_slave_host_that_is_closed_in_the_middle_of_a_value_ends_at_once(group, monkeypatch):
    server = group.master()
    server.register()
    client = group.client()
    read = Held.read
    begun = []

    def slow(held, offset, count):
        begun.append(offset)
        time.sleep(0.05)  # the fault itself
        return read(held, offset, min(count, 1000))

    client.addJob(jobs.look(group.folder, "looks", papyros.shared(memoryview(bytes(5_000_000)))))
    group.wait_until_known(client, 1)
    monkeypatch.setattr(Held, "read", slow)
    host = group.host()
    wait_until(lambda: len(begun) > 2, "a value that is on its way")
    started = time.monotonic()
    host.close()
    assert time.monotonic() - started < 5
    assert not host._values._partial


@pytest.mark.parametrize("once", [False, True])
def test_a_job_whose_value_no_host_can_hold_ends_at_last_and_says_why(group, monkeypatch, once):
    """And it does not go to and fro as fast as it can."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hostvalues, "fetch_value", fail)
    for name in ("HOLD_SECONDS", "PAUSE_SECONDS", "LAST_PAUSE_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(hostvalues, name, 0.01)
    monkeypatch.setattr(host_module, "LACKING_SECONDS", 0.01)
    group.master().register()
    group.host()
    client = group.client()
    needy, other = pick(papyros.shared(bytes(100)), 1), Square(7)
    needy.at_most_once = once
    for job in (needy, other):
        client.addJob(job)
    assert set(client.processedJobs(PATIENCE)) == {needy, other}
    assert other.result == 49
    with pytest.raises(papyros.SlaveLost) as lost:
        needy.result
    assert str(lost.value).count(f"{hostvalues.LACKING}: [Errno 28] No space left on device") == (1 if once else 20)
