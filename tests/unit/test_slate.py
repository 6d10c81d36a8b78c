"""The slate, written by one process and read by another."""

from __future__ import annotations

import contextlib
import mmap
import subprocess
import sys
import tempfile

import pytest

from papyros.environment import python_environment
from papyros.slate import SLATE_BYTES, Slate
from tests.support import PATIENCE

pytestmark = pytest.mark.compiled

WRITER = """
import mmap, sys
from papyros.slate import SLATE_BYTES, Slate
slate = Slate(mmap.mmap(int(sys.argv[1]), SLATE_BYTES))
for task in range(1, 200_001):
    slate.start(task, float(task), 7)
    slate.finish(task, float(task))
"""


def test_it_tells_what_was_noted():
    with contextlib.closing(Slate(mmap.mmap(-1, SLATE_BYTES))) as slate:
        assert (slate.started, slate.finished) == (0, 0)
        slate.start(1, 2.5)
        slate.finish(1, 3.5)
        slate.start(2, 4.5, position=7)
        assert (slate.started, slate.finished, slate.moment, slate.position) == (2, 1, 4.5, 7)
        slate.start(3, 5.5)
        assert slate.position == 0
        slate.leave(3)
        assert slate.started == 2


def test_it_cannot_be_read_when_it_is_closed():
    slate = Slate(mmap.mmap(-1, SLATE_BYTES))
    slate.close()
    with pytest.raises(ValueError, match="released"):
        _ = slate.started


def test_what_is_read_is_never_half_written():
    with tempfile.TemporaryFile(buffering=0) as file:
        file.truncate(SLATE_BYTES)
        with contextlib.closing(Slate(mmap.mmap(file.fileno(), SLATE_BYTES))) as slate:
            command = [sys.executable, "-c", WRITER, str(file.fileno())]
            with subprocess.Popen(command, pass_fds=[file.fileno()], env=python_environment()) as writer:
                started = looks = 0
                while writer.poll() is None:
                    for _ in range(1000):
                        finished, before, started = slate.finished, started, slate.started
                        assert started >= before
                        assert started >= finished
                        assert not started or (slate.position == 7 and slate.moment >= finished)
                        looks += 1
                writer.wait(PATIENCE)
            assert writer.returncode == 0
            assert (slate.started, slate.finished) == (200_000, 200_000)
            assert looks >= 1000
