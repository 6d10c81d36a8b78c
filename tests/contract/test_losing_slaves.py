"""A job that takes its slave along is tried three times, or once if that is all it may; its outcome tells the story."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

import papyros
from tests.contract.jobs_for_tests import (
    ENDS,
    Square,
    close_descriptors,
    end_slave,
    leave_children,
    scribble,
    starts,
    wait_and_note,
    wait_at,
)
from tests.support import PATIENCE, processed, wait_until

pytestmark = pytest.mark.measured

#: A fork begins with the peak of the process that it was forked from; of what stays below that, no more is known.
MEMORY = r"its memory was (below [1-9]\d* MB|[1-9]\d* MB at its peak)"


@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_ends_its_slave_is_tried_three_times(make_process_master, tmp_path, how):
    master = make_process_master()
    before = master.status().lost
    job = processed(master, end_slave(str(tmp_path), "job", how))
    assert type(job.exception) is papyros.SlaveLost
    pids = [pid for _, pid in starts(tmp_path, "job")]
    assert len(pids) == len(set(pids)) == 3
    assert str(job.exception).startswith(f"{job} lost its slave 3 times and is not tried again")
    assert master.status().lost - before == 3
    with pytest.raises(papyros.SlaveLost):
        job.result


@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_ends_its_slave_tells_of_each_death(make_process_master, tmp_path, how):
    told = str(processed(make_process_master(), end_slave(str(tmp_path), "job", how)).exception)
    for number, (_, pid) in enumerate(starts(tmp_path, "job"), 1):
        assert f"attempt {number}: slave {socket.gethostname()}/{pid} {ENDS[how]}" in told
    assert told.count("attempt ") == told.count("the last words of job") == 3
    assert len(re.findall(MEMORY, told)) == 3


@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_may_run_once_is_started_once(make_process_master, tmp_path, how):
    master = make_process_master()
    before = master.status().lost
    job = end_slave(str(tmp_path), "job", how)
    job.at_most_once = True
    processed(master, job)
    assert type(job.exception) is papyros.SlaveLost
    assert "once" in str(job.exception)
    assert processed(master, Square(3)).result == 9
    assert len(starts(tmp_path, "job")) == 1
    assert master.status().lost - before == 1


@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_may_run_once_tells_of_its_death(make_process_master, tmp_path, how):
    job = end_slave(str(tmp_path), "job", how)
    job.at_most_once = True
    told = str(processed(make_process_master(), job).exception)
    [(_, pid)] = starts(tmp_path, "job")
    assert f"{socket.gethostname()}/{pid} {ENDS[how]}" in told
    assert "the last words of job" in told
    assert re.search(MEMORY, told)


def test_a_program_that_reaps_all_of_its_children_keeps_its_slaves(make_process_master, tmp_path):
    """As one does that ignores SIGCHLD, or a web server that waits for whatever child ends."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        master = make_process_master()
        jobs = [Square(number) for number in range(20)]
        fatal = end_slave(str(tmp_path), "fatal", "kill")
        for job in [fatal, *jobs]:
            master.addJob(job)
        popped = list(iter(lambda: master.popProcessedJob(PATIENCE), None))
        master.close()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert set(popped) == {fatal, *jobs}
    assert isinstance(fatal.exception, papyros.SlaveLost)
    assert all(job.result == job.args[0] ** 2 for job in jobs)


def test_a_job_that_may_run_once_has_a_result_where_nothing_happens(make_master):
    master = make_master()
    jobs = [Square(number) for number in range(30)]
    for job in jobs:
        job.at_most_once = True
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert [job.result for job in jobs] == [number * number for number in range(30)]


def test_of_many_jobs_that_may_run_once_none_runs_twice_when_slaves_are_killed(make_process_master, tmp_path):
    """Quick ones too, which a slave has had ended before what became of them was told."""
    master = make_process_master(slaves=2)
    gate = make_process_master.gates()
    gate.open()
    jobs = [wait_and_note(str(tmp_path), f"job{number}", gate.path) for number in range(60)]
    enders = [end_slave(str(tmp_path), f"end{number}", "kill") for number in range(6)]
    for number, job in enumerate(jobs):
        job.at_most_once = True
        master.addJob(job)
        if number % 10 == 9:
            ender = enders[number // 10]
            ender.at_most_once = True
            master.addJob(ender)
    assert set(master.processedJobs(2 * PATIENCE)) == {*jobs, *enders}
    for number, job in enumerate(jobs):
        assert len(starts(tmp_path, f"job{number}")) <= 1, job.exception
        assert job.exception is None or type(job.exception) is papyros.SlaveLost
        assert job.exception is not None or len(starts(tmp_path, f"job{number}")) == 1
    assert [len(starts(tmp_path, f"end{number}")) for number in range(6)] == [1] * 6


def test_jobs_behind_the_one_that_ends_its_slave_are_not_charged(make_process_master, tmp_path):
    master = make_process_master(slaves=1)
    squares = [Square(number) for number in range(60)]
    enders = [end_slave(str(tmp_path), f"end{number}", "exit") for number in range(2)]
    for job in (*squares[:30], enders[0], *squares[30:], enders[1]):
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*squares, *enders}
    assert all(job.result == job.args[0] ** 2 for job in squares)
    assert all(type(job.exception) is papyros.SlaveLost for job in enders)


def test_a_slave_that_somebody_else_kills_costs_its_job_one_try_of_three(make_process_master, tmp_path):
    master = make_process_master()
    before = master.status().lost
    gate = make_process_master.gates()
    job = wait_and_note(str(tmp_path), "job", gate.path)
    master.addJob(job)
    for number in (1, 2):
        pid = wait_until(lambda number=number: len(s := starts(tmp_path, "job")) == number and s[-1][1], "a start")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda number=number: master.status().lost - before == number, "the death to be noticed")
    gate.open()
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == "job"
    assert len(starts(tmp_path, "job")) == 3


@pytest.mark.parametrize("spoil", [close_descriptors, scribble], ids=["closed", "scribbled"])
def test_a_job_that_spoils_the_connection_of_its_slave_is_charged(make_process_master, tmp_path, spoil):
    """The slave dies when the job has ended: of that job, and not of one that had ended before."""
    master = make_process_master(slaves=1)
    before = master.status().lost
    squares = [Square(number) for number in range(20)]
    spoiler = spoil(str(tmp_path), "job")
    for job in (*squares[:10], spoiler, *squares[10:]):
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == {*squares, spoiler}
    assert all(job.result == job.args[0] ** 2 for job in squares)
    assert type(spoiler.exception) is papyros.SlaveLost
    assert "3 times" in str(spoiler.exception)
    assert len(starts(tmp_path, "job")) == 3
    assert master.status().lost == before + 3


def test_deaths_and_failures_are_counted_apart(make_process_master, tmp_path):
    folder = str(tmp_path)

    @papyros.job(retries=1, backoff=0.0)
    def unlucky():
        from tests.contract.jobs_for_tests import note_start, starts

        note_start(folder, "job")
        number = len(starts(folder, "job"))
        if number in (1, 3):
            os._exit(1)
        if number == 2:
            raise ValueError("the second one fails")
        return number

    assert processed(make_process_master(), unlucky()).result == 4


def test_the_slave_that_died_is_replaced(make_process_master, tmp_path):
    master = make_process_master(slaves=2)
    processed(master, end_slave(str(tmp_path), "job", "kill"))
    gate = make_process_master.gates()
    for _ in range(make_process_master.slaves):
        master.addJob(wait_at(gate.path))
    gate.wait_for_arrivals(make_process_master.slaves)
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == make_process_master.slaves


def test_only_the_last_lines_of_a_talkative_slave_are_told(make_process_master):
    @papyros.job(at_most_once=True)
    def talk():
        import os
        import sys

        for number in range(1000):
            print(f"line {number}.", file=sys.stderr)
        os._exit(3)

    told = str(processed(make_process_master(), talk()).exception)
    assert "line 999." in told
    assert "line 99." not in told
    assert told.count("\n") < 40


def test_the_last_lines_are_told_to_a_client_that_sees_what_is_printed(make_process_master, tmp_path, capfd):
    """Whoever asked to see the prints is to have the story no less."""
    job = end_slave(str(tmp_path), "job", "exit")
    job.at_most_once = True
    told = str(processed(make_process_master(echo=True), job).exception)
    assert "the last words of job" in told


@pytest.mark.parametrize("how", ["child", "session"])
def test_what_a_dead_slave_had_started_is_swept_up(make_process_master, tmp_path, how):
    master = make_process_master()
    job = leave_children(str(tmp_path), how)
    job.at_most_once = True
    master.addJob(job)
    child = int(wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the child"))
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    try:
        os.kill(parent, signal.SIGKILL)
        assert master.popProcessedJob(PATIENCE) is job
        assert type(job.exception) is papyros.SlaveLost
        wait_until(lambda: not os.path.exists(f"/proc/{child}"), "the child to be gone", 5)
    finally:
        if os.path.exists(f"/proc/{child}"):
            os.kill(child, signal.SIGKILL)


def test_ctrl_c_does_not_start_a_job_twice_that_may_run_once():
    """The user interrupts the single thread: the job was started, and that was its chance."""
    ran = []

    @papyros.job(at_most_once=True)
    def interrupted():
        ran.append(1)
        if len(ran) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(PATIENCE)  # the signal is handled by now, or at the next moment
        return "done"

    master = papyros.SingleThreadedMaster()
    job = interrupted()
    master.addJob(job)
    with pytest.raises(KeyboardInterrupt):
        master.popProcessedJob()
    assert master.popProcessedJob() is job
    assert len(ran) == 1
    assert type(job.exception) is papyros.SlaveLost


def test_a_flood_of_quick_jobs_costs_no_slave(make_process_master):
    master = make_process_master()
    processed(master, Square(3))

    def known():
        slaves = master.status().slaves
        return all(slave.ready for slave in slaves) and {slave.name for slave in slaves}

    slaves = wait_until(known, "all slaves to be known: those of a host that is busy may not be yet")
    for number in range(20_000):
        master.addJob(Square(number))
    assert {job.slave for job in iter(lambda: master.popProcessedJob(PATIENCE), None)} <= slaves
