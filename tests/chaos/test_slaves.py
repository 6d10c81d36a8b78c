"""Rows 1 to 5, 15, 18 and 19: slaves and slave hosts that are killed, stopped, hung, full, or leave things behind."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import pytest

import papyros
from papyros import DistributedMaster, JobTimeout, MultiProcessMaster, SlaveLost
from tests.chaos import jobs
from tests.chaos.conftest import LEASE, SLACK, start_host
from tests.contract.jobs_for_tests import double
from tests.distributed.jobs import starts, trace
from tests.distributed.programs import alive, slaves_of, wait_until_gone
from tests.support import wait_until

MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")
CGROUPS = Path("/sys/fs/cgroup")


# Row 1 ----------------------------------------------------------------------------------


def test_row_01_jobs_of_a_slave_host_that_is_killed_run_elsewhere(launch, names, group, gates, tmp_path):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}")
    first = start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        for name in ("a", "b"):
            client.addJob(trace(str(tmp_path), name, gate.path))
        gate.wait_for_arrivals(2)
        slaves = slaves_of(first.pid)
        assert len(slaves) == 2
        start_host(launch, group, names, 2)
        first.send(signal.SIGKILL)
        killed = time.monotonic()
        wait_until_gone(slaves, 2)
        gate.wait_for_arrivals(4)
        assert time.monotonic() - killed <= LEASE + 1 + SLACK
        gate.open()
        assert sorted(job.result for job in client.processedJobs(20)) == ["a", "b"]
        assert [len(starts(tmp_path, name)) for name in ("a", "b")] == [2, 2]
        assert client.status().lost == 0, "nobody is charged: the jobs did not do it"
        assert client.popProcessedJob(0) is None


HOLDER = """
    import sys
    from papyros import MultiProcessMaster
    from tests.distributed.jobs import trace

    master = MultiProcessMaster(2)
    folder, gate = sys.argv[1:]
    for name in ("a", "b"):
        master.addJob(trace(folder, name, gate))
    print("added", flush=True)
    master.popProcessedJob()
"""


def test_row_01_slaves_end_with_a_program_that_is_killed(launch, gates, tmp_path):
    gate = gates()
    program = launch.script(HOLDER, str(tmp_path), gate.path)
    gate.wait_for_arrivals(2)
    slaves = slaves_of(program.pid)
    assert len(slaves) == 2
    program.end(signal.SIGKILL)
    wait_until_gone(slaves, 2)


# Row 2 ----------------------------------------------------------------------------------


def test_row_02_a_slave_that_is_killed_is_noticed_and_replaced_and_only_its_job_charged(workshop, gates, tmp_path):
    gate = gates()
    for name in ("victim", "bystander"):
        workshop.client.addJob(trace(str(tmp_path), name, gate.path))
    gate.wait_for_arrivals(2)
    before = workshop.wait_for_slaves(2)
    [victim] = starts(tmp_path, "victim")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: workshop.lost() == 1, "the death noticed", 1 + SLACK)
    gate.wait_for_arrivals(3)
    after = workshop.wait_for_slaves(2)
    assert len(set(before) & set(after)) == 1
    gate.open()
    assert sorted(job.result for job in workshop.client.processedJobs(20)) == ["bystander", "victim"]
    assert len(starts(tmp_path, "victim")) == 2
    assert len(starts(tmp_path, "bystander")) == 1
    assert workshop.lost() == 1


def test_row_02_an_idle_slave_that_is_killed_is_replaced_and_nobody_charged(workshop):
    workshop.client.addJob(double(1))
    assert workshop.client.popProcessedJob(20).result == 2
    before = workshop.wait_for_slaves(2)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    after = wait_until(lambda: len(s := set(workshop.slaves()) - set(before)) == 2 and s, "two new slaves")
    assert not after & set(before)
    workshop.client.addJob(double(2))
    assert workshop.client.popProcessedJob(20).result == 4
    assert workshop.lost() == 0


# Row 3 ----------------------------------------------------------------------------------

STAGES = {
    "unpickling": lambda *call: jobs.take(jobs.EndsWhenUnpickled(*call)),
    "running": jobs.end_the_slave,
    "pickling": jobs.return_what_ends_the_slave,
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_row_03_a_job_that_ends_its_slave_is_tried_three_times_and_tells_the_story(workshop, tmp_path, stage):
    added = {how: STAGES[stage](str(tmp_path), how, how) for how in jobs.ENDS}
    for job in added.values():
        workshop.client.addJob(job)
    assert len(workshop.client.processedJobs(60)) == len(added)
    for how, job in added.items():
        assert isinstance(job.exception, SlaveLost), how
        told = str(job.exception)
        pids = starts(tmp_path, how)
        assert len(pids) == len(set(pids)) == 3, (how, told)
        assert told.count(jobs.ENDS[how]) == 3, (how, told)
        assert told.count("the last words") == 3, (how, told)
        for number, pid in enumerate(pids, 1):
            assert f"attempt {number}: slave {os.uname().nodename}/{pid} " in told, (how, told)
    assert workshop.lost() == 3 * len(added)
    workshop.wait_for_slaves(2)


def test_row_03_sys_exit_in_a_job_is_an_ordinary_exception(workshop):
    workshop.client.addJob(jobs.exit_properly(3))
    job = workshop.client.popProcessedJob(20)
    assert isinstance(job.exception, SystemExit)
    assert job.exception.code == 3
    assert workshop.lost() == 0


def test_row_03_a_job_that_is_to_run_at_most_once_is_started_once(workshop, tmp_path):
    workshop.client.addJob(jobs.end_the_slave_once(str(tmp_path), "once", "exit"))
    job = workshop.client.popProcessedJob(20)
    assert isinstance(job.exception, SlaveLost)
    assert len(starts(tmp_path, "once")) == 1


# Row 4 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multiprocess", "distributed"])
def test_row_04_a_job_that_kills_its_slave_each_time_harms_none_of_fifty_others(make_workshop, tmp_path, kind):
    workshop = make_workshop(kind, slaves=4)
    good = [jobs.note(str(tmp_path), f"good{number}") for number in range(50)]
    bad = jobs.end_the_slave(str(tmp_path), "bad", "kill")
    for job in [*good[:25], bad, *good[25:]]:
        workshop.client.addJob(job)
    assert len(workshop.client.processedJobs(60)) == 51
    assert isinstance(bad.exception, SlaveLost)
    assert len(starts(tmp_path, "bad")) == 3
    assert [job.result for job in good] == [f"good{number}" for number in range(50)]
    # A quick job whose outcome was still on its way out of a slave that died is started again, and not charged.
    assert max(len(starts(tmp_path, job.result)) for job in good) <= 2
    assert workshop.lost() == 3


def test_row_04_jobs_that_ended_are_not_lost_with_the_slave_that_another_one_kills(workshop, tmp_path):
    """They may be started at most once, and were: their outcomes must not die with their slave."""
    good = [jobs.note_once(str(tmp_path), f"good{number}") for number in range(60)]
    bad = [jobs.end_the_slave(str(tmp_path), f"bad{number}", "kill") for number in range(3)]
    for position, job in enumerate(good):
        workshop.client.addJob(job)
        if position % 20 == 10:
            workshop.client.addJob(bad[position // 20])
    assert len(workshop.client.processedJobs(60)) == 63
    lost = [job for job in good if job.exception is not None]
    assert not lost, str(lost[0].exception)
    assert workshop.lost() == 9


# Row 5 ----------------------------------------------------------------------------------


def stopped_host(launch, names, group, folder, client):
    """Have a job run at a slave host that is stopped, and then at another one; return both hosts."""
    first = start_host(launch, group, names, 1)
    client.addJob(jobs.wait_for_host(str(folder), "held"))
    wait_until(lambda: len(starts(folder, "held")) == 1, "the job started")
    second = start_host(launch, group, names, 1)
    first.send(signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: len(starts(folder, "held")) == 2, "the job started elsewhere")
    assert time.monotonic() - stopped <= LEASE + 1 + SLACK
    return first, second


@pytest.mark.slow
def test_row_05_the_late_outcome_of_a_slave_host_that_was_stopped_is_dropped(launch, names, group, tmp_path):
    launch.master(group, names, f"--lease={LEASE}")
    with DistributedMaster(group, names, host_master=False) as client:
        first, second = stopped_host(launch, names, group, tmp_path, client)
        jobs.let_go(tmp_path, second.pid)
        assert client.popProcessedJob(20).result == second.pid
        jobs.let_go(tmp_path, first.pid)
        first.send(signal.SIGCONT)
        wait_until(lambda: client.status().late == 1, "the late outcome counted", 20)
        assert client.popProcessedJob(0) is None
        wait_until(lambda: len(client.status().slaves) == 2, "both hosts there again", 20)
        assert client.status().lost == 0


@pytest.mark.slow
def test_row_05_the_outcome_of_a_slave_host_that_wakes_first_is_taken_once(launch, names, group, tmp_path):
    launch.master(group, names, f"--lease={LEASE}")
    with DistributedMaster(group, names, host_master=False) as client:
        first, second = stopped_host(launch, names, group, tmp_path, client)
        jobs.let_go(tmp_path, first.pid)
        first.send(signal.SIGCONT)
        assert client.popProcessedJob(20).result == first.pid
        jobs.let_go(tmp_path, second.pid)
        wait_until(lambda: client.status().late == 1, "the other outcome counted", 20)
        assert client.popProcessedJob(0) is None


def test_row_05_a_slave_that_is_stopped_and_goes_on_runs_its_job_once(workshop, gates, tmp_path):
    gate = gates()
    workshop.client.addJob(trace(str(tmp_path), "held", gate.path))
    gate.wait_for_arrivals(1)
    [pid] = starts(tmp_path, "held")
    os.kill(pid, signal.SIGSTOP)
    workshop.client.addJob(double(1))
    assert workshop.client.popProcessedJob(20).result == 2
    gate.open()
    assert workshop.client.popProcessedJob(0) is None
    os.kill(pid, signal.SIGCONT)
    assert workshop.client.popProcessedJob(20).result == "held"
    assert len(starts(tmp_path, "held")) == 1


# Row 15 ---------------------------------------------------------------------------------


def test_row_15_a_hung_job_is_stopped_when_its_time_is_up_and_others_are_unharmed(make_workshop, gates, tmp_path, kind):
    workshop = make_workshop(kind, slaves=4, lease=1)
    first = [jobs.wait_for_host(str(tmp_path), f"first{number}") for number in range(4)]
    for job in first:
        workshop.client.addJob(job)
    # All slaves have imported what jobs need, which would be of their time.
    wait_until(lambda: all(starts(tmp_path, f"first{number}") for number in range(4)), "a job in each slave")
    jobs.let_go(tmp_path, workshop.host)
    assert {workshop.client.popProcessedJob(20) for _ in first} == set(first)
    gate = gates()
    workshop.client.addJob(trace(str(tmp_path), "bystander", gate.path))
    gate.wait_for_arrivals(1)
    wait_until(lambda: len(workshop.slaves()) == 4, "all slaves")
    before = set(workshop.slaves())
    hung = {how: jobs.hang(str(tmp_path), how) for how in ("sleep", "busy", "c")}
    for job in hung.values():
        workshop.client.addJob(job)
    wait_until(lambda: all(starts(tmp_path, how) for how in hung), "all hung jobs started")
    started = time.monotonic()
    done = [workshop.client.popProcessedJob(20) for _ in hung]
    assert time.monotonic() - started <= 1 + 2 + SLACK
    assert set(done) == set(hung.values())
    for how, job in hung.items():
        assert isinstance(job.exception, JobTimeout), how
        [pid] = starts(tmp_path, how)
        assert not alive(pid)
        assert f"/{pid}" in str(job.exception)
    after = set(workshop.wait_for_slaves(4))
    assert len(before & after) == 1
    gate.open()
    assert workshop.client.popProcessedJob(20).result == "bystander"
    assert len(starts(tmp_path, "bystander")) == 1, "the slave host was not given up"
    workshop.client.addJob(double(1))
    assert workshop.client.popProcessedJob(20).result == 2


@pytest.fixture(params=["multiprocess", "distributed"])
def kind(request):
    return request.param


# Row 18 ---------------------------------------------------------------------------------


@pytest.fixture
def memory_cgroup():
    """A control group with little memory, or a skip that says that none can be made here."""
    folder = MEMORY_CGROUPS / f"papyros-test-{uuid.uuid4().hex[:8]}"
    limit = "memory.limit_in_bytes"
    if not MEMORY_CGROUPS.is_dir():
        folder, limit = CGROUPS / folder.name, "memory.max"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"ROW 18 IN PART: no memory control group can be made here ({error})")
    try:
        (folder / limit).write_text(str(200 << 20))
        yield folder
    except OSError as error:
        pytest.skip(f"ROW 18 IN PART: the memory of a control group cannot be bounded here ({error})")
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), "an empty control group", 10)
        folder.rmdir()


EATER = """
    import sys
    from pathlib import Path
    import os
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    sys.argv[1:] = sys.argv[2:]
    from papyros.distributed.cli import main
    sys.exit(main())
"""


def test_row_18_a_memory_bomb_ends_its_slave_and_the_outcome_says_memory(memory_cgroup, launch, names, group):
    launch.master(group, names, f"--lease={LEASE}")
    host = launch.script(
        EATER, str(memory_cgroup), f"--group={group}", f"--nameserver={names}", "--slaves=1", name="host"
    )
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(jobs.eat_memory())
        client.addJob(double(1))
        found = {type(job).__name__: job for job in client.processedJobs(40)}
        told = str(found["eat_memory"].exception)
        assert isinstance(found["eat_memory"].exception, SlaveLost)
        assert told.count("was killed by SIGKILL") == 3
        assert told.count("memory was the likely cause") == 3, told
        assert found["double"].result == 2
    assert host.end() == 0
    launch.end_all()


EATING = """
    import os, sys
    from pathlib import Path
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    import papyros
    from tests.chaos.jobs import eat_memory
    from tests.contract.jobs_for_tests import double

    with papyros.MultiProcessMaster(1) as master:
        eats, doubles = eat_memory(), double(1)
        for job in (eats, doubles):
            master.addJob(job)
        master.processedJobs(40)
        print(type(eats.exception).__name__, eats.exception, doubles.result, "is all", sep="\\n")
"""


def test_row_18_a_memory_bomb_in_a_program_ends_its_slave_and_the_outcome_says_memory(memory_cgroup, launch):
    program = launch.script(EATING, str(memory_cgroup), name="program")
    told = program.wait_for("is all", 60)
    assert program.ended() == 0
    told = told.partition("SlaveLost\n")[2]  # what is logged of each death comes before
    assert told.count("was killed by SIGKILL") == 3
    assert told.count("memory was the likely cause") == 3, told
    assert "\n2\nis all" in told


def test_row_18_c_code_that_gives_up_without_memory_has_its_peak_told(workshop):
    workshop.client.addJob(jobs.abort_when_out_of_memory(1 << 29))
    job = workshop.client.popProcessedJob(40)
    assert isinstance(job.exception, SlaveLost)
    assert str(job.exception).count("was killed by SIGABRT") == 3
    assert str(job.exception).count("its memory was") == 3
    workshop.client.addJob(double(1))
    assert workshop.client.popProcessedJob(20).result == 2


# Row 19 ---------------------------------------------------------------------------------

LEAVINGS = ["child", "session", "daemon"]


def test_row_19_processes_that_jobs_leave_behind_end_when_the_host_closes(workshop, tmp_path):
    for how in LEAVINGS:
        workshop.client.addJob(jobs.leave_processes(str(tmp_path), how))
    left = [job.result for job in workshop.client.processedJobs(30)]
    assert len(left) == 3
    assert all(map(alive, left))
    workshop.client.close()
    for host in workshop.programs:
        assert host.end() == 0
    wait_until_gone(left, 3)


def test_row_19_processes_that_a_job_leaves_behind_end_with_its_slave(workshop, tmp_path):
    for how in LEAVINGS:
        workshop.client.addJob(jobs.leave_processes(str(tmp_path), how))
    left = [job.result for job in workshop.client.processedJobs(30)]
    for pid in workshop.slaves():
        os.kill(pid, signal.SIGKILL)
    wait_until_gone(left, 5)


def test_row_19_processes_that_jobs_leave_behind_end_after_their_host_was_killed(launch, names, group, tmp_path):
    launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        for how in LEAVINGS:
            client.addJob(jobs.leave_processes(str(tmp_path), how))
        left = [job.result for job in client.processedJobs(30)]
    try:
        host.end(signal.SIGKILL)
        wait_until_gone(left, 3)
    finally:
        for pid in left:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_row_19_nothing_is_left_of_a_master_that_is_closed_while_jobs_run(gates, tmp_path):
    gate = gates()
    master = MultiProcessMaster(2)
    master.addJob(jobs.leave_processes(str(tmp_path), "session"))
    left = master.popProcessedJob(20).result
    for name in ("a", "b"):
        master.addJob(trace(str(tmp_path), name, gate.path))
    gate.wait_for_arrivals(2)
    slaves = slaves_of(os.getpid())
    master.close()
    wait_until_gone([left, *slaves], 3)
    assert isinstance(master, papyros.Master)
