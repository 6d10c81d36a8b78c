"""A master whose slaves are processes of this machine: a ledger and a crew, without any network."""

from __future__ import annotations

import atexit
import dataclasses
import math
import multiprocessing.process
import sys
from collections.abc import Sequence
from typing import Any

from papyros.checks import check_slaves
from papyros.crew import Crew
from papyros.deadlines import Deadline
from papyros.deaths import Death
from papyros.encoded import asks_for_retry, encode_lost, encode_overdue
from papyros.entries import FORGOTTEN, Entry, Session
from papyros.families import Families
from papyros.packing import PackingMaster
from papyros.status import SlaveStatus, Status
from papyros.store import Held
from papyros.story import tell_overdue
from papyros.tasks import CrewOptions, Silent, Task
from papyros.wire import MAX_PAYLOAD_BYTES, Buffer

__all__ = ["MultiProcessMaster"]


class MultiProcessMaster(PackingMaster):
    """Runs jobs in slave processes of this machine.

    Slaves are fresh interpreters: no ``if __name__ == "__main__"`` guard is
    needed, and jobs that are defined in ``__main__``, in a notebook or in a
    function work. They start with the first job. A slave that dies is replaced; the job
    that it ran is tried again, three times in all. While a job waits for jobs that it has added, another
    process takes the place of its own.

    Args:
        slaves: the number of processes; by default the CPUs that this process may use.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        max_bytes: the arguments, or the result, of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of waiting jobs take so many bytes or more.
        max_processed_bytes: no more jobs are assigned while results that wait to be popped take so many bytes or
            more; a single result may not be larger.
        echo: whether to show what jobs print and log line by line, each with the job it is of.
    """

    def __init__(
        self,
        slaves: int | None = None,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        *,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        echo: bool = False,
    ) -> None:
        super().__init__(
            max_waiting,
            max_processed,
            max_bytes=max_bytes,
            max_waiting_bytes=max_waiting_bytes,
            max_processed_bytes=max_processed_bytes,
            echo=echo,
        )
        count = check_slaves(slaves)
        self._holder = self._ledger.enlist("crew", count)
        self._hungry = True  # the crew found less than it asked for, so it is to be poked
        self._held_back = False  # ... for want of room for results, as far as is known
        self._feeding = False  # who has added a job gives it to an idle slave
        self._broken = ""
        largest = min(max_bytes, max_processed_bytes or max_bytes)
        secrets = Silent(authkey=multiprocessing.process.current_process().authkey.hex())
        options = CrewOptions(largest, sys.path, {"module": "papyros.relay"}, secrets)
        self._crew = Crew(count, _LedgerSource(self), options)
        self._started = False
        self._families = Families(self._ledger, self._crew.tell, self._stop_running, self._snapshot, self._unshare)

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Start the slaves, and wait until all are ready; return whether they are in time."""
        deadline = Deadline(timeout)
        with self._lock:
            self._check_usable()
            self._start()
        return self._crew.wait_ready(deadline.remaining())

    def _start(self) -> None:
        if not self._started:
            atexit.unregister(self._end_with_program)  # of a call that was interrupted
            atexit.register(self._end_with_program)
            try:
                self._crew.start()
            except (RuntimeError, OSError):  # the system has no thread, or no file, to spare now, which may pass
                atexit.unregister(self._end_with_program)
                raise
            self._started = True  # only now: Ctrl-C may come before it has begun

    _can_stop = True
    _in_parts = True

    def _stop_running(self, entries: Sequence[Entry]) -> None:
        self._crew.cancel(set(entries))

    def _unshare(self, digests: Sequence[bytes]) -> None:
        """Have the slaves let go of shared values that nobody needs any more. Called with the lock held."""
        gone = [digest for digest in digests if self._held(digest) is None]
        if gone:
            self._crew.unshare(gone)

    def _held(self, digest: bytes) -> Held | None:
        return self._packer.kept.get(digest) or self._families.value(digest)

    def _snapshot(self) -> Status:
        self._unshare(self._packer.forget_dropped()[0])
        sizes = {**self._families.sizes(), **self._packer.kept.sizes()}
        return dataclasses.replace(super()._snapshot(), shared=len(sizes), shared_bytes=sum(sizes.values()))

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        slaves = [
            SlaveStatus(view.name, self._entry_text(view.tag) if view.tag else "", view.seconds, view.ahead, view.ready)
            for view in self._crew.views()
        ]
        to_come = self._holder.slaves - len(slaves)
        return (*slaves, *[SlaveStatus("a slave to come", ready=False)] * to_come)

    def _work_came(self) -> None:
        if not self._started:
            self._start()
        if self._hungry:
            self._crew.poke()
            self._hungry = False  # in this order: Ctrl-C may come in between
        if self._broken:
            self._fail_waiting()

    def _job_came(self) -> None:
        # A job by itself goes to a slave from here, without waking the crew's thread; but not while the lock is held.
        self._feeding = self._hungry and self._crew.may_be_fed
        if not self._feeding:
            self._work_came()

    def _job_added(self) -> None:
        if self._feeding:
            self._feeding = False
            try:
                self._crew.feed()
            except BaseException:  # Ctrl-C: what other threads have added was taken, it may be, and not sent
                self._crew.audit(self._give_back_all_but)
                raise

    def _load(self) -> tuple[int, int]:
        return len(self._holder.assigned), self._holder.slaves

    def _give_back_all_but(self, known: set[Entry]) -> None:
        with self._lock:
            self._ledger.mend()
            astray = [entry for entry in self._holder.assigned if entry not in known]
            self._ledger.give_back(self._holder, astray)
            self._work_came()

    def _stop(self) -> None:
        self._crew.close()

    def _outcomes_came(self) -> None:
        super()._outcomes_came()
        if self._families:
            self._families.send_outcomes()

    def _family_ended(self, session: Session) -> None:
        self._families.end(session)
        if session.parent is not None and session.parent.state is FORGOTTEN:
            self._stop_running([session.parent])  # it may wait for outcomes that will not come

    def _entry_text(self, entry: Entry) -> str:
        """Return a job, or the child of one, in words. Called with the lock held."""
        return self._job_text(entry.number) if entry.session.parent is None else self._families.text_of(entry)

    def _fail_waiting(self) -> None:
        """Give all jobs that wait an outcome, since no slave will ever run them."""
        while batch := self._ledger.assign(self._holder, 1000):
            for entry in batch:
                self._ledger.finish(entry.session, entry.number, encode_lost(self._broken))
        self._outcomes_came()


class _LedgerSource:
    """Feeds a crew from the ledger of a master."""

    def __init__(self, master: MultiProcessMaster) -> None:
        self._master = master

    def take(self, limit: int) -> list[Task]:
        master = self._master
        with master._lock:
            bearable = master._ledger.bearable(master._holder, limit)
            batch = master._ledger.assign(master._holder, bearable, max_bytes=math.inf)  # no message has to hold them
            master._hungry = len(batch) < limit
            master._held_back = bearable < limit
            if master._packer.kept.stale:
                master._unshare(master._packer.forget_dropped()[0])
            if batch:
                master._room.notify_all()
            return [Task(entry, entry.payload[0], entry.payload[1], entry.terms) for entry in batch]

    def definition(self, digest: bytes) -> bytes:
        known = self._master._packer.definitions.get(digest)
        if known is None:
            with self._master._lock:
                known = self._master._families.definition(digest)
        return known

    def held(self, digest: bytes) -> Held | None:
        with self._master._lock:
            return self._master._held(digest)

    def finished(self, tags: Sequence[Entry], outcomes: Sequence[Buffer], seconds: Sequence[float], slave: str) -> None:
        master = self._master
        with master._lock:
            for entry, encoded, spent in zip(tags, outcomes, seconds, strict=True):
                # A plain tuple, as in `Packer.pack_plainly`, which does not refer to the entry that it is kept in.
                outcome = (encoded, slave, spent)
                master._finish(entry, outcome, spent, len(encoded), asks_for_retry(encoded))
            if master._held_back:
                master._held_back = False
                master._work_came()  # more is known of the room for results now
            master._outcomes_came()

    def overdue(self, tag: Any, slave: str, timeout: float) -> None:
        self.finished([tag], [encode_overdue(tell_overdue(slave, timeout))], [timeout], slave)

    def died(self, tag: Any, death: Death) -> None:
        master = self._master
        with master._lock:
            master._ledger.charge(master._holder, tag, death)
            master._outcomes_came()

    def returned(self, tags: list[Any], reason: str) -> None:
        master = self._master
        with master._lock:
            master._ledger.give_back(master._holder, tags, reason or None)
            master._outcomes_came()

    def held_up(self) -> None:
        """Nothing is kept ready here but the ledger."""

    def printed(self, tag: Any, slave: str, text: str) -> None:
        with self._master._lock:
            job = self._master._entry_text(tag)
        self._master._screen.show_print(job, slave, text)

    def heard(self, tag: Any, message: memoryview) -> None:
        master = self._master
        with master._lock:
            if master._families.hear(tag, message):
                master._work_came()
            master._let_go_of_orphans()

    def lent(self, places: int) -> None:
        """The crew knows itself whom to give jobs; and it asks for as many as it can take."""

    def broken(self, reason: str) -> None:
        master = self._master
        with master._lock:
            master._broken = reason
            master._ledger.give_back(master._holder, list(master._holder.assigned), reason)
            master._fail_waiting()
