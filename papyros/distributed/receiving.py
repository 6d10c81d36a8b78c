"""What a client receives from its master, by a thread and on a line of its own: outcomes, ahead of calls that pop them.

And what comes with them: what jobs print, how many slaves there are, how many jobs have left the waiting line. What an
outcome means for the books is the affair of the `Exchange`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from papyros.deadlines import Deadline
from papyros.distributed.batches import unpack_outcomes
from papyros.distributed.gathering import Gathering
from papyros.distributed.line import Line, LineBrokenError, check_known
from papyros.distributed.sending import ROOM_SECONDS
from papyros.frames import unpack_message
from papyros.logs import logger_of

if TYPE_CHECKING:
    from papyros.distributed.client import DistributedMaster

__all__ = ["Receiver"]

log = logger_of(__name__)


class Receiver:
    """Receives what becomes of the jobs of a client.

    Args:
        client: that client.

    Attributes:
        slaves: how many there are, as far as the master has told.
    """

    def __init__(self, client: DistributedMaster) -> None:
        self._client = client
        self.slaves = 0
        self._line: Line | None = None
        self._acknowledged = 0
        self._warned = False

    def begin_anew(self) -> None:
        """Another master took over: wait for the old one no longer, which has patience. Called with the lock held."""
        self._acknowledged = 0
        self.abort()

    def abort(self) -> None:
        """Have it wait for nothing any more."""
        if self._line is not None:
            self._line.abort()

    def run(self) -> None:
        """The receiver: outcomes come in here ahead of the calls that pop them."""
        client = self._client
        while not client._stop_event.is_set():
            with client._lock:
                while client._trouble and not client._stop_event.is_set():
                    client._joined.wait()
                # Both at once: while a connection is made, another master may take over.
                uri, stay = client._uri, client._stay
            try:
                with client._finder.line(uri, silence=client._silence) as line:
                    self._line = line
                    self._receive_on(line, stay)
            except LineBrokenError as error:
                client._tell_why(error, uri, "when it is asked for outcomes")
            except MemoryError:
                log.warning("there is no memory for what %s has sent: it is asked again", uri)
                self._take_stock()
            with client._lock:
                if (uri, stay) == (client._uri, client._stay) and not client._stop_event.is_set():
                    client._lose_master()

    def _receive_on(self, line: Line, stay: str) -> None:
        client = self._client
        gathering = Gathering()
        while not client._stop_event.is_set():
            came, out = self._collect(line, stay)
            if pause := gathering.pause(came, out, self.slaves):
                client._stop_event.wait(pause)

    def _collect(self, line: Line, stay: str) -> tuple[int, int]:
        """Ask for outcomes, and take those that come; return how many, and of how many jobs they are still to come.

        What came, which may be large, is let go of before the next wait. It is acknowledged when all of it was taken:
        if memory ends before, it comes again, and what was taken then is known no more.
        """
        client = self._client
        # One that has no room shows that it lives, and says what it has received.
        room = not client._limits_results or self._await_room_for_results()
        said = (client._patience,) if room else (0.0, False)
        if client._stay != stay:
            raise LineBrokenError("another master took over")
        answer, message = line.call("collect", client._key, self._acknowledged, client._limited, *said)
        check_known(answer)
        outcomes = []
        if answer["news"]:
            printed, encoded = unpack_message(message)
            self._show(json.loads(bytes(printed)))
            checked = map(client._exchange.checked, unpack_outcomes(encoded))
            outcomes = [done for done in checked if done is not None]
        self._warn(answer["slaves"])
        with client._lock:
            if client._stay != stay:
                raise LineBrokenError("another master took over")
            client._note_left(answer["left"])
            for done in outcomes:
                client._exchange.take(done)
            self._acknowledged = answer["number"]
            if not client._sent:
                client._sent.let_go_of_room()
            client._outcomes_came()
            if client._packer.kept.stale or client._limits_results:
                client._news.notify()  # the master lets go of what nobody shares any more, and gets more jobs
            return len(outcomes), len(client._sent)

    def _take_stock(self) -> None:
        """Put the books right when memory has ended in the midst of a change of them, and send again what fell out."""
        client = self._client
        with client._lock:
            client._mend()
            client._exchange.send_singly(client._sent.take_strays(client._holder.assigned))
            client._outcomes_came()

    def _await_room_for_results(self) -> bool:
        """Wait while results that are not popped take all the room there is for them; False after a while."""
        client = self._client
        deadline = Deadline(min(ROOM_SECONDS, client._patience))
        with client._lock:
            while any(session.assigned for session in client._ledger.sessions.values()) and all(
                session.is_full for session in client._ledger.sessions.values() if session.assigned
            ):
                if client._stop_event.is_set() or client._trouble or not deadline.wait(client._joined):
                    return False
        return True

    def _show(self, prints: list[tuple[int, str, str]]) -> None:
        """Show what jobs printed, which is asked for with `echo`."""
        client = self._client
        for number, slave, text in prints:
            with client._lock:
                job = client._job_text(number)
            client._screen.show_print(job, slave, text)

    def _warn(self, slaves: int) -> None:
        """Say, once, why nothing comes: it has been asked for a while."""
        client = self._client
        with client._lock:
            self.slaves = slaves
            waiting = len(client._sent)
        if slaves or not waiting:
            self._warned = False
        elif not self._warned:
            self._warned = True
            jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
            log.warning(
                "%s, no slave is connected to the master of the group %r; %s --slaves starts some",
                jobs,
                client.group,
                client._finder.start_command,
            )
