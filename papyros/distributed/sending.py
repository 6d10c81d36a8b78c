"""What a client sends its master, by a thread and on a line of its own: jobs, and what has to be there before them.

Also what nobody wants any more, and what calls that cancel have left to be settled. Which jobs are sent, and
as what, is the affair of the `Exchange`; what comes back, of the `Receiver`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from papyros.deadlines import Deadline
from papyros.distributed.batches import AddedJob, added_parts, in_messages, pack_definitions, pack_numbers
from papyros.distributed.exchange import SEND_JOBS
from papyros.distributed.line import CallFailedError, Line, LineBrokenError, check_known
from papyros.distributed.seeker import Pauses
from papyros.distributed.values import SentValues
from papyros.encoded import encode_refusal
from papyros.errors import PayloadError
from papyros.frames import Buffer
from papyros.logs import logger_of
from papyros.store import needs_of

if TYPE_CHECKING:
    from papyros.distributed.client import DistributedMaster

__all__ = ["LEAVE_SECONDS", "ROOM_SECONDS", "Sender"]

log = logger_of(__name__)

#: Where results are bounded in bytes, so many jobs are with the master whatever their results take, or two a slave.
BUSY_JOBS = 20

#: How long a call waits at the master for room for more jobs before it asks again.
ROOM_SECONDS = 1.0

#: A master that cannot take something for so long may never do so: jobs that need it end, and say why.
REFUSED_SECONDS = 30.0

#: A goodbye may take so long.
LEAVE_SECONDS = 2.0


class Sender:
    """Sends what is added to a client.

    Args:
        client: that client.

    Attributes:
        line: to the master; set before anything is sent. Calls that cancel share it.
        unwanted: the numbers under which the master has what nobody wants any more. The client's lock guards it.
        idle: whether it waits for something to send, of which it has to be told.
    """

    line: Line

    def __init__(self, client: DistributedMaster) -> None:
        self._client = client
        self.unwanted: list[int] = []
        self.idle = False
        self._sequence = 0  # of that message, or of the one of nothing that asks for room for it
        self._batch: list[AddedJob] = []  # sent, or about to be, but not known to have arrived
        self._guests: set[object] = set()  # calls of other threads that are to go first; the client's lock guards it
        self._defined: set[bytes] = set()
        self._values = SentValues(client._key)
        self._refused: tuple[str, float] | None = None  # why the master cannot take something, and since when
        self._hopeless: set[bytes] = set()  # values that it has refused for long
        self._warned: set[str] = set()  # the reasons that the log has

    def begin_anew(self) -> None:
        """Another master took over, which has nothing of this client. Called with the lock held."""
        self.unwanted.clear()
        self._defined.clear()
        self._values.clear()
        self._refused = None
        self._hopeless.clear()
        self._warned.clear()
        self._sequence = 0
        self._batch = []

    def run(self) -> None:
        """What is added here is added there; when the master is lost, find it, or the next one."""
        client = self._client
        pauses = Pauses()
        while not client._stop_event.is_set():
            try:
                self._send_on(self.line)
            except (LineBrokenError, MemoryError) as error:
                if isinstance(error, CallFailedError):
                    self._note_refused(error)
                elif isinstance(error, MemoryError):
                    log.warning("there is no memory for what is to be sent to %s: it is tried again", self.line.uri)
                else:
                    log.info("%s", error)
                self.line.close()
                client._stop_event.wait(pauses.next())
                with contextlib.suppress(LineBrokenError):
                    line = client._finder.again()
                    self.line = line
                    client._join(line)
        with contextlib.suppress(LineBrokenError):
            self.line.call("leave", client._key, timeout=LEAVE_SECONDS)
        self.line.close()

    def _send_on(self, line: Line) -> None:
        client = self._client
        while not client._stop_event.is_set():
            if client._cancelling.doubts:
                client._cancelling.settle(line)  # first: what comes of it is not to be mixed up with what is sent again
            if not self._batch:
                unwanted = self._wait_for_news()
                if unwanted:
                    self._drop(line, unwanted)
                self._values.forget(client._packer, self._defined)
                self._values.settle(line)
            if self._batch:
                self._send_batch(line)

    def _send_batch(self, line: Line) -> None:
        """Send the jobs of a message, if the master has room. They may be large: nothing of them is kept here.

        One that has had no room for them is asked again with a message of nothing, until it takes that.
        """
        client = self._client
        if asks := client._sent.refused:
            self._let_guests_go_first()
        batch = [] if asks else self._batch
        self._define(line, {job.definition for job in batch})
        message = added_parts(batch)
        answer = check_known(line.call("add", client._key, self._sequence, ROOM_SECONDS, message=message)[0])
        self._refused = None
        with client._lock:
            client._sent.refused = not answer["accepted"]
            if answer["accepted"] and asks:
                self._sequence += 1
            elif answer["accepted"]:
                self._batch = []
                client._sent.leaving.clear()
            client._joined.notify_all()
            client._note_left(answer["left"])

    def _note_refused(self, error: CallFailedError) -> None:
        """Say, once, that the master cannot take something; if it has been so for long, end the jobs that need it."""
        value = self._values.leaving
        what = "what this client sends" if value is None else f"the shared value {value.hex()[:8]}"
        self._values.leaving = None
        reason = str(error)
        if reason not in self._warned:
            self._warned.add(reason)
            log.warning("the master at %s cannot take %s: %s; it is tried again", self.line.uri, what, error)
        now = time.monotonic()
        if self._refused is None or self._refused[0] != reason:
            self._refused = reason, now
        if value not in self._hopeless and now - self._refused[1] < REFUSED_SECONDS:
            return
        why = f"the master could not take {what}, which the job needs: {error}"
        if value is not None:
            self._hopeless.add(value)
            self._values.give_up(value)
            self._end_leaving(lambda job: value in self._needs(job), why)
        elif self._batch:
            self._end_leaving(lambda _: True, f"the master could not take the job: {error}")
        else:
            self._client._broke(f"the master could not take what is to be sent, for {REFUSED_SECONDS:g} s: {error}")

    def _needs(self, job: AddedJob) -> list[bytes]:
        """Return which values a job needs."""
        return needs_of(self._client._packer.definitions.get(job.definition, b""))

    def _end_leaving(self, which: Callable[[AddedJob], bool], why: str) -> None:
        """End those jobs of the message that is to be sent which the master cannot take."""
        client = self._client
        outcome = encode_refusal(PayloadError(why))
        with client._lock:
            numbers = [job.number for job in self._batch if which(job)]
            self._batch = [job for job in self._batch if not which(job)]
            client._exchange.end_unsent(numbers, outcome)
            self.unwanted += numbers  # some of them may be there all the same
            client._outcomes_came()
            client._joined.notify_all()

    def call_between(self, method: str, *args: Any, message: bytes | None = None) -> tuple[Any, Buffer]:
        """Make a call for another thread on the line on which jobs are sent, so that what is on its way arrives first.

        One that asks for room again and again would keep the line for itself, so it lets such a call go first.

        Raises:
            LineBrokenError: it did not come to an answer.
        """
        client, guest = self._client, object()
        try:
            with client._lock:
                self._guests.add(guest)
            return self.line.call(method, *args, message=message)
        finally:
            with client._lock:
                self._guests.discard(guest)
                client._joined.notify_all()

    def _let_guests_go_first(self) -> None:
        deadline = Deadline(ROOM_SECONDS)
        with self._client._lock:
            while self._guests and deadline.wait(self._client._joined):
                pass

    def withhold(self, wanted: Collection[int] | None) -> set[int]:
        """Take jobs, all if None, out of a message for which the master has had no room; return their numbers there.

        It does not have them: it is asked for room with nothing in hand meanwhile. Called with the lock held.
        """
        sent = self._client._sent
        known = sent.leaving_as(wanted) if sent.refused else set()
        if known:
            self._batch = [job for job in self._batch if job.number not in known]
        return known

    def _note_idle(self, idle: bool) -> None:
        """Take note whether this waits for something to send. Called with the client's lock held."""
        client = self._client
        self.idle = idle
        client._books.awaited = idle or client._is_told_always or bool(client._broken)

    def _wait_for_news(self) -> list[int]:
        """Wait for jobs to send, which make the next message, or for jobs that nobody wants any more: return those.

        What is in it is noted before anything is said on a line, which may break: then it is sent on the next one.
        """
        client = self._client
        with client._lock:
            while not self._something_to_send():
                self._note_idle(True)
                client._news.wait()
                self._note_idle(False)
            if client._stop_event.is_set():
                return []
            if client._trouble:
                raise LineBrokenError("the receiver lost the master")
            if client._cancelling.doubts:
                return []
            batch = client._exchange.next_batch(self._sendable, client._receiver.slaves)
            unwanted, self.unwanted = self.unwanted, []
            if batch:
                self._batch = batch
                self._sequence += 1
            else:
                client._joined.notify_all()  # what was to be sent again, somebody has cancelled
        return unwanted

    def _something_to_send(self) -> bool:
        client = self._client
        return (
            client._stop_event.is_set()
            or client._trouble
            or bool(self.unwanted)
            or bool(client._cancelling.doubts)
            or client._packer.kept.stale
            or self._values.owed
            or bool(client._sent.unsent)
            or (self._sendable() > 0 and any(session.assignable() for session in client._ledger.sessions.values()))
        )

    def _sendable(self) -> int:
        """How many jobs may go into the next message.

        Where results are bounded in bytes, those whose results will find room, as far as is known;
        and whatever these take, enough to keep all slaves busy.
        """
        client = self._client
        if not client._limits_results:
            return SEND_JOBS
        waiting = [session for session in client._ledger.sessions.values() if session.line]
        fitting = sum(session.fitting for session in waiting if session.result_bytes)
        busy = max(BUSY_JOBS, 2 * client._receiver.slaves) - len(client._holder.assigned)
        return int(min(SEND_JOBS, max(busy, fitting)))

    def _drop(self, line: Line, unwanted: list[int]) -> None:
        client = self._client
        try:
            check_known(line.call("drop", client._key, message=pack_numbers(unwanted))[0])
        except (LineBrokenError, MemoryError):
            with client._lock:
                self.unwanted += unwanted
            raise

    def _define(self, line: Line, needed: set[bytes]) -> None:
        client = self._client
        self._values.send(line, client._packer, needed)
        if self._hopeless:
            self._hopeless = {value for value in self._hopeless if not self._values.has_sent(value)}
        # One that is not there any more is of jobs that were cancelled.
        missing = needed.intersection(client._packer.definitions) - self._defined
        for definitions in in_messages({digest: client._packer.definitions[digest] for digest in missing}):
            labels = {digest.hex(): client._packer.labels[digest] for digest in definitions}
            check_known(line.call("define", client._key, labels, message=pack_definitions(definitions))[0])
            self._defined |= definitions.keys()
