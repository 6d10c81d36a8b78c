"""Who is at the desk of a master: a client, or a slave host, and what is kept there for each of them.

What they do with the ledger is decided by the `Desk`, with whose lock held all of this is used. Nothing in here changes
a job's state, or looks at a clock.
"""

from __future__ import annotations

import uuid
from collections import deque

from papyros.distributed.bells import Bell
from papyros.entries import Holder, Session
from papyros.prints import keep_end, room_for
from papyros.status import SharedStatus, SlaveStatus
from papyros.store import Held

__all__ = ["ClientDesk", "HostDesk"]

#: What a client's jobs print has so much room until the client collects it.
PRINT_CHARACTERS = 1 << 20

#: The answers to so many cancellations are kept, in case they were lost on their way; of so many jobs, or one answer.
MAX_TICKETS = 100
MAX_TICKET_JOBS = 1_000_000


class ClientDesk:
    """A client, as the master knows it."""

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.stay = uuid.uuid4().hex
        self.joined = self.seen = now
        #: Rung when there is something to collect.
        self.news = Bell()
        #: Rung when there is room for more jobs.
        self.room = Bell()
        self.counts_room = False  # whether what it collects is also how many jobs left the line
        self.sequence = 0
        self.left_told = (0, 0)
        self.left_number = 0  # grows with each answer that tells it
        self.definitions: dict[bytes, bytes] = {}
        self.labels: dict[bytes, str] = {}
        self.values: dict[bytes, Held] = {}  # what its jobs share, by digest; also what other clients have shared
        self.cancelled: dict[int, list[int]] = {}  # the answers to the last cancellations, by their tickets
        self.prints: deque[tuple[int, str, str]] = deque()
        self.printed = 0  # how much room it takes

    def ring(self) -> None:
        """Have all its calls that wait look again."""
        self.news.ring()
        self.room.ring()

    def tell_room(self) -> None:
        """Have those look again that wait for room, since jobs left the line."""
        self.room.ring()
        if self.counts_room:
            self.news.ring()

    def print(self, number: int, slave: str, text: str) -> None:
        """Keep what a job printed; when there is too much, the oldest goes."""
        self.prints.append((number, slave, text))
        self.printed = keep_end(self.prints, self.printed + room_for(text), PRINT_CHARACTERS)

    def remember_cancelled(self, ticket: int, numbers: list[int]) -> None:
        """Keep the answer to a cancellation, which may be asked for again; the oldest goes."""
        self.cancelled[ticket] = numbers
        jobs = sum(map(len, self.cancelled.values()))
        while len(self.cancelled) > MAX_TICKETS or (jobs > MAX_TICKET_JOBS and len(self.cancelled) > 1):
            jobs -= len(self.cancelled.pop(next(iter(self.cancelled))))

    def take_prints(self) -> list[tuple[int, str, str]]:
        """Hand out what was printed."""
        prints = list(self.prints)
        self.prints.clear()
        self.printed = 0
        return prints


class HostDesk:
    """A slave host, as the master knows it."""

    def __init__(self, holder: Holder, now: float) -> None:
        self.holder = holder
        self.stay = uuid.uuid4().hex
        self.seen = now
        #: Rung when there may be work, orders or questions.
        self.work = Bell()
        self.sequence = 0
        self.orders: list[tuple[str, int]] = []  # jobs to stop, that it has not confirmed to have heard of
        self.orders_heard = 0
        self.surplus = 0  # how many jobs, which it has not started, it is to give back for others
        self.surplus_sequence = -1  # the last report before it was asked for some
        self.asked = 0  # the number of the last question what its slaves do
        self.answered = 0
        self.slaves: tuple[SlaveStatus, ...] = ()
        self.values = SharedStatus("", 0, 0)  # what it holds of shared values

    def hear_orders(self, heard: int) -> tuple[int, list[tuple[str, int]]]:
        """Forget the first so many orders ever given, which the host has heard.

        Returns the others, and how many it has heard once it hears them.
        """
        del self.orders[: max(0, heard - self.orders_heard)]
        self.orders_heard = max(heard, self.orders_heard)
        return self.orders_heard + len(self.orders), list(self.orders)
