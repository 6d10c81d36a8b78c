"""Threads of masters and slave hosts that end of what nobody foresaw: their part ends, and others go on."""

from __future__ import annotations

import contextlib

import pytest

import papyros
from papyros.distributed.host import SlaveHost
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.reporting import Reporter
from papyros.distributed.security import Role
from papyros.ledgersource import LedgerSource
from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE, Bug, security, wait_until


def fail(*_):
    raise AssertionError(Bug.TEXT)


def hang_up_and_fail(connection):
    connection.sock.close()
    fail()


@pytest.mark.parametrize(("room", "what"), [(SlaveHost, "_accept"), (Reporter, "_next")])
def test_a_slave_host_ends_when_a_thread_of_it_breaks_down_and_its_jobs_run_elsewhere(group, monkeypatch, room, what):
    group.master().register()
    client = group.client()
    bug = Bug.put_into(monkeypatch, room, what, loose=True)
    host = group.host()
    jobs = list(map(Square, range(20)))
    for job in jobs:
        client.addJob(job)
    wait_until(lambda: host.broken, "the host to give up")
    assert Bug.TEXT in host.broken
    bug.loose = False
    host.close()  # as the command line does when it is told
    group.host()
    assert set(client.processedJobs(PATIENCE)) == set(jobs)
    assert [job.result for job in jobs] == [number**2 for number in range(20)]


def test_jobs_that_slaves_have_when_their_crew_breaks_down_have_an_outcome_that_says_so(monkeypatch):
    """Also those whose outcome was on its way when it broke down: nobody waits for ever."""
    Bug.put_into(monkeypatch, LedgerSource, "finished", loose=True)
    with papyros.MultiProcessMaster(1) as master:
        jobs = [Square(number) for number in range(3)]
        for job in jobs:
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert {type(job.exception) for job in jobs} == {papyros.SlaveLost}
    assert all("broke down" in str(job.exception) for job in jobs)


@pytest.mark.parametrize("thread", ["papyros-switchboard", "papyros-keeper", "papyros-sweep", "papyros-accept"])
def test_a_master_ends_when_a_thread_of_it_breaks_down_and_the_next_one_goes_on(group, monkeypatch, thread):
    first = group.master()
    first.register()
    client = group.client()
    job = Square(7)
    client.addJob(job)
    group.wait_until_known(client, 1)
    daemon = first._daemon
    if thread == "papyros-switchboard":
        monkeypatch.setattr(daemon._switchboard, "_admit", fail)
        daemon._switchboard._wake_up()
    elif thread == "papyros-accept":
        monkeypatch.setattr(daemon, "_admit", hang_up_and_fail)
        with contextlib.suppress(LineBrokenError):
            Line(first.uri, security(), Role.CLIENT).close()
    elif thread == "papyros-keeper":
        monkeypatch.setattr(first._names, "stay_registered", fail)
    else:
        monkeypatch.setattr(first.service, "sweep", fail)
    wait_until(first._closing.is_set, "the master to end")
    group.master().register()
    group.host()
    assert client.popProcessedJob(PATIENCE) is job
    assert job.result == 49


class Watched(dict):
    """Counts how many of its values are looked at."""

    looked = 0

    def values(self):
        return WatchedValues(self, super().values())


class WatchedValues:
    def __init__(self, owner, values):
        self._owner = owner
        self._values = values

    def _look(self, values):
        for value in values:
            self._owner.looked += 1
            yield value

    def __iter__(self):
        return self._look(self._values)

    def __reversed__(self):
        return self._look(reversed(self._values))


@pytest.mark.pure
def test_jobs_that_a_broken_client_is_given_are_ended_at_the_cost_of_one_each(group):
    """For each of them, all that were not popped yet were once gone through, with the lock held."""
    group.master().register()
    client = group.client()
    before = [Square(number) for number in range(20)]
    for job in before:
        client.addJob(job)
    group.wait_until_known(client, 20)
    client._broke("a bug")
    session = client._main._session
    session.entries = entries = Watched(session.entries)
    after = [Square(number) for number in range(100)]
    for job in after:
        client.addJob(job)
    assert entries.looked <= 100
    assert [client.popProcessedJob(0) for _ in range(120)] == before + after
    assert {type(job.exception) for job in before + after} == {papyros.SlaveLost}
