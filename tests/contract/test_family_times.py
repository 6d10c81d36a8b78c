"""SCOOP's recursive examples take no longer than a serial run of them, and what it takes to start their slaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import papyros
from tests.contract.families import busy_map_reduce, busy_tree
from tests.contract.jobs_for_tests import double
from tests.support import PATIENCE

pytestmark = pytest.mark.alone

SECONDS = 0.01

#: Room for the noise of a machine: where slaves are there already, and where they have to start.
NOISE, MORE_NOISE = 0.5, 2.0


class Work(NamedTuple):
    """A job whose children take time, what it returns, and how many slaves it may have started."""

    make: Callable[[], Any]
    result: int
    slaves: int


#: A tree of depth 5, and 32 numbers that are summed up by pairs: each is 63 jobs, beside that which adds them.
WORKS = {
    # Two jobs at a time go down to the leaves, so of each two of each generation wait; some slaves are ready beside.
    "tree": Work(lambda: busy_tree(5, SECONDS), 63, 2 * 6 + 4),
    # One job waits.
    "map and reduce": Work(lambda: busy_map_reduce(32, SECONDS), sum(range(32)), 3),
}


def seconds_of(master, job):
    started = time.monotonic()
    master.addJob(job)
    assert master.popProcessedJob(2 * PATIENCE) is job
    return time.monotonic() - started, job.result


def work_seconds(master, work):
    seconds, result = seconds_of(master, work.make())
    assert result == work.result
    return seconds


@pytest.fixture(params=WORKS)
def work(request):
    return WORKS[request.param]


@pytest.fixture
def serial(work):
    with papyros.SingleThreadedMaster() as master:
        return work_seconds(master, work)


def test_in_threads(work, serial):
    with papyros.MultiThreadedMaster(2) as master:
        assert work_seconds(master, work) < serial


def test_in_processes(work, serial):
    started = time.monotonic()
    with papyros.MultiProcessMaster(1) as master:
        assert seconds_of(master, double(1))[1] == 2
        start_of_one = time.monotonic() - started
    with papyros.MultiProcessMaster(2) as master:
        cold = work_seconds(master, work)
        warm = min(work_seconds(master, work) for _ in range(3))
    assert warm < serial + NOISE
    assert cold < serial + work.slaves * start_of_one + MORE_NOISE


def test_on_a_cluster(work, serial):
    """There a slave whose job adds jobs becomes a client of the master as well."""
    with papyros.LocalCluster(slaves=2) as cluster, cluster.master() as master:
        assert seconds_of(master, double(1))[1] == 2
        start_of_one, _ = seconds_of(master, busy_tree(1, 0.0))
        cold = work_seconds(master, work)
        warm = min(work_seconds(master, work) for _ in range(3))
    assert warm < serial + NOISE
    assert cold < serial + work.slaves * start_of_one + MORE_NOISE
