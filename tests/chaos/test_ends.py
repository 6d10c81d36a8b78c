"""Row 22: SIGTERM once and twice, and Ctrl-C, anywhere."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

import pytest

import papyros
from papyros import DistributedMaster
from tests.chaos.conftest import LEASE, SLACK, start_host
from tests.chaos.jobs import note
from tests.distributed.jobs import starts, trace
from tests.distributed.programs import STANDALONE_UP, free_port, processes, slaves_of, wait_until_gone
from tests.support import Background, wait_until


def test_row_22_sigterm_lets_a_slave_host_finish_hand_back_and_leave(launch, names, group, gates, tmp_path):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals(1)
        client.addJob(note(str(tmp_path), "waiting"))
        slaves = slaves_of(host.pid)
        host.send(signal.SIGTERM)
        host.wait_for("draining")
        start_host(launch, group, names, 1)
        assert client.popProcessedJob(20).result == "waiting", "handed back, and run elsewhere"
        gate.open()
        assert client.popProcessedJob(20).result == "running"
        assert host.ended(5) == 0
        wait_until_gone(slaves, 2)
        assert [len(starts(tmp_path, name)) for name in ("running", "waiting")] == [1, 1]


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)]
)
def test_row_22_a_second_signal_or_ctrl_c_ends_a_slave_host_now(launch, names, group, gates, tmp_path, numbers):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals(1)
        slaves = slaves_of(host.pid)
        for position, number in enumerate(numbers):
            if position and number == signal.SIGTERM:
                host.wait_for("draining")
            host.send(number)
        ended = time.monotonic()
        host.ended(5)
        wait_until_gone(slaves, 2)
        start_host(launch, group, names, 1)
        gate.wait_for_arrivals(2)
        assert time.monotonic() - ended <= LEASE + 1 + 2 * SLACK  # with the start of the other host
        gate.open()
        assert client.popProcessedJob(20).result == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_22_a_master_that_is_ended_leaves_no_orphan_and_the_next_one_has_all(
    launch, names, group, gates, tmp_path, number
):
    gate = gates()
    master = launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals(1)
        client.addJob(note(str(tmp_path), "waiting"))
        assert master.end(number, 10) == 0
        launch.master(group, names, f"--lease={LEASE}")
        gate.open()
        assert sorted(job.result for job in client.processedJobs(30)) == ["running", "waiting"]


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "twice"])
def test_row_22_sigterm_lets_a_standalone_cluster_finish_what_runs_and_twice_ends_it_now(
    launch, group, gates, tmp_path, mark, signals
):
    gate = gates()
    address = f"localhost:{free_port()}"
    options = "--logging", f"--group={group}", f"--nameserver={address}"
    cluster = launch.part("--standalone", "--slaves=1", *options, name="all")
    cluster.wait_for(STANDALONE_UP)
    with DistributedMaster(group, address, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals(1)
        client.addJob(note(str(tmp_path), "waiting"))
        cluster.send(signal.SIGTERM)
        wait_until(lambda: cluster.text.count("draining") == 2, "the slave host, too, drains")
        if signals == 2:
            sent = time.monotonic()
            cluster.send(signal.SIGTERM)
            cluster.ended(5)
            wait_until(lambda: not processes(mark), "an end to all parts and slaves", 5)
            assert time.monotonic() - sent <= 2 + SLACK
        else:
            assert cluster.running, "it waits for what runs"
            gate.open()
            assert client.popProcessedJob(20).result == "running"
            assert cluster.ended(10) == 0
        assert client.popProcessedJob(0) is None
        assert client.numPendingJobs() == signals, (
            "what was not finished was handed back, and waits for the next master"
        )
        assert starts(tmp_path, "waiting") == []


@contextmanager
def stderr_into(path):
    """Have what is started meanwhile write its errors to a file: `capfd` loses what comes in the moment of a look."""
    before = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_row_22_drain_lets_a_local_cluster_finish_what_runs(gates, tmp_path):
    gate, said = gates(), tmp_path / "said"

    def drains():
        return "draining" in said.read_text()

    with stderr_into(said):
        cluster = papyros.LocalCluster(slaves=1, options=["--logging"])
    with cluster, cluster.master(host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals(1)
        client.addJob(note(str(tmp_path), "waiting"))
        draining = Background(cluster.drain, 30)
        wait_until(drains, "the slave host drains")
        assert draining.running
        gate.open()
        assert client.popProcessedJob(20).result == "running"
        draining.result()
        assert client.popProcessedJob(0) is None
        assert client.numPendingJobs() == 1
        assert starts(tmp_path, "waiting") == []


CLIENT = """
    import sys
    import papyros
    from tests.distributed.jobs import trace

    kind, folder, gate, group, names = sys.argv[1:]
    master = papyros.MultiProcessMaster(2) if kind == "multiprocess" else papyros.DistributedMaster(group, names)
    with master:
        for name in ("a", "b"):
            master.addJob(trace(folder, name, gate))
        print("added", flush=True)
        master.popProcessedJob()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["multiprocess", "hosting"])
def test_row_22_a_program_that_is_ended_leaves_no_orphan(launch, names, group, gates, tmp_path, kind, number):
    gate = gates()
    if kind == "hosting":
        host = launch.part(f"--group={group}", f"--nameserver={names}", "--slaves=2", name="host")
    program = launch.script(CLIENT, kind, str(tmp_path), gate.path, group, names, name="client")
    gate.wait_for_arrivals(2)
    slaves = slaves_of(program.pid)
    program.send(number)
    program.ended(10)
    wait_until_gone(slaves, 2)
    if kind == "hosting":
        assert host.running, "slaves outlive a client, and wait for the next master"
        assert host.end(signal.SIGINT, 10) == 0
