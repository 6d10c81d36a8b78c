"""A slave that has nothing to do is fed by whoever has a task for it, and not by the crew's own thread."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from functools import partial

import pytest

import papyros
from papyros.bundles import (
    MOST_JOBS,
    cut_off,
    is_death,
    is_more_to_come,
    is_of_bundle,
    pack_bundle,
    read,
    story_of,
)
from papyros.feeding import Feeder
from papyros.jobs import result_of
from papyros.keeping import keeper_of, terms_of
from papyros.pace import MOST_A_SECOND
from papyros.process import SlaveProcess
from papyros.progress import MOST_TOKENS, Recalled
from papyros.shares import LONG_SECONDS
from papyros.tasks import Task
from papyros.terms import DEFAULT_TERMS
from tests.contract.jobs_for_tests import Square, hang, note_start, starts, wait_at
from tests.contract.test_interrupts import moments, pop_all, real_interrupts
from tests.distributed.jobs import step
from tests.support import PATIENCE, Background, Gates, wait_until
from tests.unit.crews import FakeSource, crew_of

pytestmark = pytest.mark.compiled

__all__ = ["real_interrupts"]


@pytest.fixture
def gates(tmp_path):
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


class Watched(FakeSource):
    """Notes which threads take tasks, as long as there are some."""

    def __init__(self):
        super().__init__()
        self.takers = set()

    def take(self, limit):
        tasks = super().take(limit)
        if tasks:
            self.takers.add(threading.current_thread())
        return tasks

    def lay_down(self, tag, job):
        """Add a task without telling the crew."""
        crew, self.crew = self.crew, None
        self.add(tag, job)
        self.crew = crew


@contextmanager
def idle_crew(source):
    with crew_of(source) as crew:
        # One that is ready late, and what is started then, would keep the crew's thread busy in between.
        assert crew.wait_ready(PATIENCE)
        wait_until(lambda: sys.platform != "linux" or crew._sweeper.pid, "the sweeper")
        for number in range(20):  # so that tasks are known to be quick
            source.add(-number, Square(number))
        source.wait_for_outcomes(20)
        wait_until(lambda: crew.may_be_fed, "the crew has nothing to do")
        source.takers.clear()
        yield crew


def test_an_idle_crew_is_fed_in_the_calling_thread():
    source = Watched()
    with idle_crew(source) as crew:
        source.lay_down(1, Square(3))
        crew.feed()
        source.wait_for_outcomes(21)
    assert result_of(source.outcomes[1]) == 9
    assert source.takers == {threading.current_thread()}


def test_an_idle_slave_is_fed_though_another_one_is_busy(tmp_path):
    source = Watched()
    with idle_crew(source) as crew:
        source.add("long", hang(str(tmp_path), "long", "sleep"))
        wait_until(lambda: [view.tag for view in crew.views()].count("long") == 1, "it runs")
        wait_until(lambda: crew.may_be_fed, "the crew's thread has nothing to do")
        source.takers.clear()
        source.lay_down(1, Square(3))
        crew.feed()
        source.wait_for_outcomes(21)
    assert result_of(source.outcomes[1]) == 9
    assert source.takers == {threading.current_thread()}


def test_a_crew_of_which_all_slaves_are_busy_is_only_poked(tmp_path):
    source = Watched()
    with idle_crew(source) as crew:
        for number in range(2):
            source.add(f"long {number}", hang(str(tmp_path), f"long {number}", "sleep"))
        wait_until(lambda: not crew.may_be_fed, "all slaves have something to do")
        source.lay_down(1, Square(3))
        crew.feed()
        wait_until(lambda: source.takers and not source.waiting, "the crew has taken all there is")
    assert threading.current_thread() not in source.takers


def test_what_waits_behind_a_long_task_is_shared_out_also_when_both_were_fed_at_once(tmp_path):
    source = Watched()
    with idle_crew(source) as crew:
        source.lay_down("long", hang(str(tmp_path), "long", "sleep"))
        source.lay_down(1, Square(3))
        crew.feed()  # both go to one slave, since tasks are quick as far as is known
        source.wait_for_outcomes(21)
    assert source.takers == {threading.current_thread()}
    assert "long" not in source.outcomes


@papyros.job
def note(folder, name):
    note_start(folder, name)


class Slow(Watched):
    """Tells nobody of tasks that have ended until one more has started, if there is one that has not."""

    def __init__(self, folder, names):
        super().__init__()
        self.folder, self.names = folder, names
        self.announced = 0

    def announce(self):
        with self.lock:
            told = len(self.names.intersection(self.outcomes))
        if told > self.announced:
            self.announced = told
            wait_until(lambda: len(self.started()) > told or len(self.started()) == len(self.names), "one more starts")

    def started(self):
        return {name for name in self.names if starts(self.folder, name)}


def test_a_slave_that_runs_out_of_tasks_is_given_others_before_anybody_is_told_what_has_ended(tmp_path):
    names = {f"quick{number}" for number in range(12)}
    source = Slow(tmp_path, names)
    with idle_crew(source) as crew:
        source.lay_down("long", hang(str(tmp_path), "long", "sleep"))
        for name in sorted(names):
            source.lay_down(name, note(str(tmp_path), name))
        crew.feed()
        source.wait_for_outcomes(20 + len(names))
        wait_until(lambda: source.announced == len(names), "all of it was announced")
    assert "long" not in source.outcomes


class Bounded(Watched):
    """Notes how many tasks it was asked for, and of how many outcomes it had been told by then."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def take(self, limit):
        self.asked.append((limit, len(self.outcomes)))
        return super().take(limit)


def test_a_source_is_asked_for_nothing_ahead_before_it_is_told_what_results_take():
    """It was told after that, and handed out many times what its bound has room for."""
    source = Bounded()
    for number in range(50):
        source.add(number, Square(number))
    with crew_of(source):
        source.wait_for_outcomes(50)
    ignorant = [limit for limit, told in source.asked if not told]
    assert max(ignorant) <= 2, "one for each slave"
    assert max(limit for limit, _ in source.asked) > 2


@papyros.job
def take_long(seconds, end=False):
    """Sleep, so that nothing is given ahead; `end` the process a moment after that."""
    time.sleep(seconds)
    if end:
        threading.Timer(0.02, os._exit, [0]).start()


def has_ended(process):
    """Whether a process has ended, of which there is a file descriptor; all its threads have."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


class Held(Watched):
    """Hears of a task that has ended only when the slave is dead that has ended another one meanwhile."""

    def __init__(self):
        super().__init__()
        self.processes = []

    def finished(self, tags, outcomes, seconds, slave):
        if "first" in tags:
            wait_until(lambda: any(map(has_ended, self.processes)), "the other slave is dead")
        super().finished(tags, outcomes, seconds, slave)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no file descriptors of processes here")
def test_a_slave_that_has_died_with_its_last_outcome_is_given_nothing_that_would_be_suspected():
    source = Held()
    with crew_of(source) as crew, contextlib.ExitStack() as stack:
        assert crew.wait_ready(PATIENCE)
        for view in crew.views():
            source.processes.append(os.pidfd_open(view.pid))
            stack.callback(os.close, source.processes[-1])
        with source.lock:  # all at a time
            source.lay_down("first", take_long(LONG_SECONDS))
            source.lay_down("last", take_long(2 * LONG_SECONDS, end=True))
            for number in range(6):
                source.lay_down(number, Square(number))
        crew.poke()
        source.wait_for_outcomes(8)
        assert crew._aftermath._suspect is None
    assert source.deaths == []


def test_a_task_that_was_fed_is_stopped_when_its_time_is_up(tmp_path):
    source = Watched()
    with idle_crew(source) as crew:
        job = hang(str(tmp_path), "long", "sleep")
        job.timeout = 0.2
        source.lay_down("long", job)
        crew.feed()
        source.wait_for(lambda: source.late, "it was late")
    assert source.takers == {threading.current_thread()}


def test_what_interrupts_a_thread_that_feeds_is_raised_there_and_the_crew_goes_on(monkeypatch):
    """It may be of any type: an alarm of the program's raises what it likes."""
    source = Watched()
    with idle_crew(source) as crew:
        with monkeypatch.context() as alarm:
            alarm.setattr(source, "take", lambda _: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                crew.feed()
        source.add("after", Square(3))
        source.wait_for_outcomes(21)
        assert not source.reasons


def test_many_threads_that_feed_lose_no_task_and_have_none_run_twice():
    source = Watched()
    with idle_crew(source) as crew:

        def add(thread):
            for number in range(100):
                source.lay_down((thread, number), Square(number))
                crew.feed()
                if number % 10 == 0:  # so that it is idle now and then
                    wait_until(partial(source.outcomes.__contains__, (thread, number)))

        source.crew = None  # `lay_down` has nothing to put back
        for one in [Background(add, thread) for thread in range(4)]:
            one.result()
        source.wait_for_outcomes(420)
    assert set(source.finishes.values()) == {1}


@pytest.mark.slow
@pytest.mark.usefixtures("real_interrupts")
def test_an_interrupt_while_an_idle_crew_is_fed_loses_nothing():
    with papyros.MultiProcessMaster(2) as master:
        master.wait_ready()
        for number, interruption in enumerate(moments(at_least=80)):
            wait_until(lambda: master._crew.may_be_fed, "the crew has nothing to do")
            job = Square(number)
            interruption.of(master.addJob, job)
            if interruption.raised:
                assert master.numPendingJobs() == 0
                assert keeper_of(job) is None
                master.addJob(job)
            assert pop_all(master) == [job]
            assert job.result == number**2


class InterruptedSource:
    """Asks a source in place of a feeder; Ctrl-C comes when it has answered one of the questions for the first time."""

    def __init__(self, source, interrupted):
        self._source = source
        self._interrupted = interrupted

    def __getattr__(self, name):
        asked = getattr(self._source, name)

        def ask(*args):
            answer = asked(*args)
            if name == self._interrupted:
                self._interrupted = ""
                raise KeyboardInterrupt
            return answer

        return ask


@pytest.mark.parametrize("interrupted", ["take", "definition"])
def test_an_interrupt_while_a_slave_is_fed_loses_no_job_of_another_thread(monkeypatch, interrupted):
    with papyros.MultiProcessMaster(2) as master:
        master.wait_ready()
        wait_until(lambda: master._books.awaited and master._crew.may_be_fed, "the crew has nothing to do")
        with monkeypatch.context() as patch:
            patch.setattr(master, "_job_added", lambda: None)  # the other thread is about to feed the slaves
            master.addJob(other := Square(3))
        monkeypatch.setattr(master._crew._feeder, "_source", InterruptedSource(master._crew._source, interrupted))
        with pytest.raises(KeyboardInterrupt):
            master.addJob(Square(4))
        assert pop_all(master) == [other]
        assert other.result == 9


# Bundles ------------------------------------------------------------------------------------


class Bundled(FakeSource):
    """Notes what is told of bundles, as it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def add_bundle(self, tag, *jobs):
        payloads = [self.packer.pack(job) for job in jobs]
        terms = terms_of(jobs[0])._replace(jobs=len(jobs))
        with self.lock:
            self.waiting.append(Task(tag, payloads[0].definition, pack_bundle([each.blob for each in payloads]), terms))

    def finished(self, tags, outcomes, seconds, slave):
        with self.lock:
            self.told += [(tag, bytes(outcome)) for tag, outcome in zip(tags, outcomes, strict=True)]
            self.lock.notify_all()

    def warm_up(self, job):
        """Have all slaves import what a job needs, which takes long, and forget of it."""
        for number in range(20):
            self.add(-number, job)
        self.wait_for(lambda: len(self.told) == 20, "the first jobs")
        self.told.clear()

    def positions(self, tag):
        """Return of which jobs of a bundle the outcomes were told."""
        found = []
        for other, told in self.told:
            if other == tag and is_of_bundle(told):
                start, outcomes, _, _ = read(told, MOST_JOBS)
                found += range(start, start + len(outcomes))
        return found

    def is_settled(self, tag):
        """Return whether each job of a bundle of as many as may be has an outcome, or was cut off."""
        cut = [position for told in self.cuts(tag) for position in range(read(told, MOST_JOBS).kept, MOST_JOBS)]
        return sorted(self.positions(tag) + cut) == list(range(MOST_JOBS))

    def cuts(self, tag):
        return [told for other, told in self.told if other == tag and told[:1] == cut_off(0)[:1]]


@pytest.mark.pure
def test_a_slave_never_has_more_tokens_than_it_may_and_all_bundles_are_run(monkeypatch):
    most = []
    send = SlaveProcess.send

    def watched(slave, *args, **kwds):
        size = send(slave, *args, **kwds)
        most.append(slave.progress.jobs)
        return size

    monkeypatch.setattr(SlaveProcess, "send", watched)
    source = Bundled()
    with crew_of(source) as crew:
        for tag in range(300):
            source.add_bundle(tag, *map(Square, range(MOST_JOBS)))
        crew.poke()
        source.wait_for(lambda: all(map(source.is_settled, range(300))), "all of them")
    assert MOST_TOKENS // 2 < max(most) <= MOST_TOKENS


def test_what_waits_in_a_bundle_behind_a_long_job_is_cut_off_soon_and_this_is_said_once(gates):
    source = Bundled()
    gate = gates()
    passed = gates()
    passed.open()
    with crew_of(source, slaves=1) as crew:
        source.warm_up(wait_at(passed.path))
        jobs = [wait_at(passed.path, n) for n in range(2)] + [wait_at(gate.path, 2)] + [wait_at(passed.path)] * 5
        source.add_bundle("long", *jobs)
        crew.poke()
        source.wait_for(lambda: source.cuts("long"), "a cut")
        assert source.cuts("long") == [cut_off(3)]
        wait_until(lambda: crew._feeder.slow_at is None, "the crew has nothing to look after")
        source.wait_for(lambda: source.positions("long") == [0, 1], "what came before")
        crew.recall()
        assert source.cuts("long") == [cut_off(3)] * 2, "this is for another master, which has not heard of it"
        gate.open()
        source.wait_for(lambda: not is_more_to_come(source.told[-1][1]), "the end")
        crew.recall()
    assert source.positions("long") == [0, 1, 2]
    assert len(source.cuts("long")) == 2


def test_idle_slaves_ask_once_for_what_waits_in_a_bundle(gates):
    source = Bundled()
    gate = gates()
    with crew_of(source, slaves=2) as crew:
        source.warm_up(step(1))
        source.add_bundle("long", *[wait_at(gate.path)] * 3)
        crew.poke()
        source.wait_for(lambda: source.cuts("long"), "a cut")
        wait_until(lambda: crew._feeder.level_at is None, "the crew has nothing to look after")
        gate.open()
        source.wait_for(lambda: not is_more_to_come(source.told[-1][1]), "the end")
    assert source.cuts("long") == [cut_off(1)]


def test_of_a_bundle_whose_slave_dies_it_is_told_which_job_ran(tmp_path):
    source = Bundled()
    with crew_of(source, slaves=1):
        source.warm_up(step(1))
        source.add_bundle("deadly", *[step(1), step(2, "die", str(tmp_path)), step(3)])
        source.add("behind", step(4))
        source.wait_for(lambda: "behind" in dict(source.told), "the one behind it")
    (told,) = [told for tag, told in source.told if tag == "deadly" and is_death(told)]
    assert read(told, 3).start == 1
    assert "SIGKILL" in story_of(told)
    assert not source.deaths


# In which order -----------------------------------------------------------------------------


class Stub:
    """A slave that runs nothing, and its progress, as the feeder sees them; the first so many tasks have ended."""

    check_at = look_at = cut = None

    def __init__(self, *tags, ended=0, since=0.0):
        self.name = "stub"
        self.progress = self
        self.queue = deque(tasks(tags))
        self.ended = ended
        self.since = since
        self.recalls = 0

    @property
    def jobs(self):
        return len(self.queue)

    @property
    def tags(self):
        return [task.tag for task in self.queue]

    def send(self, tasks, *_):
        self.queue.extend(tasks)
        return 1

    def left(self):
        return len(self.queue) - self.ended, len(self.queue) - self.ended

    def recall(self, _=1):
        self.recalls += 1
        started, others = list(self.queue)[: self.ended + 1], list(self.queue)[self.ended + 1 :]
        self.queue = deque(started)
        return Recalled(others, None)

    def running(self):
        return (self.queue[self.ended], self.since) if self.queue else None


def tasks(tags):
    return [Task(tag, b"", b"", DEFAULT_TERMS) for tag in tags]


class Stock(FakeSource):
    """Has tasks with these tags, in order."""

    def __init__(self, tags):
        super().__init__()
        self.left = tasks(tags)

    def take(self, limit):
        taken, self.left = self.left[:limit], self.left[limit:]
        return taken


def feeder_of(tags, seconds, cpus=100):
    feeder = Feeder(Stock(tags), lambda slave: None, cpus)
    feeder.pace.learn([seconds], [1])
    return feeder


@pytest.mark.pure
def test_slaves_get_tasks_by_turns_so_that_what_is_first_in_order_is_begun_first():
    one, other = Stub(), Stub()
    feeder_of(range(7), 0.05).feed([one, other], here=False)
    assert (one.tags, other.tags) == ([0, 2, 4, 6], [1, 3, 5])


@pytest.mark.pure
@pytest.mark.parametrize(
    ("behind", "idle", "left"),
    [(1, [[1]], []), (4, [[1, 2]], [3, 4]), (5, [[1, 2, 3]], [4, 5]), (5, [[1, 3], [2, 4]], [5]), (2, [[1], [2]], [])],
)
def test_whoever_is_busy_is_left_what_is_last_in_order_when_it_is_shared_out(behind, idle, left):
    busy = Stub(*range(behind + 1))
    takers = [Stub() for _ in idle]
    feeder_of([], 0.05).feed([busy, *takers], here=False)
    assert [taker.tags for taker in takers] == idle
    assert busy.tags == [0, *left]


@pytest.mark.pure
def test_who_has_much_that_has_ended_has_nothing_to_share_out():
    gatherer, busy, idle = Stub(*range(30), ended=29), Stub(100, 101, 102), Stub()
    feeder = feeder_of([], 0.05)
    feeder.feed([gatherer, busy, idle], here=False)
    assert (idle.tags, busy.tags, gatherer.recalls) == ([101], [100, 102], 0)


@pytest.mark.pure
def test_nobody_looks_again_and_again_for_what_could_be_shared_out_where_all_has_ended_but_what_runs():
    gatherer = Stub(*range(30), ended=29)
    feeder = feeder_of([], 0.05)
    feeder.feed([gatherer, Stub()], here=False)
    assert feeder.level_at is None
    assert not gatherer.recalls


@pytest.mark.pure
@pytest.mark.parametrize(("seconds", "woken"), [(1e-6, 2), (3.5 / MOST_A_SECOND, 4), (0.001, 5)])
def test_of_more_slaves_than_cpus_no_more_are_woken_than_so_quick_jobs_keep_busy(seconds, woken):
    slaves = [Stub() for _ in range(5)]
    feeder = feeder_of(range(10_000), seconds, cpus=2)
    feeder.feed(slaves, here=False)
    assert [bool(slave.tags) for slave in slaves] == [True] * woken + [False] * (5 - woken)


@pytest.mark.pure
def test_of_jobs_that_nobody_knows_all_slaves_get_some():
    slaves = [Stub() for _ in range(5)]
    Feeder(Stock(range(5)), lambda slave: None, 2).feed(slaves, here=False)
    assert all(slave.tags for slave in slaves)


@pytest.mark.pure
def test_slaves_that_are_spared_take_over_what_waits_behind_long_jobs():
    just_now = time.monotonic() + PATIENCE
    busy = [Stub(*range(start, start + 20), since=just_now) for start in (0, 100)]
    spared = [Stub(), Stub()]
    feeder = feeder_of([], 0.00001, cpus=2)
    feeder.feed([*busy, *spared], here=False)
    assert feeder.sparing
    assert feeder.level_at is not None, "somebody looks after what waits there"
    assert not any(slave.recalls for slave in busy)
    for slave in busy:
        slave.since = 0.0
    feeder.feed([*busy, *spared], here=False)
    assert not feeder.sparing
    assert any(slave.tags for slave in spared)


@pytest.mark.pure
def test_nobody_looks_after_spared_slaves_in_a_moment_that_is_past():
    busy = [Stub(*range(start, start + 1000), since=time.monotonic() + PATIENCE) for start in (0, 2000)]
    feeder = feeder_of([], 0.00001, cpus=2)
    feeder.level_at = time.monotonic() - 1.0
    feeder.feed([*busy, Stub()], here=False)
    assert feeder.level_at is None or feeder.level_at > time.monotonic() - 0.5


@pytest.mark.pure
def test_somebody_looks_after_what_was_given_to_few_slaves_from_the_moment_on_in_which_it_was():
    slaves = [Stub() for _ in range(4)]
    feeder = feeder_of(range(100), 0.00002, cpus=2)
    feeder.feed(slaves, here=False)
    assert [len(slave.tags) for slave in slaves] == [50, 50, 0, 0]
    assert feeder.level_at is not None


@pytest.mark.pure
def test_somebody_looks_after_what_nobody_was_given_since_slaves_were_spared():
    slaves = [Stub(since=time.monotonic() + PATIENCE) for _ in range(6)]
    feeder = Feeder(Stock(range(100)), lambda slave: None, 2)
    feeder.pace.learn([0.00001] * 9 + [3.0], [1] * 10)
    for _ in range(2):
        feeder.feed(slaves, here=False)
        assert [len(slave.tags) for slave in slaves] == [1, 1, 0, 0, 0, 0]
        assert feeder.level_at is not None


@pytest.mark.pure
def test_where_all_have_nothing_to_do_a_job_by_itself_may_be_given_to_one_at_once():
    feeder = feeder_of([], 0.00001, cpus=2)
    feeder.feed([Stub() for _ in range(5)], here=False)
    assert not feeder.sparing


@pytest.mark.pure
def test_what_waits_behind_long_jobs_does_not_wait_for_their_end_though_other_slaves_were_spared(gates, monkeypatch):
    monkeypatch.setattr("papyros.crew.usable_cpus", lambda: 2)
    source, gate = Watched(), gates()
    with crew_of(source, 4) as crew:
        assert crew.wait_ready(PATIENCE)
        for number in range(50):  # so that tasks are known to be quick
            source.add(-number, Square(number))
        source.wait_for_outcomes(50)
        for number in range(2):
            source.lay_down(f"long {number}", wait_at(gate.path, f"long {number}"))
        for number in range(1, 100):
            source.lay_down(number, Square(number))
        crew.poke()
        source.wait_for(lambda: source.outcomes.keys() >= set(range(1, 100)), "the quick ones")
        assert "long 0" not in source.outcomes
        assert "long 1" not in source.outcomes
        gate.open()
        source.wait_for_outcomes(151)


# Held up ------------------------------------------------------------------------------------


class Kept(FakeSource):
    """Counts how often it hears that all slaves run jobs that take long."""

    times = 0

    def held_up(self):
        self.times += 1


def test_what_was_given_ahead_is_given_back_behind_a_long_job_and_it_is_told_once_all_slaves_run_one(gates):
    """Also where they began at different times, and nothing is left that could be given back."""
    source, gate = Kept(), gates()
    with crew_of(source, slaves=2) as crew:
        for number in range(-100, 0):
            source.add(number, Square(number))
        crew.poke()
        source.wait_for(lambda: len(source.outcomes) == 100, "quick jobs")
        source.add(0, wait_at(gate.path))
        crew.poke()
        gate.wait_for_arrivals(1)
        for number in range(1, 10):
            source.add(number, wait_at(gate.path))
        crew.poke()
        gate.wait_for_arrivals(2)
        source.wait_for(lambda: len(source.waiting) == 8, "what waits behind them to be given back")
        told = source.times
        wait_until(lambda: source.times > told, "that both run long jobs to be told, and told again")
        assert not any(reason for _, reason in source.given_back)
        gate.open()
        source.wait_for(lambda: len(source.outcomes) == 110, "all of them")
