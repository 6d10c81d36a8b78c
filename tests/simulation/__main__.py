"""Replay one seed, or try a range of them: ``python -m tests.simulation SEED[-SEED] [--trace]``."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.scenario import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a seed, or the first and the last of many, as 1-1000")
    parser.add_argument("--trace", action="store_true", help="tell what happens")
    parser.add_argument("--all", action="store_true", help="go on after a seed that fails")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    started = time.perf_counter()
    failed = 0
    for seed in range(int(first), int(last or first) + 1):
        try:
            simulate(seed, options.trace)
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}"[:600])
            if options.trace:
                traceback.print_exc(limit=-6, file=sys.stdout)
            if not options.all:
                return 1
    print(f"{failed} seeds failed; {time.perf_counter() - started:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
