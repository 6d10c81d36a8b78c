"""Cancelled tasks that are just about to begin: it is known which they are, as long as their slave has them."""

from __future__ import annotations

import time

import pytest

from papyros.limits import CANCELLED, kill_overdue, stop
from tests.unit.test_feeding import Stub, tasks

pytestmark = pytest.mark.pure


class Slave(Stub):
    """One that has taken the tokens of all that it has, and has begun nothing, until it is told what."""

    dismissed = False
    sentence = None

    def __init__(self, *tags):
        super().__init__(*tags)
        self.unwanted = set()
        self.killed = 0
        self.runs = None

    def running(self):
        return self.runs

    def kill(self):
        self.killed += 1


def test_of_many_tags_those_are_kept_that_a_slave_is_about_to_begin():
    """A loop of a million jobs that is left would otherwise leave a million tags with each slave."""
    slave = Slave("next", "other")
    stop(slave, {*range(1000), "next"})
    assert slave.unwanted == {"next"}
    assert slave.check_at <= time.monotonic()


def test_a_task_that_comes_later_under_the_tag_of_one_that_was_cancelled_and_ended_is_another_one():
    slave = Slave("tag")
    stop(slave, {"tag"})
    slave.queue.clear()  # it had just ended
    kill_overdue([slave])
    assert slave.unwanted == set()
    slave.queue.extend(tasks(["tag"]))
    slave.runs = slave.queue[0], time.monotonic()
    slave.check_at = time.monotonic()
    kill_overdue([slave])
    assert not slave.killed


def test_a_cancelled_task_that_begins_after_all_is_stopped():
    slave = Slave("tag", "other")
    stop(slave, {"tag"})
    kill_overdue([slave])
    assert not slave.killed, "it has not begun"
    assert slave.check_at > time.monotonic() - 1.0
    slave.runs = slave.queue[0], time.monotonic()
    slave.check_at = time.monotonic()
    kill_overdue([slave])
    assert slave.sentence == (slave.queue[0], CANCELLED)
    assert slave.killed == 1


def test_one_that_was_sent_away_and_is_there_still_is_killed_when_it_is_looked_at():
    slave = Slave()
    slave.dismissed = True
    slave.check_at = time.monotonic() + 1000
    kill_overdue([slave])
    assert not slave.killed
    slave.check_at = time.monotonic()
    kill_overdue([slave])
    assert slave.killed == 1
    assert slave.check_at is None, "once"
