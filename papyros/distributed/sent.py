"""Which jobs of a client its master has, as far as the client knows. Whoever calls holds the lock of the client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from papyros.entries import Entry

__all__ = ["SentJobs"]


class SentJobs:
    """Jobs that were sent to a master and have no outcome yet, and how many of them wait there.

    Attributes:
        entries: the jobs, by their numbers.
        leaving: the numbers of those in a message that is about to be sent for the first time.
    """

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.leaving: set[int] = set()
        self._total = (0, 0)  # how many were sent, and their bytes
        self._left = (0, 0)  # how many of these left the master's waiting line, and their bytes
        self._left_number = 0  # the number of the answer that told so: they may overtake each other

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many wait at the master, and their bytes."""
        return max(0, self._total[0] - self._left[0]), max(0, self._total[1] - self._left[1])

    def add(self, entries: Sequence[Entry]) -> None:
        """Take note of jobs that are about to be sent."""
        self.entries.update((entry.number, entry) for entry in entries)
        self._total = (self._total[0] + len(entries), self._total[1] + sum(entry.size for entry in entries))

    def drop(self, numbers: Iterable[int]) -> Iterator[int]:
        """Forget these jobs one by one, and yield the numbers of those that were there."""
        for number in numbers:
            if self.entries.pop(number, None) is not None:
                yield number

    def note_left(self, left: Sequence[int]) -> bool:
        """Take note of what an answer says: how many have left the line; return whether that is news."""
        jobs, size, number = left
        if number < self._left_number:
            return False  # something newer was told in another thread
        self._left_number = number
        before, self._left = self._left, (jobs, size)
        return before != self._left

    def forget(self) -> None:
        """Begin anew, with another master, or none."""
        self.entries.clear()
        self.leaving.clear()
        self._total = self._left = (0, 0)
        self._left_number = 0
