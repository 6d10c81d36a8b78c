"""Which jobs of a client its master has, as far as the client knows. Whoever calls holds the lock of the client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from papyros.bundles import is_death, is_more_to_come, read
from papyros.distributed.bundling import Bundle
from papyros.entries import Entry
from papyros.frames import Buffer

__all__ = ["News", "SentJobs"]


class News(NamedTuple):
    """What has become of jobs of a bundle.

    Attributes:
        ended: those that have an outcome now, with that, and how long each took.
        again: those that are not run as a part of the bundle: they are to be sent by themselves.
        charged: the one that its slave ran when it died, which is among these.
    """

    ended: list[tuple[Entry, Buffer, float]]
    again: list[Entry]
    charged: Entry | None = None


class SentJobs:
    """Jobs that were sent to a master and have no outcome yet, and how many of them wait there.

    Attributes:
        single: the jobs that were sent by themselves, by their numbers.
        bundles: the bundles that were sent, by theirs.
        bundle_of: the bundle of each job that was sent in one, by its number.
        unsent: bundles that another master had, and that are to be sent to this one.
        leaving: the numbers of those jobs in a message that is about to be sent, and not known to have arrived.
        refused: whether the master has had no room for that message; it is asked again.
    """

    def __init__(self) -> None:
        self.single: dict[int, Entry] = {}
        self.bundles: dict[int, Bundle] = {}
        self.bundle_of: dict[int, Bundle] = {}
        self.unsent: list[Bundle] = []
        self.leaving: set[int] = set()
        self.refused = False
        self._total = (0, 0)  # how many were sent by themselves, and their bytes
        self._left = (0, 0)  # how many of these left the master's waiting line, and their bytes
        self._left_number = 0  # the number of the answer that told so: they may overtake each other

    def __len__(self) -> int:
        return len(self.single) + len(self.bundle_of)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many wait at the master, and their bytes; of a client that bounds them, which sends no bundles."""
        return max(0, self._total[0] - self._left[0]), max(0, self._total[1] - self._left[1])

    def add(self, entry: Entry) -> None:
        """Take note of a job that is about to be sent by itself."""
        self.single[entry.number] = entry
        self._total = (self._total[0] + 1, self._total[1] + entry.size)

    def add_bundle(self, bundle: Bundle) -> None:
        """Take note of a bundle that is about to be sent."""
        self.bundles[bundle.number] = bundle
        self.bundle_of.update(dict.fromkeys([entry.number for entry in bundle.entries], bundle))

    def sent_as(self, number: int) -> int:
        """Return the number under which the master knows a job: that of its bundle, or its own."""
        bundle = self.bundle_of.get(number)
        return number if bundle is None else bundle.number

    def seal_of(self, number: int) -> bytes | None:
        """Return the seal of what the master knows under this number; None if it has nothing. Needs no lock."""
        if (bundle := self.bundles.get(number)) is not None:
            return bundle.seal
        entry = self.single.get(number)
        payload = entry.payload if entry is not None else None
        return payload[2] if payload is not None else None

    def take_unsent(self, most: int) -> list[Bundle]:
        """Return up to so many bundles that are to be sent again."""
        unsent, self.unsent = self.unsent[:most], self.unsent[most:]
        return [bundle for bundle in unsent if bundle.left]

    def is_leaving(self, numbers: Collection[int] | None) -> bool:
        """Whether one of these jobs, or of all if None, is neither here any more nor with the master yet."""
        if numbers is None:
            return bool(self.leaving or self.unsent)
        if not self.leaving.isdisjoint(numbers):
            return True
        unsent = {bundle.number for bundle in self.unsent}
        return bool(unsent) and any(self.sent_as(number) in unsent for number in numbers)

    def is_refused(self, numbers: Collection[int]) -> bool:
        """Whether one of these jobs is in a message for which the master has had no room, or behind it."""
        return self.refused and self.is_leaving(numbers)

    def leaving_as(self, wanted: Collection[int] | None) -> set[int]:
        """Return the numbers under which these jobs, or all if None, are to be at the master, if they are leaving."""
        unsent = {bundle.number for bundle in self.unsent}
        behind = [number for number, bundle in self.bundle_of.items() if bundle.number in unsent] if unsent else []
        return {self.sent_as(number) for number in (*self.leaving, *behind) if wanted is None or number in wanted}

    def take_out(self, numbers: Collection[int], wanted: Collection[int] | None) -> tuple[list[int], list[Entry]]:
        """Do as `cancelled` does, of what is leaving, and will never be with the master."""
        self.leaving = {number for number in self.leaving if self.sent_as(number) not in numbers}
        for entry in [entry for number in numbers if (entry := self.single.get(number)) is not None]:
            self._total = (self._total[0] - 1, self._total[1] - entry.size)
        return self.cancelled(numbers, wanted)

    def take(self, bundle: Bundle, entries: Iterable[Entry]) -> list[Entry]:
        """Take jobs out of a bundle, and return those that were in it still."""
        taken = [entry for entry in entries if self.bundle_of.pop(entry.number, None) is not None]
        bundle.left -= len(taken)
        return taken

    def dissolve(self, bundle: Bundle) -> list[Entry]:
        """Forget a bundle; return the jobs that were in it still."""
        self.bundles.pop(bundle.number, None)
        return self.take(bundle, bundle.entries)

    def hear(self, bundle: Bundle, told: Buffer) -> News:
        """Take note of what is told of a bundle, or of what has become of all of it; return what it means for jobs."""
        try:
            start, outcomes, seconds, kept = read(told, len(bundle.entries))
        except ValueError:  # the master says that all of it was lost, or it was changed on its way
            return News([], self.dissolve(bundle))
        ended = [
            (entry, outcome, spent)
            for entry, outcome, spent in zip(bundle.entries[start:], outcomes, seconds, strict=False)
            if self.bundle_of.pop(entry.number, None) is not None
        ]
        bundle.left -= len(ended)
        again = self.take(bundle, bundle.entries[kept:]) if is_more_to_come(told) else self.dissolve(bundle)
        running = bundle.entries[start] if is_death(told) else None
        return News(ended, again, running if running in again else None)

    def cancelled(self, numbers: Iterable[int], wanted: Collection[int] | None) -> tuple[list[int], list[Entry]]:
        """Take note that the master has cancelled what it knows under these numbers, for the sake of `wanted` jobs.

        Returns the jobs that are gone, and those that are to be sent by themselves: they only were in a bundle with one
        of them, or are not wanted. All jobs are wanted if that is None.
        """
        gone: list[int] = []
        again: list[Entry] = []
        for number in numbers:
            if (bundle := self.bundles.get(number)) is not None:
                meant = bundle.entries if wanted is None else [e for e in bundle.entries if e.number in wanted]
                gone += [entry.number for entry in self.take(bundle, meant)]
                again += self.dissolve(bundle)
            elif (entry := self.single.pop(number, None)) is not None:
                if wanted is None or number in wanted:
                    gone.append(number)
                else:
                    again.append(entry)
        return gone, again

    def cancelled_in_vain(self, numbers: Iterable[int]) -> list[Entry]:
        """Take note that the master has cancelled what it knows under these numbers, though nobody wants that any more.

        Returns the jobs, which are to be sent again.
        """
        return self.cancelled(numbers, ())[1]

    def take_strays(self, assigned: Iterable[Entry]) -> list[Entry]:
        """Return those jobs that are `assigned`, and stand nowhere in here since a change of it was interrupted."""
        strays = []
        for entry in assigned:
            bundle = self.bundle_of.get(entry.number)
            if entry.number not in self.single and (bundle is None or bundle.number not in self.bundles):
                self.bundle_of.pop(entry.number, None)
                strays.append(entry)
        return strays

    def drop(self, numbers: Iterable[int]) -> Iterator[int]:
        """Forget these jobs one by one, and yield the numbers under which the master has what nobody wants any more."""
        for number in numbers:
            if self.single.pop(number, None) is not None:
                yield number
            elif (bundle := self.bundle_of.pop(number, None)) is not None:
                bundle.left -= 1
                if not bundle.left:
                    self.bundles.pop(bundle.number, None)
                    yield bundle.number

    def let_go_of_room(self) -> None:
        """Let go of the room for as many as there ever were, now that there are none."""
        self.single.clear()
        self.bundle_of.clear()

    def note_left(self, left: Sequence[int]) -> bool:
        """Take note of what an answer says: how many have left the line; return whether that is news."""
        jobs, size, number = left
        if number < self._left_number:
            return False  # something newer was told in another thread
        self._left_number = number
        before, self._left = self._left, (jobs, size)
        return before != self._left

    def move(self) -> None:
        """Begin anew with another master, to which the bundles are to be sent again; all else was taken back."""
        unsent = [bundle for bundle in self.bundles.values() if bundle.left]  # of others, no end would be told there
        bundle_of = self.bundle_of
        self.forget()
        self.bundles = {bundle.number: bundle for bundle in unsent}
        self.bundle_of = bundle_of
        self.unsent = unsent

    def forget(self) -> None:
        """Forget all."""
        self.single, self.bundles, self.bundle_of = {}, {}, {}
        self.unsent.clear()
        self.leaving.clear()
        self.refused = False
        self._total = self._left = (0, 0)
        self._left_number = 0
