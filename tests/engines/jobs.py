"""Jobs for the tests of engines, whose workers import this module by its name."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import papyros


@papyros.job
def note_times(folder, number, seconds=0.15):
    """Take a while; note when it began and when it ended."""
    began = time.monotonic()
    time.sleep(seconds)
    Path(folder, f"times.{number}").write_text(f"{began} {time.monotonic()}")
    return number


def overlaps(folder) -> int:
    """How many pairs of these jobs ran at the same time."""
    spans = sorted(tuple(map(float, path.read_text().split())) for path in Path(folder).glob("times.*"))
    return sum(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))


@papyros.job
def note_order(folder, number):
    """Append a number to the list of those that ran."""
    with open(Path(folder, "order"), "a") as file:
        file.write(f"{number} ")
    return number


def order(folder) -> list[int]:
    return [int(word) for word in Path(folder, "order").read_text().split()]


@papyros.job
def stay(folder):
    """Note the process, and stay far longer than any test."""
    Path(folder, f"stays.{os.getpid()}").touch()
    time.sleep(600)


def stays(folder) -> list[int]:
    return [int(path.name.rpartition(".")[2]) for path in Path(folder).glob("stays.*")]


@papyros.job
def be_told_to_end(folder):
    """The first time, have this process be told to end, as by whoever switches its machine off."""
    told = Path(folder, "told")
    if told.exists():
        return "done"
    told.touch()
    os.kill(os.getpid(), signal.SIGTERM)
    return time.sleep(600)
