"""A master whose jobs leave this process: the part that masters of processes and of clusters share."""

from __future__ import annotations

from papyros.bookkeeping import BookkeepingMaster
from papyros.encoded import decode_outcome, encode_lost
from papyros.entries import Entry
from papyros.frames import Parts
from papyros.jobs import Job
from papyros.ledger import Ledger
from papyros.outcome import Outcome
from papyros.screen import Screen
from papyros.story import tell_deaths
from papyros.terms import Terms
from papyros.wire import MAX_PAYLOAD_BYTES, Buffer, Packer

__all__ = ["PackingMaster"]


class PackingMaster(BookkeepingMaster):
    """Packs jobs when they are added, and unpacks their outcomes when they are popped.

    Args:
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        max_bytes: the arguments, or the result, of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of waiting jobs take so many bytes or more.
        max_processed_bytes: no more jobs are assigned while results that wait to be popped take so many bytes or
            more; a single result may not be larger.
        echo: whether to show what jobs print and log, line by line, each with the job it is of.
    """

    def __init__(
        self,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        *,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        echo: bool = False,
    ) -> None:
        super().__init__(max_waiting, max_processed, max_waiting_bytes, max_processed_bytes, ledger_of_payloads())
        self._echo = echo
        self._pack_by(Packer(check_bytes(max_bytes), in_parts=self._in_parts))
        self._screen = Screen()

    #: Whether jobs may be packed in parts: this process then sends them itself.
    _in_parts = False

    #: Whether the packer, with the shared values that it keeps, is this master's alone.
    _owns_packer = True

    def _pack_by(self, packer: Packer) -> None:
        """Pack jobs by this packer; tell the books what of that they can do themselves, without asking for each job."""
        self._packer = packer
        kind = type(self)
        self._books.packer = packer if kind._pack is PackingMaster._pack else None
        self._books.decodes = kind._unpack is PackingMaster._unpack
        self._books.alters_terms = self._echo or kind._terms is not PackingMaster._terms

    def close(self) -> None:
        """Let go of everything; see `Master.close`."""
        super().close()
        if not self._forked:
            self._screen.close()
        if self._owns_packer and not self._forked:
            self._packer.forget_all()

    def _pack(self, job: Job) -> tuple[tuple[bytes, Buffer | Parts], int]:
        payload = self._packer.pack_plainly(job)
        return payload, len(payload[1])

    def _unpack(self, job: Job, entry: Entry) -> Outcome:
        # What came of a slave is a tuple: the outcome, encoded; the name of the slave; the seconds that it took.
        outcome = entry.outcome
        if type(outcome) is tuple:
            encoded, slave, seconds = outcome
            return decode_outcome(encoded, job, slave, seconds)
        if isinstance(outcome, Outcome):
            return outcome  # of a job that could not be packed
        return decode_outcome(outcome, job)  # of a job that was lost

    def _terms(self, terms: Terms) -> Terms:
        return terms._replace(echo=True) if self._echo else terms


def ledger_of_payloads() -> Ledger:
    """Return a ledger in which the outcome of a job that was lost is encoded like all others."""
    return Ledger(lost=lambda deaths: encode_lost(tell_deaths(deaths)))


def check_bytes(max_bytes: int) -> int:
    """Return a bound on the size of payloads, or refuse it."""
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
        raise TypeError(f"max_bytes is a whole number, not {max_bytes!r}")
    if not 1 <= max_bytes <= MAX_PAYLOAD_BYTES:
        raise ValueError(f"max_bytes is from 1 to {MAX_PAYLOAD_BYTES}, which one message can hold, not {max_bytes}")
    return max_bytes
