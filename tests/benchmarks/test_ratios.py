"""From figures to verdicts."""

import json

import pytest

from benchmarks import short
from benchmarks.ratios import CLUSTER, EXECUTOR, POOL, PROCESSES, TARGETS, advantage, fallen, judge, quotient
from benchmarks.rows import ROWS, efficiency, mixture
from benchmarks.schedule import Run
from benchmarks.systems import by_name

FIGURES = {
    PROCESSES: {"noop": [30.0, 60.0, 90.0], "latency": [1.0, 2.0, 3.0], "noop_main": [30.0, 30.0, 30.0]},
    POOL: {"noop": [10.0, 60.0, 30.0], "latency": [4.0, 4.0, 4.0]},
    CLUSTER: {"noop": [10.0, 20.0]},
}


def test_ratios_are_taken_within_a_round():
    assert quotient(FIGURES, "noop", PROCESSES, POOL) == 3.0  # of 3, 1 and 3; the medians' ratio is 2


def test_where_a_round_is_missing_it_is_the_ratio_of_medians():
    assert quotient(FIGURES, "noop", CLUSTER, POOL) == 0.5


def test_what_was_not_measured_has_no_ratio():
    assert quotient(FIGURES, "noop", PROCESSES, EXECUTOR) is None
    assert quotient(FIGURES, "latency", CLUSTER, POOL) is None
    assert advantage(FIGURES, "noop", PROCESSES, EXECUTOR) is None


def test_more_is_better_in_an_advantage_whatever_the_row():
    assert advantage(FIGURES, "noop", PROCESSES, POOL) == 3.0
    assert advantage(FIGURES, "latency", PROCESSES, POOL) == 2.0


def test_verdicts_know_in_which_direction_a_row_is_better():
    verdicts = {(v.target.row, v.target.ours, v.target.peer): v for v in judge(FIGURES)}
    assert verdicts["noop", PROCESSES, POOL].reached  # 3 >= 3
    assert not verdicts["noop", CLUSTER, POOL].reached  # 0.5 >= 2
    assert not verdicts["noop_main", PROCESSES, PROCESSES].reached  # the median of 1, 0.5 and 1/3
    slow = {PROCESSES: {"latency": [9.0]}, EXECUTOR: {"latency": [10.0]}}
    [verdict] = judge(slow)
    assert (verdict.quotient, verdict.reached) == (0.9, False)  # <= 0.8
    [verdict] = judge({PROCESSES: {"latency": [8.0]}, EXECUTOR: {"latency": [10.0]}})
    assert verdict.reached


def test_all_targets_name_systems_and_rows_that_there_are():
    for target in TARGETS:
        assert {target.ours, target.peer or POOL} <= set(by_name())
        assert {target.row, target.peer_row or target.row} <= set(ROWS)


def test_efficiency_is_useful_work_by_the_time_of_all_slaves():
    assert efficiency(useful=1.8, wall=1.0) == 0.9


def test_mixed_jobs_are_compared_with_schedules_of_what_they_took():
    runs = [Run(1, 7, 0.0, 1.0), Run(0, 8, 0.0, 1.0), Run(3, 7, 1.5, 2.5), Run(2, 8, 1.0, 4.0)]
    figures = mixture("mixed", runs, begun=0.0, makespan=4.5)
    # Longest first: 3 beside 1 + 1 + 1. In the order of adding: 1 + 3 beside 1 + 1.
    assert figures == {"mixed": 1.5, "mixed_in_order": 1.125, "mixed_idle": 500_000.0}


def test_a_fall_by_more_than_a_third_is_noticed():
    assert fallen({"a": 2.1, "b": 1.9, "c": 9.0}, {"a": 3.0, "b": 3.0}) == {"b": (1.9, 3.0)}
    with pytest.raises(KeyError):
        fallen({}, {"a": 1.0})


def test_a_fall_beside_one_peer_only_is_that_peers():
    recorded = {"noop: ours / Pool": 3.0, "noop: ours / executor": 6.0, "noop: other / Pool": 3.0}
    quick_pool = {"noop: ours / Pool": 1.5, "noop: ours / executor": 6.0, "noop: other / Pool": 3.0}
    assert not fallen(quick_pool, recorded)
    slow = {"noop: ours / Pool": 1.5, "noop: ours / executor": 3.0, "noop: other / Pool": 3.0}
    assert fallen(slow, recorded) == {"noop: ours / Pool": (1.5, 3.0), "noop: ours / executor": (3.0, 6.0)}


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({"machine": {}, "advantages": {"a": 3.0, "b": 3.0}}))
    return path


def test_the_short_form_passes_where_nothing_fell(reference, capsys):
    assert short.check(reference, lambda: {"a": 2.5, "b": 4.0}) == 0
    assert "2.50" in capsys.readouterr().out


def test_what_fell_is_measured_once_more(reference):
    results = iter([{"a": 1.0, "b": 3.0}, {"a": 3.0, "b": 3.0}])
    assert short.check(reference, lambda: next(results)) == 0
    assert not list(results)


def test_the_short_form_fails_where_a_ratio_is_low_twice(reference, capsys):
    results = iter([{"a": 1.0, "b": 3.0}, {"a": 1.5, "b": 3.0}])
    assert short.check(reference, lambda: next(results)) == 1
    assert "FAILED a: 1.50" in capsys.readouterr().err


def test_two_that_are_low_once_each_are_noise(reference):
    results = iter([{"a": 1.0, "b": 3.0}, {"a": 3.0, "b": 1.0}])
    assert short.check(reference, lambda: next(results)) == 0


def test_the_recorded_ratios_are_those_that_are_measured():
    recorded = json.loads(short.REFERENCE.read_text())["advantages"]
    assert set(recorded) == {f"{row}: {ours} / {peer}" for row, ours, peer in short.COMPARISONS}
