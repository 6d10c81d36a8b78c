"""The slate: a page of shared memory on which a slave notes what it does, for whoever finds it busy, or dead.

Each number on it is written, and read, in one step, whatever the other side does at that moment, and however the slave
ends. (`struct` would fill the place with zeros first.) The last number that is written is the one that gives the others
a meaning.
"""

from __future__ import annotations

import mmap
from typing import Final

__all__ = ["SLATE_BYTES", "Slate"]

SLATE_BYTES = mmap.PAGESIZE

_STARTED: Final = 0
_FINISHED: Final = 1
_MOMENT: Final = 2
_POSITION: Final = 3


class Slate:
    """What a slave does.

    Args:
        memory: the page, with zeros on it if nobody has written there.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._numbers = memoryview(memory).cast("Q")
        self._moments = memoryview(memory).cast("d")

    # For the slave ----------------------------------------------------------------------

    def start(self, task: int, moment: float, position: int = 0) -> None:
        """Note that a task is started, or the job at this position of a bundle; tasks are counted from 1 on."""
        self._numbers[_POSITION] = position
        self._moments[_MOMENT] = moment
        self._numbers[_STARTED] = task

    def finish(self, task: int, moment: float) -> None:
        """Note that this task has ended."""
        self._numbers[_FINISHED] = task
        self._moments[_MOMENT] = moment

    def leave(self, task: int) -> None:
        """Note that this task was not started after all."""
        self._numbers[_STARTED] = task - 1

    # For its crew -----------------------------------------------------------------------

    @property
    def started(self) -> int:
        """How many tasks it has started."""
        return self._numbers[_STARTED]

    @property
    def finished(self) -> int:
        """How many tasks it has finished."""
        return self._numbers[_FINISHED]

    @property
    def moment(self) -> float:
        """When it started the task that it runs, or the job of a bundle, by the monotonic clock; or ended the last."""
        return self._moments[_MOMENT]

    @property
    def position(self) -> int:
        """The position of the job that it runs, or has run last, in its bundle."""
        return self._numbers[_POSITION]

    def close(self) -> None:
        """Let go of the memory; nothing can be read after that."""
        self._numbers.release()
        self._moments.release()
        self._memory.close()
