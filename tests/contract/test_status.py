"""A status tells what goes on: how many jobs are where, who runs what, and why nothing happens if nothing does."""

from __future__ import annotations

import dataclasses
import os
import socket

import pytest

import papyros
from tests.contract import engines
from tests.contract.jobs_for_tests import Square, end_slave, fail_until, wait_and_note, wait_at
from tests.support import PATIENCE, wait_until


def numbers(status):
    return status.waiting, status.assigned, status.processed


def when(master, *expected):
    """The status, once it has these numbers of jobs that wait, are assigned and are processed."""
    try:
        return wait_until(lambda: numbers(s := master.status()) == expected and s, f"{expected}")
    except AssertionError:
        raise AssertionError(f"{numbers(master.status())} and not {expected}") from None


def test_a_new_master_has_nothing_to_do(make_master):
    status = make_master().status()
    assert numbers(status) == (0, 0, 0)
    assert status.stalled == ""
    assert status.clients >= 1
    assert str(status)


def test_it_is_a_snapshot_that_nobody_can_change(make_master):
    master = make_master()
    status = master.status()
    master.addJob(Square(1))
    assert status.waiting == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.waiting = 5
    assert dataclasses.asdict(status)["waiting"] == 0


def test_the_numbers_follow_a_job_through_its_life(make_concurrent_master):
    master = make_concurrent_master()
    slaves = make_concurrent_master.slaves
    gate = make_concurrent_master.busy(master)
    when(master, 0, slaves, 0)
    for number in range(5):
        master.addJob(wait_at(gate.path, number))
    when(master, 5, slaves, 0)
    gate.open()
    assert master.popProcessedJob(PATIENCE) is not None
    when(master, 0, 0, slaves + 4)
    assert len(master.processedJobs(PATIENCE)) == slaves + 4
    when(master, 0, 0, 0)


def test_in_the_single_thread_jobs_wait_until_they_are_popped():
    master = papyros.SingleThreadedMaster()
    seen = []

    @papyros.job
    def look():
        seen.append(master.status())

    master.addJob(look())
    master.addJob(Square(2))
    assert numbers(master.status()) == (2, 0, 0)
    assert master.popProcessedJob() is not None
    assert numbers(seen[0]) == (1, 1, 0)
    assert [slave.job for slave in seen[0].slaves] == ["look()"]
    assert 0 <= seen[0].slaves[0].seconds < PATIENCE
    assert numbers(master.status()) == (1, 0, 0)
    assert [slave.job for slave in master.status().slaves] == [""], "it runs nothing now"
    assert "slave is connected" not in master.status().stalled, "it needs none"


def test_it_shows_what_slaves_run_and_for_how_long(make_concurrent_master, tmp_path):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_and_note(str(tmp_path), "job", gate.path)
    master.addJob(job)
    gate.wait_for_arrivals()

    def running():
        found = [slave for slave in master.status().slaves if slave.job]
        return found if len(found) == 1 else None

    [slave] = wait_until(running, "the job to be seen")
    assert "wait_and_note" in slave.job
    if make_concurrent_master.kind != "distributed":  # a cluster knows classes, not arguments
        assert slave.job == repr(job)
    [later] = wait_until(lambda: (r := running()) and r[0].seconds > slave.seconds + 0.05 and r, "time to pass")
    assert later.name == slave.name
    assert later.job == slave.job
    assert 0 <= slave.seconds < later.seconds < PATIENCE
    assert f"{later.name}: {later.job} for {later.seconds:.1f} s" in str(
        dataclasses.replace(master.status(), slaves=(later,))
    )
    gate.open()
    runner = master.popProcessedJob(PATIENCE).slave
    assert runner
    assert runner == slave.name or make_concurrent_master.kind in engines.KINDS  # who runs what is their affair
    wait_until(lambda: not any(slave.job for slave in master.status().slaves), "all to be idle")
    assert ": idle" in str(master.status())


def test_slaves_that_are_processes_have_a_host_and_a_pid(make_process_master):
    master = make_process_master(slaves=2)
    master.addJob(Square(1))
    assert master.popProcessedJob(PATIENCE) is not None
    slaves = wait_until(
        lambda: len(s := master.status().slaves) == make_process_master.slaves and s, "as many slaves as there are"
    )
    for slave in slaves:
        assert slave.host == socket.gethostname()
        assert slave.pid != os.getpid()
        os.kill(slave.pid, 0)  # it is there
        assert slave.name == f"{slave.host}/{slave.pid}"


def test_slaves_that_are_threads_have_a_name(gates):
    with papyros.MultiThreadedMaster(2) as master:
        gate = gates()
        for _ in range(2):
            master.addJob(wait_at(gate.path))
        gate.wait_for_arrivals(2)
        slaves = master.status().slaves
        assert sorted(slave.name for slave in slaves) == ["papyros-slave-1", "papyros-slave-2"]
        assert {(slave.host, slave.pid) for slave in slaves} == {("", 0)}
        gate.open()
        assert len(master.processedJobs(PATIENCE)) == 2


def test_deaths_and_retries_are_counted(make_process_master, tmp_path):
    master = make_process_master()
    before = master.status()
    failing = fail_until(str(tmp_path), "failing", 3)
    failing.retries, failing.backoff = 5, 0.0
    for job in (failing, end_slave(str(tmp_path), "ending", "exit")):
        master.addJob(job)
    assert len(master.processedJobs(PATIENCE)) == 2
    status = wait_until(lambda: (s := master.status()).lost == before.lost + 3 and s, "three deaths")
    assert status.retried - before.retried == 2
    assert f"slaves lost {status.lost}, jobs retried {status.retried}, outcomes late {status.late}" in str(status)


def test_late_outcomes_are_counted(gates, tmp_path):
    gate = gates()
    with papyros.MultiThreadedMaster(1) as master:
        job = wait_and_note(str(tmp_path), "job", gate.path)
        job.timeout = 0.1
        master.addJob(job)
        assert master.popProcessedJob(PATIENCE) is job
        assert master.status().late == 0
        gate.open()
        wait_until(lambda: master.status().late == 1, "its outcome to come, too late")


def test_counts_outlive_an_execute(make_master, tmp_path):
    master = make_master()
    before = master.status().retried
    job = fail_until(str(tmp_path), "job", 3)
    job.retries, job.backoff = 2, 0.0
    assert list(master.execute([job])) == [job]
    assert master.status().retried - before == 2


def test_busy_is_not_stalled(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.busy(master)
    for number in range(20):
        master.addJob(Square(number))

    def counted():
        """One that is on its way to a master may not be; and a slave host may be too busy to answer in time."""
        status = master.status()
        return status.waiting and not any(slave.silent for slave in status.slaves) and status

    status = wait_until(counted, "jobs to be counted, and all slaves to be heard of")
    assert status.stalled == ""
    assert "  stalled: " not in str(status)
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == 20 + make_concurrent_master.slaves


def test_a_client_that_does_not_pop_is_told_that_it_holds_up_its_jobs(gates):
    for make in (papyros.MultiThreadedMaster, papyros.MultiProcessMaster):
        with make(1, max_processed=1) as master:
            master.addJob(Square(1))
            master.addJob(Square(2))
            status = wait_until(lambda master=master: (s := master.status()).processed == 1 and s.stalled and s, "it")
            assert status.stalled.startswith("1 job waits, and no slave may start one: too many processed jobs")
            assert f"stalled: {status.stalled}" in str(status)
            assert len(master.processedJobs(PATIENCE)) == 2
            assert master.status().stalled == ""


def test_jobs_that_wait_while_slaves_start_are_not_said_to_wait_for_something_else():
    """A second or so passes before the first slave is ready; nobody did anything wrong meanwhile."""
    with papyros.MultiProcessMaster(1) as master:
        master.addJob(Square(3))
        said = set()
        while (job := master.popProcessedJob(0)) is None:
            said.add(master.status().stalled)
        assert job.result == 9
        assert not any("processed" in text or "retry" in text for text in said), said


def test_a_closed_master_can_still_be_asked(make_concurrent_master):
    master = make_concurrent_master()
    master.addJob(Square(1))
    assert master.popProcessedJob(PATIENCE) is not None
    if make_concurrent_master.kind == "distributed":
        return  # it asks the master elsewhere, of which it has let go
    master.close()
    assert numbers(master.status()) == (0, 0, 0)
    assert master.status().slaves == ()
