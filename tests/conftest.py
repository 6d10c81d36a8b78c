"""No test leaves anything behind: no thread, no child process, no open file."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import hear_ctrl_c

#: How long a thread, a process or a socket may take to go after the test that made it.
TEARDOWN_SECONDS = 10.0


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and all that they start, a key of their own: never that of the developer."""
    if hasattr(config, "workerinput"):
        return  # the process that started this one has done it for both
    hear_ctrl_c()
    folder = tempfile.TemporaryDirectory(prefix="papyros-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_CONFIG_HOME"] = folder.name
    os.environ.pop("PAPYROS_KEY_FILE", None)
    # In a process of its own, so that coverage sees the imports of this one. Whoever makes a key says so, and no test
    # is to depend on being the first.
    subprocess.run([sys.executable, "-c", "from papyros.distributed.keys import find_key; find_key()"], check=True)


@pytest.fixture(scope="session", autouse=True)
def _bars_without_a_thread() -> None:
    """Have tqdm start no thread, as it does once in a program, for good: a test may fork after that of a bar."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0


@pytest.fixture
def standing() -> None:
    """Make what stands longer than one test, before the test's leaks are counted.

    A folder whose tests share something (a cluster) overrides this fixture.
    """


@pytest.fixture(autouse=True)
def _measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have coverage measured in the processes that a test starts only where that is asked for.

    It makes their starts cost three times as much, and hundreds of tests run the same lines in them.
    """
    if request.node.get_closest_marker("measured") is None:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(standing: None) -> Iterator[None]:
    before = _open_things()
    yield
    leaked = _leaked(before)
    deadline = time.monotonic() + TEARDOWN_SECONDS
    while leaked and time.monotonic() < deadline:
        time.sleep(0.02)  # polling, as in tests.support.wait_until
        leaked = _leaked(before)
    if leaked:
        pytest.fail("the test left behind: " + "; ".join(map(str, leaked)), pytrace=False)


def _leaked(before: dict[Any, str]) -> list[str]:
    leaked = [what for key, what in _open_things().items() if key not in before]
    if leaked:
        gc.collect()  # what only a cycle keeps open is no leak
        leaked = [what for key, what in _open_things().items() if key not in before]
    return leaked


def _open_things() -> dict[Any, str]:
    if os.environ.get("PAPYROS_ENGINES"):
        # What other people's engines open and keep is theirs; what is ours is looked at all the same.
        return {key: what for key, what in _threads().items() if "papyros" in what}
    return {**_threads(), **_children(), **_descriptors()}


def _threads() -> dict[Any, str]:
    return {("thread", thread.ident): f"thread {thread.name!r}" for thread in threading.enumerate()}


def _children() -> dict[Any, str]:
    """The children of this process, those that ended without being waited for included."""
    found: dict[Any, str] = {}
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return found  # there are none: what most tests find, at a hundredth of the price
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
            # The name in parentheses may hold anything, so what follows is read from the last one.
            state, parent = stat.rpartition(b")")[2].split()[:2]
            if int(parent) != os.getpid():
                continue
            command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has gone meanwhile
        found["process", name] = f"process {name} ({state.decode()}) {command}"
    return found


def _descriptors() -> dict[Any, str]:
    found: dict[Any, str] = {}
    for link in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue  # the one that listed the folder
        found["descriptor", link.name, target] = f"descriptor {link.name}: {target}"
    return found
