"""A master whose work is done by somebody else's engine: the part that all of them share.

One thread, `papyros-feed`, hands jobs to the engine, as many as it has slaves for: what waits, waits in the ledger,
where it can be cancelled and overtaken. The engine answers through futures, whose callbacks take
the outcomes in. Whatever goes wrong with the engine becomes the outcome of a job.
"""

from __future__ import annotations

import atexit
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from functools import partial
from typing import Any, Protocol

from papyros.checks import check_slaves
from papyros.encoded import asks_for_retry
from papyros.entries import ASSIGNED, Entry
from papyros.errors import JobTimeout, SlaveLost
from papyros.logs import logger_of
from papyros.outcome import Outcome
from papyros.packing import PackingMaster
from papyros.parcels import Answer
from papyros.status import SlaveStatus
from papyros.threads import worker
from papyros.wire import MAX_PAYLOAD_BYTES

__all__ = ["DelegatingMaster", "Ticket"]

log = logger_of(__name__)


#: How long `close` waits for what cannot be stopped: a call of the engine, and what runs in threads of this process.
CLOSE_SECONDS = 5.0


class Ticket(Protocol):
    """What an engine gives for a job that it was handed."""

    def add_done_callback(self, call: Callable[[Any], Any], /) -> Any:
        """Have `call` called when there is an answer."""

    def result(self) -> Any:
        """Return the answer, or raise why there is none."""

    def cancel(self) -> Any:
        """Cancel the job, if it did not begin."""


class DelegatingMaster(PackingMaster):
    """The base of masters over other engines.

    Args:
        slaves: how many jobs the engine is handed at a time.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        max_bytes: the arguments, or the result, of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of waiting jobs take so many bytes or more.
        max_processed_bytes: no more jobs are handed over while results that wait to be popped take so many bytes
            or more; a single result may not be larger.
        echo: refused, if it is true: what jobs print stays with the engine.
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
        if echo:
            raise ValueError(
                f"{self._words} cannot show what jobs print, which stays with those who run them: it is in "
                "their logs, or on their terminals. Leave echo out; masters with slaves of their own have it"
            )
        super().__init__(
            max_waiting,
            max_processed,
            max_bytes=max_bytes,
            max_waiting_bytes=max_waiting_bytes,
            max_processed_bytes=max_processed_bytes,
        )
        self._packer.sharing = False  # where engines run jobs, nobody holds values: they travel with each job
        self._slaves = check_slaves(slaves)
        self._largest = min(max_bytes, max_processed_bytes or max_bytes)
        self._holder = self._ledger.enlist("engine", self._slaves)
        self._work = threading.Condition(self._lock)
        self._flying: dict[Entry, float] = {}  # what the engine has, since when; also what nobody waits for any more
        self._tickets: dict[Entry, Ticket] = {}
        self._alarms: dict[Entry, int] = {}  # of those that have a timeout
        self._broken = ""
        self._feeder: threading.Thread | None = None

    # What an engine provides ------------------------------------------------------------

    #: What its slaves are called in a status.
    _engine = "the engine"

    @abstractmethod
    def _submit(self, payload: Any, entry: Entry) -> Ticket:
        """Hand a job to the engine. Called by one thread, without the lock.

        The payload is what the entry had when somebody wanted it still.

        Raises:
            Exception: the engine does not take it, for good if it is a `BrokenExecutor`.
        """

    def _lost_slave(self, error: BaseException) -> bool:  # noqa: ARG002 - for those who can tell
        """Return whether an error of the engine says that the job's slave died, and another one may run it."""
        return False

    def _read(self, answer: Any) -> tuple[Any, float, int, bool]:
        """Return what is the outcome for the ledger, its seconds and bytes, and whether it asks for a retry."""
        answer = Answer(*answer)
        outcome = (answer.outcome, answer.slave, answer.seconds)
        return outcome, answer.seconds, len(answer.outcome), asks_for_retry(answer.outcome)

    # The work ---------------------------------------------------------------------------

    def _work_came(self) -> None:
        if self._broken:
            self._fail_waiting()
        elif self._feeder is None:
            atexit.register(self._end_with_program)
            feeder = worker("papyros-feed", self._feed, self._broke)
            feeder.start()
            self._feeder = feeder
        else:
            self._work.notify()

    def _feed(self) -> None:
        while batch := self._next_batch():
            while batch:
                self._hand_over(batch.pop())

    def _broke(self, why: str) -> None:
        """Let nobody wait for what nobody will hand over."""
        with self._lock:
            self._broken = why
            for entry in [entry for entry in self._holder.assigned if entry not in self._tickets]:
                text = f"{self._job_text(entry.number)} was never handed to {self._engine}: {why}"
                self._finish(entry, Outcome.failed(SlaveLost(text)), 0.0)
                self._flying.pop(entry, None)
            self._fail_waiting()

    def _next_batch(self) -> list[Entry]:
        """Wait for jobs to hand over, the first one last; none when this thread is to end."""
        with self._lock:
            while True:
                if self._closed or self._broken:
                    return []
                batch = self._ledger.assign(self._holder, self._free_places())
                if batch:
                    now = time.monotonic()
                    self._flying.update((entry, now) for entry in batch)
                    self._room.notify_all()
                    return batch[::-1]
                self._work.wait()

    def _free_places(self) -> int:
        """How many more jobs the engine is to be handed now. Called with the lock held."""
        return self._slaves - len(self._flying)

    def _hand_over(self, entry: Entry) -> None:
        with self._lock:
            payload = entry.payload
            if entry.state is not ASSIGNED:  # the master was closed, or the job stopped, meanwhile
                self._landed(entry)
                return
            self._set_alarm(entry)
        try:
            ticket = self._submit(payload, entry)
            with self._lock:
                self._tickets[entry] = ticket
                unwanted = entry.state is not ASSIGNED
            ticket.add_done_callback(partial(self._answered, entry))
        except BaseException as error:  # noqa: BLE001 - the outcome of the job tells it
            self._fail(entry, error)
            return
        if unwanted:
            self._drop(ticket)

    def _set_alarm(self, entry: Entry) -> None:
        """See to it that a job which runs for too long is known. Called with the lock held."""
        if entry.terms.timeout is not None:
            since = self._flying[entry]
            call = partial(self._overdue, entry, since)
            self._alarms[entry] = self._alarm.set(since + entry.terms.timeout, call)

    def _recall(self, ticket: Ticket) -> None:
        """Have the engine drop a job that nobody wants any more."""
        ticket.cancel()

    def _drop(self, ticket: Ticket) -> None:
        """Recall a job; an engine that is gone, or cannot, holds up nobody."""
        try:
            self._recall(ticket)
        except Exception:
            log.warning("%s could not be told to drop a job", self._engine, exc_info=True)

    def _answered(self, entry: Entry, ticket: Ticket) -> None:
        try:
            answer = ticket.result()
        except BaseException as error:  # noqa: BLE001 - the same
            self._fail(entry, error)
            return
        self._take(entry, answer)

    def _take(self, entry: Entry, answer: Any) -> None:
        """Take what became of a job."""
        try:
            outcome, seconds, size, again = self._read(answer)
        except BaseException as error:  # noqa: BLE001 - it may be no answer at all
            self._fail(entry, error)
            return
        with self._lock:
            self._landed(entry)
            self._finish(entry, outcome, seconds, size, again)
            self._outcomes_came()

    def _landed(self, entry: Entry) -> None:
        self._flying.pop(entry, None)
        self._tickets.pop(entry, None)
        if (alarm := self._alarms.pop(entry, None)) is not None:
            self._alarm.cancel(alarm)  # it would keep what became of the job until the time is up
        self._work.notify_all()

    def _fail(self, entry: Entry, error: BaseException) -> None:
        """Take it that the engine has no answer for a job."""
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, CancelledError):
            why = f"it was cancelled there: {error}".removesuffix(": ")
        with self._lock:
            self._landed(entry)
            if self._lost_slave(error):
                self._ledger.charge(self._holder, entry, f"{self._engine} tells: {why}")
            elif entry.state is ASSIGNED and not self._closed:  # what is recalled at the end is dropped
                text = f"{self._engine} did not process {self._job_text(entry.number)}: {why}"
                self._finish(entry, Outcome.failed(SlaveLost(text)), 0.0)
            if isinstance(error, BrokenExecutor) and not self._broken:
                self._broken = why
                self._fail_waiting()
            self._outcomes_came()

    def _fail_waiting(self) -> None:
        """Give all jobs that wait an outcome, since no slave will ever run them. Called with the lock held."""
        while batch := self._ledger.assign(self._holder, 1000):
            for entry in batch:
                text = f"{self._engine} is broken, and {self._job_text(entry.number)} was never started: {self._broken}"
                self._ledger.finish(entry.session, entry.number, Outcome.failed(SlaveLost(text)))
        self._work.notify()
        self._outcomes_came()

    def _overdue(self, entry: Entry, since: float) -> None:
        """Give a job that runs for too long its outcome; the engine has to be asked to stop it, if it can."""
        with self._lock:
            ticket = self._tickets.get(entry)
            if self._flying.get(entry) != since or entry.state is not ASSIGNED:
                return
            seconds = entry.terms.timeout or 0.0
            goes_on = "" if self._can_stop else f"; {self._engine} cannot stop it, and it goes on"
            text = f"{self._job_text(entry.number)} ran longer than its timeout of {seconds:g} s{goes_on}"
            self._finish(entry, Outcome.failed(JobTimeout(text), "", seconds), seconds)
            self._outcomes_came()
        if ticket is not None:
            self._drop(ticket)

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        now = time.monotonic()
        flying = [(self._job_text(entry.number), now - since) for entry, since in self._flying.items()]
        idle = [("", 0.0)] * (self._slaves - len(flying))
        return tuple(
            SlaveStatus(f"slave {number} of {self._engine}", job, seconds)
            for number, (job, seconds) in enumerate([*flying, *idle], 1)
        )

    def _stop(self) -> None:
        with self._lock:
            self._work.notify_all()
            tickets = list(self._tickets.values())
        if self._feeder is not None and self._feeder is not threading.current_thread():
            self._feeder.join(CLOSE_SECONDS)  # an engine may take its time, or for ever, to take a job
        for ticket in tickets:
            self._drop(ticket)
