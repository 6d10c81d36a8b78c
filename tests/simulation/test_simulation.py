"""Thousands of seeds: whatever goes wrong, nothing is lost, nothing comes twice, nothing stays behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.scenario import simulate

CHECKOUT = Path(__file__).resolve().parents[2]

#: Each test plays so many seeds, in two processes.
SEEDS = 1000
PARTS = 10
PROCESSES = 2

#: A test is given up after so many seconds; it takes a tenth of that.
LIMIT = 100.0

FIRST = [pytest.param(1, id="1")]
REST = [pytest.param(1 + SEEDS * n, id=str(1 + SEEDS * n), marks=pytest.mark.slow) for n in range(1, PARTS)]


@pytest.mark.parametrize("first", FIRST + REST)
def test_nothing_is_lost_or_comes_twice_whatever_goes_wrong(first):
    share = SEEDS // PROCESSES
    ranges = [f"{start}-{start + share - 1}" for start in range(first, first + SEEDS, share)]
    parts = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.simulation", seeds],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seeds in ranges
    ]
    try:
        told = [part.communicate(timeout=LIMIT)[0] for part in parts]
    finally:
        for part in parts:
            part.kill()
            part.wait()
    failed = [text for part, text in zip(parts, told, strict=True) if part.returncode]
    assert not failed, "replay it with  python -m tests.simulation SEED --trace\n" + "\n".join(failed)


#: Seeds that once found something. 5903: a job that came back after its client had gone, since it was to be tried
#: again.
FOUND = [5903]


@pytest.mark.parametrize("seed", FOUND)
def test_a_story_that_ended_badly_once_ends_well(seed):
    simulate(seed)


def test_a_seed_is_the_same_story_each_time():
    stories = [simulate(7).stories.all for _ in range(2)]
    assert stories[0] == stories[1]
