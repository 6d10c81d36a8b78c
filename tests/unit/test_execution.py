"""How an iterable goes through a lane: what the tests of the contract cannot bring about, a matter of moments."""

from __future__ import annotations

from queue import Full

from papyros.deadlines import AT_ONCE, Deadline
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
