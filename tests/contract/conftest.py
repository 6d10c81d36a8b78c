"""Makes every kind of master. A test says by its fixture on which of them it runs.

- `make_master`: on all of them;
- `make_concurrent_master`: where jobs run while the client does something else;
- `make_thread_master`: where jobs run in this process, so nothing is pickled;
- `make_process_master`: where jobs travel to other processes and back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import papyros
from tests.contract import engines
from tests.support import Gate, Gates

FOLDER = Path(__file__).parent

IN_PROCESS = ["singlethreaded", "multithreaded"]
CONCURRENT = ["multithreaded", "multiprocess", "distributed"]
PROCESSES = ["multiprocess", "distributed"]

#: Masters over other people's engines, on which the suite runs where PAPYROS_ENGINES names them, or "all" of them.
ENGINES = [kind for kind in engines.KINDS if kind in os.environ.get("PAPYROS_ENGINES", "").split(",")]
if ENGINES:
    IN_PROCESS = [kind for kind in ENGINES if kind in engines.IN_PROCESS]
    PROCESSES = [kind for kind in ENGINES if kind not in engines.IN_PROCESS]
    CONCURRENT = ENGINES
ALL = CONCURRENT if ENGINES else ["singlethreaded", *CONCURRENT]

CLUSTER_SLAVES = 2


class MasterFactory:
    """Makes masters of one kind, and closes them when the test is over.

    Attributes:
        kind: which kind.
        slaves: how many slaves the last master that was made has.
    """

    def __init__(self, kind: str, request: pytest.FixtureRequest, gates: Gates) -> None:
        self.kind = kind
        self.gates = gates
        self.slaves = 0
        self._request = request
        self._made: list[papyros.Master] = []
        self._ends: list[Callable[[], Any]] = []

    def __call__(self, slaves: int = 2, **options: Any) -> papyros.Master:
        if self.kind in engines.KINDS:
            self.slaves = slaves
            master, end = engines.make(self.kind, slaves, options)
            self._ends.append(end)
        else:
            master = getattr(self, f"_{self.kind}")(slaves, options)
        self._made.append(master)
        return master

    def _singlethreaded(self, slaves: int, options: dict[str, Any]) -> papyros.Master:
        self.slaves = 1
        return papyros.SingleThreadedMaster(**options)

    def _multithreaded(self, slaves: int, options: dict[str, Any]) -> papyros.Master:
        self.slaves = slaves
        return papyros.MultiThreadedMaster(slaves, **options)

    def _multiprocess(self, slaves: int, options: dict[str, Any]) -> papyros.Master:
        self.slaves = slaves
        return papyros.MultiProcessMaster(slaves, **options)

    def _distributed(self, slaves: int, options: dict[str, Any]) -> papyros.Master:
        # Slaves belong to the cluster, whatever number the test asks for.
        self.slaves = CLUSTER_SLAVES
        return self._request.getfixturevalue("cluster").master(**options)

    @property
    def in_process(self) -> bool:
        """Whether jobs run in this process."""
        return self.kind in ("singlethreaded", "multithreaded", *engines.IN_PROCESS)

    def busy(self, master: papyros.Master) -> Gate:
        """Keep all slaves busy until the gate that is returned is opened."""
        from tests.contract.jobs_for_tests import wait_at

        gate = self.gates()
        for _ in range(self.slaves):
            master.addJob(wait_at(gate.path, "busy"))
        gate.wait_for_arrivals(self.slaves)
        return gate

    def close(self) -> None:
        self.gates.open_all()  # a job that still waits would hold up the master that is closed
        for master in self._made:
            master.close()
        for end in self._ends:
            end()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A cluster that all distributed tests share, since it takes a second to start."""
    with papyros.LocalCluster(slaves=CLUSTER_SLAVES) as cluster:
        yield cluster


@pytest.fixture
def standing(request: pytest.FixtureRequest) -> None:
    """Start the cluster before leaks are counted, if the test needs it."""
    spec = getattr(request.node, "callspec", None)
    if spec is not None and "distributed" in spec.params.values():
        request.getfixturevalue("cluster")
    for kind in ENGINES:
        engines.stand(kind)


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


def _factory(request: pytest.FixtureRequest, gates: Gates) -> Iterator[MasterFactory]:
    factory = MasterFactory(request.param, request, gates)
    yield factory
    factory.close()


@pytest.fixture(params=ALL)
def make_master(request: pytest.FixtureRequest, gates: Gates) -> Iterator[MasterFactory]:
    yield from _factory(request, gates)


@pytest.fixture(params=CONCURRENT)
def make_concurrent_master(request: pytest.FixtureRequest, gates: Gates) -> Iterator[MasterFactory]:
    yield from _factory(request, gates)


@pytest.fixture(params=IN_PROCESS)
def make_thread_master(request: pytest.FixtureRequest, gates: Gates) -> Iterator[MasterFactory]:
    yield from _factory(request, gates)


@pytest.fixture(params=PROCESSES)
def make_process_master(request: pytest.FixtureRequest, gates: Gates) -> Iterator[MasterFactory]:
    yield from _factory(request, gates)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what an engine cannot do, each for a reason that is told; mark what `make test` does where.

    What is compiled of a `MultiProcessMaster` is in a slave host, too: its sources run in the tests of clusters.
    """
    for item in items:
        if item.path.parent == FOLDER and "[multiprocess" in item.name and item.get_closest_marker("pure") is None:
            item.add_marker(pytest.mark.compiled)
        spec = getattr(item, "callspec", None)
        for kind in (value for value in (spec.params.values() if spec else ()) if isinstance(value, str)):
            if kind in engines.KINDS and (reason := engines.cannot(kind, item)):
                item.add_marker(pytest.mark.skip(reason=reason))
