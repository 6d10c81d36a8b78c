"""What goes between a client and its master, without either: a ledger, and the jobs that were taken out of it."""

from __future__ import annotations

import itertools

import pytest

from papyros.distributed.batches import JobOutcome
from papyros.distributed.bundling import Bundling
from papyros.distributed.exchange import Exchange
from papyros.distributed.keys import ClusterKey
from papyros.distributed.seals import Seals
from papyros.encoded import decode_outcome, encode_outcome, encode_refusal
from papyros.entries import WAITING
from papyros.errors import PayloadError
from papyros.jobs import result_of
from papyros.outcome import Outcome
from papyros.packing import ledger_of_payloads

pytestmark = pytest.mark.compiled

QUICK, SLOW = b"a quick class...", b"a slow class...."


class Client:
    """The books of a client, with jobs of two classes: those of one are bundled."""

    def __init__(self, jobs):
        self.ledger = ledger_of_payloads()
        self.session = self.ledger.open("client")
        self.holder = self.ledger.enlist("cluster", 1)
        bundling = Bundling()
        bundling.learn(QUICK, 0.0001, 10)
        seals = Seals(ClusterKey(bytes(32), "a test"), "client")
        self.exchange = Exchange(self.ledger, self.holder, itertools.count(1000), seals, bundling, lambda: None)
        self.sent = self.exchange.sent
        for number in range(1, jobs + 1):
            self.ledger.add(self.session, number, (SLOW if number % 4 == 1 else QUICK, b"blob"), 4)

    def next_batch(self):
        return self.exchange.next_batch(lambda: 500, 1)

    def states(self):
        return {entry.state for entry in self.session.entries.values()}


def test_jobs_wait_again_when_memory_ends_while_a_message_is_made_of_them():
    client = Client(1200)
    asked = itertools.count()

    def sendable():
        if next(asked) == 1:
            assert client.sent.bundles
            assert client.sent.single
            raise MemoryError
        return 500

    with pytest.raises(MemoryError):
        client.exchange.next_batch(sendable, 1)
    assert client.states() == {WAITING}
    assert client.sent.waiting == (0, 0)
    assert not len(client.sent)
    assert not client.sent.is_leaving(None)
    assert [job.number for job in client.next_batch()] == list(range(1, 501)), "each by itself from now on"


def test_an_outcome_of_a_job_that_is_sent_after_it_was_checked_is_not_taken_unchecked():
    """Who forges one would only have to send it before its time."""
    client = Client(1)
    forged = JobOutcome("client", 1, encode_outcome(Outcome("forged"), "a job"), 0.0, "a stranger")
    assert client.exchange.checked(forged) is None
    client.next_batch()
    refused = client.exchange.checked(forged)
    client.exchange.take(refused)
    [entry] = client.session.processed
    assert "nothing of it was unpickled" in str(decode_outcome(entry.outcome[0], "a job").exception)
    assert client.exchange.checked(forged) is None, "it has come"


def test_jobs_that_the_master_cannot_take_have_an_outcome_also_those_in_bundles():
    client = Client(12)
    batch = client.next_batch()
    assert client.sent.bundles
    assert client.sent.single
    refusal = encode_refusal(PayloadError("it is too large"))
    client.exchange.end_unsent([job.number for job in batch if job.definition == QUICK], refusal)
    slow = {number for number in client.session.entries if number % 4 == 1}
    assert client.sent.leaving == set(client.sent.single) == slow
    assert not client.sent.bundles
    client.exchange.end_unsent([job.number for job in batch], refusal)
    assert len(client.session.processed) == 12
    assert not client.holder.assigned
    assert client.sent.waiting == (0, 0), "they take up no room there"
    assert len(client.sent) == 0
    outcome, *_ = client.session.processed[0].outcome
    with pytest.raises(PayloadError, match="it is too large"):
        result_of(decode_outcome(outcome, "a job"))
