"""Threads that end of what nobody foresaw: whoever waits for them is told, and nothing hangs."""

from __future__ import annotations

import pytest

import papyros
from papyros import LocalCluster
from papyros.distributed.receiving import Receiver
from papyros.distributed.sending import Sender
from tests.contract.jobs_for_tests import Square, wait_at
from tests.support import PATIENCE, Background, Bug, at_most


#: What the sender calls before each message, and the receiver with each answer.
@pytest.mark.parametrize("broken", [(Sender, "_sendable"), (Receiver, "_warn")], ids=["sender", "receiver"])
def test_all_jobs_of_a_client_have_an_outcome_when_one_of_its_threads_breaks_down(monkeypatch, gates, broken):
    bug = Bug.put_into(monkeypatch, *broken)
    with LocalCluster(slaves=1) as cluster:
        master = cluster.master(max_waiting=2)
        gate = gates()
        jobs = [wait_at(gate.path, "runs"), Square(1), Square(2)]
        for job in jobs:
            master.addJob(job)
        gate.wait_for_arrivals()
        popping = Background(master.popProcessedJob)
        adding = Background(master.addJob, Square(3))  # for which there is no room
        bug.loose = True
        gate.open()
        popped = [popping.result()]
        adding.result()
        while (job := master.popProcessedJob(PATIENCE)) is not None:
            popped.append(job)
        assert len(popped) == 4
        assert set(popped) > set(jobs)
        check_lost(popped[-1])

        another = Square(4)
        master.addJob(another)
        assert master.popProcessedJob(PATIENCE) is another
        check_lost(another)
        future = master.executor().submit(pow, 2, 3)
        assert type(future.exception(PATIENCE)) is papyros.SlaveLost
        assert not master.cancelJob(jobs[0])
        master.cancelAllJobs()
        with at_most(10):
            master.close()


def check_lost(job):
    assert type(job.exception) is papyros.SlaveLost
    assert Bug.TEXT in str(job.exception)
    assert "make another master" in str(job.exception)
