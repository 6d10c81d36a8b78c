"""What a slave host tells its master, by a thread and on a line of its own: reports, each until it has arrived.

What there is to tell is gathered in the `Outbox`; with which master the host stays is the host's affair.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from papyros.distributed.batches import HostReport, report_parts
from papyros.distributed.line import CallFailedError, Line, LineBrokenError
from papyros.distributed.seeker import Pauses
from papyros.logs import logger_of

if TYPE_CHECKING:
    from papyros.distributed.host import SlaveHost

__all__ = ["Reporter"]

log = logger_of(__name__)

#: A sign of life is owed when the master has not answered for so many of its beats: its answers are signs, too.
SILENT_BEATS = 1.5

#: A master that cannot take a report for so long may never do so: the jobs are to run elsewhere.
REFUSED_SECONDS = 30.0


class Reporter:
    """Reports for a slave host.

    Args:
        host: that host.

    Attributes:
        telling: held while what was done is reported, or what is being done claimed.
    """

    def __init__(self, host: SlaveHost) -> None:
        self._host = host
        self.telling = threading.Lock()
        #: On its way, with its number, and of which stay it tells. Packed where it is told, for which memory may lack.
        self._report: tuple[HostReport, int, str] | None = None
        self._taken = 0.0  # when the master took one last

    def run(self) -> None:
        """Report to the master; what a broken connection may have swallowed is reported again."""
        host = self._host
        pauses = Pauses()
        refused: str | None = None  # which master refuses what is reported
        since = 0.0  # ... and since when
        while not host._stop.is_set():
            if not host._connected.wait(1.0):
                continue
            try:
                with host._seeker.line(host._uri, silence=host._silence) as line, host._use(line):
                    while not host._stop.is_set() and host._uri == line.uri:
                        if not self._tell(line):
                            break  # it is for the next master
                        refused = None
            except CallFailedError as error:
                if refused != host._uid:
                    refused, since = host._uid, time.monotonic()
                    log.warning("the master cannot take what this slave host reports: %s", error)
                elif time.monotonic() - since > REFUSED_SECONDS:
                    host.broke(f"the master could not take what was reported, for {REFUSED_SECONDS:g} s: {error}")
                    return
            except LineBrokenError as error:
                log.info("%s", error)
            except MemoryError:
                log.warning("there is no memory for what is to be reported: it is told later")
            host._stop.wait(pauses.next())

    def tell_rest(self, line: Line, timeout: float) -> None:
        """Report what is left when the host leaves, while the thread runs no more; each report within a time.

        Raises:
            LineBrokenError: the line broke, or an answer took too long.
        """
        host = self._host
        while self._report is not None or host._outbox.is_any_left():
            (report, sequence, stay), self._report = self._report or self._next(), None
            told = host._key, sequence, host._uid, stay
            with contextlib.suppress(CallFailedError):  # what it cannot take, it is not to wait for either
                line.call("report", *told, message=report_parts(report), timeout=timeout)

    def _tell(self, line: Line) -> bool:
        """Tell the report that is on its way, or the next one; return whether the master has taken it."""
        host = self._host
        report, sequence, stay = self._report = self._report or self._next()
        message = report_parts(report)
        with self.telling:
            told = host._key, sequence, host._uid, stay, self._ended()
            answer, _ = line.call("report", *told, message=message)
            if answer["taken"]:
                self._report = None
                self._taken = time.monotonic()
                with host._lock:
                    host._outbox.arrived()
        return bool(answer["taken"])

    def _next(self) -> tuple[HostReport, int, str]:
        """Return what is to be reported, the number of that report, and of which stay it tells."""
        host = self._host
        with host._lock:
            report, stay = host._outbox.take(self._patience)
            return report, host._outbox.sequence, stay

    def _ended(self) -> int:
        """Return how many jobs have ended here that no report has told of: slaves gather outcomes while they work."""
        host = self._host
        with host._lock:
            return host._crew.ended() + len(host._outbox.ended())

    def _patience(self) -> float:
        """For how long the master need not hear anything: what it has just answered has shown that this host lives."""
        host = self._host
        if host._stop.is_set():
            return 0.0  # nobody wakes up who waits from now on
        # Not only what it has answered the thread that fetches: to that, a large answer may be long on its way.
        return max(host._answered, self._taken) + SILENT_BEATS * host._beat - time.monotonic()
