"""Some hundred seeds: whatever goes wrong, nothing is lost, nothing comes twice, nothing stays behind.

`make chaos` plays ten thousand, by ``python -m tests.simulation 1-10000``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import __main__ as program
from tests.simulation.scenario import simulate
from tests.simulation.world import BrokenRule

pytestmark = pytest.mark.pure  # what watches a ledger stands in for its methods

CHECKOUT = Path(__file__).resolve().parents[2]

SEEDS = "1-300"

#: The test is given up after so many seconds; it takes a tenth of that, or a third on a slow machine.
LIMIT = 100.0

#: Seeds that once found something.
FOUND = [720, 4132, 4784, 5725, 7813]


def test_row_25_nothing_is_lost_or_comes_twice_whatever_goes_wrong():
    played = subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", SEEDS],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = played.communicate(timeout=LIMIT)
    finally:
        if played.poll() is None:
            os.killpg(played.pid, signal.SIGKILL)
            played.wait()
    assert played.returncode == 0, f"replay it with  python -m tests.simulation SEED --trace\n{told}"


@pytest.mark.parametrize("seed", FOUND)
def test_a_story_that_ended_badly_once_ends_well(seed):
    simulate(seed)


def test_a_seed_is_the_same_story_each_time():
    stories = [simulate(7).stories.all for _ in range(2)]
    assert stories[0] == stories[1]


def test_a_seed_that_fails_is_named_and_ends_the_run(monkeypatch, capsys):
    def play(seed, tracing):
        if seed == 3:
            raise BrokenRule("a job was lost")

    monkeypatch.setattr(program, "simulate", play)
    monkeypatch.setattr(sys, "argv", ["simulation", "1-9"])
    assert program.main() == 1
    assert capsys.readouterr().out.startswith("seed 3: BrokenRule: a job was lost\n")
