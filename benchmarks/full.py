"""The whole run: all systems that are installed, all rows, a page of the manual and a plot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, versions
from benchmarks.ratios import BARE, judge, quotient
from benchmarks.report import figures_table, plot, table, verdicts_table
from benchmarks.rows import ROWS, TOGETHER
from benchmarks.running import ROOT, Figures, run_rounds
from benchmarks.systems import by_name, missing

__all__ = ["MEASURED", "measure_all"]

ROUNDS = 5

#: Two bare processes get more than this of two cores, or the page says that the machine was not quiet.
QUIET = 0.9

#: Rows that are measured; others come along with them.
MEASURED = tuple(row for row in ROWS if not any(row in more for more in TOGETHER.values()))

PAGE, PLOT, DATA = "benchmarks.md", "_static/benchmarks.png", "_static/benchmarks.json"

#: Which columns go into which table of the page.
TABLES = {
    "Small jobs": ("start", "noop", "noop_main", "latency"),
    "Big payloads": ("echo_bytes", "echo_numpy"),
    "Computing jobs": ("efficiency_1ms", "useful_1ms", "efficiency_10ms", "useful_10ms"),
    "Mixed jobs": ("mixed", "mixed_in_order", "mixed_idle", "naps", "naps_in_order", "naps_idle"),
}


def measure_all(
    names: Iterable[str],
    rows: Iterable[str],
    rounds: int = ROUNDS,
    seconds: float = 1.0,
    folder: Path = ROOT / "docs",
    add: bool = False,
) -> int:
    """Measure systems side by side and write page and plot into a folder; return an exit code.

    With `add`, the rounds of runs before, which are beside the plot, count as well.
    """
    (folder / "_static").mkdir(parents=True, exist_ok=True)
    chosen = [system for name, system in by_name().items() if name in names]
    skipped = [why for system in chosen if (why := missing(system))]
    for why in skipped:
        print(why)
    installed = [system for system in chosen if not missing(system)]
    before: dict[str, Any] = json.loads((folder / DATA).read_text(encoding="utf-8")) if add else {}
    load, started = os.getloadavg()[0], time.monotonic()
    figures, problems = run_rounds(installed, rows, rounds, seconds)
    figures = together(before.get("figures", {}), figures)
    data = {
        "machine": describe_machine(),
        "versions": versions(system.distribution for system in installed),
        "rounds": before.get("rounds", 0) + rounds,
        "minutes": round(before.get("minutes", 0) + (time.monotonic() - started) / 60, 1),
        "load": [*before.get("load", []), round(load, 1)][-20:],
        "problems": [*skipped, *[old for old in before.get("problems", []) if old not in skipped], *problems],
        "figures": {s: {r: [_rounded(f) for f in found] for r, found in by.items()} for s, by in figures.items()},
    }
    write(folder, data)
    return 1 if problems else 0


def together(before: Figures, now: Figures) -> Figures:
    """Return the figures of two runs as those of one."""
    return {
        system: {
            row: [*before.get(system, {}).get(row, []), *now.get(system, {}).get(row, [])]
            for row in ROWS
            if row in before.get(system, {}) or row in now.get(system, {})
        }
        for system in [*now, *(system for system in before if system not in now)]
    }


def _rounded(figure: float) -> float:
    return float(f"{figure:.4g}")


def write(folder: Path, data: dict[str, Any]) -> None:
    """Write the page, the plot, and the figures of all rounds."""
    machine, figures = data["machine"], data["figures"]
    caption = ", ".join([machine["processor"], f"{machine['cores']} cores", machine["system"], machine["python"]])
    drawn = plot(figures, folder / PLOT, f"{caption}; medians and spread of {data['rounds']} rounds")
    (folder / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    text = page(data, drawn)
    (folder / PAGE).write_text(text, encoding="utf-8")
    print(text)


def _warning(figures: Figures) -> str:
    """Return a warning if the machine had less than its cores to give."""
    given = quotient(figures, "efficiency_10ms", BARE)
    if given is None or given > QUIET:
        return ""
    return (
        f"**The machine was busy with other things.** Two bare processes, with nothing between, got {given:.0%} of "
        "what two cores can do. Absolute figures, efficiencies and makespans are worth little then, ratios somewhat "
        "more; the useful part of all processor time suffers least.\n"
    )


def page(data: dict[str, Any], drawn: bool) -> str:
    """Return the page, in Markdown."""
    figures: Figures = data["figures"]
    parts = [
        "# Benchmarks\n",
        "This page is written by `make bench`: all systems in one run, in turns, each session in a process of its own, "
        "two slaves each. Medians of all rounds. Ratios are taken within a round: they differ less from machine "
        "to machine than absolute figures do, but [they do differ](performance.md#what-differs-between-machines). What "
        "the rows mean is told [on the page on performance](performance.md).\n",
        _warning(figures),
        f"![Bars for each system and kind of work]({PLOT})\n" if drawn else "",
        "## Wanted and measured\n",
        verdicts_table(judge(figures)),
    ]
    for title, rows in TABLES.items():
        if any(found.get(row) for found in figures.values() for row in rows):
            parts += [f"## {title}\n", figures_table(figures, rows)]
    facts = {
        **data["machine"],
        "rounds": str(data["rounds"]),
        "minutes": f"{data['minutes']:g}",
        "load of the machine when the runs began": ", ".join(f"{load:g}" for load in data["load"]),
    }
    parts += ["## Measured on\n", table(["what", "which"], facts.items())]
    parts += ["## With\n", table(["package", "version"], data["versions"].items())]
    if data["problems"]:
        parts += ["## Not measured\n", "\n".join(f"- {problem}" for problem in data["problems"]) + "\n"]
    return "\n".join(part for part in parts if part)
