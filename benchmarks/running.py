"""Sessions are started, one after the other, and what they found is read."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.rows import ROWS, TOGETHER, Session
from benchmarks.systems import Function, System, by_name

__all__ = ["Figures", "run_rounds", "run_session", "session_figures"]

ROOT = Path(__file__).parents[1]

#: A session that takes longer is ended, and what it found until then counts.
SESSION_SECONDS = 240.0

#: Figures by system and row; one for each round in which it was measured.
Figures = dict[str, dict[str, list[float]]]


def run_session(arguments: Sequence[str], main: Function, main_class: type) -> None:
    """Measure what the arguments name; called in the process of the session."""
    name, rows, seconds, path = arguments
    system = by_name()[name]()
    system.prepare(main, main_class)
    with open(path, "w", encoding="utf-8") as file:

        def note(row: str, figure: float) -> None:
            print(json.dumps({row: figure}), file=file, flush=True)

        Session(system, main, float(seconds)).run(frozenset(rows.split(",")), note)


def session_figures(system: type[System], rows: Iterable[str], seconds: float) -> tuple[dict[str, float], str]:
    """Run a session; return its figures, and what went wrong, if anything did."""
    wanted = [row for row in ROWS if row in rows and (system.rows is None or row in system.rows)]
    if not wanted:
        return {}, ""
    with tempfile.TemporaryDirectory(prefix="papyros-bench-") as folder:
        path = Path(folder) / "figures"
        command = system.command([system.name, ",".join(wanted), str(seconds), str(path)])
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SESSION_SECONDS,
                check=False,
            )
            problem = "" if done.returncode == 0 else _last_line(done.stderr) or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"it took longer than {SESSION_SECONDS:g} s"
        found: dict[str, float] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                found.update(json.loads(line))
    return found, problem


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def run_rounds(
    systems: Sequence[type[System]], rows: Iterable[str], rounds: int, seconds: float
) -> tuple[Figures, list[str]]:
    """Run sessions of all systems in turns; return all figures, and what went wrong.

    Every second round goes backwards, so that no system always follows the same other one.
    """
    # As installers did for all peers: where no bytecode is written, each process would compile all of it anew.
    for package in ("papyros", "benchmarks"):
        compileall.compile_dir(ROOT / package, quiet=2)
    rows = {*rows, *(more for row in rows for more in TOGETHER.get(row, ()))}
    figures: Figures = {system.name: {} for system in systems}
    problems = []
    for number in range(rounds):
        for system in systems if number % 2 == 0 else reversed(systems):
            print(f"round {number + 1} of {rounds}: {system.name}", file=sys.stderr, flush=True)
            found, problem = session_figures(system, rows, seconds)
            for row, figure in found.items():
                figures[system.name].setdefault(row, []).append(figure)
            if problem:
                problems.append(f"{system.name}, round {number + 1}: {problem}")
                print(f"    {problem}", file=sys.stderr, flush=True)
    return figures, problems
