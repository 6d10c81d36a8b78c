"""How a call waits without a thread: it takes a ticket of a bell, and is tried again when that is rung.

Used with the lock held that guards what the bell tells of. Whoever rings does not know who
waits, nor in which thread: in `papyros.distributed.switchboard` it is the one thread that
answers all calls, in a simulation there are no threads at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Bell", "Ticket", "Waiting"]


class Ticket:
    """Shows that somebody waits for a bell to ring."""

    __slots__ = ("_bell", "_call", "_rung")

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._rung = False
        self._call: Callable[[], None] | None = None

    def then(self, call: Callable[[], None]) -> None:
        """Have `call` called when the bell rings; at once, if it has been rung meanwhile. It may be called twice."""
        self._call = call
        if self._rung:
            call()

    def ring(self) -> None:
        """Tell whoever waits."""
        self._rung = True
        if self._call is not None:
            self._call()

    def give_back(self) -> None:
        """Wait no more."""
        self._bell.tickets.pop(self, None)


class Bell:
    """Rung when those who wait for something are to look again."""

    __slots__ = ("tickets",)

    def __init__(self) -> None:
        #: Of those who wait, in the order in which they came.
        self.tickets: dict[Ticket, None] = {}

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self.tickets)

    def ticket(self) -> Ticket:
        """Return a ticket, which is good for one ring."""
        ticket = Ticket(self)
        self.tickets[ticket] = None
        return ticket

    def ring(self) -> None:
        """Have all who wait look again."""
        if not self.tickets:
            return
        tickets, self.tickets = self.tickets, {}
        for ticket in tickets:
            ticket.ring()


class Waiting(NamedTuple):
    """What a call returns that may have to wait before it has an answer.

    Attributes:
        attempt: returns the answer, or a ticket of what it waits for. It is told whether the time is up: then it has
            to have an answer.
        seconds: how long it may wait.
    """

    attempt: Callable[[bool], Any]
    seconds: float
