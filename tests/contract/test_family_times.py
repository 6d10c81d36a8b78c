"""SCOOP's recursive examples take no longer than a serial run of them, and what it takes to start their slaves."""

from __future__ import annotations

import time

import pytest

import papyros
from tests.contract.families import busy_tree
from tests.contract.jobs_for_tests import double
from tests.support import PATIENCE

pytestmark = pytest.mark.alone

#: 63 jobs, of 10 milliseconds each.
DEPTH, SECONDS = 5, 0.01
JOBS = 2 ** (DEPTH + 1) - 1

#: Room for the noise of a machine: where slaves are there already, and where more than a dozen have to start.
NOISE, MORE_NOISE = 0.5, 2.0

#: Two jobs at a time go down to the leaves, so of each two of each generation wait; some slaves are ready beside.
SLAVES = 2 * (DEPTH + 1) + 4


def seconds_of(master, job):
    started = time.monotonic()
    master.addJob(job)
    assert master.popProcessedJob(2 * PATIENCE) is job
    return time.monotonic() - started, job.result


def tree_seconds(master):
    seconds, result = seconds_of(master, busy_tree(DEPTH, SECONDS))
    assert result == JOBS
    return seconds


@pytest.fixture(scope="module")
def serial():
    with papyros.SingleThreadedMaster() as master:
        return tree_seconds(master)


def test_a_tree_in_threads(serial):
    with papyros.MultiThreadedMaster(2) as master:
        assert tree_seconds(master) < serial


def test_a_tree_in_processes(serial):
    started = time.monotonic()
    with papyros.MultiProcessMaster(1) as master:
        assert seconds_of(master, double(1))[1] == 2
        start_of_one = time.monotonic() - started
    with papyros.MultiProcessMaster(2) as master:
        cold = tree_seconds(master)
        warm = min(tree_seconds(master) for _ in range(3))
    assert warm < serial + NOISE
    assert cold < serial + SLAVES * start_of_one + MORE_NOISE


def test_a_tree_on_a_cluster(serial):
    """There a slave whose job adds jobs becomes a client of the master as well."""
    with papyros.LocalCluster(slaves=2) as cluster, cluster.master() as master:
        assert seconds_of(master, double(1))[1] == 2
        start_of_one, _ = seconds_of(master, busy_tree(1, 0.0))
        cold = tree_seconds(master)
        warm = min(tree_seconds(master) for _ in range(3))
    assert warm < serial + NOISE
    assert cold < serial + SLAVES * start_of_one + MORE_NOISE
