"""What is found out of a slave that died: whether memory was the cause."""

from __future__ import annotations

import pytest

from papyros import forensics
from papyros.forensics import oom_kills, tell_memory

MB = 1 << 20


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
