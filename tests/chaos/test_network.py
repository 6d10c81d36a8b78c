"""Rows 12 to 14: connections that are silent, slow, cut or reset."""

from __future__ import annotations

import threading
import time

import pytest

from papyros import DistributedMaster
from tests.chaos.conftest import LEASE, SLACK, start_host
from tests.chaos.jobs import blob, note, size_of
from tests.contract.jobs_for_tests import double
from tests.distributed.jobs import starts, trace
from tests.support import wait_until

CUTS = [0, 1, 39, 40, 41, 100, 1000, 5000, 20_000]

#: A side that hears nothing notices that within so many leases.
NOTICED = 3 * LEASE


def doubled(client, count=20):
    for number in range(count):
        client.addJob(double(number))
    return sorted(job.result for job in client.processedJobs(30))


def let_pass(seconds):
    """Let time pass: it is the fault itself."""
    threading.Event().wait(seconds)


@pytest.mark.parametrize("after", CUTS)
def test_row_12_a_connection_that_is_cut_after_some_bytes_is_made_again(line, launch, tmp_path, after):
    """Both the client and the slave host are on the wire, and each of their connections is cut for a while."""
    start_host(launch, line.group, line.far, 2)
    with DistributedMaster(line.group, line.far, host_master=False) as client:
        line.wire.cut_after = after
        for number in range(10):
            client.addJob(note(str(tmp_path), str(number)))
        let_pass(0.3)
        line.wire.resume()
        assert sorted(job.result for job in client.processedJobs(20)) == sorted(map(str, range(10)))
        assert all(len(starts(tmp_path, str(number))) == 1 for number in range(10))
        assert doubled(client) == list(range(0, 40, 2))


@pytest.mark.parametrize("how", ["reset", "refuse", "half_close"])
def test_row_12_a_connection_that_is_reset_or_half_closed_is_made_again(line, launch, gates, tmp_path, how):
    gate = gates()
    start_host(launch, line.group, line.far, 2)
    with DistributedMaster(line.group, line.far, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "held", gate.path))
        gate.wait_for_arrivals(1)
        getattr(line.wire, how)()
        let_pass(0.5)
        line.wire.resume()
        gate.open()
        assert [job.result for job in client.processedJobs(20)] == ["held"]
        assert len(starts(tmp_path, "held")) == 1
        assert doubled(client) == list(range(0, 40, 2))


@pytest.mark.slow
def test_row_12_a_slave_host_on_a_half_open_connection_connects_again(line, launch):
    """Its connections stay open, and nothing ever comes: those that it makes later work."""
    start_host(launch, line.group, line.far, 1)
    accepted = line.wire.accepted
    line.wire.silence()
    let_pass(NOTICED)
    line.wire.forget()
    line.wire.resume()
    wait_until(lambda: line.wire.accepted > accepted, "a new connection", 10)
    with DistributedMaster(line.group, line.names, host_master=False) as client:
        assert doubled(client) == list(range(0, 40, 2))


@pytest.mark.slow
def test_row_12_a_client_on_a_half_open_connection_connects_again(line, launch):
    start_host(launch, line.group, line.names, 1)
    with DistributedMaster(line.group, line.far, host_master=False) as client:
        assert doubled(client) == list(range(0, 40, 2))
        line.wire.silence()
        client.addJob(double(4))
        let_pass(NOTICED)
        line.wire.forget()
        line.wire.resume()
        job = client.popProcessedJob(30)
        assert job is not None
        assert job.result == 8


def test_row_13_a_network_that_is_gone_for_a_second_makes_no_job_run_twice(line, launch, gates, tmp_path):
    gate = gates()
    start_host(launch, line.group, line.far, 2)
    with DistributedMaster(line.group, line.far, host_master=False) as client:
        for name in ("a", "b", "c", "d"):
            client.addJob(trace(str(tmp_path), name, gate.path))
        gate.wait_for_arrivals(2)
        line.wire.silence()
        let_pass(1)
        gate.open()
        line.wire.resume()
        assert sorted(job.result for job in client.processedJobs(20)) == ["a", "b", "c", "d"]
        assert [len(starts(tmp_path, name)) for name in "abcd"] == [1, 1, 1, 1]
        assert client.status().late == 0


@pytest.mark.slow
def test_row_13_jobs_behind_a_network_that_is_gone_for_three_leases_run_elsewhere(line, launch, gates, tmp_path):
    gate = gates()
    start_host(launch, line.group, line.far, 1)
    with DistributedMaster(line.group, line.names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "held", gate.path))
        gate.wait_for_arrivals(1)
        start_host(launch, line.group, line.names, 1)
        line.wire.silence()
        gone = time.monotonic()
        gate.wait_for_arrivals(2)
        assert time.monotonic() - gone <= LEASE + 1 + SLACK
        gate.open()
        assert [job.result for job in client.processedJobs(20)] == ["held"]
        let_pass(max(0.0, 3 * LEASE - (time.monotonic() - gone)))
        line.wire.resume()
        wait_until(lambda: client.status().late == 1, "the late outcome counted", 20)
        wait_until(lambda: len(client.status().slaves) == 2, "both slave hosts back", 20)
        assert client.popProcessedJob(0) is None


@pytest.mark.slow
def test_row_13_jobs_behind_a_network_that_is_gone_for_good_run_elsewhere(line, launch, gates, tmp_path):
    gate = gates()
    host = start_host(launch, line.group, line.far, 1, "--drain=2")  # its outcome is owed for so long
    with DistributedMaster(line.group, line.names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "held", gate.path))
        gate.wait_for_arrivals(1)
        line.wire.silence()
        start_host(launch, line.group, line.names, 1)
        gate.wait_for_arrivals(2)
        gate.open()
        assert [job.result for job in client.processedJobs(20)] == ["held"]
        assert host.end(seconds=20) == 0, "a slave host without a network ends all the same"


SLOW = 4 << 20  # bytes a second
LARGE = 20 << 20


@pytest.mark.slow
def test_row_14_a_large_result_on_a_slow_link_is_no_death(line, launch, tmp_path):
    start_host(launch, line.group, line.far, 1)
    with DistributedMaster(line.group, line.names, host_master=False) as client:
        assert doubled(client) == list(range(0, 40, 2))
        line.wire.rate = SLOW
        client.addJob(blob(LARGE))
        job = client.popProcessedJob(40)
        assert job is not None
        assert len(job.result) == LARGE
        assert client.status().late == 0
        assert len(client.status().slaves) == 1


@pytest.mark.slow
def test_row_14_a_large_argument_on_a_slow_link_is_no_death(line, launch, tmp_path):
    start_host(launch, line.group, line.far, 1)
    with DistributedMaster(line.group, line.names, host_master=False) as client:
        assert doubled(client) == list(range(0, 40, 2))
        line.wire.rate = SLOW
        client.addJob(size_of(bytes(LARGE)))
        job = client.popProcessedJob(40)
        assert job is not None, "its slave host was given up again and again, while it was sent the argument"
        assert job.result == LARGE


@pytest.mark.slow
def test_row_14_a_client_on_a_slow_link_is_not_given_up(launch, names, group, line):
    start_host(launch, line.group, line.names, 1)
    with DistributedMaster(line.group, line.far, host_master=False) as client:
        line.wire.rate = SLOW
        client.addJob(size_of(bytes(LARGE)))
        client.addJob(blob(LARGE))
        found = {type(job).__name__: job.result for job in client.processedJobs(60)}
        assert found["size_of"] == LARGE
        assert len(found["blob"]) == LARGE
