"""Ctrl-C again and again, also while a program closes what it has: it ends soon, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from papyros.environment import python_environment
from tests.distributed import impatient
from tests.support import PATIENCE, wait_until


def running(pid):
    """Whether a process is there, and not only waits for somebody to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("gap", [0.01, 0.15])
@pytest.mark.parametrize("kind", ["processes", "cluster"])
def test_a_program_that_is_interrupted_again_while_it_closes_ends_and_leaves_nothing_behind(kind, gap, tmp_path):
    path = tmp_path / "processes"
    program = subprocess.Popen(
        [sys.executable, impatient.__file__, kind, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=python_environment(),
        start_new_session=True,
    )
    with program:
        try:
            assert program.stdout.readline() == b"running\n"
            pids = [int(pid) for pid in path.read_text().split()]
            deadline = time.monotonic() + 10
            while program.poll() is None and time.monotonic() < deadline:
                program.send_signal(signal.SIGINT)
                time.sleep(gap)  # to hit it in all that it does until it ends
            assert program.poll() is not None, "it did not end"
            wait_until(lambda: not any(map(running, pids)), "all processes to be gone", PATIENCE)
        finally:
            program.kill()
            for pid in [int(pid) for pid in path.read_text().split()] if path.exists() else []:
                if running(pid):
                    os.kill(pid, signal.SIGKILL)
    assert program.returncode != 0
