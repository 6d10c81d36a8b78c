"""A moment in which a client finds no memory, or no threads, for what it does: it tries again, and loses no job."""

from __future__ import annotations

import threading

import pytest

from papyros.distributed import receiving, sending
from papyros.distributed.exchange import Exchange
from tests.contract.jobs_for_tests import Square
from tests.faults import jobs
from tests.support import PATIENCE, none_to_spare, wait_until


def fail_once(monkeypatch, owner, name, what=MemoryError):
    """Have a function fail the first time that it is called; return when that was."""
    really, failed = getattr(owner, name), threading.Event()

    def scarce(*args, **options):
        if not failed.is_set():
            failed.set()
            raise what
        return really(*args, **options)

    monkeypatch.setattr(owner, name, scarce)
    return failed


@pytest.mark.parametrize(
    ("room", "what"),
    [
        (sending, "pack_definitions"),
        (sending, "added_parts"),
        (receiving, "unpack_outcomes"),
        pytest.param(Exchange, "_single", marks=pytest.mark.pure),
        pytest.param(Exchange, "take", marks=pytest.mark.pure),
        pytest.param(Exchange, "_end", marks=pytest.mark.pure),
    ],
    ids=lambda value: getattr(value, "__name__", value).rpartition(".")[2],
)
def test_a_client_without_memory_for_what_it_sends_or_receives_does_that_again(group, monkeypatch, caplog, room, what):
    group.master().register()
    group.host()
    failed = fail_once(monkeypatch, room, what)
    client = group.client()
    work = [jobs.first(group.folder, str(number)) for number in range(5)]
    for job in work:
        client.addJob(job)
    assert len(client.processedJobs(PATIENCE)) == 5
    assert failed.is_set()
    assert [job.result for job in work] == ["0", "1", "2", "3", "4"]
    assert set(jobs.starts(group.folder).values()) == {1}
    assert [record.levelname for record in caplog.records if "no memory" in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("thread", ["papyros-accept", "papyros-switchboard", "papyros-keeper"])
def test_a_client_without_a_thread_for_the_master_that_it_is_to_host_tries_again(group, monkeypatch, thread):
    first = group.master()
    first.register()
    client = group.client(host_master=True, host_after=0.1)
    job = Square(7)
    client.addJob(job)
    group.wait_until_known(client, 1)
    start, refused = threading.Thread.start, threading.Event()

    def start_later(self):
        if self.name == thread and not refused.is_set():
            refused.set()
            none_to_spare(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    first.close()
    wait_until(lambda: client._finder._server is not None, "a master that the client hosts")
    assert refused.is_set()
    group.host()
    assert client.popProcessedJob(PATIENCE) is job
    assert job.result == 49  # and nothing is left of the master that could not start, as for all tests
