"""The master that a job sees while it runs: `current_master`, by which jobs add jobs.

Wherever jobs run there is a `Place`: a slave process, a thread of a master, the call that
pops. A context variable says in which one the caller is. The master itself is made when a
job asks for it, so jobs that do not ask cost nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Protocol, cast

from papyros.errors import NoCurrentMasterError

if TYPE_CHECKING:
    from papyros.entries import Entry
    from papyros.master import Master

__all__ = ["FamilyMaster", "Lending", "Place", "current_master", "running_here"]


class FamilyMaster(Protocol):
    """What a place needs of the master that it makes for a job."""

    @property
    def closed(self) -> bool:
        """Whether the job has closed it."""

    def end(self) -> None:
        """Let go of it, since its job has ended; returns at once."""


class Place:
    """Where jobs run one after the other, and the master of the one that runs.

    Args:
        make: makes a master for the job that runs now.
        running: what is written of that job in the books, where these are kept in this process.
    """

    def __init__(self, make: Callable[[], FamilyMaster], running: Callable[[], Entry | None] = lambda: None) -> None:
        self._make = make
        self.running = running
        self._lock = threading.Lock()
        self._master: FamilyMaster | None = None
        #: Whether no job will run here any more.
        self.over = False

    def enter(self) -> Token[Place | None]:
        """Be the place of the calling thread, from now on or until `leave`."""
        return _place.set(self)

    @staticmethod
    def leave(token: Token[Place | None]) -> None:
        """Undo an `enter`."""
        _place.reset(token)

    def master(self) -> FamilyMaster:
        """Return the master of the job that runs; where that has closed it, another one."""
        with self._lock:
            if self.over:
                raise _no_job()
            if self._master is not None and self._master.closed:
                self._master.end()  # two of them at a time would take each other's news
                self._master = None
            if self._master is None:
                self._master = self._make()
            return self._master

    def close(self, token: Token[Place | None]) -> None:
        """Let go of all, as the job that ran was the only one; undo the `enter`."""
        with self._lock:
            self.over = True
        self.leave(token)
        self.end_job()

    def end_job(self) -> None:
        """Let go of the master of the job that has ended, if it had one."""
        if self._master is not None:
            with self._lock:
                master, self._master = self._master, None
            master.end()


class Lending:
    """Tells when a job begins to wait for its children and when it goes on, however many of its threads do.

    An alarm of the job's own may raise while that is told: then it is not known whether it was.

    Args:
        tell: is told True when it begins, and False when it goes on; maybe twice.
    """

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting = 0
        self._lent = False  # whether those who are told may believe that the job waits
        self._ended = False

    def __enter__(self) -> None:
        with self._lock:
            self._waiting += 1
            if self._waiting == 1 and not self._ended:
                self._lent = True
                try:
                    self._tell(True)
                except BaseException:
                    self._waiting -= 1  # who does not come in does not go out
                    raise

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._waiting -= 1
            if self._waiting == 0 and not self._ended:
                self._go_on()

    def end(self) -> None:
        """The job has ended; a thread that it has left behind lends nothing any more."""
        with self._lock:
            self._ended = True
            if self._lent:
                self._go_on()

    def _go_on(self) -> None:
        self._tell(False)
        self._lent = False


#: A context variable, since a thread may run a job within a job, and a job may be a program with coroutines.
_place: ContextVar[Place | None] = ContextVar("papyros_place", default=None)


def running_here() -> Entry | None:
    """Return what is written of the job that runs here; None if none does, or its books are kept elsewhere."""
    place = _place.get()
    return None if place is None or place.over else place.running()


def current_master() -> Master:
    """Return a master of the same cluster, for the job that calls this: what it adds are its *children*.

    They go where all jobs go, on the account of the job's own client, and mix with nobody
    else's. While the job waits for them, another one runs in its place. Children that are left
    when the job ends, in whatever way, are dropped.

    Raises:
        NoCurrentMasterError: no job runs here. A thread that a job has started is handed the master by the job.
    """
    place = _place.get()
    if place is None:
        raise _no_job()
    return cast("Master", place.master())


def _no_job() -> NoCurrentMasterError:
    return NoCurrentMasterError(
        "current_master() is for the body of a job: it returns the master by which that job adds jobs of its own, "
        "and no job of Papyros runs in this thread. In a program, make a master; to a thread that a job has "
        "started, hand the master that the job got"
    )
