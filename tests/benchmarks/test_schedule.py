"""How well jobs were spread: against schedules that can be worked out by hand."""

import pytest

from benchmarks.schedule import Run, best_list_schedule, heavy_tail, list_schedule, longest_idle


def test_whoever_is_idle_takes_the_next_job():
    # Slave 1: 3, 1; slave 2: 2, 4.
    assert list_schedule([3, 2, 4, 1], 2) == 6
    assert list_schedule([3, 2, 4, 1], 1) == 10
    assert list_schedule([], 2) == 0


def test_the_better_list_counts():
    jobs = [1, 1, 1, 1, 4]
    assert list_schedule(jobs, 2) == 6
    assert best_list_schedule(jobs, 2) == 4  # the long one first
    # Here the longest first takes 7, and the order that was given is better.
    assert list_schedule([3, 3, 2, 2, 2], 2) == 7
    assert best_list_schedule([3, 2, 2, 3, 2], 2) == 6


def test_a_slave_is_idle_between_its_jobs_while_others_wait():
    runs = [Run(0, 1, 0.0, 1.0), Run(1, 2, 0.1, 3.0), Run(2, 1, 1.5, 2.0), Run(3, 1, 2.25, 9.0)]
    assert longest_idle(runs, 0.0, 2) == pytest.approx(0.5)


def test_a_slave_that_is_idle_when_all_have_started_is_no_waste():
    runs = [Run(0, 1, 0.0, 1.0), Run(1, 2, 0.0, 50.0), Run(2, 1, 1.0, 2.0)]
    assert longest_idle(runs, 0.0, 2) == 0.0


def test_a_slave_that_is_done_while_jobs_wait_behind_another_one():
    runs = [Run(0, 1, 0.0, 1.0), Run(1, 2, 0.0, 10.0), Run(2, 2, 10.0, 11.0)]
    assert longest_idle(runs, 0.0, 2) == 9.0


def test_a_slave_that_never_did_anything():
    runs = [Run(0, 1, 0.0, 1.0), Run(1, 1, 1.0, 2.0)]
    assert longest_idle(runs, 0.0, 2) == 1.0


def test_durations_have_a_heavy_tail_and_a_median_and_are_the_same_each_time():
    durations = heavy_tail(500, 0.002, 0.1)
    assert durations == heavy_tail(500, 0.002, 0.1)
    assert sorted(durations)[250] == pytest.approx(0.002, rel=0.02)
    assert max(durations) == 0.1
    assert sum(durations) > 2 * 500 * 0.002  # the mean is far above the median
    assert durations != sorted(durations)
    # No half of the list is much longer than the other one.
    assert 0.4 < sum(durations[:250]) / sum(durations) < 0.6
