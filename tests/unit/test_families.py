"""Families in the ledger by hand, and how many slaves a crew has while some lend their places."""

from __future__ import annotations

import os
from collections import deque
from types import SimpleNamespace

import pytest

import papyros.distributed.family as distributed_family
from papyros.current import Lending
from papyros.errors import MasterClosedError
from papyros.ledger import Ledger
from papyros.relay import RelayMaster, pack_words
from papyros.staff import READY_SPARES, SPARE_SECONDS, at_work, missing, spares
from papyros.wire import MAX_PAYLOAD_BYTES, Packer
from tests.support import refuse_threads


def family_of(ledger, session, key, jobs=2):
    """Assign the next job of a session, and open a family of it with so many jobs."""
    parent = ledger.assign_next(ledger.enlist("host", 1), session)
    family = ledger.open(key, parent=parent)
    for number in range(1, jobs + 1):
        ledger.add(family, number, None)
    return family


def with_generations():
    ledger = Ledger()
    client = ledger.open("client")
    for number in range(1, 4):
        ledger.add(client, number, None)
    child = family_of(ledger, client, "child")
    return ledger, client, child, family_of(ledger, child, "grandchild")


def test_the_deepest_jobs_of_a_client_are_assigned_first():
    ledger, *_ = with_generations()
    holder = ledger.enlist("host", 1)
    served = [ledger.assign(holder, 1)[0].session.key for _ in range(5)]
    assert served == ["grandchild", "grandchild", "child", "client", "client"]


def test_children_take_the_turns_of_their_client():
    ledger, *_ = with_generations()
    other = ledger.open("other")
    for number in range(1, 4):
        ledger.add(other, number, None)
    holder = ledger.enlist("host", 1)
    served = [ledger.assign(holder, 1)[0].session.key for _ in range(6)]
    assert served == ["grandchild", "other", "grandchild", "other", "child", "other"]


def test_all_generations_go_with_the_job_that_they_come_from():
    ledger, client, *_ = with_generations()
    [entry] = ledger.assign(ledger.enlist("far", 1), 1)
    ledger.finish(client, 1, "done")
    assert set(ledger.sessions) == {"client"}
    told = {session.key: entries for session, entries in ledger.take_orphans()}
    assert set(told) == {"child", "grandchild"}
    assert entry in told["grandchild"], "whoever holds it is to be told"
    assert entry.holder is ledger.holders["far"]
    assert not ledger.holders["far"].assigned
    assert ledger.take_orphans() == []
    assert [e.session.key for e in ledger.assign(ledger.enlist("far", 1), 9)] == ["client", "client"]


def test_a_holder_that_lends_a_place_is_given_one_more():
    ledger = Ledger()
    client = ledger.open("client")
    for number in range(1, 4):
        ledger.add(client, number, None)
    holder = ledger.enlist("host", 1)
    assert len(ledger.fetch(holder, 0).entries) == 1
    assert len(ledger.fetch(holder, 1).entries) == 0
    ledger.lend(holder, 1)
    assert len(ledger.fetch(holder, 1).entries) == 1


def slave(queue=(), lent=False, ready=True):
    return SimpleNamespace(queue=deque(queue), lent=lent, ready=ready, dismissed=False, idle_since=None, sentence=None)


def test_another_slave_is_hired_for_each_that_lends_its_place():
    assert missing([slave("a"), slave("b")], 2) == 0
    assert missing([slave("a", lent=True), slave("b")], 2) == 1
    deep = [slave("a", lent=True) for _ in range(10)]
    assert missing(deep, 1) == 1 + READY_SPARES, "where jobs go deep, the next slave is started before it is needed"


def test_no_more_slaves_are_given_jobs_than_there_are_places():
    waits, busy, idle, spare = slave("a", lent=True), slave("b"), slave(), slave()
    assert at_work([waits, busy, idle, spare], 2) == [busy, idle]
    waits.lent = False  # it goes on, and nobody is to begin beside it
    assert at_work([waits, busy, idle, spare], 2) == [waits, busy]


def test_a_spare_is_sent_away_after_a_while_and_not_before():
    working, spare = slave("a"), slave()
    slaves = [working, spare]
    assert spares(slaves, 1, 100.0) == ([], 100.0 + SPARE_SECONDS)
    assert spares(slaves, 1, 100.0 + SPARE_SECONDS / 2)[0] == []
    assert spares(slaves, 1, 100.0 + SPARE_SECONDS) == ([spare], None)
    working.lent = True  # it is needed again
    assert spares(slaves, 1, 103.0) == ([], None)
    assert spare.idle_since is None


def test_a_job_whose_predecessor_has_not_heard_who_it_was_is_not_taken_for_that_one(monkeypatch):
    """Its children would be that one's: charged to another client, and dropped with its outcome."""
    said = []
    answers = [[3, "another client", 7, "there"], [4, "client", 8, "here"]]
    link = SimpleNamespace(
        family={"pyro": {}, "group": "group", "nameserver": "names"},
        say=said.append,
        hear=lambda: pack_words(answers.pop(0)),
    )
    monkeypatch.setattr(distributed_family, "FamilyClient", lambda link, group, names, parent, uri: (parent, uri))
    assert distributed_family.open_family(link, 4) == (("client", 8), "here")
    assert said == [pack_words(["who", 4])]


def test_a_job_that_has_ended_has_no_other_one_stopped_in_its_place(monkeypatch):
    """Its family may still be on its way back to the master, in a thread, when the next job runs in the slave."""
    said = []
    monkeypatch.setattr(distributed_family, "STOP_SECONDS", 0.0)
    plea = distributed_family.Plea(SimpleNamespace(say=said.append))
    with pytest.raises(MasterClosedError):
        plea.stop("it cannot go on")
    assert len(said) == 1
    plea.end()
    plea.stop("too late")
    assert len(said) == 1


class Enough(Exception):
    """What a job's handler of an alarm raises."""


@pytest.fixture
def told():
    """What is told of a lent place; the next alarm comes when that is told which stands in `when`."""
    return SimpleNamespace(all=[], when=None)


@pytest.fixture
def lending(told):
    def tell(lent):
        told.all.append(lent)
        if lent is told.when:
            told.when = None
            raise Enough

    return Lending(tell)


@pytest.mark.parametrize("when", [True, False])
def test_a_job_that_an_alarm_calls_from_waiting_waits_again_and_has_its_place_in_the_end(told, lending, when):
    told.when = when
    with pytest.raises(Enough), lending:
        pass
    told.all.clear()
    with lending, lending:
        assert told.all == [True]
    assert told.all == [True, False]
    lending.end()
    assert told.all == [True, False]


@pytest.mark.parametrize("when", [True, False])
def test_a_place_is_taken_back_at_the_end_of_a_job_where_an_alarm_has_kept_that_from_being_told(told, lending, when):
    told.when = when
    with pytest.raises(Enough), lending:
        pass
    lending.end()
    assert told.all == ([True, False] if when else [True, False, False])


def test_a_master_of_a_job_whose_thread_cannot_be_started_leaves_no_descriptors_open(monkeypatch):
    pipes, make = [], os.pipe

    def pipe():
        pipes.append(make())
        return pipes[-1]

    link = SimpleNamespace(max_bytes=MAX_PAYLOAD_BYTES, packer=Packer(), echo=False, family=None, lend=None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe)
        refuse_threads(patch, "papyros-family")
        with pytest.raises(RuntimeError, match="can't start new thread"):
            RelayMaster(link, 1)
    [ends] = pipes
    for fd in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
