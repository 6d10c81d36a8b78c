"""Measure Papyros beside its peers, in one run; write a page and a plot into the manual."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import full, short
from benchmarks.running import ROOT
from benchmarks.systems import by_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return an exit code."""
    names = list(by_name())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="compare with the ratios that were recorded, write nothing"
    )
    parser.add_argument("--record", action="store_true", help="record the ratios that the short form compares with")
    parser.add_argument("--systems", nargs="+", metavar="NAME", default=names, help=f"of: {', '.join(names)}")
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", default=full.MEASURED, help=f"of: {', '.join(full.MEASURED)}"
    )
    parser.add_argument("--rounds", type=int, default=full.ROUNDS, metavar="N", help="how often all take their turn")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="about how long a rate is measured")
    parser.add_argument("--into", type=Path, default=ROOT / "docs", metavar="FOLDER", help="where page and plot go")
    parser.add_argument("--add", action="store_true", help="add to the rounds of the runs before; --rounds 0 adds none")
    options = parser.parse_args(arguments)
    for wanted, known in ((options.systems, names), (options.rows, full.MEASURED)):
        if unknown := [name for name in wanted if name not in known]:
            parser.error(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    if options.record:
        short.record()
        return 0
    if options.short:
        return short.check()
    return full.measure_all(options.systems, options.rows, options.rounds, options.seconds, options.into, options.add)


if __name__ == "__main__":
    sys.exit(main())
