"""Which jobs of a client travel in bundles: quick ones of a class, whose bundle is done in a few milliseconds.

How long jobs of a class take, and how large their results are, is learned from those that have ended. Before
that is known, and where they are not quick, each job travels by itself. So do jobs that want more than to be run: at
most once, within a time, again after an exception, or with their prints shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from papyros.bundles import MOST_JOBS
from papyros.entries import Entry
from papyros.frames import Buffer
from papyros.terms import DEFAULT_TERMS, Terms

__all__ = ["Bundle", "Bundling"]

#: A bundle is done in about so many seconds.
BUNDLE_SECONDS: Final = 0.01

#: Jobs with arguments of more bytes than this, or with larger results on the average, travel by themselves.
SMALL_BYTES: Final = 1 << 10

#: The weight of the newest measurement in the moving averages.
FRESHNESS: Final = 0.25

#: Of so many classes is known how quick their jobs are; beyond, all is learned anew.
MOST_CLASSES = 1000


class Bundle:
    """Jobs that travel as one.

    Attributes:
        number: the number of the bundle, which no job has.
        entries: its jobs.
        left: how many of them may still be run as a part of it, as far as is known.
        definition: the digest of the definition of their class.
        blob: their arguments.
        terms: their terms.
        seal: the seal of the bundle.
    """

    __slots__ = ("blob", "definition", "entries", "left", "number", "seal", "terms")

    def __init__(self, number: int, entries: Sequence[Entry], blob: Buffer, seal: bytes) -> None:
        self.number = number
        self.entries = entries
        self.left = len(entries)
        self.definition: bytes = entries[0].payload[0]
        self.blob = blob
        self.terms = entries[0].terms._replace(jobs=len(entries))
        self.seal = seal


class _Known(NamedTuple):
    """The averages of a class: the seconds that a job takes, and the bytes of its result."""

    seconds: float
    size: float


class Bundling:
    """Knows how quick the jobs of each class are, by the digest of its definition.

    Args:
        most: so many jobs are in a bundle, at most; 1 = there are no bundles.
    """

    def __init__(self, most: int = MOST_JOBS) -> None:
        self._most = most
        self._known: dict[bytes, _Known] = {}

    def learn(self, definition: bytes, seconds: float, size: float) -> None:
        """Take note that jobs of a class took so many seconds each, and their results so many bytes."""
        known = self._known.get(definition)
        if known is None:
            if len(self._known) >= MOST_CLASSES:
                self._known.clear()
            self._known[definition] = _Known(seconds, size)
        else:
            self._known[definition] = _Known(
                known.seconds + FRESHNESS * (seconds - known.seconds), known.size + FRESHNESS * (size - known.size)
            )

    def jobs(self, definition: bytes) -> int:
        """Return how many jobs of a class go into a bundle, as far as is known."""
        known = self._known.get(definition)
        if known is None or known.size > SMALL_BYTES:
            return 1
        return max(1, min(self._most, int(BUNDLE_SECONDS / max(1e-6, known.seconds))))

    def parted(self, entries: Iterable[Entry], at_most: int = MOST_JOBS) -> Iterator[list[Entry]]:
        """Yield jobs in their order: those of each bundle, no more than `at_most`, or one that travels by itself."""
        bundle: list[Entry] = []
        most = 1
        definition, terms = b"", DEFAULT_TERMS
        for entry in entries:
            if bundle:
                if (
                    len(bundle) < most
                    and entry.payload[0] == definition
                    and entry.terms == terms
                    and entry.size <= SMALL_BYTES
                    and len(entry.payload) == 2
                ):
                    bundle.append(entry)
                    continue
                yield bundle
            bundle = [entry]
            definition, terms = entry.payload[0], entry.terms
            alone = len(entry.payload) > 2 or entry.size > SMALL_BYTES or not _is_plain(terms)
            most = 1 if alone else min(at_most, self.jobs(definition))
        if bundle:
            yield bundle


def _is_plain(terms: Terms) -> bool:
    """Whether jobs on these terms may be run as a part of a bundle."""
    return not (terms.timeout is not None or terms.retries or terms.once or terms.echo)
