"""Jobs that share values; slave processes import this module by its name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import papyros
from tests.support import Gate


@papyros.job
def pick(table, position, gate=None):
    """Return an element of a table that is shared."""
    if gate is not None:
        Gate(gate).pass_through()
    return table[position]


@papyros.job
def kinds(*args, **kwds):
    """Tell what arguments are when they arrive."""
    return [type(arg).__name__ for arg in (*args, *kwds.values())]


@papyros.job
def pick_inside(handles, position):
    return [handle.value[position] for handle in handles]


@papyros.job
def digest(view):
    return hashlib.sha256(view).hexdigest(), len(view), getattr(view, "readonly", None)


@papyros.job
def same(first, second):
    """Tell whether two arguments are one object."""
    return first is second


@papyros.job
def write_to(view):
    view[0] = 1


class Scaled(papyros.Job):
    """Has a handle as an attribute, and looks at its own arguments."""

    def __call__(self, table, position):
        return type(self.args[0]).__name__, table[position] * self.factors.value[position]


@papyros.job
def hand_on(handles, count):
    """Share what one has got with one's children, in both ways, and something new."""
    master = papyros.current_master()
    mine = papyros.shared(list(range(100, 200)))
    for number in range(count):
        master.addJob(pick(handles[0], number))
        master.addJob(pick(papyros.shared(handles[0].value), number))
        master.addJob(pick(mine, number))
    return sorted(job.result for job in iter(master.popProcessedJob, None))


@papyros.job
def give_back(handles):
    return handles


@papyros.job
def end_slave_once(table, folder):
    """Take the slave along, the first time."""
    mark = Path(folder, "ended")
    if not mark.exists():
        mark.touch()
        os._exit(7)
    return table[0], os.getpid()


@papyros.job
def mapping(view, gate):
    """Tell who runs this, and the inode, the size and this process's part of the shared memory that the value is in.

    All who share it are here at the same time, and have read all of it.
    """
    total = sum(view[::4096])
    Gate(gate).pass_through()
    found = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "papyros-shared" in line:
            found = [int(words[4]), 0, 0]
        elif found is not None and words[0] == "Rss:":
            found[1] = 1024 * int(words[1])
        elif found is not None and words[0] == "Pss:":
            return os.getpid(), os.getppid(), *found[:2], 1024 * int(words[1]), total
    return None
