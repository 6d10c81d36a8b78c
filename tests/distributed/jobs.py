"""Jobs that go wrong, are large, or leave a trace; slave processes import this module by its name."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import uuid
from pathlib import Path

import papyros
from tests.support import Gate


def note_start(folder, name):
    """Leave a file for each start of a job, with the number of the process."""
    path = Path(folder, f"{name}.{uuid.uuid4().hex}.new")
    path.write_text(str(os.getpid()))
    path.rename(path.with_suffix(".start"))  # so that nobody reads an empty one


def starts(folder, name):
    """Return the numbers of the processes in which a job was started, as often as it was, in order."""
    found = sorted(Path(folder).glob(f"{name}.*.start"), key=lambda path: path.stat().st_mtime_ns)
    return [int(path.read_text()) for path in found]


@papyros.job
def trace(folder, name, gate=None):
    note_start(folder, name)
    if gate is not None:
        Gate(gate).pass_through()
    return name


@papyros.job
def stubborn(gate):
    """Do not end when asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Gate(gate).pass_through()


@papyros.job
def die(folder, name, how, *last_words):
    note_start(folder, name)
    for line in last_words:
        print(line, file=sys.stderr)
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(how)


@papyros.job
def die_once(folder, name):
    note_start(folder, name)
    if len(starts(folder, name)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


@papyros.job
def leave(code):
    sys.exit(code)


@papyros.job
def blob(size):
    return bytes(size)


@papyros.job
def size_of(data):
    return len(data)


@papyros.job
def say(text):
    print(text)
    return text
