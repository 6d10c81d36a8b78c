"""The source of the crew of a `MultiProcessMaster`: tasks come from its ledger, and outcomes go there.

All that is done here is done for each job. Who waits for the ledger, and when the crew is to ask, is the master's
affair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from papyros.deaths import Death
from papyros.encoded import asks_for_retry, encode_overdue
from papyros.entries import Entry, Holder
from papyros.frames import Buffer
from papyros.ledger import Ledger
from papyros.store import Held
from papyros.story import tell_overdue
from papyros.tasks import Task

if TYPE_CHECKING:
    from papyros.multiprocess import MultiProcessMaster

__all__ = ["LedgerSource"]


class LedgerSource:
    """Feeds a crew from the ledger of a master.

    Args:
        master: whose ledger that is.
        ledger: the ledger itself, which the lock of the master guards.
        holder: the crew, as the ledger knows it.
    """

    def __init__(self, master: MultiProcessMaster, ledger: Ledger, holder: Holder) -> None:
        self._master = master
        self._ledger = ledger
        self._holder = holder
        self._untold = False  # outcomes are in the books of which nobody was told yet

    def take(self, limit: int) -> list[Task]:
        """Assign tasks to the crew, and note whether there is room for more."""
        master = self._master
        with master._lock:
            bearable = self._ledger.bearable(self._holder, limit)
            batch = self._ledger.assign(self._holder, bearable, math.inf)  # no message has to hold them
            master._books.awaited = len(batch) < limit
            master._held_back = bearable < limit
            if master._packer.kept.stale:
                master._unshare(master._packer.forget_dropped()[0])
            if batch:
                master._room.notify_all()
            return [Task(entry, entry.payload[0], entry.payload[1], entry.terms) for entry in batch]

    def definition(self, digest: bytes) -> bytes:
        """Look with the master itself, and with the jobs that have children."""
        known = self._master._packer.definitions.get(digest)
        if known is None:
            with self._master._lock:
                known = self._master._families.definition(digest)
        return known

    def held(self, digest: bytes) -> Held | None:
        """Look where `definition` does."""
        with self._master._lock:
            return self._master._held(digest)

    def finished(self, tags: Sequence[Entry], outcomes: Sequence[Buffer], seconds: Sequence[float], slave: str) -> None:
        """End tasks, or have them tried again."""
        master = self._master
        with master._lock:
            for entry, encoded, spent in zip(tags, outcomes, seconds, strict=True):
                # A plain tuple, as in `Packer.pack_plainly`, which does not refer to the entry that it is kept in.
                outcome = (encoded, slave, spent)
                if asks_for_retry(encoded):
                    master._finish(entry, outcome, spent, len(encoded), True)
                else:
                    self._ledger.finish(entry.session, entry.number, outcome, spent, len(encoded))
            if master._held_back:
                master._held_back = False
                master._work_came()  # more is known of the room for results now
        self._untold = True

    def announce(self) -> None:
        """Wake those who wait to pop."""
        if self._untold:
            self._untold = False
            with self._master._lock:
                self._master._outcomes_came()

    def overdue(self, tag: Any, slave: str, timeout: float) -> None:
        """End a task that ran for too long."""
        self.finished([tag], [encode_overdue(tell_overdue(slave, timeout))], [timeout], slave)

    def died(self, tag: Any, death: Death) -> None:
        """Charge a task for the death of its slave."""
        master = self._master
        with master._lock:
            self._ledger.charge(self._holder, tag, death)
            master._outcomes_came()

    def returned(self, tags: list[Any], reason: str) -> None:
        """Let tasks wait again."""
        master = self._master
        with master._lock:
            self._ledger.give_back(self._holder, tags, reason or None)
            master._outcomes_came()

    def held_up(self) -> None:
        """Nothing is kept ready here but the ledger."""

    def printed(self, tag: Any, slave: str, text: str) -> None:
        """Show what a job printed."""
        with self._master._lock:
            job = self._master._entry_text(tag)
        self._master._screen.show_print(job, slave, text)

    def heard(self, tag: Any, message: memoryview) -> None:
        """Hear what a job has to say of its children."""
        master = self._master
        with master._lock:
            if master._families.hear(tag, message):
                master._work_came()
            master._let_go_of_orphans()

    def lent(self, places: int) -> None:
        """The crew knows itself whom to give jobs; and it asks for as many as it can take."""

    def broken(self, reason: str) -> None:
        """End all that is here, and all that will come."""
        master = self._master
        with master._lock:
            master._broken = reason
            master._books.awaited = True  # to be told that each job that is added from now on is lost
            self._ledger.give_back(self._holder, list(self._holder.assigned), reason)
            master._fail_waiting()
