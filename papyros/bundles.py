"""Bundles: quick jobs that travel as one, and what becomes of them.

The books of a job cost more than a quick job does. So a client of a cluster sends quick jobs of one
class in bundles (`papyros.distributed.bundling`), each of which master, slave host and crew
keep and pass on like a single job: it has one number, one seal, one blob. Only the slave that runs
it, and the client, know the jobs in it. What comes back is told in *parts*: outcomes so far, that jobs from a
position on will not be run there (their client sends them again, one by one), and the end.

Nothing in here pickles or looks into a blob or an outcome.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from papyros.frames import Buffer, Parts, join_column, message_parts, seconds_column, split_column, unpack_message

__all__ = [
    "MOST_JOBS",
    "Told",
    "Untold",
    "blobs_of",
    "check",
    "count_jobs",
    "cut_off",
    "death",
    "is_death",
    "is_more_to_come",
    "is_of_bundle",
    "kept_of",
    "outcomes",
    "pack_bundle",
    "read",
    "story_of",
]

#: A bundle has no more jobs than this.
MOST_JOBS: Final = 64

# The first byte of what is told of a bundle; that of the outcome of a single job is another letter (`papyros.encoded`).
_SO_FAR: Final = b"+"  # outcomes of some of its jobs; more is to come
_CUT: Final = b"-"  # the jobs from a position on are not run there; more is to come
_END: Final = b"="  # outcomes of some of its jobs; all others are not run there any more
_DEATH: Final = b"!"  # the slave that ran it has died: what was not told before is lost

_KINDS: Final = frozenset(_SO_FAR + _CUT + _END + _DEATH)

#: After that byte: the position of the first job that this is about, and of how many the outcomes follow.
_HEAD: Final = struct.Struct("<II")
_BEHIND: Final = 1 + _HEAD.size


class Told(NamedTuple):
    """What was told of a bundle.

    Attributes:
        start: the position of the job whose outcome is the first one.
        outcomes: of this job, and those after it.
        seconds: how long each of them took.
        kept: how many jobs of the bundle, from its first one on, may still be run there.
    """

    start: int
    outcomes: list[Buffer]
    seconds: Sequence[float]
    kept: int


class Untold:
    """Outcomes of jobs of the bundle that a slave runs, which it has not told yet."""

    def __init__(self) -> None:
        self.start = 0  # the position of the first of these jobs
        self.outcomes: list[Buffer] = []
        self.seconds = array("d")
        self.size = 0
        self.since = math.inf  # since when the first of them waits to be told
        self.over = False  # whether the last of them were told

    def add(self, encoded: Buffer | Parts, seconds: float, now: float) -> None:
        """Take note of the next one. What is large may be memory of the job's own, to which the next may write."""
        if isinstance(encoded, Parts):
            encoded = b"".join(encoded.buffers)
        if not self.outcomes:
            self.since = now
        self.outcomes.append(encoded)
        self.seconds.append(seconds)
        self.size += len(encoded)

    def told(self, over: bool) -> bytes:
        """Return what tells these outcomes, and forget them."""
        told = outcomes(self.start, self.seconds, self.outcomes, over)
        self.start += len(self.outcomes)
        self.outcomes, self.seconds, self.size, self.since = [], array("d"), 0, math.inf
        return told


def pack_bundle(blobs: Sequence[Buffer | Parts]) -> bytes:
    """Return the blob of a bundle of jobs with these blobs."""
    return b"".join(message_parts(blobs))


def blobs_of(bundle: Buffer) -> list[Buffer]:
    """Return the blobs of the jobs in a bundle.

    Raises:
        ValueError: it is no bundle.
    """
    return unpack_message(bundle)


def count_jobs(bundle: Buffer) -> int:
    """Return how many jobs a bundle says that it has."""
    return int.from_bytes(bundle[:4], "little")


def outcomes(start: int, seconds: array[float], encoded: Sequence[Buffer], over: bool) -> bytes:
    """Return what tells the outcomes of the jobs from `start` on, and that the bundle is `over`, or not yet."""
    head = (_END if over else _SO_FAR) + _HEAD.pack(start, len(encoded))
    return b"".join([head, seconds.tobytes(), *join_column(encoded)])


def cut_off(kept: int) -> bytes:
    """Return what tells that none of the jobs but the first so many is run there."""
    return _CUT + _HEAD.pack(kept, 0)


def death(position: int, story: str) -> bytes:
    """Return what tells that the slave has died that ran the job at this position, and how."""
    return _DEATH + _HEAD.pack(position, 0) + story.encode(errors="replace")


def story_of(told: Buffer) -> str:
    """Return how the slave has died that ran a bundle; empty if it has not."""
    return bytes(told[_BEHIND:]).decode(errors="replace") if is_death(told) else ""


def is_of_bundle(told: Buffer) -> bool:
    """Whether this is told of a bundle, and no outcome of a single job."""
    return len(told) > 0 and told[0] in _KINDS


def is_more_to_come(told: Buffer) -> bool:
    """Whether more will be told of the bundle that this is about."""
    return told[:1] in (_SO_FAR, _CUT)


def kept_of(told: Buffer) -> int | None:
    """Return how many jobs of the bundle, from its first one on, are still run there, if this tells that."""
    return int(_HEAD.unpack_from(told, 1)[0]) if told[:1] == _CUT and len(told) >= _BEHIND else None


def is_death(told: Buffer) -> bool:
    """Whether this tells that the slave has died that ran a bundle."""
    return told[:1] == _DEATH


def check(told: Buffer, jobs: int, over: bool) -> None:
    """Refuse what a slave cannot tell of a bundle of so many jobs, which is `over`, or not yet.

    Raises:
        ValueError: that is so.
    """
    if jobs == 1 or told[:1] != (_END if over else _SO_FAR):
        raise ValueError("that is not told of a bundle")
    read(told, jobs)


def read(told: Buffer, jobs: int) -> Told:
    """Return what was told of a bundle of so many jobs.

    Raises:
        ValueError: that cannot be told of it.
    """
    kind = bytes(told[:1])
    if not is_of_bundle(told):
        raise ValueError("that is not told of a bundle")
    if len(told) < _BEHIND:
        raise ValueError("what is told of a bundle is too short")
    start, count = _HEAD.unpack_from(told, 1)
    if start + count > jobs:
        raise ValueError(f"a bundle of {jobs} jobs has none at {start + count}")
    if kind == _CUT:
        return Told(start, [], (), start)
    kept = jobs if kind == _SO_FAR else 0
    if not count:
        return Told(start, [], (), kept)
    after = _BEHIND + 8 * count
    seconds = seconds_column(told[_BEHIND:after])
    if len(seconds) != count:
        raise ValueError("what is told of a bundle is too short")
    return Told(start, split_column(memoryview(told), count, after), seconds, kept)
