"""A moment in which a client finds no memory, or no threads, for what it does: it tries again, and loses no job."""

from __future__ import annotations

import errno
import threading

import pytest

import papyros
from papyros.distributed import receiving, sending, switchboard, values
from papyros.distributed.desk import Desk
from papyros.distributed.exchange import Exchange
from papyros.errors import PayloadError
from tests.contract.jobs_for_tests import Square
from tests.contract.sharing import pick
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


def too_large(*_):
    raise OSError(errno.EFBIG, "File too large")


def told(caplog, words):
    return sum(words in record.getMessage() for record in caplog.records)


def test_jobs_whose_value_the_master_cannot_take_end_and_say_why(group, monkeypatch, caplog):
    """The client tried it again for ever, and said nothing; the log of the master had a traceback each time."""
    monkeypatch.setattr(sending, "REFUSED_SECONDS", 0.5)
    monkeypatch.setattr(values, "Held", too_large)
    group.master().register()
    group.host()
    client = group.client()
    handle = papyros.shared(b"what many jobs share")
    needy = [pick(handle, number) for number in range(3)]
    other = Square(7)
    for job in (*needy, other):
        client.addJob(job)
    assert set(client.processedJobs(PATIENCE)) == {*needy, other}
    assert other.result == 49
    for job in needy:
        with pytest.raises(PayloadError, match=r"the master could not take the shared value .*File too large"):
            job.result
    assert told(caplog, "cannot take the shared value") == 1
    assert told(caplog, "a call of a client failed") == 1
    caplog.clear()  # the traceback knows of the session of the client, and that of what it shares
    monkeypatch.undo()
    later = pick(handle, 1)
    client.addJob(later)
    assert client.popProcessedJob(PATIENCE) is later
    assert later.result == b"what many jobs share"[1]


def test_jobs_that_the_master_cannot_take_end_and_say_why(group, monkeypatch, caplog):
    monkeypatch.setattr(sending, "REFUSED_SECONDS", 0.5)
    monkeypatch.setattr(Desk, "add", too_large)
    group.master().register()
    group.host()
    client = group.client(max_waiting=2)
    refused = [Square(number) for number in range(2)]
    for job in refused:
        client.addJob(job)
    assert set(client.processedJobs(PATIENCE)) == set(refused)
    for job in refused:
        with pytest.raises(PayloadError, match=r"the master could not take the job: .*File too large"):
            job.result
    assert told(caplog, "cannot take what this client sends") == 1
    monkeypatch.undo()
    for number in range(3):
        client.addJob(Square(number), timeout=PATIENCE)
    assert sorted(job.result for job in client.processedJobs(PATIENCE)) == [0, 1, 4]


@pytest.mark.parametrize(
    ("method", "when"), [("collect", "when it is asked for outcomes"), ("welcome", "when this client joins")]
)
def test_a_master_that_fails_at_what_it_is_asked_is_told_of_once_and_asked_again(
    group, monkeypatch, caplog, method, when
):
    """It was asked again for ever, and nobody was told why nothing came."""
    failures = []

    def fail(*_):
        failures.append(method)
        raise OSError(errno.EIO, "Input/output error")

    group.master().register()
    group.host()
    client = group.client()
    monkeypatch.setattr(Desk, method, fail)
    job = Square(7)
    client.addJob(job)
    if method == "welcome":
        client._sender.line.abort()  # so that it joins anew
        client.addJob(other := Square(8))
    wait_until(lambda: len(failures) >= 3, "it is asked again and again")
    wait_until(lambda: told(caplog, when) == 1, "it is told of")
    monkeypatch.undo()
    assert client.popProcessedJob(PATIENCE) is job
    assert job.result == 49
    if method == "welcome":
        assert client.popProcessedJob(PATIENCE) is other
    assert told(caplog, when) == 1


def test_what_the_master_has_taken_only_in_part_is_taken_when_it_comes_again(group, monkeypatch):
    """It was taken for a repetition, and what was missing never came."""
    failed = threading.Event()
    add = Desk.add

    def add_one(desk, client, jobs):
        jobs = list(jobs)
        if len(jobs) > 1 and not failed.is_set():
            failed.set()
            add(desk, client, jobs[:1])
            raise MemoryError
        add(desk, client, jobs)

    monkeypatch.setattr(Desk, "add", add_one)
    group.master().register()
    client = group.client()
    with client._lock:  # so that all of them go in one message
        work = [Square(number) for number in range(5)]
        for job in work:
            client.addJob(job)
    group.host()
    assert set(client.processedJobs(PATIENCE)) == set(work)
    assert failed.is_set()
    assert [job.result for job in work] == [0, 1, 4, 9, 16]


def test_calls_that_fail_in_the_same_way_are_told_of_once_in_a_while(group, monkeypatch, caplog):
    monkeypatch.setattr(Desk, "add", too_large)
    monkeypatch.setattr(switchboard, "TELL_SECONDS", 0.5)
    group.master().register()
    client = group.client()
    client.addJob(Square(1))
    wait_until(lambda: told(caplog, "before it in the same way that were not told of"), "the next time")
    records = [record for record in caplog.records if "a call of a client failed" in record.getMessage()]
    assert len(records) == 2
    assert all(record.exc_info for record in records)
    client.cancelAllJobs()
