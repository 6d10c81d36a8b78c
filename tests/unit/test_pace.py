"""How many jobs a slave is sent, by how long they take and how large they are."""

from __future__ import annotations

import pytest

from papyros.pace import AHEAD_BYTES, AHEAD_JOBS, AHEAD_SECONDS, PART_SECONDS, Pace

pytestmark = pytest.mark.compiled


def pace_of(seconds=None, size=None):
    pace = Pace()
    if seconds is not None:
        pace.learn([seconds], [1])
    if size is not None:
        pace.weigh(size, 1, 1)
    return pace


def test_of_jobs_that_nobody_knows_a_slave_has_one():
    assert pace_of().target == 1


@pytest.mark.parametrize(
    ("seconds", "size", "target"),
    [
        (0.01, None, 1 + round(AHEAD_SECONDS / 0.01)),
        (1.0, None, 1),
        (0.0, None, 1 + AHEAD_JOBS),
        (0.0, AHEAD_BYTES // 4, 1 + 4),
        (0.0, AHEAD_BYTES * 4, 1 + 1),
    ],
)
def test_what_a_slave_has_ahead_is_bounded_in_time_in_number_and_in_bytes(seconds, size, target):
    assert pace_of(seconds, size).target == target


def test_few_quick_jobs_go_to_few_slaves_and_large_ones_to_all():
    assert pace_of().parts(3) == 3
    assert pace_of(PART_SECONDS / 100).parts(50) == 1
    assert pace_of(PART_SECONDS / 10).parts(20) == 2
    assert pace_of(PART_SECONDS * 2).parts(3) == 3
    assert pace_of(0.0, 10_000_000).parts(3) == 3


def test_what_is_known_moves_towards_what_is_new():
    pace = pace_of(1.0)
    for _ in range(30):
        pace.learn([0.001, 0.003], [1, 1])
    assert 40 < pace.target < 1 + round(AHEAD_SECONDS / 0.002)  # nearly there


def test_how_many_slaves_are_enough_depends_on_what_most_jobs_take_also_in_bundles():
    pace = Pace()
    assert pace.slaves(2) > 1_000_000, "of jobs that nobody knows"
    pace.learn([0.004, *[0.000002] * 9], [1] * 10)  # one was not given a CPU for a while
    assert pace.slaves(2) == 2
    assert pace.slaves(8) == 8
    pace = Pace()
    pace.learn([0.000002] * 6 + [0.009] * 4, [1] * 10)
    assert pace.slaves(2) > 100, "many of them wait"
    pace = Pace()
    pace.learn([0.00064], [64])
    assert pace.slaves(1) == 1
    pace = pace_of(0.001)
    assert pace.slaves(2) == 100
    pace = pace_of(0.0, 1_000_000)
    assert pace.slaves(2) == 100, "to carry them takes as long"
