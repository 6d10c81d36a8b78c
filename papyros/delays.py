"""Jobs that failed and wait for the moment of their next try: in no line until then.

Only the ledger uses this; nothing in here changes a job's state.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from papyros.entries import Entry

__all__ = ["Delays"]

#: So many entries that have given up their delays may be kept, beside as many as there are others.
FEW = 64


class Delays:
    """Entries by the moments at which their delays are over.

    An entry notes the ticket of its delay, which is not 0. One that is cancelled meanwhile gives
    that up and is passed over later, since the middle of a heap is no place to take things from;
    when there are more of these than others, they are let go of, for their moments may be far away.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._given_up = 0  # how many of these entries have given their delays up
        self._tickets = count(1)

    def __iter__(self) -> Iterator[Entry]:
        """The entries that are still delayed."""
        return (entry for _, ticket, entry in self._heap if entry.delayed == ticket)

    def add(self, moment: float, entry: Entry) -> int:
        """Note an entry; return the ticket of its delay."""
        ticket = next(self._tickets)
        heappush(self._heap, (moment, ticket, entry))
        return ticket

    def give_up(self, entry: Entry) -> None:
        """Have an entry be delayed no more: its delay is over, or nobody waits for that."""
        entry.delayed = 0
        self._given_up += 1
        if 2 * self._given_up > len(self._heap) + FEW:
            self._heap = [kept for kept in self._heap if kept[2].delayed == kept[1]]
            heapify(self._heap)
            self._given_up = 0

    def next(self) -> float | None:
        """Return the moment at which the first delay is over."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Iterator[Entry]:
        """Take out the entries whose delays are over."""
        while self._heap and self._heap[0][0] <= now:
            _, ticket, entry = heappop(self._heap)
            self._given_up -= 1  # it has done so, or is about to
            if entry.delayed == ticket:
                yield entry
