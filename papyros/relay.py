"""The master that a job sees in a slave of a `MultiProcessMaster`: its crew relays children and outcomes.

What both ends say is a message: a head, as JSON, and payloads or outcomes as they are.

========  ==============================================================  =====================
to        head                                                            beside it
========  ==============================================================  =====================
master    ["define", family, digest, label]                               the definition
master    ["share", family, digest, place of a shared value]
master    ["add", family, [[number, digest, terms], ...]]                 the blobs
master    ["drop", family, numbers]
master    ["close", family]
master    ["ask", family, ticket, "cancel", numbers, or null for all]
master    ["ask", family, ticket, "withdraw", numbers of those that wait]
master    ["ask", family, ticket, "assigned", a number]
master    ["ask", family, ticket, "status"]
job       ["done", family, [[number, seconds, slave], ...]]               the encoded outcomes
job       ["answer", family, ticket, the answer]
========  ==============================================================  =====================

The socket loses nothing, and neither end outlives the other: so nothing is ever sent twice.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from papyros.bookkeeping import ForOneJob
from papyros.current import Lending
from papyros.deadlines import Deadline
from papyros.entries import Session
from papyros.frames import Buffer, pack_message, unpack_message
from papyros.jobs import Job
from papyros.logs import logger_of
from papyros.packing import PackingMaster
from papyros.status import Status
from papyros.store import needs_of
from papyros.wire import Packer

__all__ = ["InSlave", "Link", "RelayMaster", "open_family", "pack_words", "unpack_words"]

log = logger_of(__name__)

#: So many jobs go into one message, at most.
SEND_JOBS = 1000


class Link(Protocol):
    """What a slave offers to the masters of its jobs."""

    max_bytes: int
    packer: Packer
    echo: bool
    family: dict[str, Any] | None

    def say(self, message: bytes) -> None:
        """Send what the running job has to say of its children."""

    def hear(self, stop: int | None = None) -> memoryview | None:
        """Wait for news of children; None when the file descriptor can be read first."""

    def lend(self, lent: bool) -> None:
        """Lend the place of this slave to another one; or take it back."""


def pack_words(head: Sequence[Any], parts: Sequence[Buffer] = ()) -> bytes:
    """Pack a message."""
    return pack_message([json.dumps(head).encode(), *parts])


def unpack_words(message: Buffer) -> tuple[list[Any], list[Buffer]]:
    """Unpack what `pack_words` packed."""
    head, *parts = unpack_message(message)
    return json.loads(bytes(head)), parts


class InSlave(ForOneJob, PackingMaster):
    """What masters for jobs in slave processes have in common: they lend the place of the slave while they wait."""

    _owns_packer = False  # it is the slave's
    _tells_leftovers = False  # what a job leaves behind goes with it
    _lending: Lending
    _waiters_for_nothing = 0  # those who wait, though no job is pending

    def _await_outcome(self, deadline: Deadline) -> bool:
        if deadline.expired():
            return False
        if self._jobs:
            with self._lending:
                return super()._await_outcome(deadline)
        self._waiters_for_nothing += 1  # as an executor does that has nothing to do: the job itself goes on
        try:
            return super()._await_outcome(deadline)
        finally:
            self._waiters_for_nothing -= 1

    def _work_came(self) -> None:
        if self._waiters_for_nothing:
            self._came.notify_all()
        self._send_work()

    @abstractmethod
    def _send_work(self) -> None:
        """Send what was added. Called with the lock held."""


class RelayMaster(InSlave):
    """A master for one job that runs in a slave process.

    Args:
        link: what the slave offers.
        family: the number of this master, among those that jobs of this slave got.
    """

    _can_stop = True

    def __init__(self, link: Link, family: int) -> None:
        super().__init__(max_bytes=link.max_bytes, echo=link.echo)
        self._link = link
        self._family = family
        self._pack_by(link.packer)
        self._holder = self._ledger.enlist("crew", 1)
        self._lending = Lending(link.lend)
        self._told: set[bytes] = set()  # the definitions, and the shared values, that the master has
        self._tickets = itertools.count(1)
        self._answers: dict[int, Any] = {}
        self._ended = False
        self._stop_out, self._stop_in = os.pipe()
        self._listener = threading.Thread(target=self._listen, name="papyros-family", daemon=True)
        try:
            self._listener.start()
        except BaseException:  # the system has none to spare, or an alarm of the job's own came
            self.end()
            raise

    # What a place asks for --------------------------------------------------------------

    def end(self) -> None:
        """Let go of it: the master drops what is left when it hears the outcome of the job."""
        with self._lock, self._mending():
            self._ended = self._books.closed = True
            for session in self._own_sessions():
                self._discard_unprocessed(session)  # the futures of these are told that nothing will come
            self._came.notify_all()
        self._alarm.close()
        self._lending.end()
        os.write(self._stop_in, b"!")
        if self._listener.is_alive():  # it may never have been started
            self._listener.join()
        os.close(self._stop_in)
        os.close(self._stop_out)

    # What a master of books asks for ----------------------------------------------------

    def _send_work(self) -> None:
        while batch := self._ledger.assign(self._holder, SEND_JOBS):
            for digest in {entry.payload[0] for entry in batch} - self._told:
                self._share(needs_of(self._packer.definitions[digest]))
                head = ["define", self._family, digest.hex(), self._packer.labels[digest]]
                self._link.say(pack_words(head, [self._packer.definitions[digest]]))
                self._told.add(digest)
            jobs = [[entry.number, entry.payload[0].hex(), entry.terms] for entry in batch]
            self._link.say(pack_words(["add", self._family, jobs], [entry.payload[1] for entry in batch]))

    def _share(self, needs: Sequence[bytes]) -> None:
        """Say where this process holds the shared values that children need: there the master finds them, too."""
        for digest in set(needs) - self._told:
            held = self._packer.kept.get(digest)
            if held is not None:
                self._link.say(pack_words(["share", self._family, digest.hex(), held.place]))
                self._told.add(digest)

    def _dropped(self, numbers: Sequence[int]) -> None:
        if numbers and not self._closed:
            self._link.say(pack_words(["drop", self._family, list(numbers)]))

    def _stop(self) -> None:
        """The children go; but the listener is needed for as long as the job runs."""
        if not self._ended:
            self._link.say(pack_words(["close", self._family]))

    def cancelJob(self, job: Job) -> bool:
        """Discard a child, also while it runs; see `Master.cancelJob`."""
        with self._lock:
            entry = self._entry_of(job)
        return entry is not None and bool(self._cancel([entry.number]))

    def cancelAllJobs(self) -> None:
        """Discard all children that no slave was given yet; see `Master.cancelAllJobs`."""
        self._check_process()
        self._cancel(None)

    def _withdraw(self, session: Session, numbers: Sequence[int]) -> list[int]:  # noqa: ARG002 - numbers say it all
        return self._cancel(list(numbers), "withdraw")

    def _is_assigned(self, session: Session, number: int) -> bool:
        return super()._is_assigned(session, number) and bool(self._ask("assigned", number))

    def _cancel(self, numbers: list[int] | None, how: str = "cancel") -> list[int]:
        """Cancel children, all that wait where `numbers` is None; return which."""
        cancelled: list[int] = self._ask(how, numbers) or []
        with self._lock:
            for session in self._own_sessions():
                mine = [number for number in cancelled if number in session.entries]
                self._ledger.discard(session, mine)
                self._let_go(mine)
        return cancelled

    def status(self) -> Status:
        """Return a snapshot of the master that runs the job; see `Master.status`."""
        answer = self._ask("status")
        if answer is None:
            with self._lock:
                return self._snapshot()
        return Status.read(answer)

    def _ask(self, *question: Any) -> Any:
        """Ask the master; None where this one was closed."""
        ticket = next(self._tickets)
        with self._lock:
            if self._closed:
                return None
            self._link.say(pack_words(["ask", self._family, ticket, *question]))
            while ticket not in self._answers and not self._ended:
                self._came.wait()
            return self._answers.pop(ticket, None)

    # The listener -----------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while (message := self._link.hear(self._stop_out)) is not None:
                head, parts = unpack_words(message)
                with self._lock:
                    if head[1] == self._family:  # else of one that the job has closed
                        self._take(head, parts)
        except (EOFError, OSError):
            return  # the crew is gone, and soon this process
        except Exception:
            log.exception("the master of a job broke down")
            with self._lock:
                self._ended = self._books.closed = True  # nothing will come any more: nobody is to wait for it
                self._came.notify_all()

    def _take(self, head: list[Any], parts: list[Buffer]) -> None:
        kind, _, *rest = head
        if kind == "answer":
            self._answers[rest[0]] = rest[1]
        else:
            for (number, seconds, slave), encoded in zip(rest[0], parts, strict=True):
                job = self._jobs.get(number)
                if job is not None and (entry := self._entry_of(job)) is not None:
                    outcome = (encoded, slave, seconds)
                    self._ledger.finish(entry.session, number, outcome, seconds, len(encoded))
        self._outcomes_came()


def open_family(link: Link, number: int) -> RelayMaster:
    """Return a master for the job that runs in a slave; none before had that number there."""
    return RelayMaster(link, number)
