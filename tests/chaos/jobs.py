"""Jobs that do harm, or wait for somebody who does it; slave processes import this module by its name."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import papyros
from tests.distributed.jobs import note_start
from tests.support import PATIENCE, wait_until


@papyros.job
def note(folder, name):
    note_start(folder, name)
    return name


@papyros.job(at_most_once=True)
def note_once(folder, name):
    note_start(folder, name)
    return name


@papyros.job
def wait_for_host(folder, name):
    """Wait until the process that started this slave is told to let its slaves go on."""
    note_start(folder, name)
    wait_until(Path(folder, f"go-{os.getppid()}").exists, "go", 2 * PATIENCE)
    return os.getppid()


def let_go(folder, pid):
    """Let the jobs go on that wait in slaves of the process `pid`."""
    Path(folder, f"go-{pid}").touch()


def end_badly(how):
    """End this process in one of the ways in which processes end."""
    no_core = (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
    resource.setrlimit(resource.RLIMIT_CORE, no_core)
    print("the last words", file=sys.stderr, flush=True)
    if how == "exit":
        os._exit(7)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "overflow":
        sys.setrecursionlimit(10**7)
        nest = []
        for _ in range(10**6):
            nest = [nest]
        repr(nest)
        raise AssertionError("the stack was large enough")
    os.kill(os.getpid(), signal.SIGKILL)


#: What is told of a slave that ended in this way.
ENDS = {
    "exit": "ended with exit code 7",
    "segfault": "was killed by SIGSEGV",
    "abort": "was killed by SIGABRT",
    "overflow": "was killed by SIGSEGV",
}


def note_and_end(folder, name, how):
    note_start(folder, name)
    end_badly(how)


class EndsWhenUnpickled:
    """Ends the process that unpickles it."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return note_and_end, self.call


class EndsWhenPickled:
    """Ends the process that pickles it."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        note_and_end(*self.call)


@papyros.job
def take(argument):
    return type(argument).__name__


@papyros.job
def end_the_slave(folder, name, how):
    note_and_end(folder, name, how)


@papyros.job
def return_what_ends_the_slave(folder, name, how):
    return EndsWhenPickled(folder, name, how)


@papyros.job(at_most_once=True)
def end_the_slave_once(folder, name, how):
    note_and_end(folder, name, how)


@papyros.job
def exit_properly(code):
    sys.exit(code)


@papyros.job
def blob(size):
    return os.urandom(1 << 20) * (size >> 20)


@papyros.job
def size_of(data):
    return len(data)


@papyros.job(timeout=1)
def hang(folder, how):
    """Do not end within the time."""
    note_start(folder, how)
    if how == "sleep":
        threading.Event().wait(100)
    elif how == "busy":
        while True:
            pass
    # The interpreter's lock is kept while this waits, so that no other thread of the slave does anything.
    ctypes.PyDLL(None).sleep(100)


@papyros.job
def eat_memory():
    eaten = []
    while True:
        eaten.append(bytearray(b"x" * (16 << 20)))


@papyros.job
def abort_when_out_of_memory(size):
    """Be C code that gives up when there is no memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    eaten = []
    try:
        while True:
            eaten.append(bytearray(b"x" * (16 << 20)))
    except MemoryError:
        os.abort()


@papyros.job
def leave_processes(folder, how):
    """Leave a process behind that outlives the job; return its number."""
    sleeper = [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"]
    if how == "child":
        return subprocess.Popen(sleeper).pid
    if how == "session":
        return subprocess.Popen(sleeper, start_new_session=True).pid
    told = Path(folder, "daemon")
    launcher = (
        "import os, subprocess, sys\n"
        "p = subprocess.Popen(sys.argv[2:], start_new_session=True)\n"
        "open(sys.argv[1], 'w').write(str(p.pid))\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", launcher, str(told), *sleeper], check=True)
    return int(told.read_text())


@papyros.job
def pause(folder, name, seconds):
    """A job that takes its time, as real ones do."""
    note_start(folder, name)
    time.sleep(seconds)
    return name


@papyros.job(retries=3, backoff=0.05)
def fail_at_first(folder, name, times):
    """Fail so many times, then do not."""
    note_start(folder, name)
    if len(list(Path(folder).glob(f"{name}.*.start"))) <= times:
        raise ValueError(f"{name} fails")
    return name
