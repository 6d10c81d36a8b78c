"""What jobs are like, what happened to them, and what may have happened to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from papyros.encoded import encode_lost, encode_overdue
from papyros.ledger import MAX_DEATHS, MAX_LOSSES
from papyros.terms import DEFAULT_TERMS, Terms
from tests.simulation.world import BrokenRule

__all__ = ["Stories", "Story"]

#: The first byte of an encoded outcome; see `papyros.encoded`.
RESULT, ERROR, FAILED = b"R", b"E", b"F"
LOST, OVERDUE = encode_lost("")[:1], encode_overdue("")[:1]


#: Jobs add jobs that add jobs, and there it ends.
MAX_DEPTH = 2


@dataclass
class Story:
    """One job: how it behaves, and what it went through."""

    client: str
    number: int
    terms: Terms
    seconds: float
    failing: int = 0  # so many executions fail
    killing: int = 0  # so many executions kill their slave
    starts: int = 0
    failures: int = 0
    deaths: int = 0  # of slaves that ran it
    charges: int = 0
    excuses: int = 0  # how often it may have been started again for no reason of its own
    cancelled: bool = False
    popped: bool = False
    children: int = 0  # so many jobs it adds each time that it runs
    depth: int = 0  # so many jobs are above it

    @property
    def name(self) -> str:
        return f"{self.client}#{self.number}"

    @property
    def overdue(self) -> bool:
        return self.terms.timeout is not None and self.seconds > self.terms.timeout

    def start(self) -> None:
        """Note a start; there must be a reason for it."""
        self.starts += 1
        allowed = 1 + min(self.failures, self.terms.retries) + min(self.deaths, MAX_DEATHS - 1) + self.excuses
        if self.terms.once:
            allowed = 1
        if self.starts > allowed:
            raise BrokenRule(f"{self} was started {self.starts} times; at most {allowed} are allowed")

    def end(self) -> bytes:
        """Return the outcome of an execution that comes to an end."""
        if self.failures < self.failing:
            self.failures += 1
            return (FAILED if self.terms.retries else ERROR) + self.name.encode()
        return RESULT + self.name.encode()

    def check(self, outcome: bytes) -> bool:
        """Return whether an outcome is a result; it must be one that this job can have."""
        if self.popped or self.cancelled:
            raise BrokenRule(f"{self} is popped though it was {'popped' if self.popped else 'cancelled'} before")
        self.popped = True
        kind, text = outcome[:1], outcome[1:]
        right = {
            RESULT: self.failures >= self.failing and not self.overdue,
            ERROR: self.failing > 0 and not self.terms.retries,
            # A failure may be told again after its host was given up: then it counts twice.
            FAILED: self.failing > 0 < self.failures and self.failures + self.excuses > self.terms.retries,
            OVERDUE: self.overdue,
            LOST: self.deaths >= MAX_DEATHS
            or self.excuses >= MAX_LOSSES
            or (self.terms.once and (self.deaths > 0 or self.excuses > 0)),
        }
        if not right[kind] or (kind in (RESULT, ERROR, FAILED) and text != self.name.encode()):
            raise BrokenRule(f"{self} has the outcome {outcome!r}")
        return kind == RESULT


class Stories:
    """All jobs there ever were.

    Args:
        dice: how to make them up.
        families: whether some of them add jobs.
    """

    def __init__(self, dice: Random, families: bool) -> None:
        self._dice = dice
        self._families = families
        self.all: dict[tuple[str, int], Story] = {}
        self._bundles: dict[tuple[str, int], list[Story]] = {}

    def tell(self, client: str, number: int, pace: float, depth: int) -> Story:
        """Make up another job."""
        dice = self._dice
        kind = dice.random()
        failing = killing = retries = 0
        timeout = None
        seconds = dice.expovariate(1 / pace) * (100 if pace < 0.1 and dice.random() < 0.02 else 1)
        if kind < 0.15:
            retries = dice.randrange(4)
            failing = dice.choice((1, 2, 99))
        elif kind < 0.25:
            killing = dice.choice((1, 2, 99))
        elif kind < 0.32:
            timeout = pace
        once = dice.random() < 0.12
        backoff = dice.choice((0.0, 0.1, 0.5)) if retries else DEFAULT_TERMS.backoff
        terms = Terms(dice.choice((0, 0, 0, 1, 5)), timeout, retries, backoff, once)
        if once:
            terms, failing = terms._replace(retries=0), min(failing, 1)
        story = self.all[client, number] = Story(client, number, terms, seconds, failing, killing, depth=depth)
        if self._families and depth < MAX_DEPTH and dice.random() < 0.25:
            story.children = dice.choice((1, 2, 5))
            if not story.overdue:
                story.terms = terms._replace(timeout=None)  # how long its children take is not for it to say
        return story

    def bundle(self, client: str, number: int, jobs: Iterable[int]) -> None:
        """Take note that these jobs travel as one, under that number."""
        self._bundles[client, number] = [self.all[client, job] for job in jobs]

    def of(self, client: str, number: int) -> list[Story]:
        """Return the stories of the jobs that travel under a number: of a bundle, or of a single job."""
        return self._bundles.get((client, number)) or [self.all[client, number]]

    def charged(self, client: str, number: int, deaths: int) -> None:
        """Take note that a job was charged for the death of its slave."""
        if (client, number) in self._bundles:
            raise BrokenRule(f"the bundle {client}#{number} was charged for a death")
        story = self.all[client, number]
        story.charges = max(story.charges, deaths)  # another master may charge it again: it knows of no earlier ones
        if story.charges > story.deaths:
            raise BrokenRule(f"{story} was charged for a death that was not its own, or twice for one")

    def excuse(self, client: str, number: int, new_master: bool = False) -> None:
        """Take note that a job, or all of a bundle, may be started again: what became of it is not known any more."""
        for story in self.of(client, number):
            story.excuses += 1 + (story.terms.retries + MAX_DEATHS - 1 if new_master else 0)
