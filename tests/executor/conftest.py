"""The masters of the contract's tests, and executors over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from papyros.executor import MasterExecutor
from tests.contract import conftest as masters

pytest_collection_modifyitems = masters.pytest_collection_modifyitems
cluster, standing, gates = masters.cluster, masters.standing, masters.gates
make_master, make_thread_master = masters.make_master, masters.make_thread_master
make_concurrent_master, make_process_master = masters.make_concurrent_master, masters.make_process_master


@pytest.fixture
def executor(make_master) -> Iterator[Any]:
    with MasterExecutor(make_master()) as executor:
        yield executor


@pytest.fixture
def concurrent_executor(make_concurrent_master) -> Iterator[Any]:
    """An executor over two slaves that run while the test does something else, with the factory as `factory`."""
    with MasterExecutor(make_concurrent_master(2)) as executor:
        executor.factory = make_concurrent_master
        yield executor
        executor.factory.gates.open_all()
