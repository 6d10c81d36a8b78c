"""A client of a cluster in a program of its own, as clients are: ``python -m benchmarks.program NAMESERVER``.

It adds and pops as many no-op jobs as each line of its input says, and answers with that line.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import papyros
from benchmarks.jobs import Noop

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ClientProgram", "add_and_pop"]

ROOT = Path(__file__).parents[1]

READY = "ready"


def add_and_pop(master: papyros.Master, jobs: int) -> None:
    """Have a master process so many no-op jobs."""
    for number in range(jobs):
        master.addJob(Noop(number))
    for _ in iter(master.popProcessedJob, None):
        pass


class ClientProgram:
    """Such a program, as who has started it sees it. It ends with the `with` statement.

    Args:
        nameserver: where the name server of the cluster is, as ``HOST:PORT``.
    """

    def __init__(self, nameserver: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.program", nameserver],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.pid = self._process.pid
        self.wait(READY)

    def begin(self, jobs: int) -> None:
        """Have it process so many jobs; does not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{jobs}\n")
        self._process.stdin.flush()

    def wait(self, said: object) -> None:
        """Wait until it says so."""
        assert self._process.stdout is not None
        if (line := self._process.stdout.readline().strip()) != str(said):
            raise RuntimeError(f"a client said {line!r}, not {said!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def main(nameserver: str) -> None:
    """Do what is said on the standard input, until that ends."""
    with papyros.DistributedMaster(nameserver=nameserver) as master:
        print(READY, flush=True)
        for line in sys.stdin:
            add_and_pop(master, int(line))
            print(line, end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
