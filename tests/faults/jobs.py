"""Jobs that leave a trace of each start; slave processes import this module by its name."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path

import papyros
from tests.support import Gate


def note_start(folder, name):
    Path(folder, f"{name}.{uuid.uuid4().hex}.started").touch()


def starts(folder):
    """How often each job was started."""
    return Counter(path.name.split(".")[0] for path in Path(folder).glob("*.started"))


@papyros.job
def first(folder, name):
    note_start(folder, name)
    return name


@papyros.job
def second(folder, name):
    note_start(folder, name)
    return name


@papyros.job
def third(folder, name, size):
    note_start(folder, name)
    return name, b"x" * size


@papyros.job
def fail(folder, name):
    note_start(folder, name)
    raise ValueError(name)


@papyros.job(retries=2, backoff=0.01)
def fail_again(folder, name):
    note_start(folder, name)
    raise ValueError(name)


@papyros.job
def wait_at(folder, name, gate):
    return call_at(folder, name, gate)


def call_at(folder, name, gate):
    """The same for an executor, which is given functions."""
    note_start(folder, name)
    Gate(gate).pass_through()
    return name


@papyros.job
def look(folder, name, view):
    note_start(folder, name)
    return name, len(view), view[-1]
