"""A client's master: jobs are sent ahead to the group's master, outcomes received ahead.

`DistributedMaster` keeps its own ledger, in which the whole cluster is one
holder of jobs. One thread sends, another receives; the program's own calls
never wait for the network, except those that cancel. A job is kept here until its
outcome is in hand, so when another master takes over, all that is unfinished is added to it again,
under the same numbers.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import math
import os
import threading
import uuid
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from papyros.bookkeeping import snapshot
from papyros.bundles import MOST_JOBS
from papyros.deadlines import Deadline, SafeCondition
from papyros.distributed.batches import (
    added_parts,
    pack_definitions,
    unpack_outcomes,
)
from papyros.distributed.bundling import Bundle, Bundling
from papyros.distributed.exchange import SEND_JOBS, Exchange
from papyros.distributed.finder import Hosting, MasterFinder
from papyros.distributed.gathering import Gathering
from papyros.distributed.keys import find_key
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.messages import Batch
from papyros.distributed.naming import (
    DEFAULT_GROUP,
    DEFAULT_NAMESERVER,
    LOOPBACK,
    Address,
    ask_status,
    check_group,
    is_here,
    parse_address,
)
from papyros.distributed.seals import Seals
from papyros.distributed.security import Security
from papyros.distributed.values import SentValues
from papyros.entries import PROCESSED, Session
from papyros.frames import Buffer, unpack_message
from papyros.jobs import Job
from papyros.logs import logger_of
from papyros.packing import PackingMaster
from papyros.status import Status
from papyros.threads import worker
from papyros.wire import MAX_PAYLOAD_BYTES, encode_lost

__all__ = ["DistributedMaster"]

log = logger_of(__name__)

#: Where results are bounded in bytes, so many jobs are with the master whatever their results take, or two a slave.
BUSY_JOBS = 20

#: How long a call waits at the master for room for more jobs before it asks again.
ROOM_SECONDS = 1.0

#: A master that went away has so long to come back before this client hosts one.
HOST_AFTER_SECONDS = 3.0

#: How long a call that cancels waits for a master that has gone away.
CANCEL_SECONDS = 10.0

#: Why a job is not run again that is to run at most once, and was cancelled in vain.
STOPPED = "it was stopped for a call that was interrupted, or gave up, before it heard of that"

#: A goodbye may take so long.
LEAVE_SECONDS = 2.0


class DistributedMaster(PackingMaster):
    """A client of the master of a group.

    Where no master is registered for the group, this client hosts it in its own
    process, until it is closed: a name server and slaves are then all it takes.

    Args:
        group: the name of the group.
        nameserver: where the name server is, as ``HOST[:PORT]``.
        host_master: whether to host the master where none is registered.
        host: the address on which such a master listens.
        timeout: how long to wait for a name server, and for a master if none is to be hosted.
        host_after: a master that goes away has so many seconds to come back before this client hosts one.
        port: the port on which it listens; 0 = any free one.
        publish: the address by which others reach such a master, as ``HOST[:PORT]``, if it is another one than `host`.
        lease: after how many seconds of silence such a master gives up a slave host; None = 10.
        grace: after how many seconds of silence it gives up a client; None = 60.
        key_file: the file with the cluster's key; else the one that ``PAPYROS_KEY_FILE`` names, else the user's own.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        max_bytes: the arguments of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of jobs that wait here take so many bytes
            or more.
        max_processed_bytes: no more results are received while those that wait to be popped take so many bytes or
            more. Nor are more jobs sent than those whose results will find room, beside some that keep slaves busy.
        echo: whether to show what jobs print and log line by line, each with the job it is of.

    Raises:
        NameServerNotFoundError: no name server answers.
        MasterNotFoundError: no master is registered, and none is to be hosted.
        GroupNameError: the name of the group is not valid.
        KeyFileError: there is no key, or its file is not fit to hold one; the text says how to mend it.
        KeyRefusedError: the master has another key.
        VersionMismatchError: the master has a version of Papyros or Python that does not go with this one.
    """

    def __init__(
        self,
        group: str = DEFAULT_GROUP,
        nameserver: str = DEFAULT_NAMESERVER,
        *,
        host_master: bool = True,
        host: str = LOOPBACK,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        timeout: float | None = 0.0,
        host_after: float = HOST_AFTER_SECONDS,
        port: int = 0,
        publish: str | None = None,
        lease: float | None = None,
        grace: float | None = None,
        key_file: str | os.PathLike[str] | None = None,
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
        self._limited = max_waiting is not None or max_waiting_bytes is not None
        self._limits_results = max_processed_bytes is not None
        self._slaves = 0  # how many there are, as far as the master has told
        self.group = check_group(group)
        self._stop_event = threading.Event()
        self._warned = False
        names = parse_address(nameserver)
        self._security = self._find_security(key_file, names)
        hosting = Hosting(host, port, publish, check_timeout(host_after), lease, grace)
        self._finder = MasterFinder(group, names, self._security, self._stop_event, hosting if host_master else None)
        self._holder = self._ledger.enlist("cluster", 1)
        self._key = uuid.uuid4().hex
        # What the two threads share, guarded by the lock:
        self._news = threading.Condition(self._lock)  # for the sender: jobs to send, or trouble
        self._joined = SafeCondition(self._lock)  # for the receiver: where to receive from
        self._uri = ""
        self._patience = 0.0  # how long a call may wait at the master for outcomes
        self._silence = 0.0  # after how long without a sign of life the master is given up
        self._stay = ""
        self._stay_before = False
        self._trouble = False
        self._exchange = Exchange(
            self._ledger,
            self._holder,
            self._numbers,
            Seals(self._security.key, self._key),
            # Where jobs are counted on their way, each goes by itself.
            Bundling(most=1 if self._limited or self._limits_results else MOST_JOBS),
            self._news.notify,
        )
        self._sent = self._exchange.sent
        self._unwanted: list[int] = []
        self._sender_idle = False
        self._acknowledged = 0
        self._tickets = itertools.count(1)
        self._doubts: dict[int, str | None] = {}  # tickets of cancellations that are to be settled; see `_doubt`
        self._broken = ""  # why nothing is sent and received any more, should one of the threads be gone
        # The sender's own:
        self._sequence = 0
        self._needed: set[bytes] = set()  # the definitions that it refers to
        self._message: Batch | None = None  # sent, but not known to have arrived
        self._defined: set[bytes] = set()
        self._values = SentValues(self._key)
        self._sender_line = self._connect(Deadline(timeout))
        self._receiver_line: Line | None = None
        atexit.register(self._end_with_program)
        self._threads = [
            worker("papyros-send", self._send, self._broke),
            worker("papyros-receive", self._receive, self._broke),
        ]
        for thread in self._threads:
            thread.start()

    def _find_security(self, key_file: str | os.PathLike[str] | None, names: Address) -> Security:
        return Security(find_key(key_file, make=is_here(names.host)))

    # What a master of books asks for ----------------------------------------------------

    _in_parts = True

    def _work_came(self) -> None:
        if self._broken:
            self._fail_all()
        if self._sender_idle:  # else it looks by itself, and to tell it costs something for each job
            self._news.notify()
        if self._limits_results:
            self._joined.notify_all()  # what was popped makes room for what the receiver may collect

    def _waiting_elsewhere(self) -> tuple[int, int]:
        return self._sent.waiting

    def _dropped(self, numbers: Sequence[int]) -> None:
        self._unwanted.extend(self._sent.drop(numbers))
        if self._unwanted:
            self._news.notify()

    def _withdraw(self, session: Session, numbers: Sequence[int]) -> list[int]:
        withdrawn = super()._withdraw(session, numbers)
        with contextlib.suppress(LineBrokenError):
            while left := [number for number in numbers if number in session.entries]:
                cancelled = self._cancel_at_master(left, waiting=True)
                if cancelled is not None:
                    return withdrawn + cancelled
                withdrawn += super()._withdraw(session, left)
        return withdrawn

    def _is_assigned(self, session: Session, number: int) -> bool:
        return super()._is_assigned(session, number) and self._ask_assigned(number)

    def _ask_assigned(self, number: int) -> bool:
        """Ask the master whether a slave host was given a job. Without an answer, take it for waiting."""
        try:
            answer, _ = self._sender_line.call("assigned", self._key, self._sent.sent_as(number))
        except LineBrokenError:
            with self._lock:  # the sender, which has nothing to send, would not notice for a long time
                self._trouble = True
                self._news.notify()
            return False
        return bool(answer["known"] and answer["assigned"])

    def status(self) -> Status:
        """Return a snapshot of the whole cluster, of which the master is asked; see `Master.status`.

        What is in this program only counts, too: jobs that wait to be sent, and outcomes that are not popped. A job
        that is on its way at that moment may be counted twice, or not at all.

        Raises:
            ConnectionError: the master cannot be reached.
        """
        self._check_process()
        with self._lock:
            if self._closed:
                return self._snapshot()
            uri = self._uri
            self._news.notify()  # the sender tells the master what is shared no more
        there = ask_status(uri, self._security)
        with self._lock:
            here = snapshot("this client", self._ledger, ())
            leaving = len(self._sent.leaving)
        return replace(
            there,
            waiting=there.waiting + here.waiting + leaving,
            held=there.held + here.held + leaving,
            processed=there.processed + here.processed,
        )

    def cancelJob(self, job: Job) -> bool:
        """Discard a job, also while it runs; see `Master.cancelJob`. Asks the master, if need be."""
        while True:
            if super().cancelJob(job):
                return True
            with self._lock:
                entry = self._entry_of(job)
                if entry is None or entry.state is PROCESSED:
                    return False
                bundle = self._sent.bundle_of.get(entry.number)
            try:
                cancelled = self._cancel_at_master([entry.number])
            except LineBrokenError:
                return False
            if cancelled:
                return True
            # Of a bundle, that it is too late for it does not say that it is for the job.
            if cancelled is not None and (bundle is None or not self._await_leave(entry.number, bundle)):
                return False

    def cancelAllJobs(self) -> None:
        """Discard all jobs that no slave was given yet; see `Master.cancelAllJobs`. Asks the master."""
        super().cancelAllJobs()
        with contextlib.suppress(LineBrokenError):
            while self._cancel_at_master(None) is None:
                super().cancelAllJobs()

    def _cancel_at_master(self, numbers: list[int] | None, waiting: bool = False) -> list[int] | None:
        """Cancel sent jobs, all when `numbers` is None; only those that no slave host was given, if `waiting`.

        Returns the numbers of those that were, or None when what had been sent may wait here again: another master
        took over, or what an earlier cancellation had done was settled.

        Raises:
            LineBrokenError: no master can be reached, which was told.
        """
        if self._doubts:
            self._await_joined(lambda: bool(self._doubts))
            return None
        self._let_arrive(numbers)
        with self._lock:
            known = dict.fromkeys(map(self._sent.sent_as, numbers or []))
            stay = self._stay
        ticket = next(self._tickets)
        arguments = self._key, numbers is None, ticket, waiting
        try:
            found = self._ask_to_cancel(stay, arguments, array("Q", known).tobytes())
            return None if found is None else self._take_cancelled(stay, numbers, *found)
        except BaseException:  # Ctrl-C came, or no answer
            self._doubt(ticket, None if numbers is None or waiting else STOPPED)
            raise

    def _ask_to_cancel(
        self, stay: str, arguments: tuple[Any, ...], message: bytes
    ) -> tuple[dict[str, Any], Buffer] | None:
        """Ask the master to cancel something, again if need be; None if another master took over.

        Raises:
            LineBrokenError: no answer comes.
        """
        while True:
            try:
                # On the line on which jobs are sent, so that what is on its way arrives first.
                answer, reply = self._sender_line.call("cancel", *arguments, message=message)
                return _check(answer), reply
            except LineBrokenError:
                with self._lock:
                    self._trouble = True
                    self._news.notify()
                self._await_joined(lambda: self._trouble and self._stay == stay)
            if self._stay != stay:
                return None

    def _take_cancelled(self, stay: str, wanted: list[int] | None, answer: dict[str, Any], reply: Buffer) -> list[int]:
        """Take what the master has cancelled out of the books; return which jobs that are."""
        with self._lock, self._mending():
            if self._stay == stay:
                self._note_left(answer["left"])
            gone, again = self._sent.cancelled(_numbers(reply), None if wanted is None else set(wanted))
            for number in gone:
                if number in self._jobs:
                    self._discard(number)
            self._exchange.send_singly(again)
        return gone

    def _doubt(self, ticket: int, started: str | None) -> None:
        """Have the sender settle a cancellation: nobody knows whether the master has carried it out.

        Where its jobs may have been `started`, those that must not be started twice are lost, for that reason.
        """
        with self._lock:
            self._doubts[ticket] = started
            # If Ctrl-C came between two books, these stand in none.
            self._exchange.send_singly(self._sent.take_strays(self._holder.assigned))
            self._news.notify()

    def _settle(self, line: Line) -> None:
        """Undo cancellations that are in doubt: who asked for them was interrupted, or told that there were none.

        The master is asked under the same ticket, but to cancel nothing. If it has heard of that ticket before, it
        answers what it cancelled then. If not, the answer is none, and so it is when the former question comes late.
        """
        with self._lock:
            doubts = list(self._doubts.items())
        for ticket, started in doubts:
            answer, reply = line.call("cancel", self._key, False, ticket)
            _check(answer)
            with self._lock:
                self._note_left(answer["left"])
                self._exchange.undo_cancel(_numbers(reply), started)
                del self._doubts[ticket]
                self._outcomes_came()
                self._joined.notify_all()

    def _await_leave(self, number: int, bundle: Bundle) -> bool:
        """Wait until a job leaves a bundle that has ended at the master; return whether it does, in time."""
        deadline = Deadline(CANCEL_SECONDS)
        with self._lock:
            while self._sent.bundle_of.get(number) is bundle:
                if self._stop_event.is_set() or not deadline.wait(self._came):
                    return False
        return True

    def _let_arrive(self, numbers: list[int] | None) -> None:
        """Wait while jobs, any of them if None, are in the sender's hands: neither here any more, nor there yet."""
        deadline = Deadline(CANCEL_SECONDS)
        with self._lock:
            while self._sent.is_leaving(numbers) and not self._trouble and not self._stop_event.is_set():
                if not deadline.wait(self._joined):
                    return

    def _await_joined(self, trouble: Callable[[], bool]) -> None:
        """Wait until the sender has found a master, and settled with it what is the `trouble`.

        Raises:
            LineBrokenError: that took too long.
        """
        deadline = Deadline(CANCEL_SECONDS)
        with self._lock:
            while trouble():
                if self._stop_event.is_set() or not deadline.wait(self._joined):
                    log.warning("no master of the group %r can be reached, so sent jobs are not cancelled", self.group)
                    raise LineBrokenError("no master can be reached")

    def _discard(self, number: int) -> None:
        for session in self._ledger.sessions.values():
            if number in session.entries:
                self._ledger.discard(session, [number])
                self._let_go([number])
                return

    # Finding the master -----------------------------------------------------------------

    def _connect(self, deadline: Deadline) -> Line:
        """Return a line to the master on which the session is open, for the first time."""
        line = self._finder.first(deadline)
        while not self._join(line):
            line.close()
            line = self._finder.first(deadline)
        return line

    def _join(self, line: Line) -> bool:
        """Open the session, or find it again; False if the line broke. What a new master lacks waits again."""
        try:
            answer, _ = line.call("join", *self._introduction())
        except LineBrokenError:
            return False
        if not answer["known"]:
            self._refused(answer)
            return False
        with self._lock:
            if answer["stay"] != self._stay:
                self._stay = answer["stay"]
                reason = "the master was lost, or had given this client up: what became of the job is not known"
                held = [entry for entry in self._holder.assigned if entry.number not in self._sent.bundle_of]
                self._ledger.give_back(self._holder, held, reason if self._stay_before else None)
                self._stay_before = True
                self._outcomes_came()
                self._sent.move()
                self._unwanted.clear()
                self._defined.clear()
                self._values.clear()
                self._acknowledged = self._sequence = 0
                self._room.notify_all()
                self._message = None
            self._uri = line.uri
            self._patience = float(answer["patience"])
            self._silence = self._patience + float(answer["lease"])
            line.expect(ROOM_SECONDS + self._silence)
            self._trouble = False
            self._joined.notify_all()
        return True

    def _introduction(self) -> tuple[Any, ...]:
        """What to say when a session is opened: who comes."""
        return (self._key,)

    def _refused(self, answer: dict[str, Any]) -> None:
        """The master opens no session, which happens to those only that come for a job."""

    # Sending ----------------------------------------------------------------------------

    def _send(self) -> None:
        """The sender: what is added here is added there."""
        while not self._stop_event.is_set():
            try:
                self._send_on(self._sender_line)
            except LineBrokenError as error:
                log.info("%s", error)
                self._sender_line.close()
                with contextlib.suppress(LineBrokenError):
                    line = self._finder.again()
                    self._sender_line = line
                    self._join(line)
        with contextlib.suppress(LineBrokenError):
            self._sender_line.call("leave", self._key, timeout=LEAVE_SECONDS)
        self._sender_line.close()

    def _send_on(self, line: Line) -> None:
        while not self._stop_event.is_set():
            if self._doubts:
                self._settle(line)  # first: what comes of it is not to be mixed up with what is sent again
            if self._message is None:
                unwanted = self._wait_for_news()
                if unwanted:
                    self._drop(line, unwanted)
                self._values.forget(self._packer, self._defined)
                self._values.settle(line)
            if self._message is None:
                continue
            self._define(line, self._needed)
            answer = _check(line.call("add", self._key, self._sequence, ROOM_SECONDS, message=self._message)[0])
            if answer["accepted"]:
                self._message = None
            with self._lock:
                self._sent.leaving.clear()
                self._joined.notify_all()
                self._note_left(answer["left"])

    def _wait_for_news(self) -> list[int]:
        """Wait for jobs to send, which make the next message, or for jobs that nobody wants any more: return those.

        The message is noted before anything is said on a line, which may break: then it is said again on the next one.
        """
        with self._lock:
            while not self._something_to_send():
                self._sender_idle = True
                self._news.wait()
                self._sender_idle = False
            if self._stop_event.is_set():
                return []
            if self._trouble:
                raise LineBrokenError("the receiver lost the master")
            if self._doubts:
                return []
            batch = self._exchange.next_batch(self._sendable)
            unwanted, self._unwanted = self._unwanted, []
            if not batch:
                self._joined.notify_all()  # what was to be sent again, somebody has cancelled
        if batch:
            self._message = added_parts(batch)
            self._needed = {job.definition for job in batch}
            self._sequence += 1
        return unwanted

    def _something_to_send(self) -> bool:
        return (
            self._stop_event.is_set()
            or self._trouble
            or bool(self._unwanted)
            or bool(self._doubts)
            or self._packer.kept.stale
            or self._values.owed
            or bool(self._sent.unsent)
            or (self._sendable() > 0 and any(session.assignable() for session in self._ledger.sessions.values()))
        )

    def _sendable(self) -> int:
        """How many jobs may go into the next message.

        Where results are bounded in bytes, those whose results will find room, as far as is known;
        and whatever these take, enough to keep all slaves busy.
        """
        if not self._limits_results:
            return SEND_JOBS
        waiting = [session for session in self._ledger.sessions.values() if session.line]
        fitting = sum(session.fitting for session in waiting if session.result_bytes)
        busy = max(BUSY_JOBS, 2 * self._slaves) - len(self._holder.assigned)
        return int(min(SEND_JOBS, max(busy, fitting)))

    def _drop(self, line: Line, unwanted: list[int]) -> None:
        try:
            _check(line.call("drop", self._key, message=array("Q", unwanted).tobytes())[0])
        except LineBrokenError:
            with self._lock:
                self._unwanted += unwanted
            raise

    def _define(self, line: Line, needed: set[bytes]) -> None:
        self._values.send(line, self._packer, needed)
        # One that is not there any more is of jobs that were cancelled.
        missing = needed.intersection(self._packer.definitions) - self._defined
        if missing:
            definitions = {digest: self._packer.definitions[digest] for digest in missing}
            labels = {digest.hex(): self._packer.labels[digest] for digest in missing}
            _check(line.call("define", self._key, labels, message=pack_definitions(definitions))[0])
            self._defined |= missing

    # Receiving --------------------------------------------------------------------------

    def _receive(self) -> None:
        """The receiver: outcomes come in here ahead of the calls that pop them."""
        while not self._stop_event.is_set():
            with self._lock:
                while self._trouble and not self._stop_event.is_set():
                    self._joined.wait()
                uri = self._uri
            try:
                with self._finder.line(uri, silence=self._silence) as line:
                    self._receiver_line = line
                    self._receive_on(line)
            except LineBrokenError as error:
                log.info("%s", error)
            with self._lock:
                if uri == self._uri and not self._stop_event.is_set():
                    self._trouble = True
                    self._news.notify()

    def _receive_on(self, line: Line) -> None:
        bounded = self._limited
        with self._lock:
            stay = self._stay
        gathering = Gathering()
        while not self._stop_event.is_set():
            # One that has no room shows that it lives, and says what it has received.
            room = not self._limits_results or self._await_room_for_results()
            said = (self._patience,) if room else (0.0, False)
            answer, message = line.call("collect", self._key, self._acknowledged, bounded, *said)
            _check(answer)
            prints, outcomes = [], []
            if answer["news"]:
                printed, encoded = unpack_message(message)
                prints = json.loads(bytes(printed))
                outcomes = list(map(self._exchange.checked, unpack_outcomes(encoded)))
            self._show(prints)
            self._warn(answer["slaves"])
            with self._lock:
                if self._stay != stay:
                    raise LineBrokenError("another master took over")
                self._acknowledged = answer["number"]
                self._note_left(answer["left"])
                for done in outcomes:
                    self._exchange.take(done)
                if not self._sent:
                    self._sent.let_go_of_room()
                self._outcomes_came()
                if self._packer.kept.stale or self._limits_results:
                    self._news.notify()  # the master lets go of what nobody shares any more, and gets more jobs
                out = len(self._sent)
            if pause := gathering.pause(len(outcomes), out, answer["slaves"]):
                self._stop_event.wait(pause)

    def _await_room_for_results(self) -> bool:
        """Wait while results that are not popped take all the room there is for them; False after a while."""
        deadline = Deadline(min(ROOM_SECONDS, self._patience))
        with self._lock:
            while any(session.assigned for session in self._ledger.sessions.values()) and all(
                session.is_full for session in self._ledger.sessions.values() if session.assigned
            ):
                if self._stop_event.is_set() or self._trouble or not deadline.wait(self._joined):
                    return False
        return True

    def _show(self, prints: list[tuple[int, str, str]]) -> None:
        """Show what jobs printed, which is asked for with `echo`."""
        for number, slave, text in prints:
            with self._lock:
                job = self._job_text(number)
            self._screen.show_print(job, slave, text)

    def _warn(self, slaves: int) -> None:
        """Say, once, why nothing comes: it has been asked for a while."""
        with self._lock:
            self._slaves = slaves
            waiting = len(self._sent)
        if slaves or not waiting:
            self._warned = False
        elif not self._warned:
            self._warned = True
            jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
            log.warning("%s, no slave is connected to the master of the group %r", jobs, self.group)

    def _note_left(self, left: Sequence[int]) -> None:
        if self._sent.note_left(left) and self._limited:
            self._room.notify_all()

    # The end ----------------------------------------------------------------------------

    def _broke(self, why: str) -> None:
        """Let nobody wait for what cannot come, since one of the two threads is gone, and the other one goes, too."""
        with self._lock:
            self._broken = self._broken or f"{why}. What became of the job is not known; make another master to go on"
            self._stop_event.set()
            self._ledger.mend()
            self._fail_all()
            for condition in (self._news, self._joined, self._room):
                condition.notify_all()
        if self._receiver_line is not None:
            self._receiver_line.abort()

    def _fail_all(self) -> None:
        """Give all jobs that have none an outcome, which says what has happened. Called with the lock held."""
        for session in list(self._ledger.sessions.values()):
            for entry in [entry for entry in session.entries.values() if entry.state is not PROCESSED]:
                self._ledger.finish(session, entry.number, encode_lost(self._broken))
        self._sent.forget()
        self._outcomes_came()

    def _stop(self) -> None:
        with self._lock:
            self._stop_event.set()
            self._news.notify_all()
            self._joined.notify_all()
        if self._receiver_line is not None:
            self._receiver_line.abort()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(LEAVE_SECONDS)
        # A master that does not answer keeps them waiting: no longer.
        self._sender_line.abort()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._sender_line.close()
        self._finder.close()


def check_timeout(seconds: float) -> float:
    """Return a number of seconds, or refuse it as `Deadline` does."""
    remaining = Deadline(seconds).remaining()
    return math.inf if remaining is None else remaining


def _numbers(message: Buffer) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(message)
    return numbers


def _check(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer, unless it says that the master does not know this client any more."""
    if not answer["known"]:
        raise LineBrokenError("the master does not know this client any more")
    return answer
