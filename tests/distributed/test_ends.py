"""How the parts end: when they are asked to, in bounded time, with nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from papyros import DistributedMaster
from tests.contract.jobs_for_tests import wait_at
from tests.distributed.jobs import starts, stubborn, trace
from tests.distributed.programs import (
    CTRL_C,
    HOST_UP,
    MASTER_UP,
    PART,
    STANDALONE_UP,
    alive,
    elapsed,
    free_port,
    groups,
    processes,
    slaves_of,
    wait_until_gone,
)
from tests.support import at_most, wait_until

pytestmark = pytest.mark.measured

#: How long a part may take to end when it is asked to.
END_SECONDS = 3.0


PARTS = ["master", "host", "standalone", "waiting master", "waiting host"]


def start_part(kind, launch, names, group, terminal=False):
    """Start a part, and wait until it says that it is up, or what it waits for."""
    nowhere = f"localhost:{free_port()}"
    arguments, words = {
        "master": ([f"--nameserver={names}"], MASTER_UP),
        "host": ([f"--nameserver={names}", "--slaves=2"], HOST_UP),
        "standalone": ([f"--nameserver={nowhere}", "--slaves=2", "--standalone"], STANDALONE_UP),
        "waiting master": ([f"--nameserver={nowhere}"], "waiting for a name server"),
        "waiting host": ([f"--nameserver={nowhere}", "--slaves=2"], "waiting for a name server"),
    }[kind]
    if kind == "host":
        launch.master(group, names)
    program = launch.part(f"--group={group}", *arguments, name=kind, terminal=terminal)
    program.wait_for(words)
    return program


def clean_end(kind, program, names, group, mark):
    assert "Traceback" not in program.text
    assert "has ended" in program.text or "have ended" in program.text or "waiting" in kind or kind == "standalone"
    left = [command for command in processes(mark).values() if kind != "host" or "--slaves" in command]
    assert not [command for command in left if kind != "host" or "slave" in command]
    assert (group in groups(names)) == (kind == "host")  # the master that it served goes on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", PARTS)
def test_a_signal_ends_a_part_cleanly(kind, number, launch, names, group, mark):
    program = start_part(kind, launch, names, group)
    with at_most(END_SECONDS):
        assert program.end(number) == 0
    clean_end(kind, program, names, group, mark)


@pytest.mark.parametrize("kind", ["master", "host"])
def test_a_signal_ends_a_part_whichever_thread_it_reaches(kind, launch, names, group):
    """The system may choose any thread; and now and then the main one is not yet waiting when it gets the signal."""
    program = start_part(kind, launch, names, group)
    threads = {int(folder.name) for folder in Path(f"/proc/{program.pid}/task").iterdir()} - {program.pid}
    os.kill(max(threads), signal.SIGTERM)  # a number of a thread means its process, but that thread first
    assert program.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", PARTS)
def test_a_signal_ends_a_part_at_a_terminal_that_is_held(kind, number, launch, names, group):
    """Nobody reads that it ends, and it ends all the same."""
    program = start_part(kind, launch, names, group, terminal=True)
    with program.held(), at_most(END_SECONDS):
        assert program.end(number) == 0


@pytest.mark.parametrize("kind", ["master", "host", "standalone"])
def test_ctrl_c_at_a_terminal_ends_a_part_cleanly(kind, launch, names, group, mark):
    program = start_part(kind, launch, names, group, terminal=True)
    program.press(CTRL_C)
    with at_most(END_SECONDS):
        assert program.ended() == 0
    clean_end(kind, program, names, group, mark)


def test_a_host_says_that_a_master_that_does_not_answer_took_no_outcomes(launch, names, group, gates, tmp_path):
    master = launch.master(group, names)
    host = launch.host(group, names, 1, "--drain=1")
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals()
        master.stop()
        gate.open()
        assert host.end() == 0
        assert "those whose outcomes the master has not taken" in host.text
        master.send(signal.SIGCONT)
        client.cancelAllJobs()


def test_a_slave_host_whose_terminal_goes_says_goodbye(launch, names, group):
    host = start_part("host", launch, names, group, terminal=True)
    with DistributedMaster(group, names, host_master=False) as client:
        assert client.status().slaves
        host.hang_up()
        with at_most(END_SECONDS):
            assert host.ended() == 0
        assert not client.status().slaves


def test_a_part_that_is_to_outlive_its_terminal_does(launch, names, group):
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    master = launch(*nohup, *PART, f"--group={group}", f"--nameserver={names}", name="master")
    master.wait_for(MASTER_UP)
    host = launch(*nohup, *PART, f"--group={group}", f"--nameserver={names}", "--slaves=1", name="host")
    host.wait_for(HOST_UP)
    for part in (host, master):
        part.send(signal.SIGHUP)
        assert part.end() == 0
    assert "draining" in host.text  # which is what the second signal asks for


def test_a_second_signal_ends_a_part_at_once(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(stubborn(gate.path))  # a slave that does not end when asked to is waited for
        gate.wait_for_arrivals()
        slaves = slaves_of(host.pid)
        started = time.monotonic()
        while host.running:
            host.send(signal.SIGINT)  # two that come at once would be one
            assert elapsed(started) < 0.8
            time.sleep(0.01)
        assert host.ended() == 128 + signal.SIGINT
        wait_until_gone(slaves, 1.0)
        client.cancelAllJobs()


def test_a_host_ends_in_bounded_time_though_a_slave_does_not_want_to(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(stubborn(gate.path))
        gate.wait_for_arrivals()
        slaves = slaves_of(host.pid)
        with at_most(END_SECONDS):
            assert host.end(signal.SIGINT) == 0
        assert not any(map(alive, slaves))


def test_sigterm_lets_a_host_finish_what_runs_and_give_back_the_rest(launch, names, group, gates, tmp_path):
    launch.master(group, names)
    first = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        gate.wait_for_arrivals()
        client.addJob(trace(str(tmp_path), "waiting"))
        first.send(signal.SIGTERM)
        first.wait_for("draining")
        gate.open()
        assert client.popProcessedJob(30).result == "running"
        assert first.ended(END_SECONDS) == 0
        assert starts(tmp_path, "waiting") == []
        launch.host(group, names)
        assert client.popProcessedJob(30).result == "waiting"
    assert len(starts(tmp_path, "running")) == len(starts(tmp_path, "waiting")) == 1


def test_a_host_that_drains_still_stops_what_is_cancelled(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names, 2)
    gate = gates()
    jobs = [wait_at(gate.path), wait_at(gate.path)]
    with DistributedMaster(group, names, host_master=False) as client:
        for job in jobs:
            client.addJob(job)
        gate.wait_for_arrivals(2)
        host.send(signal.SIGTERM)
        host.wait_for("draining")
        slaves = slaves_of(host.pid)
        for left, job in ((1, jobs[0]), (0, jobs[1])):  # the order to stop the second needs a call that is made later
            assert client.cancelJob(job)
            wait_until(lambda left=left: sum(map(alive, slaves)) <= left)
        assert host.ended(END_SECONDS + 2) == 0  # the gate stays closed, so the job would never end
        assert client.numPendingJobs() == 0


def test_sigterm_waits_for_what_runs_only_so_long(launch, names, group, gates):
    launch.master(group, names)
    host = launch.host(group, names, 1, "--drain=0.3")
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(wait_at(gate.path))
        gate.wait_for_arrivals()
        with at_most(END_SECONDS):
            assert host.end() == 0
        assert client.numPendingJobs() == 1
        assert "not drained after 0.3 s: jobs that still run are stopped" in host.text


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["master", "host"])
def test_a_part_ends_in_bounded_time_though_the_others_do_not_answer(kind, launch, group):
    names = launch.nameserver()
    master = launch.master(group, names.address)
    host = launch.host(group, names.address)
    frozen, part = ([names, host], master) if kind == "master" else ([names, master], host)
    for program in frozen:
        program.send(signal.SIGSTOP)
    with at_most(8):
        assert part.end() == 0
