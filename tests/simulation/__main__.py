"""Replay one seed, or try a range of them, on all CPUs: ``python -m tests.simulation SEED[-SEED] [--trace]``."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from papyros.cpus import usable_cpus
from tests.simulation.scenario import simulate

#: So many seeds are played by a process before it takes the next ones.
BATCH = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a seed, or the first and the last of many, as 1-1000")
    parser.add_argument("--trace", action="store_true", help="tell what happens, in this process")
    parser.add_argument("--all", action="store_true", help="go on after a seed that fails")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    started = time.perf_counter()
    failed = 0
    for failure in [failed_seed(seed, True) for seed in seeds] if options.trace else play(seeds):
        if failure:
            failed += 1
            print(failure, flush=True)
            if not options.all:
                break
    whole = "" if options.all or not failed else ", and no more were tried"
    print(f"{failed} of {len(seeds)} seeds failed{whole}; {time.perf_counter() - started:.1f} s")
    return 1 if failed else 0


def play(seeds: range) -> Iterator[str]:
    """Play seeds on all CPUs; yield what is to be told of each one that fails, as it does."""
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    if len(batches) == 1:
        yield from play_batch(seeds)
        return
    with ProcessPoolExecutor(usable_cpus()) as pool:
        try:
            for future in as_completed([pool.submit(play_batch, batch) for batch in batches]):
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def play_batch(seeds: Iterable[int]) -> list[str]:
    """Play seeds one after the other; return what is to be told of those that fail."""
    # A story is a heap of cycles, and short: to look for those that can go while it is told takes longer than to wait.
    gc.disable()
    try:
        return [failure for seed in seeds if (failure := failed_seed(seed, False))]
    finally:
        gc.enable()
        gc.collect()


def failed_seed(seed: int, tracing: bool) -> str:
    """Play one seed; return what is to be told of it if it fails, else nothing."""
    try:
        simulate(seed, tracing)
    except Exception as error:
        if tracing:
            traceback.print_exc(limit=-6, file=sys.stdout)
        return f"seed {seed}: {type(error).__name__}: {error}"[:600]
    return ""


if __name__ == "__main__":
    sys.exit(main())
