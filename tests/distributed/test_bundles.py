"""Bundles: quick jobs travel as one, and each of them is still a job like any other, whatever the others do."""

from __future__ import annotations

import signal
import struct
import time
from array import array

import pytest

import papyros
from papyros import DistributedMaster, LocalCluster, SlaveLost
from papyros.bundles import cut_off
from papyros.distributed import receiving
from papyros.distributed.naming import ask_status
from papyros.distributed.sending import Sender
from papyros.ledger import MAX_DEATHS
from papyros.protocol import OUTCOMES, PART
from tests.contract.jobs_for_tests import Square
from tests.contract.test_interrupts import add_and_pop_though_interrupted, moments, real_interrupts
from tests.distributed.jobs import starts, step
from tests.distributed.programs import cpu_seconds
from tests.support import PATIENCE, at_most, wait_until

__all__ = ["real_interrupts"]

pytestmark = pytest.mark.compiled

#: Less than any job here takes that takes long.
SOON = 5.0

#: So long does a job keep the lock of the interpreter that cannot be told to stop.
LONG = 8.0


class Watch:
    """Knows which bundles were sent.

    Attributes:
        bundles: the numbers of the jobs of each.
    """

    def __init__(self, monkeypatch):
        self.bundles = []
        self._known = set()
        wait_for_news = Sender._wait_for_news

        def note(sender):
            """Look for what is new when a message was made, before it is sent."""
            unwanted = wait_for_news(sender)
            client = sender._client
            with client._lock:
                for number, bundle in client._sent.bundles.items():
                    if (client, number) not in self._known:
                        self._known.add((client, number))
                        self.bundles.append([entry.number for entry in bundle.entries])
            return unwanted

        monkeypatch.setattr(Sender, "_wait_for_news", note)

    @property
    def jobs(self):
        """How many jobs were sent in bundles."""
        return sum(map(len, self.bundles))


@pytest.fixture
def sent(monkeypatch):
    return Watch(monkeypatch)


def get_to_know(master, make=step, jobs=10):
    """Have a client learn that jobs of a class are quick: so many of them go into a bundle."""
    definition = master._packer.pack_plainly(make(0))[0]
    deadline = time.monotonic() + PATIENCE
    while master._exchange.bundling.jobs(definition) < jobs:
        assert time.monotonic() < deadline, "these jobs are not quick"
        for number in range(100):
            master.addJob(make(number))
        assert len(master.processedJobs(PATIENCE)) == 100


def add(master, jobs, sent, bundles=1):
    """Add jobs in one go, so that they are sent in bundles; wait until they are."""
    before = len(sent.bundles)
    with master._lock:
        for job in jobs:
            master.addJob(job)
    wait_until(lambda: not master._ledger.anything_waits(), "all jobs to be sent")
    wait_until(lambda: len(sent.bundles) >= before + bundles, "these jobs to be sent in bundles")


def add_with_a_long_one(master, sent, gate, count, position):
    """Add so many jobs of a class that is known to be quick; the one at that position waits at a gate."""
    get_to_know(master)
    jobs = [step(number) for number in range(count)]
    jobs[position] = step(position, "wait", gate.path)
    add(master, jobs, sent)
    return jobs


def bundle_with(job, sent):
    """Return the numbers of the jobs in the bundle in which this one was sent."""
    number = job._keeper.number
    return next(numbers for numbers in sent.bundles if number in numbers)


def pop(master, number, seconds=PATIENCE):
    """Pop so many jobs within so many seconds in all."""
    deadline = time.monotonic() + seconds
    popped = []
    while len(popped) < number:
        job = master.popProcessedJob(max(0.0, deadline - time.monotonic()))
        assert job is not None, f"{len(popped)} jobs of {number} after {seconds} s; {master.status()}"
        popped.append(job)
    assert len(set(popped)) == number
    return popped


def all_right(jobs):
    return [job.result for job in jobs] == [job.args[0] for job in jobs]


def no_more(master):
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob(0) is None
    wait_until(lambda: not master._sent.bundles and not master._sent.bundle_of, "nothing is with the master")


@pytest.fixture
def single():
    with LocalCluster(slaves=1) as cluster:
        yield cluster


@pytest.fixture
def pair():
    with LocalCluster(slaves=2) as cluster:
        yield cluster


@pytest.fixture
def two_hosts(launch, names, group):
    """A client of a master with two slave hosts, of one slave each."""
    launch.master(group, names)
    for _ in range(2):
        launch.host(group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        yield client


# What is expected of all jobs ---------------------------------------------------------------


def test_each_of_many_quick_jobs_is_popped_once_with_its_own_result(pair, sent):
    with pair.master() as master:
        get_to_know(master, jobs=30)
        jobs = [step(number) for number in range(20_000)]
        for job in jobs:
            master.addJob(job)
        popped = pop(master, len(jobs))
        assert set(popped) == set(jobs)
        assert all_right(jobs)
        assert sent.jobs > 10_000
        no_more(master)
        status = master.status()
        assert (status.waiting, status.assigned, status.processed, status.lost) == (0, 0, 0, 0)


def test_jobs_of_two_clients_in_bundles_are_not_mixed_up(pair, sent):
    with pair.master() as one, pair.master() as other:
        for master in (one, other):
            get_to_know(master)
        mine, theirs = ([step(100_000 * client + number) for number in range(3000)] for client in range(2))
        for pair_of_jobs in zip(mine, theirs, strict=True):
            one.addJob(pair_of_jobs[0])
            other.addJob(pair_of_jobs[1])
        assert set(pop(one, 3000)) == set(mine)
        assert set(pop(other, 3000)) == set(theirs)
        assert all_right(mine)
        assert all_right(theirs)


def test_an_exception_in_the_midst_of_a_bundle_arrives_with_its_traceback(cluster, sent):
    with cluster.master() as master:
        get_to_know(master)
        jobs = [step(number, *(["fail"] if number % 7 == 3 else [])) for number in range(100)]
        add(master, jobs, sent)
        assert set(pop(master, 100)) == set(jobs)
        for job in jobs:
            if job.args[0] % 7 == 3:
                assert type(job.exception) is ValueError
                assert "_fail" in job.exception.traceback
                assert f"{job.args[0]} is the odd one out" in job.exception.traceback
            else:
                assert job.result == job.args[0]


def test_large_results_and_those_that_cannot_be_pickled_and_prints_and_forks(cluster, sent):
    """In the midst of quick ones; some take more than what is told of a bundle at once."""
    odd = {5: ["large", 3 << 20], 6: ["large", 1 << 12], 7: ["not to be pickled"], 9: ["print"], 11: ["fork"]}
    with cluster.master() as master:
        get_to_know(master)
        jobs = [step(number, *odd.get(number, [])) for number in range(30)]
        add(master, jobs, sent)
        pop(master, 30)
        assert len(jobs[5].result) == 3 << 20
        assert len(jobs[6].result) == 1 << 12
        assert type(jobs[7].exception) is papyros.PayloadError
        assert all_right([job for job in jobs if job.args[0] not in (5, 6, 7)])
        no_more(master)


# One that takes long ------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["two slaves", "two hosts"])
@pytest.mark.parametrize("position", [0, 3, -1])
@pytest.mark.usefixtures("names")
def test_one_that_takes_long_holds_up_none_of_the_others(request, gates, sent, where, position):
    master = request.getfixturevalue("pair").master() if where == "two slaves" else request.getfixturevalue("two_hosts")
    gate = gates()
    jobs = add_with_a_long_one(master, sent, gate, 64, position)
    long = jobs[position]
    assert len(bundle_with(long, sent)) > 3
    popped = pop(master, 63, SOON)
    assert long not in popped
    assert all_right(popped)
    gate.open()
    assert pop(master, 1) == [long]
    no_more(master)


@pytest.mark.parametrize("where", ["two slaves", "two hosts"])
@pytest.mark.usefixtures("names")
def test_one_that_keeps_the_lock_of_the_interpreter_holds_up_none_behind_it(request, gates, sent, where):
    master = request.getfixturevalue("pair").master() if where == "two slaves" else request.getfixturevalue("two_hosts")
    gate = gates()
    get_to_know(master)
    jobs = [step(0, "keep the lock", gate.path, LONG), *map(step, range(1, 64))]
    add(master, jobs, sent)
    assert len(bundle_with(jobs[0], sent)) > 3
    assert set(pop(master, 63, SOON)) == set(jobs[1:])
    assert pop(master, 1) == jobs[:1]
    no_more(master)


def test_results_of_jobs_before_one_that_takes_long_come_also_without_another_slave(single, gates, sent):
    gate = gates()
    with single.master() as master:
        jobs = add_with_a_long_one(master, sent, gate, 20, 8)
        before = [job for job in jobs[:8] if job._keeper.number in bundle_with(jobs[8], sent)]
        assert before
        popped = pop(master, 8, SOON)
        assert popped == jobs[:8]
        gate.open()
        assert set(pop(master, 12)) == set(jobs[8:])


def test_many_that_take_long_are_run_by_all_slaves_at_once(pair, gates, sent):
    """The class was quick as far as is known; now each job of it waits for a gate."""
    gate = gates()
    with pair.master() as master:
        get_to_know(master)
        jobs = [step(number, "wait", gate.path) for number in range(40)]
        add(master, jobs, sent)
        gate.wait_for_arrivals(2)
        gate.open()
        assert set(pop(master, 40)) == set(jobs)
        assert all_right(jobs)


def test_a_bundle_that_was_cut_is_not_told_of_again_and_again(pair, gates, sent, monkeypatch):
    """While its last job takes long, nobody has anything to do, but for a sign of life now and then."""
    gate = gates()
    with pair.master() as master:
        add_with_a_long_one(master, sent, gate, 64, 2)
        pop(master, 63)
        messages = []
        unpack = receiving.unpack_outcomes

        def note(told):
            messages.extend(unpack(told))
            return unpack(told)

        monkeypatch.setattr(receiving, "unpack_outcomes", note)
        hosts = [pair.pids["slave host"], pair.pids["master"]]
        spent = cpu_seconds(hosts)
        time.sleep(2.0)  # there is no event to wait for: nothing is to happen
        assert len(messages) <= 1
        assert cpu_seconds(hosts) - spent < 0.2
        gate.open()
        pop(master, 1)


def test_the_last_job_of_a_bundle_takes_long_and_nobody_is_busy_meanwhile(pair, gates, sent):
    gate = gates()
    with pair.master() as master:
        add_with_a_long_one(master, sent, gate, 10, 9)
        pop(master, 9)
        hosts = [pair.pids["slave host"], pair.pids["master"]]
        spent = cpu_seconds(hosts)
        time.sleep(2.0)  # there is no event to wait for: nothing is to happen
        assert cpu_seconds(hosts) - spent < 0.2
        gate.open()
        pop(master, 1)


# One that takes its slave along ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["die", "exit", "close all"])
def test_one_that_takes_its_slave_along_is_lost_and_only_that(pair, tmp_path, sent, how):
    with pair.master() as master:
        get_to_know(master)
        jobs = [step(number) for number in range(64)]
        deadly = jobs[20] = step(20, how, str(tmp_path))
        add(master, jobs, sent)
        assert len(bundle_with(deadly, sent)) > 3
        popped = pop(master, 64)
        assert type(deadly.exception) is SlaveLost
        assert all_right([job for job in popped if job is not deadly])
        tries = len(starts(tmp_path, f"{how.split()[0]}-20"))
        assert tries == MAX_DEATHS
        assert master.status().lost == tries
        no_more(master)


def test_several_that_take_their_slaves_along_once_each_have_results(pair, tmp_path, sent):
    with pair.master() as master:
        get_to_know(master)
        jobs = [step(n, *(["die once", str(tmp_path)] if n % 20 == 7 else [])) for n in range(100)]
        add(master, jobs, sent)
        pop(master, 100)
        assert all_right(jobs)


def test_a_class_whose_jobs_only_die_is_not_taken_for_quick(single, tmp_path, sent):
    with single.master() as master:
        master.addJob(step(1, "die", str(tmp_path)))
        assert type(pop(master, 1)[0].exception) is SlaveLost
        definition = master._packer.pack_plainly(step(0))[0]
        assert master._exchange.bundling.jobs(definition) == 1


# Slave hosts and masters that are killed -------------------------------------------------------


def test_nothing_is_lost_when_a_slave_host_is_killed_in_the_midst_of_bundles(launch, names, group, sent):
    launch.master(group, names, "--lease=2")
    hosts = [launch.host(group, names, 1) for _ in range(2)]
    with DistributedMaster(group, names, host_master=False) as master:
        get_to_know(master)
        jobs = [step(number, "sleep", 0.0002) for number in range(8000)]
        add(master, jobs, sent, bundles=20)
        popped = pop(master, 500)
        hosts[0].end(signal.SIGKILL)
        popped += pop(master, len(jobs) - 500)
        assert set(popped) == set(jobs)
        assert all_right(jobs)
        no_more(master)


@pytest.mark.parametrize("times", [1, 3])
def test_nothing_is_lost_when_the_master_is_killed_in_the_midst_of_bundles(launch, names, group, sent, times):
    master_program = launch.master(group, names)
    for _ in range(2):
        launch.host(group, names, 1)
    with DistributedMaster(group, names, host_master=False) as master:
        get_to_know(master)
        jobs = [step(number, "sleep", 0.0002) for number in range(12_000)]
        add(master, jobs, sent, bundles=20)
        popped = []
        for _ in range(times):
            popped += pop(master, 1500)
            master_program.end(signal.SIGKILL)
            master_program = launch.master(group, names)
        popped += pop(master, len(jobs) - len(popped))
        assert len(set(popped)) == len(jobs)
        assert all_right(jobs)
        no_more(master)


def test_a_bundle_that_runs_when_the_master_is_killed_goes_on_under_the_next_one(launch, names, group, gates, sent):
    """The others of it do not wait for the one that takes long, though it was there that they were to be run."""
    gate = gates()
    master_program = launch.master(group, names)
    launch.host(group, names, 2)
    with DistributedMaster(group, names, host_master=False) as master:
        jobs = add_with_a_long_one(master, sent, gate, 64, 0)
        gate.wait_for_arrivals()
        master_program.end(signal.SIGKILL)
        launch.master(group, names)
        assert set(pop(master, 63)) == set(jobs[1:])
        gate.open()
        assert pop(master, 1) == jobs[:1]
        assert gate.arrivals() == 1
        no_more(master)


# Cancelled jobs ---------------------------------------------------------------------------------


@pytest.fixture
def stuck(launch, names, group, gates, sent):
    """A client of which bundles wait behind a job of another client, which keeps the only slave busy."""
    launch.master(group, names)
    launch.host(group, names, 1)
    gate = gates()
    with (
        DistributedMaster(group, names, host_master=False) as other,
        DistributedMaster(group, names, host_master=False) as master,
    ):
        get_to_know(master)
        other.addJob(step(0, "wait", gate.path))
        gate.wait_for_arrivals()
        yield master, gate


@pytest.fixture
def without_slaves(launch, names, group, sent):
    """A client of which bundles wait at the master, and a call that starts a slave."""
    launch.master(group, names)
    host = launch.host(group, names, 1)
    with DistributedMaster(group, names, host_master=False) as master:
        get_to_know(master)
        host.end()
        yield master, lambda: launch.host(group, names, 1)


def wait_until_arrived(master, jobs):
    def all_there():
        status = ask_status(master._uri, master._security)
        return status.waiting + status.assigned >= jobs

    wait_until(all_there, "the jobs at the master")


def test_jobs_of_a_bundle_that_waits_at_the_master_are_cancelled_and_only_these(without_slaves, sent):
    master, start = without_slaves
    jobs = [step(number) for number in range(50)]
    add(master, jobs, sent)
    wait_until_arrived(master, 50)
    assert master.cancelJob(jobs[10])
    assert master.cancelJob(jobs[11])
    start()
    assert set(pop(master, 48)) == set(jobs) - {jobs[10], jobs[11]}
    no_more(master)


def test_jobs_of_a_bundle_that_waits_at_a_slave_host_are_cancelled_and_only_these(stuck, sent):
    master, gate = stuck
    jobs = [step(number) for number in range(50)]
    add(master, jobs, sent)
    wait_until_arrived(master, 51)
    assert master.cancelJob(jobs[10])
    assert master.cancelJob(jobs[11])
    gate.open()
    assert set(pop(master, 48)) == set(jobs) - {jobs[10], jobs[11]}
    no_more(master)


def test_all_jobs_of_bundles_that_wait_at_the_master_are_cancelled(without_slaves, sent):
    master, start = without_slaves
    add(master, [step(number) for number in range(500)], sent)
    wait_until_arrived(master, 500)
    master.cancelAllJobs()
    no_more(master)
    start()
    after = [step(number) for number in range(500)]
    add(master, after, sent)
    assert set(pop(master, 500)) == set(after)
    no_more(master)


def test_a_job_of_a_bundle_that_runs_is_cancelled_and_the_others_have_results(pair, gates, sent):
    gate = gates()
    with pair.master() as master:
        jobs = add_with_a_long_one(master, sent, gate, 64, 2)
        gate.wait_for_arrivals()
        assert master.cancelJob(jobs[2])
        assert set(pop(master, 63)) == set(jobs) - {jobs[2]}
        no_more(master)


def test_jobs_that_are_cancelled_while_bundles_run_are_gone_or_popped(pair, sent):
    with pair.master() as master:
        get_to_know(master)
        jobs = [step(number, "sleep", 0.0002) for number in range(3000)]
        add(master, jobs, sent)
        cancelled = [job for job in jobs[::97] if master.cancelJob(job)]
        left = [job for job in jobs if job not in cancelled]
        assert set(pop(master, len(left))) == set(left)
        assert all_right(left)
        no_more(master)


def test_futures_that_are_cancelled_take_no_others_with_them(pair, gates, sent):
    with pair.master() as master, master.executor() as executor:
        deadline = time.monotonic() + PATIENCE
        while not sent.bundles:
            assert time.monotonic() < deadline
            with master._lock:
                futures = [executor.submit(abs, -number) for number in range(200)]
            assert [future.result(PATIENCE) for future in futures] == list(range(200))
        with master._lock:
            futures = [executor.submit(abs, -number) for number in range(5000)]
        cancelled = {number for number in range(0, 5000, 50) if futures[number].cancel()}
        for number, future in enumerate(futures):
            if number in cancelled:
                assert future.cancelled()
            else:
                assert future.result(PATIENCE) == number


def test_an_executor_that_is_shut_down_cancels_many_futures_in_little_time(launch, names, group, sent):
    launch.master(group, names)
    host = launch.host(group, names, 1)
    with DistributedMaster(group, names, host_master=False) as master:
        executor = master.executor()
        deadline = time.monotonic() + PATIENCE
        while not sent.bundles:
            assert time.monotonic() < deadline
            with master._lock:
                futures = [executor.submit(abs, -number) for number in range(200)]
            assert [future.result(PATIENCE) for future in futures] == list(range(200))
        host.end()
        with master._lock:
            started = time.monotonic()
            futures = [executor.submit(abs, -number) for number in range(20_000)]
            seconds = time.monotonic() - started
        wait_until(lambda: not master._ledger.anything_waits(), "all jobs to be sent")
        with at_most(4 * seconds + 1):  # one call to the master for each future would take many times as long
            executor.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in futures)


def test_a_loop_that_is_left_early_drops_what_is_in_its_bundles(pair, sent):
    with pair.master() as master:
        get_to_know(master)
        for _ in range(5):
            loop = master.execute(step(number) for number in range(100_000))
            for _, job in zip(range(300), loop, strict=False):
                assert job.result == job.args[0]
            loop.close()
            no_more(master)
        jobs = [step(number) for number in range(500)]
        for job in jobs:
            master.addJob(job)
        assert set(pop(master, 500)) == set(jobs)


def test_a_drop_of_which_the_other_half_was_interrupted_breaks_nothing(pair, sent):
    """Ctrl-C came after a loop had left the books, and before it was noted that nobody wants what was sent."""
    with pair.master() as master:
        get_to_know(master)
        lane = master._open_lane()
        with master._lock:
            for number in range(200):
                lane.add(step(number))
        wait_until(lambda: not master._ledger.anything_waits(), "all jobs to be sent")
        with master._lock, master._mending():
            numbers = list(lane._session.entries)
            master._ledger.drop(lane._session.key)
            master._let_go(numbers)
        jobs = [step(number) for number in range(500)]
        add(master, jobs, sent)
        assert set(pop(master, 500)) == set(jobs)
        assert all_right(jobs)


# Families -------------------------------------------------------------------------------------------


def test_jobs_of_a_bundle_that_wait_for_their_children_do_not_wait_for_each_other(pair, sent):
    with pair.master() as master:
        get_to_know(master)
        jobs = [step(number, "children", 4, 2) for number in range(6)]  # deeper than there are slaves
        add(master, [*jobs, *map(step, range(20))], sent)
        popped = pop(master, 26, 120)
        assert {job.result for job in jobs} == {16}
        assert all_right([job for job in popped if job not in jobs])
        no_more(master)


# The ends ---------------------------------------------------------------------------------------------


def test_a_slave_host_that_drains_leaves_its_bundles_to_another(launch, names, group, sent):
    launch.master(group, names)
    first = launch.host(group, names, 1)
    with DistributedMaster(group, names, host_master=False) as master:
        get_to_know(master)
        jobs = [step(number, "sleep", 0.0002) for number in range(8000)]
        add(master, jobs, sent, bundles=20)
        popped = pop(master, 300)
        launch.host(group, names, 1)
        assert first.end() == 0
        assert "Traceback" not in first.text
        popped += pop(master, len(jobs) - 300)
        assert set(popped) == set(jobs)
        assert all_right(jobs)
        no_more(master)


def test_a_client_that_closes_in_the_midst_of_bundles_leaves_nothing_behind(pair, sent):
    master = pair.master()
    get_to_know(master)
    add(master, [step(number, "sleep", 0.001) for number in range(5000)], sent)
    pop(master, 10)
    with at_most(5):
        master.close()
    with pair.master() as other:
        wait_until(lambda: not other.status().waiting and not other.status().assigned, "nothing is left", SOON)
        other.addJob(Square(3))
        assert other.popProcessedJob(SOON).result == 9


def test_a_status_counts_jobs_and_not_bundles(stuck, sent):
    master, gate = stuck
    add(master, [step(number) for number in range(200)], sent)
    wait_until(lambda: master.status().waiting + master.status().assigned == 201, "all jobs in the status")
    wait_until(lambda: master.status().slaves[0].job, "a job that runs")
    (slave,) = master.status().slaves
    assert slave.job.startswith("step")
    assert slave.ahead <= 200
    gate.open()
    wait_until(lambda: master.status().processed == 200, "all jobs processed")
    pop(master, 200)
    assert master.status().assigned == 0


def test_a_status_tells_of_a_bundle_that_runs_how_many_jobs_are_ahead(single, gates, sent):
    gate = gates()
    with single.master() as master:
        get_to_know(master)
        add(master, [step(0, "wait", gate.path), *map(step, range(1, 10))], sent)
        gate.wait_for_arrivals()
        wait_until(lambda: master.status().slaves[0].job, "a job that runs")
        (slave,) = master.status().slaves
        assert slave.job.startswith("step (one of ")
        # Those behind it are cut off and sent again: they are no more by that.
        wait_until(lambda: (status := master.status()).waiting + status.assigned == 10, "each job counted once", SOON)
        gate.open()
        pop(master, 10)


@pytest.mark.usefixtures("real_interrupts")
def test_whenever_interrupts_come_every_job_in_a_bundle_is_popped_once(pair, sent):
    with pair.master() as master:
        get_to_know(master)
        jobs, popped = add_and_pop_though_interrupted(master, step, 100, longest=0.02)
        popped += pop(master, master.numPendingJobs())
        assert len(popped) == len(set(popped))
        assert set(popped) >= set(jobs[:-1])  # the last one may have been interrupted
        assert all_right(popped)
        assert sent.jobs > 100
        no_more(master)


@pytest.mark.slow
@pytest.mark.usefixtures("real_interrupts")
def test_a_cancel_that_was_interrupted_leaves_no_other_job_of_the_bundle_behind(single, gates, sent):
    with single.master() as master, single.master() as other:
        get_to_know(master, jobs=5)
        for interruption in moments(at_least=50):
            gate = gates()
            other.addJob(step(0, "wait", gate.path))  # the only slave has something else to do meanwhile
            gate.wait_for_arrivals()
            jobs = [step(number) for number in range(12)]
            add(master, jobs, sent)
            interruption.of(master.cancelJob, jobs[2])
            gate.open()
            assert other.popProcessedJob(PATIENCE)
            popped = master.processedJobs(SOON)
            assert master.numPendingJobs() == 0
            assert all_right(popped)
            assert set(popped) >= {*jobs[:2], *jobs[3:]}


# What no slave says -----------------------------------------------------------------------------------

_HEAD = struct.Struct("<II")
ONE = array("d", [0.1])

WORDS = {
    "nothing": b"",
    "a byte": b"+",
    "beyond its jobs": b"+" + _HEAD.pack(1000, 1),
    "so many": b"=" + _HEAD.pack(0, 0xFFFFFFFF),
    "half a column": b"+" + _HEAD.pack(0, 1) + bytes(7),
    "no column": b"+" + _HEAD.pack(0, 1) + bytes(8),
    "a long outcome": b"+" + _HEAD.pack(0, 1) + bytes(8) + b"\xff" * 8 + b"R",
    "of one job": b"Rnonsense",
    "a letter that there is not": b"?" + _HEAD.pack(0, 0),
    "a cut beyond": cut_off(1000),
}


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("kind", [PART, OUTCOMES])
def test_what_no_slave_says_of_a_bundle_breaks_neither_client_nor_host(pair, sent, words, kind):
    body = WORDS[words]
    if kind == OUTCOMES:
        body = ONE.tobytes() + array("Q", [len(body)]).tobytes() + body
    with pair.master() as master:
        get_to_know(master)
        jobs = [step(number) for number in range(64)]
        jobs[3] = step(3, "say", kind, 1 if kind == OUTCOMES else None, body)
        add(master, jobs, sent)
        popped = pop(master, 64)
        if kind == PART:  # else it speaks for jobs before it, too, which its own client cannot tell
            wrong = [job for job in popped if job.exception is not None]
            assert len(wrong) <= 1
            assert all_right([job for job in popped if job not in wrong])
        after = [step(number) for number in range(100)]
        for job in after:
            master.addJob(job)
        assert set(pop(master, 100)) == set(after)
        assert all_right(after)
