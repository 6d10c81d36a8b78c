"""What is said of jobs that a program has added and never popped: once, when it closes their master or ends.

Nothing is said where the program has cancelled what it did not want any more, or fails: its error says enough.
"""

from __future__ import annotations

import os
import sys

from papyros.entries import Session
from papyros.logs import logger_of

__all__ = ["Leftovers"]

log = logger_of(__name__)


class Leftovers:
    """The jobs that are left in a master when it ends.

    Args:
        master: which master, in words.
        session: the jobs that were added to it, by `addJob`.
    """

    def __init__(self, master: str, session: Session) -> None:
        self._master = master
        self._session = session
        self._pid = os.getpid()
        self._renounced = 0  # so many jobs had been added when the program said that it wants no more of them
        self._told = False

    def renounce(self) -> None:
        """Take note that nobody wants the jobs that were added so far."""
        self._renounced = self._session.counts.added

    def tell(self, at_exit: bool = False) -> None:
        """Say that jobs are dropped; or, as the program ends, that they are never popped."""
        session = self._session
        dropped = session.pending - len(session.processed)
        left = session.pending if at_exit else dropped
        # What was raised last in an interactive session does not end it.
        raised = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
        failed = sys.exception() or (at_exit and raised)
        told, self._told = self._told, self._told or at_exit or left > 0
        if told or not left or failed or session.counts.added <= self._renounced or self._pid != os.getpid():
            return
        log.warning(
            "%s ends with %s pending, added and not popped (not processed, and so dropped: %d). "
            "To have all of them, pop until none is pending: for job in iter(master.popProcessedJob, None). "
            "If nobody wants them, say so with master.cancelAllJobs() before the end",
            self._master,
            "1 job" if session.pending == 1 else f"{session.pending} jobs",
            dropped,
        )
