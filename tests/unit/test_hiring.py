"""How slaves are started again, and when a crew gives up: against a clock that is set by hand, without a process."""

from __future__ import annotations

import errno
import sys
from types import SimpleNamespace

import pytest

from papyros import hiring
from papyros.deaths import Death
from papyros.hiring import HIRE_AGAIN_SECONDS, HOPE_SECONDS, MAX_FALSE_STARTS, Hiring
from tests.support import Clock

DEATH = Death("mars/17", "ended with exit code 3", ())


class Office:
    """Hires for a crew of so many slaves; each of them is one that has just been started."""

    def __init__(self, wanted, most=sys.maxsize):
        self.slaves = []
        self.most = most  # the system lets no more be there at a time
        self.hired = self.begun = 0
        self.refusal = None
        self.reasons = []
        self.hiring = Hiring(self.slaves, wanted, self._hire, self._begin, self.reasons.append)

    def _hire(self):
        if self.refusal is not None:
            raise self.refusal
        if len(self.slaves) >= self.most:
            raise OSError(errno.EMFILE, "Too many open files")
        self.hired += 1
        self.slaves.append(SimpleNamespace(ready=False, lent=False, dismissed=False))

    def _begin(self):
        self.begun += 1

    def ready(self):
        """Have all slaves become ready."""
        for slave in [slave for slave in self.slaves if not slave.ready]:
            slave.ready = True
            self.hiring.note_ready()

    def lose(self):
        """Have the youngest slave die."""
        slave = self.slaves.pop()
        if not slave.ready:
            self.hiring.note_false_start(DEATH)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(hiring, "time", SimpleNamespace(monotonic=clock))
    return clock


def test_a_crew_of_which_no_slave_ever_becomes_ready_gives_up_soon(clock):
    office = Office(1)
    for _ in range(MAX_FALSE_STARTS):
        assert office.reasons == []
        office.hiring.hire_missing()
        office.lose()
    assert office.reasons == [f"slaves cannot be started: {DEATH}"]
    assert office.hiring.ready.is_set()


def test_a_crew_does_not_give_up_while_slaves_are_left_that_may_become_ready(clock):
    """A few were killed for want of memory, say, before the first one was ready."""
    office = Office(8)
    office.hiring.hire_missing()
    for _ in range(MAX_FALSE_STARTS + 2):
        office.lose()
    assert office.reasons == []
    assert not office.hiring.ready.is_set(), "none is ready yet"
    office.ready()
    assert office.hiring.ready.is_set()
    clock.now += HIRE_AGAIN_SECONDS
    office.hiring.hire_missing()
    assert len(office.slaves) == 8


def hire_later(office, clock):
    """Try again what could not be started, when it is time to."""
    clock.now += HIRE_AGAIN_SECONDS
    office.hiring.hire_missing()


def test_a_crew_is_not_ready_while_slaves_are_missing_that_may_still_come(clock):
    """The system let six of 24 start, and the crew was said to be ready."""
    office = Office(24, most=6)
    office.hiring.hire_missing()
    office.ready()
    assert len(office.slaves) == 6
    assert not office.hiring.ready.is_set()
    office.most = 24
    hire_later(office, clock)
    assert not office.hiring.ready.is_set()
    office.ready()
    assert office.hiring.ready.is_set()
    assert office.begun == 1


def test_a_crew_does_not_wait_for_ever_for_slaves_that_cannot_be_started(clock, caplog):
    office = Office(24, most=6)
    office.hiring.hire_missing()
    office.ready()
    for _ in range(MAX_FALSE_STARTS - 1):
        assert not office.hiring.ready.is_set()
        hire_later(office, clock)
    assert office.hiring.ready.is_set()
    assert office.begun == 1
    assert "6 of 24 slaves are ready; the others are not waited for" in caplog.text


def test_slaves_that_become_ready_late_are_waited_for_but_not_those_that_cannot_be_started(clock):
    office = Office(24, most=6)
    office.hiring.hire_missing()
    for _ in range(MAX_FALSE_STARTS):
        hire_later(office, clock)
    assert not office.hiring.ready.is_set(), "none is ready yet"
    office.ready()
    assert office.hiring.ready.is_set()


def test_slaves_that_start_are_expected_and_those_that_the_system_refuses_are_not_before_they_are_ready(clock):
    office = Office(24, most=6)
    assert office.hiring.lacking == 0
    office.hiring.hire_missing()
    assert office.hiring.lacking == 18, "six are starting"
    office.ready()
    hire_later(office, clock)
    assert office.hiring.lacking == 18
    office.most = 24
    hire_later(office, clock)
    assert office.hiring.lacking == 18, "they may fail as well"
    office.ready()
    assert office.hiring.lacking == 0
    office.lose()
    office.hiring.hire_missing()
    assert office.hiring.lacking == 0, "the next one is there in a moment"


def test_a_slave_that_ends_again_and_again_before_it_is_ready_is_not_expected(clock):
    office = Office(2)
    office.hiring.hire_missing()
    office.ready()
    office.lose()
    for _ in range(3):
        hire_later(office, clock)
        office.lose()
        assert office.hiring.lacking == 1
    hire_later(office, clock)
    assert office.hiring.lacking == 1
    office.ready()
    assert office.hiring.lacking == 0


def test_why_a_slave_cannot_be_started_is_told_once_until_all_are_there_again(clock, caplog):
    """It was told each second, for as long as it was so."""
    office = Office(2, most=1)
    for told in (1, 2):
        for _ in range(3):
            hire_later(office, clock)
            office.ready()
        assert caplog.text.count("a slave cannot be started now: [Errno 24]") == told
        office.most = 2
        hire_later(office, clock)
        office.ready()
        office.most = 1
        office.lose()


def test_what_cannot_be_started_while_slaves_are_left_is_tried_again_and_nobody_gives_up(clock):
    office = Office(2)
    office.hiring.hire_missing()
    office.lose()
    office.refusal = OSError(errno.ENOMEM, "no memory")
    for _ in range(2 * MAX_FALSE_STARTS):
        clock.now += HIRE_AGAIN_SECONDS
        office.hiring.hire_missing()
    assert office.reasons == []
    office.refusal = None
    clock.now += HIRE_AGAIN_SECONDS
    office.hiring.hire_missing()
    assert len(office.slaves) == 2


def fail_for(office, clock, seconds):
    """Have all slaves that are started for so long die before they are ready."""
    until = clock.now + seconds
    while clock.now < until and not office.reasons:
        office.hiring.hire_missing()
        if office.slaves:
            office.lose()
        clock.now += 0.25


def test_a_crew_whose_slaves_have_worked_hopes_for_a_while_that_they_can_be_started_again(clock):
    """Somebody installs something anew, say: for that time, no slave starts."""
    office = Office(1)
    office.hiring.hire_missing()
    office.ready()
    office.lose()
    hired = office.hired
    fail_for(office, clock, HOPE_SECONDS / 2)
    assert office.reasons == []
    assert office.hired - hired <= HOPE_SECONDS / 2 / HIRE_AGAIN_SECONDS + 1, "and does not try all the time"
    clock.now += HIRE_AGAIN_SECONDS
    office.hiring.hire_missing()
    office.ready()
    assert office.slaves[0].ready
    office.lose()
    fail_for(office, clock, HOPE_SECONDS / 2 + HIRE_AGAIN_SECONDS)
    assert office.reasons == [], "that it was so before does not count any more"


def test_also_a_crew_whose_slaves_have_worked_gives_up_at_last_and_for_good(clock):
    office = Office(2)
    office.hiring.hire_missing()
    office.ready()
    office.lose()
    office.lose()
    started = clock.now
    fail_for(office, clock, 2 * HOPE_SECONDS)
    assert office.reasons == [f"slaves cannot be started: {DEATH}"]
    assert clock.now - started >= HOPE_SECONDS
    hired = office.hired
    clock.now += HOPE_SECONDS
    office.hiring.hire_missing()
    assert office.hired == hired
    assert office.hiring.again_at is None, "nobody looks after it"


def test_the_work_begins_once_however_often_slaves_become_ready(clock):
    office = Office(2)
    office.hiring.hire_missing()
    office.ready()
    office.lose()
    office.hiring.hire_missing()
    office.ready()
    assert office.begun == 1
