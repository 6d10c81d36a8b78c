"""Jobs that go wrong, are large, or leave a trace; slave processes import this module by its name."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
import uuid
from pathlib import Path

import papyros
from papyros.frames import pack_frame
from papyros.protocol import ORDINAL, OUTCOMES
from papyros.slave import Slave
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


@papyros.job
def step(number, how=None, *args):
    """Return the number, quickly; or do what the test asks for, as the odd one out among many quick ones."""
    if how is not None:
        return ODD[how](number, *args)
    return number


def _wait(number, gate):
    Gate(gate).pass_through()
    return number


def _keep_the_lock(number, gate, seconds):
    """Keep the lock of the interpreter: no other thread of the process runs meanwhile."""
    Path(f"{gate}.{uuid.uuid4().hex}.arrived").touch()
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return number


def _die(number, folder):
    note_start(folder, f"die-{number}")
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(number, folder):
    note_start(folder, f"exit-{number}")
    os._exit(0)


def _die_once(number, folder):
    note_start(folder, f"die-{number}")
    if len(starts(folder, f"die-{number}")) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _fail(number):
    raise ValueError(f"{number} is the odd one out")


def _close_all(number, folder):
    note_start(folder, f"close-{number}")
    os.closerange(3, 256)
    return number


def _fork(number):
    if os.fork() == 0:
        return -1  # the copy comes back from the job, as if it were a slave, too
    os.wait()
    return number


def _add_children(number, depth, width):
    """Add jobs that add jobs, and so on; return how many there are at the bottom."""
    if not depth:
        return 1
    master = papyros.current_master()
    for child in range(width):
        master.addJob(step(child, "children", depth - 1, width))
    return sum(job.result for job in master.processedJobs(60))


def this_slave():
    """Return the slave in whose process this runs."""
    (slave,) = [each for each in gc.get_objects() if type(each) is Slave]
    return slave


def _say_to_crew(number, kind, frame_number, body):
    """Write a frame to the connection of the slave, as only that should; of this job, if no number is given."""
    slave = this_slave()
    if kind == OUTCOMES:
        body = ORDINAL.pack(slave._started) + body
    slave._sock.sendall(b"".join(pack_frame(kind, slave._started if frame_number is None else frame_number, [body])))
    return number


ODD = {
    "wait": _wait,
    "keep the lock": _keep_the_lock,
    "die": _die,
    "die once": _die_once,
    "exit": _exit,
    "fail": _fail,
    "large": lambda number, size: bytes(size),
    "not to be pickled": lambda number: (_ for _ in ()),
    "print": lambda number: print(f"step {number}") or number,
    "fork": _fork,
    "close all": _close_all,
    "children": _add_children,
    "say": _say_to_crew,
    "sleep": lambda number, seconds: time.sleep(seconds) or number,
}
