"""The batches that clients, masters and slave hosts send each other, as bytes.

Each batch is a message of a few columns and then one byte string for each job
or outcome, which nobody on the way looks into.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

from papyros.distributed.seals import SEAL_BYTES, TICKET_BYTES
from papyros.frames import Buffer, Parts, cut, message_parts, nested_parts, pack_message, to_keep, unpack_message
from papyros.terms import Terms

__all__ = [
    "AddedJob",
    "HostJob",
    "HostReport",
    "JobOutcome",
    "added_parts",
    "host_jobs_parts",
    "in_messages",
    "outcomes_parts",
    "pack_added",
    "pack_definitions",
    "pack_host_jobs",
    "pack_numbers",
    "pack_outcomes",
    "pack_report",
    "report_parts",
    "unpack_added",
    "unpack_definitions",
    "unpack_host_jobs",
    "unpack_numbers",
    "unpack_outcomes",
    "unpack_report",
]


#: A message has so many bytes of definitions, or a single one.
DEFINITIONS_BYTES = 8 << 20

#: So many tables of names, or of terms, are kept as they were read or written.
MOST_TABLES = 128

#: ... of which none that is read is longer than this, in bytes.
SHORT_TABLE = 1 << 10

#: Stand for a ticket and a seal where there are none, as in an outcome that a master came to by itself.
_NO_TICKET, _NO_SEAL = bytes(TICKET_BYTES), bytes(SEAL_BYTES)


class AddedJob(NamedTuple):
    """A job on its way from a client to the master."""

    number: int
    definition: bytes
    blob: Buffer | Parts
    terms: Terms
    seal: Buffer = _NO_SEAL


class HostJob(NamedTuple):
    """A job on its way from the master to a slave host."""

    session: str
    number: int
    definition: bytes
    blob: Buffer
    terms: Terms
    seal: Buffer = _NO_SEAL


class JobOutcome(NamedTuple):
    """An outcome on its way to the client of a session."""

    session: str
    number: int
    outcome: Buffer
    seconds: float
    slave: str
    ticket: bytes = _NO_TICKET
    seal: Buffer = _NO_SEAL


Row = TypeVar("Row", AddedJob, HostJob, JobOutcome)


class HostReport(NamedTuple):
    """What a slave host tells its master.

    Outcomes, deaths of slaves, jobs that it gives back, what jobs printed, how many slaves lend their places,
    whether jobs that take long hold up others.
    """

    outcomes: list[JobOutcome]
    deaths: list[tuple[str, int, str]]  # session, number, how the slave died
    returned: list[tuple[str, int, str]]  # session, number, why it was stopped where it had been started
    prints: list[tuple[str, int, str, str]]  # session, number, slave, text
    lent: list[int]  # as the number changed; the last one counts
    held_up: list[bool]  # whether jobs are given back since all slaves run some that take long

    @classmethod
    def empty(cls) -> HostReport:
        """Return a report of nothing."""
        return cls([], [], [], [], [], [])

    def is_owed(self) -> bool:
        """Whether somebody waits for what it tells: not for how many places are lent just now."""
        return bool(self.outcomes or self.deaths or self.returned or self.prints)

    def split(self, most: int) -> tuple[HostReport, HostReport]:
        """Return what fits into one message, with at most so many bytes of outcomes, and the rest.

        An outcome that is larger is told alone, and first.
        """
        size = 0
        for position, done in enumerate(self.outcomes):
            size += len(done.outcome)
            if size > most and position == 0:
                return self.empty()._replace(outcomes=[done]), self._replace(outcomes=self.outcomes[1:])
            if size > most:
                return self._replace(outcomes=self.outcomes[:position]), self.empty()._replace(
                    outcomes=self.outcomes[position:]
                )
        return self, self.empty()


class _Table:
    """Gives the different values of a column numbers, so that each is sent once."""

    def __init__(self) -> None:
        self.positions: dict[Any, int] = {}

    def column(self, values: Sequence[Hashable]) -> bytes:
        known = self.positions
        if values and values.count(values[0]) == len(values):  # nearly always, and told with the least effort
            return array("I", [known.setdefault(values[0], len(known))] * len(values)).tobytes()
        return array("I", [known.setdefault(value, len(known)) for value in values]).tobytes()


def _numbers(kind: str, view: Buffer) -> array[int]:
    numbers = array(kind)
    numbers.frombytes(view)
    return numbers


def _rows(kind: type[Row], columns: Iterable[Iterable[Any]]) -> list[Row]:
    """Return rows of a kind of tuple, of which all columns are given; to call the kind itself costs twice as much."""
    return list(map(partial(tuple.__new__, kind), zip(*columns, strict=True)))


def _columns(rows: Sequence[Row], kind: type[Row]) -> list[Sequence[Any]]:
    """Return the columns of rows of a kind, also where there are none."""
    return list(zip(*rows, strict=True)) or [()] * len(kind._fields)


def _definition_columns(definitions: Sequence[bytes]) -> tuple[bytes, bytes]:
    table = _Table()
    column = table.column(definitions)
    return column, b"".join(table.positions)


def _definitions(column: Buffer, digests: Buffer) -> list[bytes]:
    table = cut(digests, 16)
    return [table[position] for position in _numbers("I", column)]


def _terms(table: Buffer, column: Buffer) -> list[Terms]:
    terms = _read_terms(bytes(table))
    return [terms[position] for position in _numbers("I", column)]


# Batch after batch has the same few terms and names.


def _read_terms(table: bytes) -> tuple[Terms, ...]:
    return tuple(Terms(*row) for row in _read_table(table))


def _read_table(table: bytes) -> Any:
    return _read_short_table(table) if len(table) <= SHORT_TABLE else json.loads(table)


@lru_cache(MOST_TABLES)
def _read_short_table(table: bytes) -> Any:
    return json.loads(table)


@lru_cache(MOST_TABLES)
def _write_terms(terms: tuple[Terms, ...]) -> bytes:
    return json.dumps(terms).encode()


@lru_cache(MOST_TABLES)
def _write_names(names: tuple[Any, ...]) -> bytes:
    return json.dumps(names).encode()


def pack_added(jobs: Sequence[AddedJob]) -> bytes:
    """Pack jobs for the master."""
    return b"".join(added_parts(jobs))


def added_parts(jobs: Sequence[AddedJob]) -> list[Buffer]:
    """Return the parts of which `pack_added` makes one: their blobs are as they were, and not copied."""
    numbers, definitions, blobs, terms_of_jobs, seals = _columns(jobs, AddedJob)
    column, digests = _definition_columns(definitions)
    terms = _Table()
    terms_column = terms.column(terms_of_jobs)
    head = [
        array("Q", numbers).tobytes(),
        _write_terms(tuple(terms.positions)),
        terms_column,
        column,
        digests,
        b"".join(seals),
    ]
    return message_parts([*head, *blobs])


def unpack_added(message: Buffer) -> list[AddedJob]:
    """Unpack what `pack_added` packed, for a master, which keeps each job until that is processed."""
    numbers, terms, terms_column, column, digests, seals, *blobs = unpack_message(message)
    columns = (
        _numbers("Q", numbers),
        _definitions(column, digests),
        to_keep(blobs, len(message)),
        _terms(terms, terms_column),
        cut(seals, SEAL_BYTES),
    )
    return _rows(AddedJob, columns)


def pack_host_jobs(jobs: Sequence[HostJob]) -> bytes:
    """Pack jobs for a slave host."""
    return b"".join(host_jobs_parts(jobs))


def host_jobs_parts(jobs: Sequence[HostJob]) -> list[Buffer]:
    """Return the parts of which `pack_host_jobs` makes one: their blobs are as they were, and not copied."""
    sessions_of_jobs, numbers, definitions, blobs, terms_of_jobs, seals = _columns(jobs, HostJob)
    column, digests = _definition_columns(definitions)
    sessions = _Table()
    session_column = sessions.column(sessions_of_jobs)
    terms = _Table()
    terms_column = terms.column(terms_of_jobs)
    head = [
        _write_names(tuple(sessions.positions)),
        _write_terms(tuple(terms.positions)),
        terms_column,
        session_column,
        array("Q", numbers).tobytes(),
        column,
        digests,
        b"".join(seals),
    ]
    return message_parts([*head, *blobs])


def unpack_host_jobs(message: Buffer) -> list[HostJob]:
    """Unpack what `pack_host_jobs` packed."""
    names, terms, terms_column, session_column, numbers, column, digests, seals, *blobs = unpack_message(message)
    sessions = _read_table(bytes(names))
    columns = (
        [sessions[position] for position in _numbers("I", session_column)],
        _numbers("Q", numbers),
        _definitions(column, digests),
        blobs,
        _terms(terms, terms_column),
        cut(seals, SEAL_BYTES),
    )
    return _rows(HostJob, columns)


def pack_outcomes(outcomes: Sequence[JobOutcome], beside: bytes) -> bytes:
    """Pack outcomes for a master or a client, and what is said beside them."""
    return b"".join(outcomes_parts(outcomes, beside))


def outcomes_parts(outcomes: Sequence[JobOutcome], beside: bytes) -> list[Buffer]:
    """Return the parts of which `pack_outcomes` makes one: the outcomes are as they were, and not copied."""
    sessions, slaves = _Table(), _Table()
    sessions_of_jobs, numbers, encoded, seconds, slaves_of_jobs, tickets, seals = _columns(outcomes, JobOutcome)
    session_column = sessions.column(sessions_of_jobs)
    slave_column = slaves.column(slaves_of_jobs)
    head = [
        _write_names((tuple(sessions.positions), tuple(slaves.positions))),
        session_column,
        array("Q", numbers).tobytes(),
        array("d", seconds).tobytes(),
        slave_column,
        b"".join(tickets),
        b"".join(seals),
    ]
    return nested_parts(beside, message_parts([*head, *encoded]))


def unpack_outcomes(message: Buffer) -> list[JobOutcome]:
    """Unpack the outcomes of what `pack_outcomes` packed: the second buffer of that message."""
    return _outcomes(message)


def _outcomes(message: Buffer, whole: int = 0) -> list[JobOutcome]:
    """Return outcomes; of a message of so many bytes as a whole, if they are to be kept."""
    names, session_column, numbers, seconds_column, slave_column, tickets, seals, *encoded = unpack_message(message)
    sessions, slaves = _read_table(bytes(names))
    seconds = array("d")
    seconds.frombytes(seconds_column)
    columns = (
        [sessions[position] for position in _numbers("I", session_column)],
        _numbers("Q", numbers),
        to_keep(encoded, whole),
        seconds,
        [slaves[position] for position in _numbers("I", slave_column)],
        cut(tickets, TICKET_BYTES),
        cut(seals, SEAL_BYTES),
    )
    return _rows(JobOutcome, columns)


def pack_report(report: HostReport) -> bytes:
    """Pack what a slave host has to say."""
    return b"".join(report_parts(report))


def report_parts(report: HostReport) -> list[Buffer]:
    """Return the parts of which `pack_report` makes one: the outcomes are as they were, and not copied."""
    rest = json.dumps([report.deaths, report.returned, report.prints, report.lent[-1:], report.held_up[-1:]]).encode()
    return outcomes_parts(report.outcomes, rest)


def unpack_report(message: Buffer) -> HostReport:
    """Unpack what `pack_report` packed, for a master, which keeps each outcome until that is collected."""
    rest, outcomes = unpack_message(message)
    deaths, returned, prints, lent, held_up = json.loads(bytes(rest))
    return HostReport(_outcomes(outcomes, len(message)), deaths, returned, prints, lent, held_up)


def pack_definitions(definitions: dict[bytes, bytes]) -> bytes:
    """Pack definitions, with their digests."""
    return pack_message([part for item in definitions.items() for part in item])


def in_messages(definitions: dict[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    """Part definitions into what goes into a message each: so much of them, or a single one that is larger."""
    part: dict[bytes, bytes] = {}
    size = 0
    for digest, definition in definitions.items():
        size += len(definition)
        if part and size > DEFINITIONS_BYTES:
            yield part
            part, size = {}, len(definition)
        part[digest] = definition
    if part:
        yield part


def unpack_definitions(message: Buffer) -> dict[bytes, bytes]:
    """Unpack what `pack_definitions` packed."""
    parts = unpack_message(message)
    return {bytes(parts[i]): bytes(parts[i + 1]) for i in range(0, len(parts), 2)}


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Return a message of numbers of jobs."""
    return array("Q", numbers).tobytes()


def unpack_numbers(message: Buffer) -> array[int]:
    """Return the numbers of jobs in a message."""
    numbers = array("Q")
    numbers.frombytes(message)
    return numbers
