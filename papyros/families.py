"""The children of jobs that run in slave processes, as the master of these keeps them.

The other end is `papyros.relay`, in the slaves; the crew brings messages from one to the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any

from papyros.entries import ASSIGNED, FORGOTTEN, PROCESSED, Entry, Session
from papyros.ledger import Ledger
from papyros.relay import pack_words, unpack_words
from papyros.status import Status
from papyros.store import Held, needs_of
from papyros.terms import Terms, check_terms
from papyros.wire import Payload, definition_digest

__all__ = ["Families"]

#: Children are numbered by their parents: what is beyond these bits of a number says whose it is.
NUMBER_BITS = 40

#: So many families that have ended leave their definitions behind.
KEPT_FAMILIES = 100


class Families:
    """Keeps the sessions of children. All of it is called with the lock of the master held.

    Args:
        ledger: the books of the master.
        tell: sends a message to a job that runs.
        stop: stops jobs that were assigned.
        status: returns a snapshot of the master.
        unshare: is told of shared values that no family needs any more, if no other one does.
    """

    def __init__(
        self,
        ledger: Ledger,
        tell: Callable[[Entry, bytes], None],
        stop: Callable[[list[Entry]], None],
        status: Callable[[], Status],
        unshare: Callable[[list[bytes]], None],
    ) -> None:
        self._ledger = ledger
        self._tell = tell
        self._stop = stop
        self._status = status
        self._unshare = unshare
        self._families: dict[tuple[Entry, int], _Family] = {}
        self._opened = 0
        # A child may be on its way to a slave when its family ends, so definitions are kept for a little longer.
        self._ended: deque[dict[bytes, bytes]] = deque(maxlen=KEPT_FAMILIES)

    def __len__(self) -> int:
        """How many families there are."""
        return len(self._families)

    def hear(self, parent: Entry, message: memoryview) -> bool:
        """Take what a job has to say of its children; return whether there may be jobs to assign now.

        Raises:
            Exception: of any class. The job has said what no master of children says.
        """
        (kind, number, *rest), parts = unpack_words(message)
        family = self._families.get((parent, number))
        if family is None and (family := self._open(parent, number)) is None:
            return False
        if kind == "share":
            with contextlib.suppress(OSError):  # it is gone, and so is whoever wanted it
                digest = bytes.fromhex(rest[0])
                family.values[digest] = Held.at(digest, rest[1])
        elif kind == "define":
            family.define(bytes.fromhex(rest[0]), bytes(parts[0]), str(rest[1]))
        elif kind == "add":
            children = [
                (_checked_number(child), Payload(bytes.fromhex(digest), blob), _checked_terms(terms))
                for (child, digest, terms), blob in zip(rest[0], parts, strict=True)
            ]
            for child, payload, terms in children:
                self._ledger.add(family.session, family.base + child, payload, len(payload.blob), terms)
            return True
        elif kind == "drop":
            self._ledger.discard(family.session, [family.base + child for child in rest[0]])
        elif kind == "close":
            running = [entry for entry in family.session.entries.values() if entry.holder is not None]
            self._ledger.drop(family.session.key)
            self._stop(running)
            self.end(family.session)
        elif kind == "ask":
            ticket, question, *arguments = rest
            self._tell(parent, pack_words(["answer", number, ticket, self._answer(family, question, *arguments)]))
        return False

    def send_outcomes(self) -> None:
        """Send parents what became of their children."""
        for (parent, number), family in self._families.items():
            if not family.session.processed:
                continue
            entries = self._ledger.pop(family.session, len(family.session.processed))
            head: list[list[Any]] = []
            parts = []
            for entry in entries:
                done = entry.outcome
                # Bytes alone: of a job that was lost.
                encoded, slave, seconds = (done, "", 0.0) if isinstance(done, bytes) else done
                head.append([entry.number - family.base, seconds, slave])
                parts.append(encoded)
            self._tell(parent, pack_words(["done", number, head], parts))

    def end(self, session: Session) -> None:
        """Forget a family that was dropped."""
        family = self._families.pop((session.parent, session.key[1]), None)  # type: ignore[index, arg-type]
        if family is not None:
            self._ended.append(family.definitions)
            if family.values:
                self._unshare(list(family.values))

    def definition(self, digest: bytes) -> bytes:
        """Return a definition that some job has sent; nothing, if nobody wants jobs of it any more."""
        known = [family.definitions for family in self._families.values()]
        return next((found[digest] for found in (*known, *self._ended) if digest in found), b"")

    def value(self, digest: bytes) -> Held | None:
        """Return a shared value that children need."""
        return next((found for family in self._families.values() if (found := family.values.get(digest))), None)

    def sizes(self) -> dict[bytes, int]:
        """Return how many bytes each of these values has, by its digest."""
        return {digest: held.size for family in self._families.values() for digest, held in family.values.items()}

    def text_of(self, entry: Entry) -> str:
        """Return a child in words, as far as a master knows them."""
        family = self._families.get((entry.session.parent, entry.session.key[1]))  # type: ignore[index, arg-type]
        if family is None or entry.payload is None:
            return "a job that nobody wants any more"
        return f"{family.labels.get(entry.payload[0], 'job')} #{entry.number - family.base}"

    def _open(self, parent: Entry, number: int) -> _Family | None:
        """Open a family of a job; none where it has no slave any more, or nobody wants it, nor what it waits for."""
        if parent.state is FORGOTTEN:
            self._stop([parent])
        if parent.state is not ASSIGNED:
            return None
        self._opened += 1
        session = self._ledger.open((self._opened, number), parent=parent)
        family = self._families[parent, number] = _Family(session, self._opened << NUMBER_BITS)
        return family

    def _answer(self, family: _Family, question: str, *arguments: Any) -> Any:
        session = family.session
        if question == "status":
            return dataclasses.asdict(self._status())
        if question == "assigned":
            entry = session.entries.get(family.base + arguments[0])
            return entry is not None and entry.state is ASSIGNED
        if question == "withdraw":
            return [number for number in arguments[0] if self._ledger.cancel(session, family.base + number)]
        return self._cancel(family, *arguments)

    def _cancel(self, family: _Family, numbers: list[int] | None) -> list[int]:
        session = family.session
        if numbers is None:
            return [number - family.base for number in self._ledger.cancel_waiting(session)]
        cancelled = []
        for number in numbers:
            entry = session.entries.get(family.base + number)
            if entry is None or entry.state is PROCESSED:
                continue
            holder = entry.holder
            self._ledger.discard(session, [entry.number])
            if holder is not None:
                self._stop([entry])
            cancelled.append(number)
        return cancelled


class _Family:
    """The children of one job, by one of its masters."""

    def __init__(self, session: Session, base: int) -> None:
        self.session = session
        self.base = base
        self.definitions: dict[bytes, bytes] = {}
        self.labels: dict[bytes, str] = {}
        self.values: dict[bytes, Held] = {}

    def define(self, digest: bytes, definition: bytes, label: str) -> None:
        """Keep the definition of a class of children, and what to call it."""
        if definition_digest(definition) != digest:
            raise ValueError("a definition that has another digest")
        needs_of(definition)  # which raises an error here, and not when it is sent, if it is none
        self.definitions[digest] = definition
        self.labels[digest] = label


# What a job says of its children, it may have made up. ------------------------------------


def _checked_number(child: int) -> int:
    if not (type(child) is int and 0 <= child < 1 << NUMBER_BITS):
        raise ValueError(f"no child has the number {child!r}")
    return child


def _checked_terms(told: list[Any]) -> Terms:
    priority, timeout, retries, backoff, once, echo, jobs, deaths = told
    terms = Terms(priority, timeout, retries, backoff, once, bool(echo))
    check_terms(terms, (), lambda: "a child")
    if (jobs, deaths) != (1, 0):
        raise ValueError("a child is a single job, of which no slave has died")
    return terms
