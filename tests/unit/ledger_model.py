"""What the ledger is held against: a model of plain dictionaries and lists, and what hypothesis may choose from."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from papyros.terms import Terms

KEYS = st.sampled_from(["red", "green", "blue"])
HOLDERS = st.sampled_from(["near", "far"])
BOUNDS = st.sampled_from([None, 1, 2, 4])
BYTES = st.sampled_from([None, None, 1, 5])
SIZES = st.integers(0, 3)
LIMITS = st.integers(0, 6)
BACKOFF = 0.5

TERMS = st.one_of(
    st.integers(-1, 1).map(Terms),
    st.tuples(st.integers(-1, 1), st.integers(1, 2)).map(lambda t: Terms(t[0], retries=t[1], backoff=BACKOFF)),
    st.integers(-1, 1).map(lambda priority: Terms(priority, once=True)),
)


@dataclass(eq=False)
class Expected:
    """What the model knows of one job."""

    number: int
    terms: Terms
    size: int = 0  # of the payload; once processed of the outcome
    state: str = "waiting"
    holder: str | None = None
    deaths: int = 0
    losses: int = 0  # how often it was given back although it may have been started
    failures: int = 0
    attempts: int = 0  # how often it ran, as far as was heard
    wakes_at: float | None = None  # it waits for the end of its backoff, not in the line
    assigned_once: bool = False
    left: bool = False


@dataclass(eq=False)
class Stay:
    """What the model knows of one session."""

    session: object
    max_waiting: int | None
    max_processed: int | None
    max_waiting_bytes: int | None = None
    max_processed_bytes: int | None = None
    jobs: dict[int, Expected] = field(default_factory=dict)
    processed: list[int] = field(default_factory=list)
    outcomes: dict[int, object] = field(default_factory=dict)
    delivered: list[int] = field(default_factory=list)
    delivery: int = 0
    popped: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    added: int = 0
    highest: int = 0
    late: int = 0
    lost: int = 0
    retried: int = 0
    left: int = 0
    left_bytes: int = 0
    parent: Expected | None = None  # whose children these are
    client: Stay | None = None  # whose turns it takes; None where they are its own
    depth: int = 0
    #: How many turns each other session had since this one had its last, or had anything to assign.
    passed_over: dict[str, int] = field(default_factory=dict)

    def payer(self):
        """The client to whom all of it is charged."""
        return self.client or self

    def waiting(self):
        """The jobs in the line, in the order in which they are to be assigned."""
        found = [job for job in self.jobs.values() if job.state == "waiting" and job.wakes_at is None]
        return sorted(found, key=lambda job: (-job.terms.priority, job.number))

    def delayed(self):
        return [job for job in self.jobs.values() if job.wakes_at is not None]

    def assigned(self):
        return [job for job in self.jobs.values() if job.state == "assigned"]

    def taken(self):
        return len(self.assigned()) + len(self.processed) + len(self.delivered)

    def processed_bytes(self):
        return sum(self.jobs[number].size for number in (*self.processed, *self.delivered))

    def assignable(self):
        waiting = len(self.waiting())
        if self.max_processed_bytes is not None and self.processed_bytes() >= self.max_processed_bytes:
            return 0
        if self.max_processed is None:
            return waiting
        return max(0, min(waiting, self.max_processed - self.taken()))


@dataclass
class Host:
    """What the model knows of one holder."""

    holder: object
    slaves: int
    lent: int = 0
    delivery: int = 0
    batch: list[tuple[object, int]] = field(default_factory=list)
