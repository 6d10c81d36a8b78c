"""Systems: what is not installed is skipped by name, and what is installed does what it is asked."""

import json

import pytest

from benchmarks import full, work
from benchmarks.peers import PEERS
from benchmarks.running import run_rounds
from benchmarks.systems import Bare, Executor, PapyrosProcesses, Pool, System, by_name, missing


class Absent(System):
    name = "something"
    requires = "a_module_that_nobody_has"

    open = close = one = each = None  # nobody is to call these


def test_a_peer_that_is_not_installed_is_skipped_by_name():
    assert "something is skipped: there is no module a_module_that_nobody_has" in missing(Absent)


def test_the_standard_library_is_never_missing():
    assert not missing(Pool)
    assert not missing(PapyrosProcesses)


def test_all_peers_are_looked_for_before_they_are_imported():
    assert all(peer.requires and peer.distribution for peer in PEERS)
    assert len(by_name()) == len({system.name for system in by_name().values()})


def test_the_page_names_what_was_skipped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(full, "by_name", lambda: {"something": Absent})
    assert full.measure_all(["something"], ["noop"], rounds=1, folder=tmp_path) == 0
    assert "something is skipped" in capsys.readouterr().out
    assert "something is skipped" in (tmp_path / full.PAGE).read_text()


def test_rounds_are_added_to_those_before(tmp_path):
    quick = {"names": ["ProcessPoolExecutor (spawn)"], "rows": ["start"], "rounds": 1, "folder": tmp_path}
    assert full.measure_all(**quick) == 0
    assert full.measure_all(**quick, add=True) == 0
    data = json.loads((tmp_path / full.DATA).read_text())
    assert data["rounds"] == 2
    assert len(data["figures"]["ProcessPoolExecutor (spawn)"]["start"]) == 2


def test_figures_of_two_runs_are_put_together():
    before, now = {"a": {"noop": [1.0]}, "b": {"noop": [2.0]}}, {"a": {"noop": [3.0], "start": [4.0]}}
    assert full.together(before, now) == {"a": {"start": [4.0], "noop": [1.0, 3.0]}, "b": {"noop": [2.0]}}


@pytest.mark.parametrize("kind", [Pool, Executor, PapyrosProcesses, Bare], ids=lambda kind: kind.__name__)
def test_a_system_runs_all_and_returns_all(kind):
    system = kind()
    system.load()
    system.open()
    try:
        assert system.one(work.noop, 5) == 5
        assert sorted(system.each(work.noop, range(20))) == list(range(20))
    finally:
        system.close()


def test_sessions_take_turns_and_their_figures_are_collected(capsys):
    figures, problems = run_rounds([by_name()["MultiProcessMaster"], Pool], ["latency", "noop_main"], 2, 0.02)
    assert problems == []
    order = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert order == ["MultiProcessMaster", "Pool.imap_unordered", "Pool.imap_unordered", "MultiProcessMaster"]
    for found in figures.values():
        assert {row: len(values) for row, values in found.items()} == {"latency": 2, "noop_main": 2}
        assert all(value > 0 for values in found.values() for value in values)


def test_a_session_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(Pool, "command", classmethod(lambda cls, arguments: ["python3", "-c", "raise OSError('no')"]))
    figures, problems = run_rounds([Pool], ["noop"], 1, 0.02)
    assert figures == {Pool.name: {}}
    assert problems == ["Pool.imap_unordered, round 1: OSError: no"]


def test_the_page_of_the_manual_is_that_of_the_recorded_figures():
    docs = full.ROOT / "docs"
    data = json.loads((docs / full.DATA).read_text())
    assert (docs / full.PAGE).read_text() == full.page(data, drawn=True)
    assert (docs / full.PLOT).stat().st_size > 10_000
    for row in full.MEASURED:
        assert data["figures"]["DistributedMaster"][row], row


def test_a_busy_machine_is_told_of():
    assert "got 50%" in full._warning({"two bare processes": {"efficiency_10ms": [0.5]}})
    assert not full._warning({"two bare processes": {"efficiency_10ms": [0.97]}})
    assert not full._warning({})
