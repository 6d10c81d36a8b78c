"""Jobs are cancelled, though the master has had no room for the message that they are in; and many at once."""

from __future__ import annotations

import pytest

from papyros.distributed import desk as desk_module
from papyros.ledger import Ledger
from tests.faults import jobs
from tests.support import PATIENCE, at_most, wait_until

pytestmark = pytest.mark.pure


@pytest.fixture(params=[1, 3], ids=["single jobs", "bundles"])
def refused(request, group, monkeypatch):
    """A client, four jobs that its master has, and six in a message for which there is no room; there is no slave."""
    monkeypatch.setattr(desk_module, "SESSION_JOBS", 4)
    group.master().register()
    client = group.client()
    there = [jobs.first(group.folder, f"there-{number}") for number in range(4)]
    for job in there:
        client.addJob(job)
    group.wait_until_known(client, 4)
    monkeypatch.setattr(client._exchange.bundling, "jobs", lambda definition: request.param)
    leaving = [jobs.first(group.folder, f"leaving-{number}") for number in range(6)]
    with client._lock:  # so that all of them are in one message
        for job in leaving:
            client.addJob(job)
    wait_until(lambda: client._sent.refused, "a master that has no room")
    assert len(client._sent.leaving) == 6
    return client, there, leaving


def check_processed(group, client, wanted):
    group.host()
    assert set(client.processedJobs(PATIENCE)) == set(wanted)
    assert jobs.starts(group.folder) == {job.result: 1 for job in wanted}


def test_a_job_for_which_the_master_has_no_room_is_cancelled(group, refused):
    client, there, leaving = refused
    with at_most(5):
        assert client.cancelJob(leaving[1])
    assert not client.cancelJob(leaving[1])
    with at_most(5):
        assert client.cancelJob(leaving[4])
    assert client.numPendingJobs() == 8
    check_processed(group, client, {*there, *leaving} - {leaving[1], leaving[4]})


def test_all_jobs_are_cancelled_also_those_for_which_the_master_has_no_room(group, refused):
    client, _, _ = refused
    with at_most(5):
        client.cancelAllJobs()
    assert client.numPendingJobs() == 0
    another = jobs.first(group.folder, "another")
    client.addJob(another)
    check_processed(group, client, {another})


def test_jobs_that_no_slave_was_given_are_withdrawn_also_from_a_message_for_which_there_is_no_room(group, refused):
    """As for `Executor.shutdown` with `cancel_futures`."""
    client, there, leaving = refused
    unwanted = [there[0], leaving[0], leaving[5]]
    numbers = [job._keeper.number for job in unwanted]
    with at_most(5):
        assert sorted(client._withdraw(client._main._session, numbers)) == numbers
    check_processed(group, client, {*there, *leaving} - set(unwanted))


def test_many_jobs_that_are_cancelled_at_the_master_leave_the_books_at_once(group, monkeypatch):
    """One by one, all that was processed and is not popped was looked through for each of them, with the lock held."""
    group.master().register()
    client = group.client()
    for number in range(50):
        client.addJob(jobs.first(group.folder, str(number)))
    group.wait_until_known(client, 50)
    discarded, really = [], Ledger.discard

    def discard(ledger, session, numbers):
        if ledger is client._ledger:
            discarded.append(len(numbers))
        really(ledger, session, numbers)

    monkeypatch.setattr(Ledger, "discard", discard)
    client.cancelAllJobs()
    assert client.numPendingJobs() == 0
    assert discarded == [50]
