"""What engines start and keep is theirs; what is ours is looked at all the same."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Gates, wait_until


def our_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("papyros-")}


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    before = our_threads()
    yield
    wait_until(lambda: our_threads() <= before, "no thread of ours is left behind", 5)


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


@pytest.fixture(scope="session")
def free_port():
    """Return a function that finds a port where nobody listens."""

    def find() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return find
