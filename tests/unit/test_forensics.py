"""What is found out of a slave that died: what it left behind, and whether memory was the cause."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from papyros import forensics
from papyros.forensics import MARK, oom_kills, sweep, tell_memory

MB = 1 << 20
PAUSE = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"


def started(mark=None, **options):
    environment = dict(os.environ)
    environment.pop(MARK, None)
    if mark is not None:
        environment[MARK] = mark
    process = subprocess.Popen([sys.executable, "-c", PAUSE], stdout=subprocess.PIPE, env=environment, **options)
    process.stdout.readline()
    return process


@pytest.fixture
def processes():
    made = []
    yield made
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


def test_all_that_carry_the_mark_are_swept_up_and_nobody_else(processes):
    mark = uuid.uuid4().hex
    processes += [started(mark), started(mark, start_new_session=True)]
    others = [started(), started(uuid.uuid4().hex), started(f"{mark}0"), started(mark[:-1])]
    processes += others
    assert sweep(mark) == 2
    assert [process.wait(10) for process in processes[:2]] == [-9, -9]
    assert [process.poll() for process in others] == [None] * 4
    assert sweep(mark) == 0


def test_sweeping_what_does_not_exist_is_harmless():
    assert sweep(uuid.uuid4().hex) == 0


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A system that tells what the test wants it to."""
    monkeypatch.setattr(forensics, "_PROC", tmp_path)
    (tmp_path / "self").mkdir()
    return tmp_path


def with_memory(proc, megabytes):
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {megabytes * 1024} kB\n")


def test_the_peak_is_told_and_nothing_is_blamed_that_did_not_matter(proc):
    with_memory(proc, 8000)
    assert tell_memory(300 * MB, 30 * MB, False) == "its memory was 300 MB at its peak"


def test_of_a_peak_that_may_be_the_parents_is_told_that_it_was_not_above(proc):
    with_memory(proc, 8000)
    assert tell_memory(300 * MB, 300 * MB, False) == "its memory was below 300 MB"


def test_memory_is_blamed_when_the_system_killed_for_it(proc):
    with_memory(proc, 8000)
    assert "memory was the likely cause" in tell_memory(300 * MB, 30 * MB, True)


@pytest.mark.parametrize(("peak", "available"), [(9000, 8000), (300, 100)])
def test_memory_is_suspected_where_there_is_little(proc, peak, available):
    with_memory(proc, available)
    told = tell_memory(peak * MB, 30 * MB, False)
    assert "memory may have been the cause" in told
    assert f"{available} MB to spare" in told


def test_where_the_system_does_not_tell_nothing_is_said(proc):
    assert oom_kills() == 0
    assert tell_memory(9000 * MB, 30 * MB, False) == "its memory was 9000 MB at its peak"
    for text in ("", "MemAvailable:", "MemAvailable: many kB", "oom_kill x", "oom_kill"):
        for name in ("meminfo", "vmstat", "self/cgroup"):
            (proc / name).write_text(text)
        assert oom_kills() == 0
        assert "MB" in tell_memory(9000 * MB, 30 * MB, False)


def test_the_systems_kills_are_counted(proc):
    (proc / "vmstat").write_text("pgfault 3\noom_kill 4\noom_kill_other 9\n")
    assert oom_kills() == 4
