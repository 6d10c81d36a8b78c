"""Jobs that the tests share; slave processes import this module by its name."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import papyros
from tests.support import PATIENCE, Gate, fork


class Square(papyros.Job):
    def __call__(self, number):
        return number * number


class Scaled(papyros.Job):
    """Uses what the user has set on the instance."""

    scale = 1

    def __call__(self, number):
        return number * self.scale


class ForgetsSuper(papyros.Job):
    def __init__(self, number):
        self.number = number

    def __call__(self):
        return self.number


class EqualJob(papyros.Job):
    """Equal to all of its kind, which must not confuse anybody; and therefore unhashable."""

    def __eq__(self, other):
        return isinstance(other, EqualJob)

    def __call__(self, gate, value):
        if gate is not None:
            Gate(gate).pass_through()
        return value


_SCRATCH = bytearray(2 << 20)


@papyros.job
def refill(byte):
    """Return memory that is used again for the result of the next job."""
    _SCRATCH[:] = bytes([byte]) * len(_SCRATCH)
    return _SCRATCH


@papyros.job
def double(number):
    """Return twice the number."""
    return 2 * number


@papyros.job(priority=7)
def urgent(number):
    return number


@papyros.job
def echo(*args, **kwds):
    return args, kwds


@papyros.job
def where():
    """Tell who runs this."""
    return os.getpid(), threading.get_ident()


@papyros.job
def wait_at(gate, value=None):
    """Return the value once the gate is open."""
    Gate(gate).pass_through()
    return value


@papyros.job
def nap(seconds, value=None):
    """A job that takes its time, as real ones do."""
    time.sleep(seconds)
    return value


@papyros.job
def leave_mark(folder, name):
    """Leave a file behind, so that a test sees that the job ran even if its result never comes."""
    Path(folder, str(name)).touch()
    return name


@papyros.job
def fail(kind, *args):
    raise kind(*args)


@papyros.job
def fail_visibly(number):
    raise ValueError(f"no luck with {number}")  # this very line is looked for in tracebacks


@papyros.job
def fail_with_cause():
    try:
        {}["the first error"]
    except KeyError as error:
        raise RuntimeError("the second error") from error


@papyros.job
def call(function, *args):
    return function(*args)


class TwoArguments(Exception):
    """An exception whose constructor cannot be called with `args`, as many are."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(code)
        self.code = code


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class FrozenError(Exception):
    """Refuses every attribute."""

    def __setattr__(self, name, value):
        raise AttributeError("frozen")


def explode():
    raise ArithmeticError("exploded while it was unpacked")


class ExplodesWhenUnpickled:
    def __reduce__(self):
        return explode, ()


class ExplodesWhenPickled:
    def __reduce__(self):
        raise ArithmeticError("exploded while it was packed")


class UnloadableError(Exception):
    """Can be pickled, but not be unpickled."""

    def __init__(self, text):
        super().__init__(text)
        self.bomb = ExplodesWhenUnpickled()


class DefaultedError(Exception):
    """Unpickles without an error, but with another text, if it is called with its `args` again."""

    def __init__(self, code, reason="unknown"):
        super().__init__(f"{code} ({reason})")
        self.code = code


class TextAsArgs(Exception):
    """Has an attribute where exceptions have their arguments."""

    def __init__(self, text):
        super().__init__(text)
        self.text = text

    args = "no tuple"


class NoArgs(Exception):
    """Has no arguments that could be asked for."""

    @property
    def args(self):
        raise RuntimeError("no arguments")


class StrangelyReducedError(Exception):
    """Pickles itself in a way that does not work."""

    def __reduce__(self):
        return explode, ()


class EndsTheProgramWhenPickled:
    def __reduce__(self):
        raise SystemExit("while it was packed")


def end_the_program():
    raise SystemExit("while it was unpacked")


class EndsTheProgramWhenUnpickled:
    def __reduce__(self):
        return end_the_program, ()


class UnspeakableJob(papyros.Job):
    def __call__(self, function):
        return function()

    def __repr__(self):
        raise RuntimeError("no words")


def make_lock() -> Any:
    return threading.Lock()


# Jobs that leave a trace of each start, since they fail, hang, or take their slave along. ----


def note_start(folder, name):
    Path(folder, f"{name}.{time.monotonic_ns():020d}.{os.getpid()}.{uuid.uuid4().hex}.start").touch()


def starts(folder, name):
    """When and in which processes a job was started, in order; the moments are in seconds. A * is for any name."""
    marks = [path.name.rsplit(".", 4)[1:3] for path in Path(folder).glob(f"{name}.*.start")]
    return sorted((int(nanoseconds) / 1e9, int(pid)) for nanoseconds, pid in marks)


@papyros.job
def fail_until(folder, name, attempt, kind=ValueError):
    """Fail until it is started for the so manieth time; return how often it was."""
    note_start(folder, name)
    number = len(starts(folder, name))
    if number < attempt:
        raise kind(f"attempt {number} fails")
    return number


@papyros.job
def wait_and_note(folder, name, gate):
    note_start(folder, name)
    Gate(gate).pass_through()
    return name


@papyros.job
def fail_once_the_gate_is_open(folder, name, gate):
    note_start(folder, name)
    Gate(gate).pass_through()
    raise ValueError(f"attempt {len(starts(folder, name))} fails")


#: Ways to take the slave along, and what is told of it.
ENDS = {
    "exit": "ended with exit code 7",
    "kill": "was killed by SIGKILL",
    "terminate": "was killed by SIGTERM",
}


@papyros.job
def end_slave(folder, name, how):
    note_start(folder, name)
    print(f"the last words of {name}", file=sys.stderr, flush=True)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
    threading.Event().wait()


#: Ways in which a process ends that a job has forked, and its exit code.
FORK_ENDS = {"return": 0, "exit": 3, "raise": 1, "exec": 1, "print": 0}


@papyros.job
def fork_and_wait(how):
    """Return the exit code of a process that goes on where this one does."""
    child = fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("the child has failed")
    if how == "exec":
        os.execvp("no-such-program-anywhere", ["x"])
    if how == "print":
        print("this is the child")
    return "the child"


@papyros.job
def fork_within(what):
    """Return the exit code of a process that comes out of the `with` statement of its parent; -9, if it hangs there."""
    own = papyros.current_master()
    with own.executor() if what == "executor" else own as opened:
        if what == "executor":
            opened.submit(abs, -1).result()
        else:
            opened.addJob(double(1))
            opened.popProcessedJob()
        child = fork()
        if not child:
            sys.exit(3)
        deadline = time.monotonic() + PATIENCE / 3
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.01)
        return os.waitstatus_to_exitcode(ended[1])


@papyros.job
def close_descriptors(folder, name):
    """Do as what makes a daemon of itself does, in the wrong process."""
    note_start(folder, name)
    os.closerange(3, 256)
    return name


@papyros.job
def scribble(folder, name):
    """Write to whatever is open."""
    note_start(folder, name)
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b"\xff" * 100)
    return name


@papyros.job
def hang(folder, name, how):
    """Do not end."""
    note_start(folder, name)
    if how == "sleep":
        threading.Event().wait()
    elif how == "busy":
        while True:
            pass
    elif how == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
    elif how == "sum":
        sum(range(10**13))  # in C, and the interpreter's lock is kept
    elif how == "regex":
        re.match(r"(a+)+$", "a" * 60 + "b")  # the same, and no signal is looked at for years


@papyros.job
def leave_children(folder, how):
    """Leave a process behind that does not want to end, note its number, and hang."""
    program = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=how == "session"
    )
    child.stdout.readline()
    Path(folder, "child.part").write_text(str(child.pid))
    Path(folder, "child.part").rename(Path(folder, "child"))
    threading.Event().wait()


@papyros.job
def print_for(seconds, lines):
    """Print so many lines at a time, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print("a line\n" * lines)


@papyros.job
def say(*lines, stream="stdout"):
    for line in lines:
        print(line, file=getattr(sys, stream))


@papyros.job
def warn(text):
    logging.getLogger("tests.jobs").warning(text)


@papyros.job
def say_bytes(line):
    sys.stdout.buffer.write(line)
    sys.stdout.flush()


@papyros.job
def blob(size):
    return b"x" * size


class SpoilsItself(papyros.Job):
    """Assigns to its own options while it runs, whose names it did not know to be taken."""

    retries = 1
    backoff = 0.0

    def __call__(self, name, value):
        setattr(self, name, value)
        raise ValueError("it fails")


@papyros.job
def write_without_end(size):
    """Be C code that writes a line that has no end."""
    left = b"x" * size
    while left:
        left = left[os.write(2, left) :]
