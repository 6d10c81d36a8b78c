"""What is written in a ledger: entries, sessions, holders and deliveries. Only `papyros.ledger` changes them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from papyros.terms import DEFAULT_TERMS, Terms
from papyros.waiting import WaitingLine

__all__ = ["ASSIGNED", "FORGOTTEN", "PROCESSED", "WAITING", "Counts", "Delivery", "Entry", "Holder", "Session"]

WAITING: Final = "waiting"
ASSIGNED: Final = "assigned"
PROCESSED: Final = "processed"
FORGOTTEN: Final = "forgotten"


class Entry:
    """One job in the ledger."""

    __slots__ = (
        "deaths",
        "delayed",
        "failures",
        "families",
        "holder",
        "jobs",
        "left",
        "losses",
        "number",
        "outcome",
        "payload",
        "priority",
        "session",
        "size",
        "state",
        "terms",
    )

    def __init__(self, session: Session, number: int, payload: Any, size: int, terms: Terms = DEFAULT_TERMS) -> None:
        self.session = session
        self.number = number
        self.payload = payload
        self.size = size  # in bytes: of the payload, and once processed of the outcome
        self.terms = terms
        self.priority = terms.priority
        self.jobs = terms.jobs  # as how many it counts: of a bundle, those that are not sent again by themselves
        self.state = WAITING
        self.delayed = 0  # not 0 while it waits, but not in the line, for the end of its backoff
        self.failures = 0
        self.holder: Holder | None = None
        self.outcome: Any = None
        self.deaths: list[Any] | None = None
        self.losses: list[Any] | None = None  # of holders that may have started it
        self.left = False  # whether it ever left the waiting line
        self.families: list[Session] | None = None  # the sessions that it opened for its children

    def __repr__(self) -> str:
        return f"<Entry {self.session.key}#{self.number} {self.state}>"


@dataclass(slots=True)
class Counts:
    """What has become of the jobs of a session, since it was opened."""

    added: int = 0
    left: int = 0  # jobs that left the waiting line for the first time: assigned or cancelled
    left_bytes: int = 0  # what those took, in bytes
    processed: int = 0
    cancelled: int = 0
    popped: int = 0
    late: int = 0  # outcomes of jobs that had one already, or were cancelled
    lost: int = 0  # deaths of slaves that a job was charged for
    retried: int = 0  # exceptions after which a job was tried again

    def add_up(self, other: Counts) -> None:
        """Add the counts of another session to these."""
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_COUNTED = [field.name for field in fields(Counts)]


@dataclass(slots=True)
class Delivery:
    """The last batch sent over an unreliable wire, kept until it is acknowledged."""

    number: int = 0
    entries: list[Entry] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Session:
    """One client's stay: its jobs, and how many of them there may be at a time. Or a family: a job's children.

    Attributes:
        narrow: whether jobs may have to wait for room before they are added.
        bounded: whether processed jobs that are not popped can keep others from being assigned.
    """

    key: Hashable
    max_waiting: int | None = None
    max_processed: int | None = None
    max_waiting_bytes: int | None = None
    max_processed_bytes: int | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    line: WaitingLine = field(default_factory=WaitingLine)
    processed: deque[Entry] = field(default_factory=deque)
    delivery: Delivery = field(default_factory=Delivery)
    counts: Counts = field(default_factory=Counts)
    assigned: int = 0
    processed_bytes: int = 0
    delayed: int = 0  # jobs that wait for their next try, not in the line
    delayed_bytes: int = 0
    seconds: float | None = None  # how long its jobs take, as far as is known
    result_bytes: float = 0.0  # what their results take, likewise
    parent: Entry | None = None  # whose children these jobs are
    depth: int = 0  # how many generations are between them and a client
    kin: list[Session] = field(default_factory=list, repr=False)  # of a client: the families with jobs in the line
    dropped: bool = False
    bundled: bool = False  # whether some of its jobs are bundles
    narrow: bool = field(init=False)
    bounded: bool = field(init=False)

    def __post_init__(self) -> None:
        self.narrow = self.max_waiting is not None or self.max_waiting_bytes is not None
        self.bounded = self.max_processed is not None or self.max_processed_bytes is not None

    def jobs_in(self, state: str) -> int:
        """How many jobs of its bundles are in a state, beyond the bundles themselves."""
        if not self.bundled:
            return 0
        return sum(entry.jobs - 1 for entry in self.entries.values() if entry.state == state)

    @property
    def client(self) -> Session:
        """The session of the client to which all of these jobs are charged: this one, if they are its own."""
        session = self
        while session.parent is not None:
            session = session.parent.session
        return session

    @property
    def pending(self) -> int:
        """Jobs that were added and neither popped nor cancelled."""
        return len(self.entries)

    def has_room(self, elsewhere: int = 0, bytes_elsewhere: int = 0) -> bool:
        """Whether one more job may wait, given that so many more, of so many bytes, wait `elsewhere`."""
        if self.max_waiting is not None and len(self.line) + self.delayed + elsewhere >= self.max_waiting:
            return False
        size = self.line.size + self.delayed_bytes + bytes_elsewhere
        return self.max_waiting_bytes is None or size < self.max_waiting_bytes

    @property
    def is_full(self) -> bool:
        """Whether results that are not popped take all the bytes that they may."""
        return self.max_processed_bytes is not None and self.processed_bytes >= self.max_processed_bytes

    @property
    def fitting(self) -> float:
        """How many more results fit beside those that are still to come, as far as their size is known."""
        if self.max_processed_bytes is None or not self.result_bytes:
            return math.inf
        return (self.max_processed_bytes - self.processed_bytes) / self.result_bytes - self.assigned

    def assignable(self) -> int:
        """How many waiting jobs may be assigned now without processed ones piling up."""
        waiting = len(self.line)
        if self.is_full:
            return 0
        if self.max_processed is None:
            return waiting
        taken = self.assigned + len(self.processed) + len(self.delivery.entries)
        return max(0, min(waiting, self.max_processed - taken))


@dataclass(slots=True, eq=False)
class Holder:
    """Somebody who runs jobs with so many slaves at a time."""

    key: Hashable
    slaves: int
    assigned: dict[Entry, None] = field(default_factory=dict)
    delivery: Delivery = field(default_factory=Delivery)
    lent: int = 0  # how many of its slaves lend their places, since the jobs that they run wait for their children
    #: How many of the jobs that are assigned to it have ended there, as its last report said, though their outcomes are
    #: to come. Until the next report, it may be too many: of jobs that were cancelled, or given to others, since.
    ended: int = 0

    @property
    def places(self) -> int:
        """How many jobs it can have at a time: as many as it has slaves, and those that only wait besides."""
        return self.slaves + self.lent

    @property
    def held(self) -> int:
        """How many jobs it has that have not ended, as far as is known."""
        return max(0, len(self.assigned) - self.ended)

    @property
    def ahead(self) -> int:
        """How many jobs it has ahead of need, which wait behind others there."""
        return max(0, self.held - self.places)
