"""A program over an executor that needs a launcher, or processes, of its own: ``python -m tests.engines.program KIND``.

It says "all is well" when all that a master over such an executor promises was kept.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor

import papyros
from tests.contract.families import descend, tree_sum
from tests.contract.jobs_for_tests import double, fail, where

PATIENCE = 60.0


@contextlib.contextmanager
def mpi4py() -> Iterator[Executor]:
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def executorlib() -> Iterator[Executor]:
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=2) as executor:
        yield executor


@contextlib.contextmanager
def ipyparallel() -> Iterator[Executor]:
    from ipyparallel import Cluster

    with Cluster(n=2) as client:
        client.wait_for_engines(2, timeout=PATIENCE)
        yield client.executor()


KINDS = {kind.__name__: kind for kind in (mpi4py, executorlib, ipyparallel)}


def check(executor: Executor) -> None:
    with papyros.ExecutorMaster(executor, 2) as master:
        jobs = list(master.execute(map(double, range(20)), ordered=True))
        assert [job.result for job in jobs] == [2 * number for number in range(20)]
        different = [where(), fail(ValueError, "no luck"), descend(5), tree_sum(3)]
        for job in different:
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(different)
        assert different[0].result[0] != os.getpid(), "it ran here"
        assert isinstance(different[1].exception, ValueError)
        assert "no luck" in different[1].exception.traceback
        assert different[2].result == 5
        assert different[3].result == 15
        with master.executor() as outer:
            assert list(outer.map(pow, range(9), range(9))) == list(map(pow, range(9), range(9)))
    assert executor.submit(abs, -1).result(PATIENCE) == 1, "it is its maker's, and stays open"


if __name__ == "__main__":
    with KINDS[sys.argv[1]]() as executor:
        check(executor)
    print("all is well")
