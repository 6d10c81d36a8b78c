"""The table and the plot, for the manual."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.ratios import CLUSTER, PROCESSES, Verdict
from benchmarks.rows import ROWS
from benchmarks.running import Figures

__all__ = ["figures_table", "plot", "publish", "table", "verdicts_table"]

#: Rows with a panel of their own in the plot.
PLOTTED = ("noop", "latency", "echo_bytes", "echo_numpy", "efficiency_1ms", "efficiency_10ms")


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; all columns but the first are set to the right."""
    rows = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n".join([rows[0], "|---" + "|---:" * (len(head) - 1) + "|", *rows[1:]]) + "\n"


def publish(text: str, command: str, into: Path | None) -> None:
    """Print a text in Markdown; write it to a file for the manual too, with the command and the machine it is of."""
    print(text)
    if into is not None:
        machine = describe_machine()
        on = ", ".join([machine["processor"], f"{machine['cores']} cores", machine["system"], machine["python"]])
        into.parent.mkdir(exist_ok=True)
        into.write_text(f"{text.rstrip()}\n\n*Measured by `{command}` on: {on}.*\n", encoding="utf-8")


def figures_table(figures: Figures, rows: Iterable[str]) -> str:
    """Return the medians: a line for each system, a column for each row of `ROWS`."""
    rows = list(rows)
    head = ["system", *(_title(row) for row in rows)]
    lines = []
    for system, found in figures.items():
        cells = [_number(statistics.median(found[row])) if found.get(row) else "-" for row in rows]
        if set(cells) != {"-"}:
            lines.append([f"**{system}**" if system in {CLUSTER, PROCESSES} else system, *cells])
    return table(head, lines)


def verdicts_table(verdicts: Iterable[Verdict]) -> str:
    """Return what was to be reached, and what was."""
    return table(
        ["work", "master", "wanted", "measured", "reached"],
        [
            [ROWS[v.target.row].title, v.target.ours, str(v.target), f"{v.quotient:.2f}", "yes" if v.reached else "no"]
            for v in verdicts
        ],
    )


def _title(row: str) -> str:
    unit = ROWS[row].unit
    return f"{ROWS[row].title}, {unit}" if unit else ROWS[row].title


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def plot(figures: Figures, path: Path, caption: str) -> bool:
    """Draw the medians as bars; return whether that can be done here: matplotlib is an extra."""
    rows = [row for row in PLOTTED if any(found.get(row) for found in figures.values())]
    if not rows:
        return False
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    canvas, axes = plt.subplots(-(-len(rows) // 2), 2, figsize=(11, 3.2 * -(-len(rows) // 2)), layout="constrained")
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, rows, strict=False):
        _bars(axis, row, {system: found[row] for system, found in figures.items() if found.get(row)})
    canvas.suptitle(caption, fontsize=9)
    canvas.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(canvas)
    return True


def _bars(axis: Any, row: str, values: dict[str, list[float]]) -> None:
    medians = {system: statistics.median(found) for system, found in values.items()}
    systems = sorted(medians, key=medians.__getitem__, reverse=not ROWS[row].more_is_better)
    colours = ["#1b6ca8" if system in {CLUSTER, PROCESSES} else "#b8c4cc" for system in systems]
    axis.barh(systems, [medians[system] for system in systems], color=colours)
    # From the slowest to the quickest of the rounds.
    spread = [
        [medians[system] - min(values[system]) for system in systems],
        [max(values[system]) - medians[system] for system in systems],
    ]
    axis.errorbar([medians[s] for s in systems], range(len(systems)), xerr=spread, fmt="none", ecolor="#444", lw=0.8)
    for position, system in enumerate(systems):
        text, beyond = _number(medians[system]), (max(values[system]), position)
        axis.annotate(text, beyond, (4, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_title(f"{_title(row)} ({'more' if ROWS[row].more_is_better else 'less'} is better)", fontsize=9)
    if row.startswith("efficiency"):
        axis.margins(x=0.15)
    else:
        axis.set_xscale("log")
        axis.minorticks_off()  # where there is one power of ten, or two, their labels would lie upon each other
        # Powers of ten, with room for the bar that is the shortest, and for the numbers.
        axis.set_xlim(
            10.0 ** math.floor(math.log10(min(medians.values()) / 1.5)),
            10.0 ** math.ceil(math.log10(max(medians.values()) * 3)),
        )
    axis.tick_params(labelsize=7)
