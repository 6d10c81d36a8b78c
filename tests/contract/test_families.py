"""Jobs that add jobs: a job's own master, whose jobs are charged to the job's client and go with the job."""

from __future__ import annotations

import contextvars
import time
import traceback

import pytest

import papyros
from tests.contract import families
from tests.contract.jobs_for_tests import Square, end_slave, starts, wait_at
from tests.support import PATIENCE, Background, gone, is_all_sent, wait_until

TEXTS = ["the cat and the dog", "a dog and a cat", "the end", "and a beginning", "the dog"]


def processed(master, job, patience=2 * PATIENCE):
    master.addJob(job)
    assert master.popProcessedJob(patience) is job
    return job


def started(folder, name):
    return wait_until(lambda: starts(folder, name), f"{name} was started")[0][1]


# What SCOOP shows. --------------------------------------------------------------------------


def test_a_tree_sums_itself_up(make_master):
    assert processed(make_master(), families.tree_sum(4)).result == 31


def test_words_are_counted_by_map_and_reduce(make_master):
    counts = processed(make_master(), families.map_reduce(TEXTS)).result
    assert counts == families.count_words.function(" ".join(TEXTS))


def test_parents_that_wait_never_take_up_all_slaves(make_master):
    """More parents than slaves, each of which waits for a child that waits for a child."""
    master = make_master()
    for _ in range(5):
        master.addJob(families.descend(3))
    assert [job.result for job in master.processedJobs(2 * PATIENCE)] == [3] * 5
    assert master.numPendingJobs() == 0


def test_fifty_generations_wait_for_each_other_with_one_slave(make_master):
    # On a cluster each one takes a slave, a process, and that a connection: there, it is tested once, and by itself.
    generations = 15 if make_master.kind in ("distributed", "ray") else 50
    assert processed(make_master(1), families.descend(generations), 4 * PATIENCE).result == generations


@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_fifty_generations_wait_for_each_other_on_a_cluster_with_one_slave(rounds):
    with papyros.LocalCluster(slaves=1) as cluster, cluster.master() as master:
        for _ in range(rounds):
            assert processed(master, families.descend(50), 4 * PATIENCE).result == 50
        # Each time it is told what was known before, where the slave host is too busy to answer in time.
        wait_until(lambda: len(master.status().slaves) > 50, "those that waited were there at the same time")


def test_children_are_quick_once_there_are_slaves_for_them(make_concurrent_master):
    """Slaves that took the places of others are kept for a while, so that the next generation need not wait for one."""
    master = make_concurrent_master(1)
    processed(master, families.descend(4))
    before = time.monotonic()
    for _ in range(20):
        processed(master, families.descend(4))
    assert time.monotonic() - before < 10, "100 jobs, none of which has to wait for a slave to start"


# The master of a job. -----------------------------------------------------------------------


def test_outside_a_job_there_is_no_current_master():
    with pytest.raises(papyros.NoCurrentMasterError, match="for the body of a job") as caught:
        papyros.current_master()
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, papyros.PapyrosError)


def test_where_a_job_has_run_there_is_no_current_master_afterwards():
    with papyros.SingleThreadedMaster() as master:
        assert processed(master, families.tree_sum(1)).result == 3
        with pytest.raises(papyros.NoCurrentMasterError):
            papyros.current_master()


def test_a_job_can_do_with_its_master_what_a_program_can(make_master):
    noted = processed(make_master(), families.use_all_calls("")).result
    assert noted == [True, None, 3, [0, 1, 4], [0, 1, 4, 9], 49, 0, True, 0, True, 25]


def test_the_client_sees_its_own_jobs_only(make_concurrent_master, tmp_path, gates):
    master = make_concurrent_master()
    gate = gates()
    master.addJob(families.note_and_wait(str(tmp_path), "child", gate.path, 3))
    wait_until(lambda: gate.arrivals() >= 1, "a child runs")
    assert master.numPendingJobs() == 1
    master.cancelAllJobs()  # the children belong to a job that was assigned
    assert master.popProcessedJob(0) is None
    gate.open()
    assert master.popProcessedJob(PATIENCE).result == 3


def test_a_child_can_be_cancelled(make_master, tmp_path, gates):
    cancelled, pending, names, too_late = processed(
        make_master(), families.cancel_children(str(tmp_path), gates().path)
    ).result
    assert cancelled is True
    assert pending == 5
    assert names == [f"child-{number}" for number in range(5)]
    assert too_late is False


def test_a_job_hands_its_master_to_the_threads_that_it_starts(make_master):
    error, result = processed(make_master(), families.in_a_thread()).result
    assert "thread" in error
    assert result == 9


def test_what_is_no_job_is_refused_in_a_job_as_well(make_master):
    job = processed(make_master(), families.run_child(42))
    assert type(job.exception) is papyros.NotAJobError


# Exceptions and deaths. ---------------------------------------------------------------------


def test_an_exception_comes_up_through_the_generations_with_its_tracebacks(make_master):
    job = processed(make_master(), families.fail_deep(3))
    assert type(job.exception) is LookupError
    printed = "".join(traceback.format_exception(job.exception))
    assert printed.count("the leaf falls") >= 1
    assert 'raise LookupError("the leaf falls")' in printed
    assert "popProcessedJob().result" in printed


def test_a_child_that_ends_its_slave_harms_itself_only(make_process_master, tmp_path):
    jobs = [Square(3), end_slave(str(tmp_path), "child", "kill"), Square(4)]
    texts = processed(make_process_master(), families.exceptions_of(*jobs)).result
    assert texts[0] == texts[2] == "None"
    assert "3 times" in texts[1]
    assert len(starts(tmp_path, "child")) == 3


def test_a_parent_that_dies_takes_its_children_along_and_adds_them_anew(make_process_master, tmp_path, gates):
    master = make_process_master()
    gate = gates()
    master.addJob(families.die_with_child(str(tmp_path), gate.path))
    orphan = started(tmp_path, "first")
    started(tmp_path, "second")
    wait_until(lambda: gone(orphan), "the child of the dead parent was stopped")
    gate.open()
    assert master.popProcessedJob(PATIENCE).result == "second"
    assert len(starts(tmp_path, "parent")) == 2
    assert len(starts(tmp_path, "first")) == 1


def test_a_parent_that_is_cancelled_takes_its_children_along(make_process_master, tmp_path, gates):
    master = make_process_master()
    job = families.wait_for_child(str(tmp_path), "parent", gates().path)
    master.addJob(job)
    child = started(tmp_path, "child-of-parent")
    parent = started(tmp_path, "parent")
    assert master.cancelJob(job) is True
    wait_until(lambda: gone(child) and gone(parent), "both were stopped")
    assert master.numPendingJobs() == 0
    assert processed(master, families.tree_sum(2)).result == 7
    assert wait_until(lambda: master.status().assigned == 0, "nothing is assigned any more")


def test_a_parent_whose_time_is_up_takes_its_children_along(make_process_master, tmp_path, gates):
    master = make_process_master()
    gate = gates()
    processed(master, families.tree_sum(2))  # so that there is a slave for the child
    job = processed(master, families.overstay(str(tmp_path), "parent", gate.path))
    assert type(job.exception) is papyros.JobTimeout
    child = started(tmp_path, "child-of-parent")
    wait_until(lambda: gone(child), "the child was stopped")


def test_what_is_left_of_a_family_goes_when_the_parent_ends(make_concurrent_master, tmp_path, gates):
    master = make_concurrent_master()
    gate, parent_gate = gates(), None
    master.addJob(families.leave_child_behind(str(tmp_path), gate.path))
    wait_until(lambda: gate.arrivals() >= 1, "a child runs")
    parent_gate = f"{gate.path}.parent"
    open(parent_gate, "w").close()
    assert master.popProcessedJob(PATIENCE).result >= 3
    assert processed(master, Square(4)).result == 16
    gate.open()
    assert wait_until(lambda: master.status().assigned == 0, "nothing is assigned any more") is True
    assert master.status().waiting == 0
    assert len(starts(tmp_path, "fourth")) == 0, "a child ran for nobody"


def all_idle(master):
    return not any(slave.job for slave in master.status().slaves)


#: On a cluster, it takes its lease until the master is sure that nobody wants a parent: there, it is tested once.
not_on_a_cluster = pytest.mark.parametrize("make_concurrent_master", ["multithreaded", "multiprocess"], indirect=True)


@not_on_a_cluster
def test_a_parent_that_waits_does_not_wait_for_ever_once_its_loop_is_left(make_concurrent_master, tmp_path, gates):
    """Its children go with the loop: nobody would ever tell it of them."""
    master, gate = make_concurrent_master(), gates()
    loop = master.execute([families.wait_for_child(str(tmp_path), "parent", gate.path), Square(3)])
    assert next(loop).result == 9
    started(tmp_path, "child-of-parent")
    loop.close()
    if make_concurrent_master.kind != "multiprocess":
        gate.open()  # a child in a thread cannot be stopped
    wait_until(lambda: all_idle(master), "neither runs any more")
    assert processed(master, families.tree_sum(2)).result == 7


def test_a_parent_on_a_cluster_does_not_wait_for_ever_once_its_loop_is_left(tmp_path, gates):
    gate = gates()
    with papyros.LocalCluster(slaves=1, options=["--lease=1"]) as cluster, cluster.master() as master:
        loop = master.execute([Square(3), families.wait_for_child(str(tmp_path), "parent", gate.path)])
        assert next(loop).result == 9
        parent = started(tmp_path, "parent")
        started(tmp_path, "child-of-parent")
        loop.close()
        wait_until(lambda: gone(parent) or all_idle(master), "it does not run any more")


@not_on_a_cluster
def test_a_parent_of_a_loop_that_was_left_waits_for_no_child_that_it_adds_later(
    make_concurrent_master, tmp_path, gates
):
    master, gate = make_concurrent_master(), gates()
    loop = master.execute([families.wait_for_late_child(str(tmp_path), "parent", gate.path), Square(3)])
    assert next(loop).result == 9
    gate.wait_for_arrivals()
    loop.close()
    gate.open()
    wait_until(lambda: all_idle(master), "it does not run any more")
    assert processed(master, families.tree_sum(2)).result == 7


@not_on_a_cluster
def test_a_job_that_leaves_a_loop_over_parents_ends_and_so_do_they(make_concurrent_master, tmp_path, gates):
    master, gate = make_concurrent_master(), gates()
    assert processed(master, families.leave_loop(str(tmp_path), gate.path)).result == 9
    gate.open()
    wait_until(lambda: all_idle(master), "nothing runs any more")
    assert processed(master, families.tree_sum(2)).result == 7


def test_a_job_that_is_tried_again_adds_its_children_anew(make_concurrent_master, tmp_path, gates):
    job = processed(make_concurrent_master(), families.fail_with_child(str(tmp_path), gates().path))
    assert job.result == ["child-2"]


def test_a_closed_master_does_not_wait_for_families(make_process_master, tmp_path, gates):
    master = make_process_master()
    master.addJob(families.wait_for_child(str(tmp_path), "parent", gates().path))
    child, parent = started(tmp_path, "child-of-parent"), started(tmp_path, "parent")
    before = time.monotonic()
    master.close()
    assert time.monotonic() - before < 10
    wait_until(lambda: gone(child) and gone(parent), "both were stopped")


# Fairness. ----------------------------------------------------------------------------------


#: So many that those which a slave host is given ahead are the lesser part; and so many of them run at first.
CHILDREN, BEFORE = 2500, 500


def test_children_are_charged_to_the_client_of_their_parent(make_concurrent_master, tmp_path, gates):
    """A job that adds many does not keep the jobs of another client waiting.

    Where there is one program only, each loop over `execute` takes turns like a client.
    """
    master = make_concurrent_master(1)
    other = make_concurrent_master(1) if make_concurrent_master.kind == "distributed" else master
    gate, slaves = gates(), make_concurrent_master.slaves
    # In the midst of them the slaves are held up, or all might be over before the other client is heard.
    held = range(BEFORE, BEFORE + slaves)
    greedy = families.note_children(str(tmp_path), "greedy", CHILDREN, gate.path, held)
    master.addJob(greedy)
    gate.wait_for_arrivals(slaves)
    pending = other.numPendingJobs()
    jobs = [families.note(str(tmp_path), f"modest-{number}") for number in range(5)]
    loop = Background(lambda: list(other.execute(jobs)))
    wait_until(lambda: other.numPendingJobs() == pending + 5, "the jobs of the other client")
    if make_concurrent_master.kind == "distributed":
        wait_until(lambda: is_all_sent(other), "all have come to where jobs are assigned")
    gate.open()
    modest = loop.result()
    assert len(modest) == 5
    last_modest = max(starts(tmp_path, f"modest-{number}")[0][0] for number in range(5))
    assert master.popProcessedJob(PATIENCE).result == CHILDREN
    after = sum(moment > last_modest for moment, _ in starts(tmp_path, "greedy-*"))
    assert after > 20, "the modest client had to wait for the children of the greedy one"


def test_a_context_that_outlives_its_job_is_of_no_other_job(gates):
    """What a job hands to an event loop runs in the context that the job had."""
    with papyros.MultiThreadedMaster(1) as master:
        job = papyros.job(contextvars.copy_context)()
        master.addJob(job)
        context = master.popProcessedJob(PATIENCE).result
        gate = gates()
        for expected in ("no job runs", "another one does"):
            with pytest.raises(papyros.NoCurrentMasterError):
                context.run(papyros.current_master)
            if expected == "no job runs":
                master.addJob(wait_at(gate.path))
                gate.wait_for_arrivals(1)
        gate.open()
        assert master.popProcessedJob(PATIENCE) is not None
