"""A client's master: jobs are sent ahead to the group's master, outcomes received ahead.

`DistributedMaster` keeps its own ledger, in which the whole cluster is one
holder of jobs. One thread sends (`Sender`), another receives (`Receiver`); the program's own calls
never wait for the network, except those that cancel (`Cancelling`). A job is kept here until its
outcome is in hand, so when another master takes over, all that is unfinished is added to it again,
under the same numbers. In here is what these three share: the books, and with which master the client stays.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from papyros.bookkeeping import snapshot
from papyros.bundles import MOST_JOBS
from papyros.checks import clamp_silence
from papyros.deadlines import Deadline, SafeCondition
from papyros.distributed.bundling import Bundling
from papyros.distributed.cancelling import Cancelling
from papyros.distributed.exchange import Exchange
from papyros.distributed.finder import Hosting, MasterFinder
from papyros.distributed.keys import find_key
from papyros.distributed.line import CallFailedError, Line, LineBrokenError, LineRefusedError
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
from papyros.distributed.receiving import Receiver
from papyros.distributed.seals import Seals
from papyros.distributed.security import Security
from papyros.distributed.seeker import Pauses
from papyros.distributed.sending import LEAVE_SECONDS, ROOM_SECONDS, Sender
from papyros.encoded import encode_lost
from papyros.entries import PROCESSED, Session
from papyros.errors import ClusterError
from papyros.jobs import Job
from papyros.logs import logger_of
from papyros.packing import PackingMaster
from papyros.status import Status
from papyros.threads import worker
from papyros.wire import MAX_PAYLOAD_BYTES

__all__ = ["DistributedMaster"]

log = logger_of(__name__)

#: A master that went away has so long to come back before this client hosts one.
HOST_AFTER_SECONDS = 3.0

#: A master that is about to end breaks a line or two: one that a client cannot join for so long is given up, unless the
#: client is to wait longer.
JOIN_SECONDS = 5.0

#: So many ways in which a master fails are remembered as told of.
MOST_FAILURES = 100


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
        ClusterError: a master cannot be hosted as was asked for (it cannot listen there, or nobody else could reach
            it), or the registered one cannot be reached from here.
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
        self.group = check_group(group)
        self._stop_event = threading.Event()
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
        self._failures: set[str] = set()  # those of the master that the log has
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
        self._broken = ""  # why nothing is sent and received any more, should one of the threads be gone
        self._cancelling = Cancelling(self)
        self._sender = Sender(self)
        self._receiver = Receiver(self)
        try:
            self._sender.line = self._connect(Deadline(timeout))
        except BaseException:
            self._finder.close()  # it may host a master by now, which nobody else could end
            raise
        atexit.register(self._end_with_program)
        self._threads = [
            worker("papyros-send", self._sender.run, self._broke),
            worker("papyros-receive", self._receiver.run, self._broke),
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # the system has none to spare, or Ctrl-C came
            self.close()
            raise

    def _find_security(self, key_file: str | os.PathLike[str] | None, names: Address) -> Security:
        return Security(find_key(key_file, make=is_here(names.host)))

    # What a master of books asks for ----------------------------------------------------

    _in_parts = True

    #: Whether it is to be told of each job that is added, also while the sender is awake, which looks by itself.
    _is_told_always = False

    def _work_came(self) -> None:
        if self._broken:
            self._fail_all()
        if self._sender.idle:
            self._news.notify()
        if self._limits_results:
            self._joined.notify_all()  # what was popped makes room for what the receiver may collect

    def _load(self) -> tuple[int, int]:
        return len(self._holder.assigned), self._receiver.slaves

    def _waiting_elsewhere(self) -> tuple[int, int]:
        return self._sent.waiting

    def _dropped(self, numbers: Sequence[int]) -> None:
        self._sender.unwanted.extend(self._sent.drop(numbers))
        if self._sender.unwanted:
            self._news.notify()

    def _withdraw(self, session: Session, numbers: Sequence[int]) -> list[int]:
        withdrawn = self._withdraw_here(session, numbers)
        with contextlib.suppress(LineBrokenError):
            while left := [number for number in numbers if number in session.entries]:
                cancelled = self._cancelling.cancel(left, waiting=True)
                if cancelled is not None:
                    return withdrawn + cancelled
                withdrawn += self._withdraw_here(session, left)
        return withdrawn

    def _withdraw_here(self, session: Session, numbers: Sequence[int]) -> list[int]:
        withdrawn = super()._withdraw(session, numbers)
        return withdrawn + self._cancelling.withhold([number for number in numbers if number in session.entries])

    def _is_assigned(self, session: Session, number: int) -> bool:
        return super()._is_assigned(session, number) and self._ask_assigned(number)

    def _ask_assigned(self, number: int) -> bool:
        """Ask the master whether a slave host was given a job. Without an answer, take it for waiting."""
        try:
            answer, _ = self._sender.call_between("assigned", self._key, self._sent.sent_as(number))
        except LineBrokenError:
            with self._lock:
                self._lose_master()  # the sender, which has nothing to send, would not notice for a long time
            return False
        return bool(answer["known"] and answer["assigned"])

    def status(self) -> Status:
        """Return a snapshot of the whole cluster, of which the master is asked; see `Master.status`.

        What is in this program only counts, too: jobs that wait to be sent, and outcomes that are not popped. A job
        that is on its way at that moment may be counted twice, or not at all.

        Raises:
            ConnectionError: the master cannot be reached now.
        """
        self._check_process()
        with self._lock:
            if self._closed:
                return self._snapshot()
            uri = self._uri
            self._news.notify()  # the sender tells the master what is shared no more
        try:
            there = ask_status(uri, self._security)
        except (LineRefusedError, CallFailedError):
            raise
        except LineBrokenError as error:
            raise LineBrokenError(
                f"the master of the group {self.group!r} does not answer now ({error}); this client keeps its jobs: "
                "those that may be run again are added again when it does, or when another one takes over"
            ) from None
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
            if self._cancelling.withhold([entry.number]):
                return True
            try:
                cancelled = self._cancelling.cancel([entry.number])
            except LineBrokenError:
                return False
            if cancelled:
                return True
            # Of a bundle, that it is too late for it does not say that it is for the job.
            if cancelled is not None and (bundle is None or not self._cancelling.await_leave(entry.number, bundle)):
                return False

    def cancelAllJobs(self) -> None:
        """Discard all jobs that no slave was given yet; see `Master.cancelAllJobs`. Asks the master."""
        super().cancelAllJobs()
        with contextlib.suppress(LineBrokenError):
            while self._cancelling.cancel(None) is None:
                super().cancelAllJobs()

    def _discard(self, numbers: Iterable[int]) -> None:
        """Discard those jobs that are here still. Called with the lock held."""
        found: dict[Session, list[int]] = {}
        for number in numbers:
            if number in self._jobs and (entry := self._entry_of(self._jobs[number])) is not None:
                found.setdefault(entry.session, []).append(number)
        for session, kept in found.items():
            self._ledger.discard(session, kept)  # all at once: each time, all that is processed is looked through
            self._let_go(kept)

    # Finding the master -----------------------------------------------------------------

    def _connect(self, deadline: Deadline) -> Line:
        """Return a line to the master on which the session is open, for the first time."""
        pauses, patience = Pauses(), Deadline(JOIN_SECONDS)
        line = self._finder.first(deadline)
        while not self._join(line):
            if line.broken:  # else it was refused for now, which makes pauses of its own
                if deadline.expired() and patience.expired():
                    raise ClusterError(
                        f"the master of the group {self.group!r} at {line.uri} can be reached, but breaks each "
                        "connection, or fails, when this client joins: its log may say why"
                    )
                self._stop_event.wait(pauses.next())
            line.close()
            line = self._finder.first(deadline)
        return line

    def _join(self, line: Line) -> bool:
        """Open the session, or find it again; False if the line broke. What a new master lacks waits again."""
        try:
            answer, _ = line.call("join", *self._introduction())
        except LineBrokenError as error:
            self._tell_why(error, line.uri, "when this client joins")
            line.close()
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
                self._sender.begin_anew()
                self._receiver.begin_anew()
                self._room.notify_all()
            self._uri = line.uri
            lease = clamp_silence(answer["lease"])
            self._patience = min(float(answer["patience"]), lease)
            self._silence = self._patience + lease
            line.expect(ROOM_SECONDS + self._silence)
            self._trouble = False
            self._joined.notify_all()
        return True

    def _tell_why(self, error: LineBrokenError, uri: str, when: str) -> None:
        """Say why a line is given up: aloud, and once, if its master fails at what it is asked, which may not pass."""
        reason = f"{when}: {error}"
        if isinstance(error, CallFailedError) and reason not in self._failures:
            if len(self._failures) >= MOST_FAILURES:
                self._failures.clear()
            self._failures.add(reason)
            log.warning("the master at %s fails %s; it is asked again and again", uri, reason)
        else:
            log.info("%s", error)

    def _lose_master(self) -> None:
        """Have the sender find the master again, or the next one. Called with the lock held."""
        self._trouble = True
        self._news.notify()

    def _introduction(self) -> tuple[Any, ...]:
        """What to say when a session is opened: who comes."""
        return (self._key,)

    def _refused(self, answer: dict[str, Any]) -> None:
        """The master opens no session, which happens to those only that come for a job."""

    def _note_left(self, left: Sequence[int]) -> None:
        if self._sent.note_left(left) and self._limited:
            self._room.notify_all()

    # The end ----------------------------------------------------------------------------

    def _broke(self, why: str) -> None:
        """Let nobody wait for what cannot come, since one of the two threads is gone, and the other one goes, too."""
        with self._lock:
            self._broken = self._broken or f"{why}. What became of the job is not known; make another master to go on"
            self._books.awaited = True  # to be told that each job that is added from now on is lost
            self._stop_event.set()
            self._ledger.mend()
            self._fail_all()
            for condition in (self._news, self._joined, self._room):
                condition.notify_all()
        self._receiver.abort()

    def _fail_all(self) -> None:
        """Give all jobs that have none an outcome, which says what has happened. Called with the lock held."""
        for session in list(self._ledger.sessions.values()):
            # The newest are without one, as a rule; those before them may be many, and are not popped yet.
            without = (entry for entry in reversed(session.entries.values()) if entry.state is not PROCESSED)
            for entry in reversed(list(islice(without, len(session.line) + session.delayed + session.assigned))):
                self._ledger.finish(session, entry.number, encode_lost(self._broken))
        self._sent.forget()
        self._outcomes_came()

    def _wake_in_child(self) -> None:
        super()._wake_in_child()
        finder: MasterFinder | None = getattr(self, "_finder", None)  # one thread may fork while another makes this
        if finder is not None:
            finder.close_in_child()

    def _stop(self) -> None:
        with self._lock:
            self._stop_event.set()
            self._news.notify_all()
            self._joined.notify_all()
        self._receiver.abort()
        others = [thread for thread in self._threads if thread.ident and thread is not threading.current_thread()]
        with contextlib.ExitStack() as stack:  # after a Ctrl-C, too: nobody else can end a master that is hosted here
            stack.callback(self._finder.close)
            stack.callback(self._sender.line.close)
            for thread in others:
                thread.join(LEAVE_SECONDS)
            # A master that does not answer keeps them waiting: no longer.
            self._sender.line.abort()
            for thread in others:
                thread.join()


def check_timeout(seconds: float) -> float:
    """Return a number of seconds, or refuse it as `Deadline` does."""
    remaining = Deadline(seconds).remaining()
    return math.inf if remaining is None else remaining
