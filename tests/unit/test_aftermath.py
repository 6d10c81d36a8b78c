"""Slaves that die before they begin a task: it may be too large for any, and is not to be tried for ever."""

from __future__ import annotations

import os
import signal
from collections import deque
from types import SimpleNamespace

import pytest

from papyros import process
from papyros.aftermath import Aftermath
from papyros.bundles import is_death, read
from papyros.deaths import Death
from papyros.limits import CANCELLED
from papyros.tasks import Task
from papyros.terms import DEFAULT_TERMS
from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE, wait_until
from tests.unit.crews import FakeSource, crew_of
from tests.unit.test_crew import size_of
from tests.unit.test_feeding import Stub, feeder_of, tasks

DEATH = Death("mars/17", "was killed by SIGKILL", ())


class Books(FakeSource):
    """Notes what is told of tasks, without a look at what it is."""

    def finished(self, tags, outcomes, seconds, slave):
        self.outcomes.update(zip(tags, outcomes, strict=True))


@pytest.fixture
def source():
    return Books()


@pytest.fixture
def feeder():
    return feeder_of([], 0.0001)


@pytest.fixture
def aftermath(source, feeder):
    return Aftermath(source, feeder)


def dead(*queue, **traits):
    return SimpleNamespace(name="mars/17", queue=deque(queue), sentence=None, retired="", **traits)


def settle(aftermath, feeder, slave):
    """Settle what a slave leaves that had begun nothing; return the tags of what is to run again, and take it out."""
    aftermath.settle(slave, None, [], DEATH, 0)
    again = [task.tag for task in feeder.returned]
    feeder.returned.clear()
    return again


def test_a_task_is_charged_with_the_second_slave_that_died_before_it_began_it_and_those_behind_it_are_not(
    aftermath, feeder, source
):
    deadly, behind = tasks(["deadly", "behind"])
    assert settle(aftermath, feeder, dead(deadly, behind)) == ["deadly", "behind"], "it may have been chance"
    assert source.deaths == []
    assert settle(aftermath, feeder, dead(deadly, behind)) == ["behind"]
    assert source.deaths == [("deadly", DEATH)]


def test_tasks_that_were_each_the_first_of_one_slave_that_died_are_not_charged(aftermath, feeder, source):
    for task in tasks(range(5)):
        assert settle(aftermath, feeder, dead(task)) == [task.tag]
    assert source.deaths == []


def test_of_a_bundle_that_no_slave_survives_the_first_job_is_charged(aftermath, feeder, source):
    bundle = Task("bundle", b"", b"", DEFAULT_TERMS._replace(jobs=3))
    for _ in range(2):
        settle(aftermath, feeder, dead(bundle))
    told = source.outcomes["bundle"]
    assert is_death(told)
    assert read(told, 3).start == 0


@pytest.mark.parametrize("why", ["it was killed for another task", "it had nothing"])
def test_nobody_is_suspected_of_a_death_that_has_another_cause(aftermath, feeder, source, why):
    [task, other] = tasks(["task", "other"])
    slave = dead() if why == "it had nothing" else dead(task)
    if slave.queue:
        slave.sentence = other, CANCELLED
    for _ in range(3):
        settle(aftermath, feeder, slave)
    assert source.deaths == []


def test_what_was_returned_by_a_slave_that_began_nothing_is_sent_one_by_one_so_that_it_is_known_which_it_is(feeder):
    feeder.pace.learn([0.0001] * 50, [1] * 50)
    feeder.returned.extend(tasks(range(5)))
    feeder.be_wary()
    slaves = [Stub(), Stub()]
    feeder.feed(slaves, here=False)
    assert [slave.tags for slave in slaves] == [[0], [1]]
    feeder.feed(slaves, here=False)
    assert [slave.tags for slave in slaves] == [[0], [1]], "none is given ahead"
    for _ in range(3):
        for slave in slaves:
            slave.queue.clear()  # it has done that
        feeder.feed(slaves, here=False)
    feeder.returned.extend(tasks(range(5)))
    feeder.feed(slaves[:1], here=False)
    assert slaves[0].tags == list(range(5)), "once all of them were sent, it goes on as before"


#: A slave that is killed by what is large, when it comes: it takes more memory than there is, say.
SMALL = """
import os
from papyros.frames import FrameReader
read = FrameReader.read
def read_what_is_small(self):
    frames = read(self)
    if any(len(frame.body) > 1 << 18 for frame in frames):
        os.kill(os.getpid(), 9)
    return frames
FrameReader.read = read_what_is_small
"""


@pytest.mark.pure
@pytest.mark.parametrize("slaves", [1, 2])
def test_a_task_that_no_slave_can_receive_is_charged_and_does_no_harm_to_others(monkeypatch, slaves):
    source = FakeSource()
    with crew_of(source, slaves) as crew:
        assert crew.wait_ready(PATIENCE)
        for number in range(20):  # so that many are given ahead
            source.add(-1 - number, Square(number))
        source.wait_for_outcomes(20)
        monkeypatch.setattr("papyros.process.PROGRAM", SMALL + process.PROGRAM)
        former = {view.pid for view in crew.views()}
        for pid in former:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: former.isdisjoint(view.pid for view in crew.views()), "others in their places")
        with source.lock:
            for number in range(5):
                source.add(number, Square(number))
            source.add("large", size_of(bytes(1 << 19)))
            for number in range(5, 10):
                source.add(number, Square(number))
        source.wait_for(lambda: source.deaths, "it to be charged")
        source.wait_for_outcomes(30)
    [(tag, death)] = source.deaths
    assert tag == "large"
    assert death.cause == "was killed by SIGKILL"
    assert set(source.finishes.values()) == {1}
    assert source.reasons == []
