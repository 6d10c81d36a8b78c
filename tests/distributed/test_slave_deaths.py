"""Slaves die: they are replaced at once, and only the job that killed its slave is blamed."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from papyros import LocalCluster, MultiProcessMaster, SlaveLost
from tests.contract.jobs_for_tests import double, nap, wait_at, where
from tests.distributed.jobs import die, die_once, leave, say, starts, trace
from tests.distributed.programs import alive, processes, slaves_of
from tests.support import wait_until


@pytest.fixture(params=["multiprocess", "cluster"])
def make(request):
    """Make a master with so many slaves, and nobody else's jobs."""
    closing = []

    def make(slaves):
        if request.param == "multiprocess":
            closing.append(MultiProcessMaster(slaves))
            assert closing[-1].wait_ready(30)
            return closing[-1]
        closing.append(LocalCluster(slaves))
        return closing[-1].master()

    yield make
    for each in closing:
        each.close()


def slave_processes(mark):
    return [pid for pid, command in processes(mark).items() if "papyros.slave" in command]


def run(master, *jobs):
    for job in jobs:
        master.addJob(job)
    return master.processedJobs(30)


def test_a_slave_that_is_killed_is_replaced_and_its_job_runs_again(make, gates, tmp_path, mark):
    master = make(2)
    gate = gates()
    job = trace(str(tmp_path), "job", gate.path)
    master.addJob(job)
    gate.wait_for_arrivals(1)
    (first,) = starts(tmp_path, "job")
    before = set(slave_processes(mark))
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gate.arrivals() == 2, "another start of the job")
    _, second = starts(tmp_path, "job")
    assert second != first
    wait_until(lambda: len(slave_processes(mark)) == 2, "as many slaves as before")
    after = set(slave_processes(mark))
    assert len(after - before) == 1
    assert not alive(first)
    gate.open()
    assert master.processedJobs(30) == [job]
    assert job.result == "job"


def test_an_idle_slave_that_is_killed_is_replaced(make, mark):
    master = make(1)
    (job,) = run(master, where())
    pid, _ = job.result
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: slave_processes(mark) not in ([], [pid]), "a new slave")
    (job,) = run(master, where())
    assert job.result[0] != pid


def test_only_the_job_that_ran_is_charged(make, tmp_path):
    """A slave dies eight times, each time under another job; those behind were handed out, no more."""
    master = make(1)
    run(master, *(double(number) for number in range(50)))  # quick jobs, so that more are handed out ahead
    deadly = [die_once(str(tmp_path), f"deadly-{number}") for number in range(8)]
    behind = [trace(str(tmp_path), f"behind-{number}") for number in range(20)]
    done = run(master, *deadly, *behind)
    assert set(done) == {*deadly, *behind}
    assert all(job.exception is None for job in done)
    assert [len(starts(tmp_path, f"deadly-{number}")) for number in range(8)] == [2] * 8


@pytest.mark.parametrize(
    ("how", "cause"),
    [(7, "ended with exit code 7"), (0, "ended with exit code 0"), ("kill", "SIGKILL"), ("segfault", "SIGSEGV")],
)
def test_a_job_that_kills_its_slave_is_lost_after_three_attempts(make, how, cause, tmp_path):
    master = make(1)
    last_words = [f"line {number}" for number in range(30)]
    (job,) = run(master, die(str(tmp_path), "job", how, *last_words))
    pids = starts(tmp_path, "job")
    assert len(pids) == 3
    with pytest.raises(SlaveLost) as error:
        job.result
    story = str(error.value)
    assert story.count(cause) == 3
    for attempt, pid in enumerate(pids, 1):
        assert f"attempt {attempt}: slave {socket.gethostname()}/{pid}" in story
    assert story.count("\n    line 29") == 3  # the first line names the job, and what it was given
    assert "line 0\n" not in story
    (after,) = run(master, double(21))
    assert after.result == 42


def test_a_job_that_kills_its_slaves_leaves_fifty_others_alone(make, tmp_path, mark):
    master = make(4)
    good = [trace(str(tmp_path), f"good-{number}") for number in range(50)]
    bad = die(str(tmp_path), "bad", "kill")
    done = run(master, *good[:25], bad, *good[25:])
    assert len(done) == 51
    assert set(done) == {*good, bad}
    assert len(starts(tmp_path, "bad")) == 3
    with pytest.raises(SlaveLost):
        bad.result
    for number, job in enumerate(good):
        assert job.result == f"good-{number}"
        # One that ended just before its slave was killed may have to run again, since its outcome died there too.
        assert 1 <= len(starts(tmp_path, f"good-{number}")) <= 4
    wait_until(lambda: len(slave_processes(mark)) == 4, "as many slaves as before")


def test_slaves_that_die_all_at_once_are_all_replaced(make, gates, tmp_path, mark):
    master = make(4)
    gate = gates()
    jobs = [trace(str(tmp_path), f"job-{number}", gate.path) for number in range(8)]
    for job in jobs:
        master.addJob(job)
    gate.wait_for_arrivals(4)
    for pid in slave_processes(mark):
        os.kill(pid, signal.SIGKILL)
    gate.wait_for_arrivals(8)
    gate.open()
    assert set(master.processedJobs(30)) == set(jobs)
    assert all(job.exception is None for job in jobs)


def test_a_slave_that_sleeps_keeps_its_job_and_no_other(make, gates):
    """A stopped process is slow, not dead."""
    master = make(2)
    gate = gates()
    master.addJob(wait_at(gate.path, "slow"))
    gate.wait_for_arrivals()
    running = lambda: [view.name for view in master.status().slaves if view.job]  # noqa: E731
    (slave,) = wait_until(running, "a status that tells of the job: a slave host that is busy is not waited for")
    pid = int(slave.rpartition("/")[2])
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(20):
            master.addJob(nap(0.001, number))
        assert sorted(master.popProcessedJob(10).result for _ in range(20)) == list(range(20))
    finally:
        os.kill(pid, signal.SIGCONT)
    gate.open()
    assert master.popProcessedJob(10).result == "slow"


def test_sys_exit_in_a_job_is_an_exception_like_any_other(make):
    master = make(1)
    (before,) = run(master, where())
    (job,) = run(master, leave(3))
    (after,) = run(master, where())
    assert isinstance(job.exception, SystemExit)
    assert job.exception.code == 3
    assert before.result[0] == after.result[0]


PRINTING = """
    from papyros import MultiProcessMaster
    from tests.distributed.jobs import say

    with MultiProcessMaster(2) as master:
        for number in range(5):
            master.addJob(say(f"this is job {number}"))
        print(len(master.processedJobs()), "jobs")
"""


def test_what_jobs_print_comes_to_the_terminal_of_the_program(launch):
    program = launch.script(PRINTING, terminal=True)
    assert program.ended() == 0
    lines = program.text.splitlines()
    assert sorted(lines) == ["5 jobs", *(f"this is job {number}" for number in range(5))]


def test_what_jobs_print_comes_to_the_output_of_the_slave_host(launch, names, group):
    from papyros import DistributedMaster

    launch.master(group, names)
    host = launch.host(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        run(client, say("hello from afar"))
        host.wait_for("hello from afar\n", 5)


def test_slaves_of_a_cluster_are_found_by_their_parent(cluster):
    assert len(slaves_of(cluster.pids["slave host"])) == 2
