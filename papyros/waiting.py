"""The waiting line of a session: higher priority first, then the order of adding.

A job that waits again takes its old place. Only the ledger uses this; nothing
in here changes a job's state.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from papyros.entries import Entry

__all__ = ["WaitingLine"]

#: So many ghosts may be kept, beside twice as many as there are jobs.
FEW: Final = 64


class WaitingLine:
    """Jobs that wait, in the order in which they are to be assigned.

    Adding at the end and taking from the front cost the same however long the
    line is. Jobs that were removed from the middle stay in place as ghosts and
    are skipped when their turn comes.
    """

    __slots__ = ("_levels", "_priorities", "_removed", "_returned", "length", "size")

    def __init__(self) -> None:
        self._levels: dict[int, deque[Entry]] = {}
        self._priorities: list[int] = []  # negated, so that the highest comes first
        #: A heap: jobs that wait again. One may have the number of a ghost, and entries have no order.
        self._returned: list[tuple[int, int, int, Entry]] = []
        self._removed: set[Entry] = set()
        self.length = 0
        self.size = 0  # in bytes

    def __len__(self) -> int:
        return self.length

    def append(self, entry: Entry) -> None:
        """Put a new job at the end of its priority."""
        level = self._levels.get(entry.priority)
        if level is None:
            level = self._levels[entry.priority] = deque()
            insort(self._priorities, -entry.priority)
        level.append(entry)
        self.length += 1
        self.size += entry.size

    def put_back(self, entry: Entry) -> None:
        """Put a job back to the place that its priority and number give it."""
        if entry in self._removed:
            self._removed.discard(entry)  # it has its old place still
        else:
            heappush(self._returned, (-entry.priority, entry.number, id(entry), entry))
        self.length += 1
        self.size += entry.size

    def popleft(self) -> Entry:
        """Take the next job; the line must not be empty."""
        while True:
            first = self._priorities[0] if self._priorities else None
            if self._returned and self._is_next(first):
                entry = heappop(self._returned)[-1]
            elif first is None:
                raise IndexError("the waiting line is empty")
            else:
                level = self._levels[-first]
                entry = level.popleft()
                if not level:
                    del self._levels[-first]
                    del self._priorities[0]
            if self._removed and entry in self._removed:
                self._removed.discard(entry)
                continue
            self.length -= 1
            self.size -= entry.size
            return entry

    def _is_next(self, first: int | None) -> bool:
        """Return whether the first job that waits again is before the first one of this priority, if there is any."""
        priority, number, *_ = self._returned[0]
        return first is None or (priority, number) < (first, self._levels[-first][0].number)

    def remove(self, entry: Entry) -> None:
        """Take a job out of the middle of the line, in which it must be."""
        self._removed.add(entry)
        self.length -= 1
        self.size -= entry.size
        if not self.length:
            self.clear()
        elif len(self._removed) > 2 * self.length + FEW:
            self._forget_ghosts()

    def _forget_ghosts(self) -> None:
        """Let go of those that were removed: what waits before them may take its time."""
        ghosts = self._removed
        self._levels = {
            priority: kept
            for priority, level in self._levels.items()
            if (kept := deque(entry for entry in level if entry not in ghosts))
        }
        self._priorities = sorted(-priority for priority in self._levels)
        self._returned = [item for item in self._returned if item[-1] not in ghosts]
        heapify(self._returned)
        self._removed = set()

    def refill(self, entries: Iterable[Entry]) -> None:
        """Let these jobs wait, and no others, whatever the line is like: a change of it may have been interrupted."""
        self._levels.clear()
        self._priorities.clear()
        self._returned.clear()
        self._removed.clear()
        self.length = self.size = 0
        for entry in sorted(entries, key=attrgetter("number")):
            self.append(entry)

    def clear(self) -> list[Entry]:
        """Empty the line; return the jobs that were in it."""
        entries = [self.popleft() for _ in range(self.length)]
        self._levels.clear()
        self._priorities.clear()
        self._returned.clear()
        self._removed.clear()
        return entries
