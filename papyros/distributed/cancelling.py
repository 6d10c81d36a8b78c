"""How jobs that were sent to a master are cancelled there; also when no answer says that they were.

A cancellation has a *ticket*, under which the master keeps its answer. One of which nobody knows whether it was carried
out, since Ctrl-C came or the call gave up, is *in doubt* until the sender has settled it. What is said to the
program of a job, and what is cancelled without asking anybody, is not in here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from papyros.deadlines import Deadline
from papyros.distributed.batches import pack_numbers, unpack_numbers
from papyros.distributed.bundling import Bundle
from papyros.distributed.line import Line, LineBrokenError, check_known
from papyros.entries import Entry
from papyros.frames import Buffer
from papyros.logs import logger_of

if TYPE_CHECKING:
    from papyros.distributed.client import DistributedMaster

__all__ = ["STOPPED", "Cancelling"]

log = logger_of(__name__)

#: How long a call that cancels waits for a master that has gone away.
CANCEL_SECONDS = 10.0

#: Why a job is not run again that is to run at most once, and was cancelled in vain.
STOPPED = "it was stopped for a call that was interrupted, or gave up, before it heard of that"


class Cancelling:
    """Asks the master of a client to cancel jobs.

    Args:
        client: that client.

    Attributes:
        doubts: the tickets of cancellations in doubt; and where their jobs may have been started, why these did not
            end: those that must not be started twice are lost, for that reason.
    """

    def __init__(self, client: DistributedMaster) -> None:
        self._client = client
        self._tickets = itertools.count(1)
        self.doubts: dict[int, str | None] = {}

    def cancel(self, numbers: list[int] | None, waiting: bool = False) -> list[int] | None:
        """Cancel sent jobs, all when `numbers` is None; only those that no slave host was given, if `waiting`.

        Returns the numbers of those that were, or None when what had been sent may wait here again: another master
        took over, or what an earlier cancellation had done was settled; or the one that there is has no room for it, so
        that it can be withheld.

        Raises:
            LineBrokenError: no master can be reached, which was told.
        """
        client = self._client
        if self.doubts:
            self._await_joined(lambda: bool(self.doubts))
            return None
        self._let_arrive(numbers)
        if numbers is None:
            self.withhold(None)
        with client._lock:
            if numbers is not None and client._sent.is_refused(numbers):
                return None
            known = dict.fromkeys(map(client._sent.sent_as, numbers or []))
            stay = client._stay
        ticket = next(self._tickets)
        arguments = client._key, numbers is None, ticket, waiting
        try:
            found = self._ask(stay, arguments, pack_numbers(known))
            return None if found is None else self._take(stay, numbers, *found)
        except BaseException:  # Ctrl-C came, or no answer
            self._doubt(ticket, None if numbers is None or waiting else STOPPED)
            raise

    def _ask(self, stay: str, arguments: tuple[Any, ...], message: bytes) -> tuple[dict[str, Any], Buffer] | None:
        """Ask the master to cancel something, again if need be; None if another master took over.

        Raises:
            LineBrokenError: no answer comes.
        """
        client = self._client
        while True:
            try:
                answer, reply = client._sender.call_between("cancel", *arguments, message=message)
                return check_known(answer), reply
            except LineBrokenError:
                with client._lock:
                    client._lose_master()
                self._await_joined(lambda: client._trouble and client._stay == stay)
            if client._stay != stay:
                return None

    def _take(self, stay: str, wanted: list[int] | None, answer: dict[str, Any], reply: Buffer) -> list[int]:
        """Take what the master has cancelled out of the books; return which jobs that are."""
        client = self._client
        with client._lock, client._mending():
            if client._stay == stay:
                client._note_left(answer["left"])
            found = client._sent.cancelled(unpack_numbers(reply), None if wanted is None else set(wanted))
            return self._take_out_of_books(*found)

    def _take_out_of_books(self, gone: list[int], again: list[Entry]) -> list[int]:
        client = self._client
        client._discard(gone)
        client._exchange.send_singly(again)
        return gone

    def withhold(self, numbers: list[int] | None) -> list[int]:
        """Cancel jobs, all if None, in a message for which the master has had no room; return which. Asks nobody."""
        client = self._client
        wanted = None if numbers is None else set(numbers)
        with client._lock, client._mending():
            return self._take_out_of_books(*client._sent.take_out(client._sender.withhold(wanted), wanted))

    def await_leave(self, number: int, bundle: Bundle) -> bool:
        """Wait until a job leaves a bundle that has ended at the master; return whether it does, in time."""
        client = self._client
        deadline = Deadline(CANCEL_SECONDS)
        with client._lock:
            while client._sent.bundle_of.get(number) is bundle:
                if client._stop_event.is_set() or not deadline.wait(client._came):
                    return False
        return True

    def _let_arrive(self, numbers: list[int] | None) -> None:
        """Wait while jobs, any of them if None, are in the sender's hands: neither here any more, nor there yet.

        Not for those that the master has no room for: that may take as long as the jobs that it has.
        """
        client = self._client
        sent = client._sent
        deadline = Deadline(CANCEL_SECONDS)
        with client._lock:
            while sent.is_leaving(numbers) and not (sent.refused or client._trouble or client._stop_event.is_set()):
                if not deadline.wait(client._joined):
                    return

    def _await_joined(self, trouble: Callable[[], bool]) -> None:
        """Wait until the sender has found a master, and settled with it what is the `trouble`.

        Raises:
            LineBrokenError: that took too long.
        """
        client = self._client
        deadline = Deadline(CANCEL_SECONDS)
        with client._lock:
            while trouble():
                if client._stop_event.is_set():
                    raise LineBrokenError("this client is closed")  # by which the master forgets its jobs
                if not deadline.wait(client._joined):
                    log.warning(
                        "no master of the group %r can be reached, so sent jobs are not cancelled", client.group
                    )
                    raise LineBrokenError("no master can be reached")

    # In doubt ---------------------------------------------------------------------------

    def _doubt(self, ticket: int, started: str | None) -> None:
        """Have the sender settle a cancellation: nobody knows whether the master has carried it out."""
        client = self._client
        with client._lock:
            self.doubts[ticket] = started
            # If Ctrl-C came between two books, these stand in none.
            client._exchange.send_singly(client._sent.take_strays(client._holder.assigned))
            client._news.notify()

    def settle(self, line: Line) -> None:
        """Undo cancellations that are in doubt: who asked for them was interrupted, or told that there were none.

        The master is asked under the same ticket, but to cancel nothing. If it has heard of that ticket before, it
        answers what it cancelled then. If not, the answer is none, and so it is when the former question comes late.
        Only the sender calls this.
        """
        client = self._client
        with client._lock:
            doubts = list(self.doubts.items())
        for ticket, started in doubts:
            answer, reply = line.call("cancel", client._key, False, ticket)
            check_known(answer)
            with client._lock:
                client._note_left(answer["left"])
                client._exchange.undo_cancel(unpack_numbers(reply), started)
                del self.doubts[ticket]
                client._outcomes_came()
                client._joined.notify_all()
