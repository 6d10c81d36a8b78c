"""Which slaves are killed, and for which of their tasks: seen on a slave that is none."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from papyros import limits
from papyros.tasks import Task

pytestmark = pytest.mark.compiled


class Slave:
    """Has tasks, and notes that it is killed."""

    def __init__(self, *tags):
        self.queue = [Task(tag, b"", b"") for tag in tags]
        self.progress = SimpleNamespace(running=self.running)
        self.runs = self.killed = self.dismissed = False
        self.unwanted = set()
        self.sentence = self.check_at = self.look_at = None

    def running(self):
        return (self.queue[0], time.monotonic()) if self.runs else None

    def kill(self):
        self.killed = True


def test_a_slave_is_killed_as_soon_as_it_begins_what_was_cancelled():
    slave = Slave("one", "two")
    limits.stop(slave, ["one"])
    limits.kill_overdue([slave])
    assert not slave.killed
    slave.runs = True
    slave.check_at = time.monotonic()
    limits.kill_overdue([slave])
    assert slave.killed
    assert slave.sentence == (slave.queue[0], limits.CANCELLED)


def test_a_task_under_the_tag_of_one_that_was_cancelled_elsewhere_is_left_alone():
    """Tags that a slave has no task of are not its affair."""
    slave = Slave("one", "two")
    limits.stop(slave, ["one", "three"])
    slave.queue = [Task("three", b"", b"")]
    slave.runs = True
    limits.kill_overdue([slave])
    assert not slave.killed


def test_a_task_under_the_tag_of_one_that_was_cancelled_and_has_ended_is_left_alone():
    """A job that is added again, say, once it has ended in the moment at which it was cancelled."""
    slave = Slave("one")
    limits.stop(slave, ["one"])
    ended, slave.queue = slave.queue, []
    limits.kill_overdue([slave])
    slave.queue = ended
    slave.runs = True
    slave.check_at = time.monotonic()
    limits.kill_overdue([slave])
    assert not slave.killed


def test_a_slave_that_was_sent_away_and_does_not_go_is_killed():
    """Something that a job has left may keep it, and it would take up memory and a place in the status for ever."""
    slave = Slave()
    slave.dismissed = True
    slave.check_at = time.monotonic() + 1000
    limits.kill_overdue([slave])
    assert not slave.killed
    slave.check_at = time.monotonic()
    limits.kill_overdue([slave])
    assert slave.killed
    assert slave.check_at is None
