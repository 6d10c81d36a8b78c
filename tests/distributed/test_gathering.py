"""How long a client leaves outcomes with the master, by a clock of the test's own."""

from __future__ import annotations

import pytest

from papyros.distributed.gathering import ENOUGH, LONGEST_SECONDS, MANY, PART, SHORTEST_SECONDS, Gathering
from tests.support import Clock


def paused(came, out, seconds, slaves=2):
    """Return the pause after `came` outcomes that came within so many seconds."""
    clock = Clock()
    gathering = Gathering(clock)
    assert gathering.pause(1, out, slaves) == 0.0  # how fast they come is not known yet
    clock.now += seconds
    return gathering.pause(came, out, slaves)


def test_outcomes_that_come_a_few_at_a_time_are_left_until_there_are_enough():
    assert paused(came=10, out=1000, seconds=0.004) == pytest.approx(0.004 * ENOUGH / 10)


def test_not_for_long():
    assert paused(came=1, out=1000, seconds=1.0) == LONGEST_SECONDS


def test_those_that_come_in_large_batches_are_not_left():
    assert paused(came=500, out=1000, seconds=0.01) == 0.0
    assert 0.01 * ENOUGH / 500 < SHORTEST_SECONDS


@pytest.mark.parametrize("out", [0, 1, ENOUGH - 1])
def test_whoever_has_few_jobs_out_has_each_outcome_at_once(out):
    assert paused(came=1, out=out, seconds=0.01) == 0.0


def test_how_many_are_few_depends_on_the_slaves():
    assert paused(came=1, out=100 * MANY - 1, seconds=0.01, slaves=100) == 0.0
    assert paused(came=1, out=100 * MANY, seconds=0.01, slaves=100) > 0.0


def test_only_a_part_of_what_is_out_ends_meanwhile():
    assert paused(came=10, out=ENOUGH, seconds=0.01) == pytest.approx(0.001 * PART * ENOUGH)


def test_the_time_in_which_few_were_out_tells_nothing():
    clock = Clock()
    gathering = Gathering(clock)
    for out in (1000, 0, 1000):
        clock.now += 1.0
        assert gathering.pause(1, out, 2) == 0.0 or out == 0
    clock.now += 0.001
    assert gathering.pause(1, 1000, 2) == LONGEST_SECONDS


def test_what_brings_no_outcome_is_not_gathered():
    assert paused(came=0, out=1000, seconds=0.01) == 0.0
