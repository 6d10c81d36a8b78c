"""The whole run: all systems that are installed, all rows, a page of the manual and a plot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.machine import describe_machine, versions
from benchmarks.ratios import judge
from benchmarks.report import figures_table, plot, table, verdicts_table
from benchmarks.rows import ROWS, TOGETHER
from benchmarks.running import ROOT, Figures, run_rounds
from benchmarks.systems import by_name, missing

__all__ = ["MEASURED", "measure_all"]

ROUNDS = 5

#: Rows that are measured; others come along with them.
MEASURED = tuple(row for row in ROWS if not any(row in more for more in TOGETHER.values()))

PAGE, PLOT, DATA = "benchmarks.md", "_static/benchmarks.png", "_static/benchmarks.json"

#: Which columns go into which table of the page.
TABLES = {
    "Small jobs": ("start", "noop", "noop_main", "latency"),
    "Big jobs": ("echo_bytes", "echo_numpy", "efficiency_1ms", "efficiency_10ms"),
    "Mixed jobs": ("mixed", "mixed_in_order", "mixed_idle", "naps", "naps_in_order", "naps_idle"),
}


def measure_all(
    names: Iterable[str], rows: Iterable[str], rounds: int = ROUNDS, seconds: float = 1.0, folder: Path = ROOT / "docs"
) -> int:
    """Measure systems side by side and write page and plot into a folder; return an exit code."""
    chosen = [system for name, system in by_name().items() if name in names]
    skipped = [why for system in chosen if (why := missing(system))]
    for why in skipped:
        print(why)
    installed = [system for system in chosen if not missing(system)]
    before, started = os.getloadavg()[0], time.monotonic()
    figures, problems = run_rounds(installed, rows, rounds, seconds)
    facts = {
        **describe_machine(),
        "rounds": str(rounds),
        "minutes": f"{(time.monotonic() - started) / 60:.0f}",
        "load of the machine before": f"{before:.1f}",
    }
    found = versions(system.distribution for system in installed)
    write(folder, figures, facts, found, [*skipped, *problems])
    return 1 if problems else 0


def write(
    folder: Path, figures: Figures, facts: dict[str, str], found: dict[str, str], problems: Iterable[str]
) -> None:
    """Write the page, the plot, and the figures of all rounds."""
    (folder / "_static").mkdir(exist_ok=True)
    caption = ", ".join([facts["processor"], f"{facts['cores']} cores", facts["system"], facts["python"]])
    drawn = plot(figures, folder / PLOT, f"{caption}; medians and spread of {facts['rounds']} rounds")
    data = {"machine": facts, "versions": found, "figures": figures}
    (folder / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    text = page(figures, facts, found, list(problems), drawn)
    (folder / PAGE).write_text(text, encoding="utf-8")
    print(text)


def page(figures: Figures, facts: dict[str, str], found: dict[str, str], problems: list[str], drawn: bool) -> str:
    """Return the page, in Markdown."""
    parts = [
        "# Benchmarks\n",
        "This page is written by `make bench`: all systems in one run, in turns, each session in a process of its own, "
        "two slaves each. Medians of all rounds. Ratios are taken within a round; they hold on other "
        "machines, absolute figures do not. What the rows mean is told [on the page on performance](performance.md).\n",
        f"![Bars for each system and kind of work]({PLOT})\n" if drawn else "",
        "## Wanted and measured\n",
        verdicts_table(judge(figures)),
    ]
    for title, rows in TABLES.items():
        if any(found.get(row) for found in figures.values() for row in rows):
            parts += [f"## {title}\n", figures_table(figures, rows)]
    parts += [
        "## Measured on\n",
        table(["", "what"], facts.items()),
        "## With\n",
        table(["package", "version"], found.items()),
    ]
    if problems:
        parts += ["## Not measured\n", "\n".join(f"- {problem}" for problem in problems) + "\n"]
    return "\n".join(part for part in parts if part)
