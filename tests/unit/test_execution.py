"""How an iterable goes through a lane: what the tests of the contract cannot bring about, a matter of moments."""

from __future__ import annotations

from queue import Full

import pytest

from papyros.deadlines import AT_ONCE, Deadline
from papyros.errors import PendingJobError
from papyros.execution import Execution
from tests.contract.jobs_for_tests import Square
from tests.support import at_most


class CrowdedLane:
    """Has room for one job, which is cancelled at once; then others fill what room there is, for a while."""

    closed = False

    def __init__(self):
        self.added = []

    def add_by(self, deadline, job):
        if self.added and deadline is AT_ONCE:
            raise Full
        self.added.append(job)

    def pop(self, timeout=None):
        """Return that nothing is pending, once that was found out without waiting."""

    def pop_at_once(self):
        """Return nothing."""

    def close(self):
        """Do nothing."""


def test_who_waits_for_room_while_all_of_theirs_is_cancelled_waits_without_asking_again_and_again():
    lane, jobs = CrowdedLane(), [Square(1), Square(2)]
    for ordered in (False, True):
        with at_most(5):
            assert list(Execution(lambda: lane, iter(jobs), 10, ordered, Deadline(10), progress=False)) == []
    assert lane.added[:2] == jobs


class LaneWithASlowFirst:
    """Has all jobs processed at once, but for the first, which is processed when it is waited for."""

    closed = False

    def __init__(self):
        self.added = []
        self.processed = []
        self.waited = False

    def add_by(self, deadline, job):
        self.added.append(job)
        if len(self.added) > 1:
            self.processed.append(job)

    def pop(self, timeout=None):
        assert not self.waited, "nothing more will come"
        self.waited = True
        return self.added[0]

    def pop_at_once(self):
        return self.processed.pop() if self.processed else None

    def close(self):
        """Do nothing."""


def test_a_job_that_was_processed_and_not_yielded_yet_is_not_added_again():
    """Its first outcome would be lost, and there would be one job less than the iterable has."""
    slow, again = Square(1), Square(2)
    lane = LaneWithASlowFirst()
    with pytest.raises(PendingJobError, match="to be yielded before"):
        list(Execution(lambda: lane, iter([slow, again, again]), 10, True, Deadline(10), progress=False))
    assert lane.added == [slow, again]
