"""Rows 1, 5 and 7 for jobs that must run at most once: whoever dies, none is started twice, and all have an outcome."""

from __future__ import annotations

import signal
import time

import pytest

from papyros import DistributedMaster, SlaveLost
from tests.chaos.conftest import LEASE, SLACK, start_host
from tests.chaos.jobs import note_once, pause
from tests.distributed.jobs import starts, trace
from tests.distributed.programs import HOST_UP
from tests.support import is_all_sent, wait_until


def once(job):
    job.at_most_once = True
    return job


def check_lost(job, reason):
    assert isinstance(job.exception, SlaveLost), job.exception
    assert reason in str(job.exception)
    assert job.slave == ""


@pytest.fixture
def busy(launch, names, group, gates, tmp_path):
    """A client whose jobs `a` and `b` run at a slave host, and wait at a gate there, while `c` waits at the master."""
    gate = gates()
    master = launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        for name in ("a", "b"):
            client.addJob(once(trace(str(tmp_path), name, gate.path)))
        gate.wait_for_arrivals(2)
        client.addJob(note_once(str(tmp_path), "c"))
        wait_until(lambda: is_all_sent(client), "a job that waits at the master")
        assert client.status().waiting == 1
        yield client, master, host, gate


def test_row_01_jobs_that_run_once_are_lost_with_their_slave_host_and_others_are_not(
    launch, names, group, tmp_path, busy
):
    client, _, host, gate = busy
    host.end(signal.SIGKILL)
    killed = time.monotonic()
    lost = [client.popProcessedJob(20) for _ in range(2)]
    assert time.monotonic() - killed <= LEASE + 1 + SLACK
    start_host(launch, group, names, 2)
    popped = {job.args[1]: job for job in (*lost, *client.processedJobs(20))}
    gate.open()
    for name in ("a", "b"):
        check_lost(popped[name], f"its slave host was silent for more than {LEASE:g} s")
    assert popped["c"].result == "c"
    assert [len(starts(tmp_path, name)) for name in "abc"] == [1, 1, 1]
    assert client.status().lost == 0, "no slave died of a job"


def test_row_05_jobs_that_run_once_are_lost_with_a_slave_host_that_sleeps_and_what_comes_late_is_dropped(
    launch, names, group, tmp_path, busy
):
    client, _, host, gate = busy
    host.send(signal.SIGSTOP)
    start_host(launch, group, names, 2)
    popped = {job.args[1]: job for job in client.processedJobs(20)}
    for name in ("a", "b"):
        check_lost(popped[name], f"its slave host was silent for more than {LEASE:g} s")
    assert popped["c"].result == "c"
    gate.open()
    host.send(signal.SIGCONT)
    wait_until(lambda: client.status().late == 2, "the late outcomes counted", 20)
    assert client.popProcessedJob(0) is None
    assert [len(starts(tmp_path, name)) for name in "abc"] == [1, 1, 1]


def test_row_07_jobs_that_run_once_and_were_sent_to_a_master_are_lost_with_it_also_those_that_waited(
    launch, names, group, tmp_path, busy
):
    client, master, host, gate = busy
    master.end(signal.SIGKILL)
    launch.master(group, names, f"--lease={LEASE}")
    popped = {job.args[1]: job for job in client.processedJobs(20)}
    for name in "abc":
        check_lost(popped[name], "the master was lost")
    wait_until(lambda: host.text.count(HOST_UP) == 2, "the slave host serves the next master")
    gate.open()
    client.addJob(note_once(str(tmp_path), "after"))
    assert client.popProcessedJob(20).result == "after", "and no outcome of a job that had one"
    assert client.popProcessedJob(0) is None
    assert [len(starts(tmp_path, name)) for name in ("a", "b", "c", "after")] == [1, 1, 0, 1]


def test_row_07_of_a_hundred_jobs_that_run_once_none_is_started_twice_though_the_master_is_killed(
    launch, names, group, tmp_path
):
    first = launch.master(group, names, f"--lease={LEASE}")
    for _ in range(2):
        start_host(launch, group, names, 2)
    # At most ten of them are sent at a time, and may be lost with the master: the others wait here.
    with DistributedMaster(group, names, host_master=False, max_processed=10) as client:
        jobs = [once(pause(str(tmp_path), f"{number:03}", 0.02)) for number in range(100)]
        for job in jobs:
            client.addJob(job)
        popped = [client.popProcessedJob(20) for _ in range(20)]
        first.end(signal.SIGKILL)
        launch.master(group, names, f"--lease={LEASE}")
        while (job := client.popProcessedJob(30)) is not None:
            popped.append(job)
        assert len(popped) == 100
        assert set(popped) == set(jobs)
        lost = [job for job in jobs if job.exception is not None]
        for job in lost:
            check_lost(job, "the master was lost")
        assert len(lost) <= 10
        counts = {job: len(starts(tmp_path, job.args[1])) for job in jobs}
        assert max(counts.values()) == 1
        assert all(counts[job] == 1 for job in jobs if job not in lost)
