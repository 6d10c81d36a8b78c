"""The tasks that a slave has, and how far it is with them: what its crew knows of that, and believes.

Three things tell, each of which a job can spoil, since it runs in the same process: the tokens that the slave has
taken, its slate, and the outcomes that come. What goes together is believed; what cannot be true is an error in here.
What becomes of such a slave is the affair of `papyros.process` and `papyros.limits`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
import time
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from papyros import protocol
from papyros.slate import Slate

if TYPE_CHECKING:
    from papyros.tasks import Task

__all__ = ["MOST_TOKENS", "Progress", "Recalled", "jobs_in"]

#: A slave has no more tokens than this at a time, which always fit into a pipe: elsewhere they would be lost.
MOST_TOKENS: Final = 1024

#: A slave that has begun nothing, though it could have, in so many looks of its crew in a row hears nothing any more.
DEAF_LOOKS = 4


class Recalled(NamedTuple):
    """What was taken back of a slave.

    Attributes:
        tasks: those that it had not started.
        cut: the bundle that it runs, and how many of its jobs it has started, if it is to start no others.
    """

    tasks: list[Task]
    cut: tuple[Task, int] | None


class Progress:
    """What was sent to a slave and not answered yet, and how far that has come.

    Args:
        slate: on which the slave notes what it does.
        token_in: the end of the pipe of tokens into which they are put.
        token_out: the other end, from which the slave takes them, and its crew takes them back.

    Attributes:
        queue: the tasks that the slave has, in order; the first ones may be started.
        jobs: how many jobs these are, as far as is known: a bundle counts as all of its jobs until there are none of
            them left that could be taken back, and as one from then on.
        cut: the last bundle of which it runs no more than it had started, and how many jobs that are.
        received: of how many tasks outcomes came before those in the queue.
        spoilt: whether what is on its slate cannot be true.
    """

    def __init__(self, slate: Slate, token_in: int, token_out: int) -> None:
        self.queue: deque[Task] = deque()
        self.jobs = 0
        self.cut: tuple[Task, int] | None = None
        self.received = 0
        self.spoilt = False
        self._slate = slate
        self._token_in = token_in
        self._token_out = token_out
        self._epoch = 0
        self._begun = 0  # so many tasks, the first ones, count as one job each
        self._seen = (0, 0.0)  # the task that it runs, and when it was seen first, where its slate has no such moment
        self._last = (0, 0, 0)  # how many tasks it had started, and finished, at the last look, and bytes unsent
        self._deaf_looks = 0

    def close(self) -> None:
        """Let go of the slate and the tokens."""
        os.close(self._token_in)
        os.close(self._token_out)
        self._slate.close()

    # Out, and back ----------------------------------------------------------------------

    def add(self, tasks: Sequence[Task]) -> tuple[int, int]:
        """Note tasks that are about to be sent; return which task the first one is, and how many jobs they are."""
        ordinal = self.received + len(self.queue) + 1
        self.queue.extend(tasks)
        jobs = jobs_in(tasks)
        self.jobs += jobs
        return ordinal, jobs

    @property
    def epoch(self) -> bytes:
        """The token of jobs that are sent now."""
        return self._epoch.to_bytes(protocol.TOKEN_BYTES, "little")

    def allow(self, jobs: int) -> None:
        """Give the slave the tokens of so many jobs, which are about to be sent."""
        with contextlib.suppress(OSError):  # it died; its death is noticed elsewhere
            os.write(self._token_in, self.epoch * jobs)

    def recall(self, worth: int = 1) -> Recalled:
        """Take back all tasks that the slave has not started.

        Also what it has not started of the bundle that it runs, if it is `worth` it: at least so many jobs.
        """
        tokens = b""
        with contextlib.suppress(BlockingIOError):
            while taken := os.read(self._token_out, 1 << 16):
                tokens += taken
        was_cut = tokens.startswith(protocol.CUT)  # the slave has not come to it yet
        left = len(tokens) // protocol.TOKEN_BYTES - was_cut
        tasks = []
        while left and self.queue and left >= self.queue[-1].terms.jobs:
            task = self.queue.pop()
            left -= task.terms.jobs
            tasks.append(task)
        tasks.reverse()
        self._epoch += 1
        bundle = self.queue[-1] if left and self.queue else None
        cut = was_cut or left >= worth
        if was_cut or bundle is not None:
            # The slave is in the midst of a bundle, and waits for these tokens, or for what stands in their place.
            with contextlib.suppress(OSError):  # it died
                os.write(self._token_in, protocol.CUT if cut else tokens[: left * protocol.TOKEN_BYTES])
        if bundle is None or cut:
            self._begun = self.jobs = len(self.queue)
        else:
            self._begun = len(self.queue) - 1
            self.jobs = self._begun + bundle.terms.jobs
        if bundle is None or not cut:
            return Recalled(tasks, None)
        self.cut = bundle, bundle.terms.jobs - left
        return Recalled(tasks, self.cut)

    # Outcomes ---------------------------------------------------------------------------

    def check_outcomes(self, first: int, count: int) -> None:
        """Refuse outcomes that are not of the tasks whose turn it is: those after them would be taken for others'.

        Args:
            first: which task the first one is said to be of.
            count: how many there are.

        Raises:
            ValueError: that is so.
        """
        started = self._slate.started
        if first != (self.received + 1) % protocol.ORDINALS:
            raise ValueError(f"outcomes from task {first} on after those of {self.received}")
        begun = min(started - self.received, len(self.queue))
        if not 0 < count <= max(begun, len(self.taken()) if count > begun else 0):
            raise ValueError(f"{count} outcomes for {len(self.queue)} tasks, and {started} were started in all")

    def bundled(self) -> list[int]:
        """Return how many jobs each task is; an empty list, where each of them is one."""
        return [task.terms.jobs for task in self.queue] if self._begun or self.jobs > len(self.queue) else []

    def end(self, count: int) -> list[Task]:
        """Take out the tasks of which so many outcomes came."""
        tasks = [self.queue.popleft() for _ in range(count)]
        self.received += count
        if self.cut is not None and any(task is self.cut[0] for task in tasks):
            self.cut = None
        begun = min(self._begun, count)
        self._begun -= begun
        self.jobs -= begun + jobs_in(tasks[begun:])
        return tasks

    # What it has, runs, and ran ---------------------------------------------------------

    def find(self, ordinal: int) -> Task | None:
        """Return the task that the slave started as its so manieth one."""
        position = ordinal - self.received % protocol.ORDINALS - 1
        return self.queue[position] if 0 <= position < len(self.queue) else None

    def running(self) -> tuple[Task, float] | None:
        """Return the task that the slave runs, or ran when it died, and since when; or None."""
        started = self._slate.started
        position = started - self.received - 1
        if started == self._slate.finished or not 0 <= position < len(self.queue):
            return None
        now, since = time.monotonic(), self._slate.moment
        if not since <= now:  # a job has put another clock in place of the real one: it is since it was seen first
            if self._seen[0] != started:
                self._seen = started, now
            since = self._seen[1]
        return self.queue[position], since

    def position(self) -> int:
        """Return the position of the job that the slave runs, or ran when it died, in its bundle."""
        return self._slate.position

    def ended(self) -> int:
        """Return how many tasks the slave has ended whose outcomes have not come."""
        # Never more than it has, whatever a job that writes all over has made of its slate.
        return min(max(0, self._slate.finished - self.received), len(self.queue))

    def left(self) -> tuple[int, int]:
        """Return how many tasks the slave has that have not ended, and how many jobs they are."""
        ended = self.ended()
        begun = min(self._begun, ended)
        return len(self.queue) - ended, self.jobs - begun - jobs_in(list(islice(self.queue, begun, ended)))

    def started(self) -> list[Task]:
        """Return the tasks that the slave has started, as its slate says, and whose outcomes have not come."""
        started = self._slate.started - self.received
        return [self.queue[position] for position in range(min(started, len(self.queue)))]

    def taken(self) -> list[Task]:
        """Return the tasks of which the slave has taken tokens: whatever its slate says, it has started no others."""
        queue = list(self.queue)
        unread = array("i", [0])
        fcntl.ioctl(self._token_out, termios.FIONREAD, unread)
        left = unread[0] // protocol.TOKEN_BYTES
        while queue and queue[-1].terms.jobs <= left:
            left -= queue.pop().terms.jobs
        return queue

    def had_started(self, retired: bool) -> list[Task]:
        """Return the tasks that a dead slave had started, as its slate says, or else the tokens that it had taken.

        Args:
            retired: whether it left those that it had not started to a fresh slave.
        """
        started, taken = self.started(), self.taken()
        if len(started) > len(taken):
            self.spoilt = True
        if self.spoilt:
            return taken
        # It has died as it began, or a job has wiped out its traces.
        return started or ([] if retired else taken[:1])

    # What cannot be, or should not ------------------------------------------------------

    def check_slate(self) -> None:
        """Refuse a slate that cannot be true: a job has written there.

        Raises:
            ValueError: it is one.
        """
        finished = self._slate.finished  # first: in this moment, the slave may begin with another one
        started = self._slate.started
        if not self.received <= finished <= started <= self.received + len(self.queue):
            self.spoilt = True
            raise ValueError(f"it has ended {finished} tasks, begun {started} and told of {self.received}")

    def stands_still(self, unsent: int) -> bool:
        """Look whether the slave goes on with what it has; return whether it did not for so many looks in a row.

        By looks and not by time, since whoever looks may have been stopped as well, as with a machine that sleeps.

        Args:
            unsent: how many bytes it has not taken yet of what was sent to it.
        """
        started, finished = self._slate.started, self._slate.finished
        waits = bool(self.queue) and started == finished
        self._deaf_looks = self._deaf_looks + 1 if waits and (started, finished, unsent) == self._last else 0
        self._last = started, finished, unsent
        return self._deaf_looks >= DEAF_LOOKS


def jobs_in(tasks: Sequence[Task]) -> int:
    """Return how many jobs these tasks are."""
    terms = [task.terms for task in tasks]
    if terms and terms.count(terms[0]) == len(terms):
        return len(terms) * terms[0].jobs  # nearly always, and counted with the least effort
    return sum([each.jobs for each in terms])
