"""A master whose slaves are processes of this machine: a ledger and a crew, without any network."""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing.process
import sys
from collections.abc import Sequence

from papyros.checks import check_slaves
from papyros.crew import Crew
from papyros.deadlines import Deadline
from papyros.encoded import encode_lost
from papyros.entries import FORGOTTEN, Entry, Session
from papyros.families import Families
from papyros.ledgersource import LedgerSource
from papyros.packing import PackingMaster
from papyros.status import SlaveStatus, Status
from papyros.store import Held
from papyros.tasks import CrewOptions, Silent
from papyros.wire import MAX_PAYLOAD_BYTES

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
        self._held_back = False  # ... for want of room for results, as far as is known
        self._feeding = False  # who has added a job gives it to an idle slave
        self._broken = ""
        largest = min(max_bytes, max_processed_bytes or max_bytes)
        secrets = Silent(authkey=multiprocessing.process.current_process().authkey.hex())
        options = CrewOptions(largest, sys.path, {"module": "papyros.relay"}, secrets)
        self._crew = Crew(count, LedgerSource(self, self._ledger, self._holder), options)
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
        if self._books.awaited:  # the crew found less than it asked for, so it is to be poked
            self._crew.poke()
            self._books.awaited = bool(self._broken)  # in this order: Ctrl-C may come in between
        if self._broken:
            self._fail_waiting()

    def _job_came(self) -> None:
        # A job by itself goes to a slave from here, without waking the crew's thread; but not while the lock is held.
        self._feeding = self._books.awaited and self._crew.may_be_fed
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
