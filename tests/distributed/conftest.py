"""What tests of real programs share: a name server, a way to start programs, and a look at what they leave behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from papyros import LocalCluster
from tests.distributed.programs import CHECKOUT, MARK, PART, Programs, processes
from tests.support import PATIENCE, Gates, wait_until

#: How long the last process of a test may take to go.
GONE_SECONDS = 10.0


@pytest.fixture(scope="session")
def _shared_names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    programs = Programs(tmp_path_factory.mktemp("names"))
    yield programs.nameserver().address
    programs.end_all()


@pytest.fixture(scope="session")
def _shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(slaves=2) as cluster:
        yield cluster


@pytest.fixture
def standing(request: pytest.FixtureRequest) -> None:
    """Start what tests share before what a test leaves behind is counted."""
    for name in ("names", "cluster"):
        if name in request.fixturenames:
            request.getfixturevalue(f"_shared_{name}")


@pytest.fixture(autouse=True)
def mark(standing: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Mark all processes that the test starts, and give them a place for temporary files; look what is left."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))  # wherever a program starts, it finds the jobs of tests
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is to be read at once, parts flush themselves
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield mark
    try:
        wait_until(lambda: not processes(mark), "an end to all processes of the test", GONE_SECONDS)
    except AssertionError:
        left = processes(mark)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        pytest.fail(f"the test left processes behind: {left}", pytrace=False)
    files = [str(path) for path in scratch.iterdir()]
    assert not files, f"the test left files behind: {files}"


@pytest.fixture
def launch(mark: str, tmp_path: Path) -> Iterator[Programs]:
    """Start programs, which are ended when the test is over."""
    folder = tmp_path / "programs"
    folder.mkdir()
    programs = Programs(folder)
    yield programs
    programs.end_all()
    programs.show()
    left = [str(path) for path in programs.cwd.iterdir()]
    assert not left, f"programs left files behind: {left}"


@pytest.fixture
def names(_shared_names: str) -> str:
    """The address of a name server that tests share: each has a group of its own."""
    return _shared_names


@pytest.fixture
def cluster(_shared_cluster: LocalCluster) -> LocalCluster:
    """A cluster with two slaves that tests share, which leave it as it is."""
    return _shared_cluster


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def gates(mark: str, tmp_path: Path) -> Iterator[Gates]:
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


@pytest.fixture
def read_once(launch: Programs) -> Iterator[Any]:
    """Start a part whose output is a pipe, of which the first line is read before the pipe is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        part = subprocess.Popen([*PART, *arguments], cwd=launch.cwd, stdout=subprocess.PIPE, text=True)
        started.append(part)
        assert part.stdout is not None
        with part.stdout:
            assert select.select([part.stdout], [], [], PATIENCE)[0], "nothing comes through the pipe"
            return part.stdout.readline()

    yield start
    for part in started:
        part.terminate()
        part.wait(PATIENCE)
