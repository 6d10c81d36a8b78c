"""What a slave tells its crew: what becomes of its tasks, now, or gathered and later; and the rest by the same door.

A slave that ends one quick job after another tells of many at a time, since each message costs all on its way about as
much as a job of a millisecond. While a job takes long, a thread, the guard, tells of those that ended before it. What a
job does, and whether the next one can wait for that, is known in `papyros.slave`: nothing of it may be in here.
"""

from __future__ import annotations

import math
import socket
import threading
from array import array
from time import monotonic, sleep  # themselves: a job may put others in their place
from typing import Final

from papyros.bundles import Untold
from papyros.frames import Buffer, Parts, Stream, join_column, pack_frame
from papyros.protocol import ORDINAL, ORDINALS, OUTCOMES, PART

__all__ = ["Teller"]

#: Between two messages with outcomes pass at least so many seconds, where none has to go at once, ...
PAUSE_SECONDS: Final = 0.002

#: ... and outcomes are gathered for at most so long, or until they are so many. They are sent sooner when the jobs that
#: the slave has run out, so that more come in time.
GATHER_SECONDS: Final = 0.25
GATHER_JOBS: Final = 250

#: Between two jobs they are sent if at the end of another one that takes as long they would have waited for so long:
#: the thread that sends them while a job runs costs this job the interpreter's lock, and a change of threads.
BETWEEN_SECONDS: Final = 0.9 * GATHER_SECONDS

#: A guard that is due has woken up within so long, where it can.
LOOK_SECONDS = 0.005

#: Of a bundle that runs, outcomes of so many bytes are sent before it ends.
PART_BYTES: Final = 1 << 20


class Teller:
    """Gathers what becomes of a slave's tasks, in their order, and sends it over the socket to its crew.

    Args:
        sock: the stream to the crew; it blocks.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._stream = Stream(sock)
        self._lock = threading.RLock()  # guards what follows, and the sending; a job's handler of a signal may print
        self._outcomes: list[Buffer | Parts] = []
        self._seconds = array("d")
        self._told = 0  # of so many tasks they were sent
        self._since = math.inf  # since when the first of them waits to be sent
        self._part = Untold()  # of the bundle that runs, or ran last: what has not been told yet
        self._part.over = True
        self._bundle = 0  # its ordinal
        self._flushed = 0.0
        self._guarded = threading.Event()  # the guard looks after what waits to be sent
        self._on_guard = False  # so it does, or is about to: to ask the event each time costs more
        self._guard_due = math.inf  # when it wakes up to look
        self._looked = threading.Event()  # whether it has, since it was due

    @property
    def waits(self) -> bool:
        """Whether outcomes of tasks wait to be sent."""
        return bool(self._outcomes)

    def add(self, encoded: Buffer | Parts, seconds: float, finished: float) -> None:
        """Take what has become of a task, that took so many seconds, and ended in that moment; to be sent later."""
        with self._lock:
            if not self._outcomes:
                self._since = finished
            self._outcomes.append(encoded)
            self._seconds.append(seconds)

    def is_early(self, now: float) -> bool:
        """Whether it is too early to send outcomes again, if none has to go at once."""
        return now - self._flushed < PAUSE_SECONDS

    def is_late(self, then: float) -> bool:
        """Whether outcomes should be sent now, if it can be done again only then."""
        return len(self._outcomes) >= GATHER_JOBS or then - self._since > BETWEEN_SECONDS

    def flush(self) -> None:
        """Send the outcomes that wait."""
        with self._lock:
            self._flushed = monotonic()
            if not self._outcomes:
                return
            self._since = math.inf
            outcomes, self._outcomes = self._outcomes, []
            seconds, self._seconds = self._seconds, array("d")
            first = ORDINAL.pack((self._told + 1) % ORDINALS)
            self._told += len(outcomes)
            body = [first, seconds.tobytes(), *join_column(outcomes)]
            self._stream.send(pack_frame(OUTCOMES, len(outcomes), body))

    def send(self, kind: int, number: int, body: bytes) -> None:
        """Send a frame of another kind."""
        with self._lock:
            self._stream.send(pack_frame(kind, number, [body]))

    # Bundles ----------------------------------------------------------------------------

    def begin_bundle(self, ordinal: int) -> None:
        """Take note that the task of this ordinal is a bundle of jobs, which are begun now."""
        with self._lock:
            self._part = Untold()
            self._bundle = ordinal
        self.guard()  # what comes of its jobs is to be sent while one of them takes long

    def add_to_bundle(self, encoded: Buffer | Parts, seconds: float, finished: float) -> None:
        """Take what has become of the next job of the bundle, as `add` does of a task."""
        if self._part.size + len(encoded) > PART_BYTES:
            self._tell_part()  # beside a result that is as large as may be, nothing fits into a message
        with self._lock:
            self._part.add(encoded, seconds, finished)

    def end_bundle(self) -> bytes:
        """Return what has become of the bundle, but for what was told: it is to be added, as that of a task."""
        with self._lock:
            told = self._part.told(over=True)
            self._part.over = True
        return told

    def _tell_part(self) -> None:
        """Send what has become of jobs of the bundle that runs, so far."""
        with self._lock:
            part = self._part
            if part.outcomes and not part.over:
                self._stream.send(pack_frame(PART, self._bundle % ORDINALS, [part.told(over=False)]))

    # The guard --------------------------------------------------------------------------

    def guard(self) -> None:
        """Have the guard look after what waits to be sent, while the next job runs."""
        if not self._on_guard:
            self._on_guard = True
            self._guarded.set()

    def serve_as_guard(self) -> None:
        """Send outcomes that have waited for long enough while a job runs, until the crew is gone: a thread's work."""
        while True:
            self._guarded.wait()
            self._nap(GATHER_SECONDS)  # no outcome is due before that
            while (patience := self._patience()) < math.inf or not self._part.over:
                if patience > 0:
                    self._nap(min(patience, GATHER_SECONDS))
                    continue
                try:
                    self.flush()
                    self._tell_part()
                except OSError:
                    return
            self._guarded.clear()
            self._on_guard = False
            if self._outcomes or not self._part.over:  # they came just now, and found the guard awake
                self.guard()

    def _nap(self, seconds: float) -> None:
        """Let the guard sleep."""
        self._guard_due = monotonic() + seconds
        sleep(seconds)
        self._guard_due = math.inf
        self._looked.set()

    def let_guard_look(self, now: float) -> None:
        """Between two jobs, wait until the guard, if it is due, has the interpreter's lock.

        Otherwise it may go without for long: each job lets go of that lock for a moment, which wakes the guard, but
        the next job has it before the guard is awake. All of that would be repeated with each job.
        """
        if now <= self._guard_due:
            return
        self._looked.clear()
        if self._guard_due < now:
            self._looked.wait(LOOK_SECONDS)

    def _patience(self) -> float:
        """Return for how many seconds the outcome that waits for the longest time may wait still; inf if none does."""
        since = min(self._since, self._part.since)
        return since if since == math.inf else since + GATHER_SECONDS - monotonic()

    def let_go_in_fork(self) -> None:
        """In a process that a job has forked: let nobody there wait for a thread that is not."""
        self._lock = threading.RLock()
        self._stream.let_go_in_fork()
