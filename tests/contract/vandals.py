"""Jobs that do to their slave, and to what connects it with its crew, what no job should."""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import time
from array import array

import papyros
from papyros.frames import join_column, pack_frame
from papyros.protocol import FAMILY, ORDINAL, OUTCOMES
from tests.contract.jobs_for_tests import note_start
from tests.distributed.jobs import this_slave

#: What a slave, or its crew, may have open.
FDS = range(3, 64)


def _say(kind, number, body):
    """Write a frame to the connection of the slave, as only that should."""
    this_slave()._sock.sendall(b"".join(pack_frame(kind, number, body)))


def _write_slate(numbers):
    """Write to the page on which the slave notes what it does, and to nothing else."""
    for fd in FDS:
        with contextlib.suppress(OSError):
            if "papyros-slate" in os.readlink(f"/proc/self/fd/{fd}"):
                os.pwrite(fd, array("Q", numbers).tobytes(), 0)


def cut_files():
    """Truncate whatever is open."""
    for fd in FDS:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)


def stop_clock():
    """Leave a clock behind that tells no time."""
    time.monotonic = lambda: math.nan


def turn_clock():
    """Leave a clock behind that is far ahead."""
    time.monotonic = lambda: math.inf


def turn_clock_back():
    """Leave a clock behind at which nothing has happened yet."""
    time.monotonic = lambda: 0.0


def become_another():
    """Put another program in the place of the slave."""
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])


def say_nothing():
    """Send outcomes of no job."""
    _say(OUTCOMES, 0, [ORDINAL.pack(this_slave()._started)])


def say_part():
    """Send what can be told of bundles only."""
    ordinal = ORDINAL.pack(this_slave()._started)
    _say(OUTCOMES, 1, [ordinal, array("d", [0.0]).tobytes(), *join_column([b"+" + bytes(8)])])


def babble():
    """Say of children what cannot be understood."""
    _say(FAMILY, this_slave()._started, [b"{" * 100])


def dream():
    """Say of children what cannot be."""
    from papyros.relay import pack_words

    _say(FAMILY, this_slave()._started, [pack_words(["add", 1, [[-1, "00", [0, "soon"]]]], [b"blob"])])


def drain_pipes():
    """Read whatever there is in pipes: the tokens of the jobs behind this one, too."""
    for fd in FDS:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and select.select([fd], [], [], 0)[0]:
                os.read(fd, 1 << 16)


def invent():
    """Say of children what cannot be sent to any slave."""
    from papyros.relay import pack_words

    _say(FAMILY, this_slave()._started, [pack_words(["define", 1, "00", "label"], [b"J\xff\xff\xff\xff"])])


def wipe_slate():
    """End the slave, and all traces of who did."""
    _write_slate([0, 0, 0, 0])
    os._exit(3)


def wipe_all():
    """End the slave, and all traces of who did, and of who did not."""
    drain_pipes()
    wipe_slate()


def wipe_and_hang():
    """Wipe out all traces, and go on for ever."""
    _write_slate([0, 0, 0, 0])


def fill_slate():
    """End the slave, having told that all the jobs that it has were begun."""
    _write_slate([(1 << 64) - 1, 1, 0, 0])
    os._exit(3)


def forge_slate():
    """Tell that far more jobs have ended than there are, and go on for ever."""
    _write_slate([1 << 40, 1 << 40, 0, 0])
    time.sleep(600)


#: These are found out at the next look only, which is after a while.
SLOW = {"wipe_and_hang": wipe_and_hang}

VANDALS = {
    vandal.__name__: vandal
    for vandal in (
        cut_files,
        stop_clock,
        turn_clock,
        turn_clock_back,
        become_another,
        say_nothing,
        say_part,
        babble,
        dream,
        drain_pipes,
        wipe_slate,
        wipe_all,
        invent,
        fill_slate,
        forge_slate,
    )
}

#: These harm nobody, so they have a result.
HARMLESS = {"cut_files", "drain_pipes", "stop_clock", "turn_clock", "turn_clock_back"}


@papyros.job
def spoil(folder, name, how):
    """Do it, and wait to be stopped, or return if it harms nobody."""
    note_start(folder, name)
    (VANDALS | SLOW)[how]()
    if how not in HARMLESS:
        time.sleep(600)
    return how
