"""A lane whose jobs each have a future: which future is of which job, and what leaves the lane when.

The thread that takes outcomes out of it, and settles futures, is the affair of `papyros.courier`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from papyros.bookkeeping import BookkeepingMaster
from papyros.deadlines import FOREVER, Deadline
from papyros.entries import ASSIGNED, Entry, Session
from papyros.jobfuture import JobFuture
from papyros.jobs import Job
from papyros.keeping import keeper_of, release, settle
from papyros.lanes import Lane
from papyros.outcome import Outcome

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FutureLane", "after_shutdown", "tell_all"]

#: So many outcomes are taken out of the ledger at a time.
TAKE = 256


def after_shutdown() -> RuntimeError:
    """Return what is raised where jobs are sent after the end."""
    return RuntimeError("cannot schedule new futures after shutdown")


def tell_all(calls: Sequence[Callable[[], object]]) -> None:
    """Make all of these calls, one after the other, whatever the callbacks of futures raise in one of them."""
    with contextlib.ExitStack() as others:  # the last one comes first
        for call in reversed(calls):
            others.callback(call)


class FutureLane(Lane):
    """A lane whose jobs each have a future, and leave it in batches."""

    looks_closely = True

    def __init__(self, master: BookkeepingMaster, session: Session) -> None:
        super().__init__(master, session)
        self.over_executor = master._over_executor
        #: Futures by the numbers of their jobs. Whoever takes one out of here, with the lock held, settles it.
        self.futures: dict[int, JobFuture] = {}
        self._adding: dict[int, JobFuture] = {}  # by the thread that adds its job
        self._cancelled = 0  # how many cancelled jobs are accounted for
        self._ended = False
        #: Why no job is taken any more, where something has broken.
        self.broken: BaseException | None = None
        #: The thread that settles futures, once there is one.
        self.server: threading.Thread | None = None

    @classmethod
    def through(cls, master: BookkeepingMaster) -> Self:
        """Open a lane through `master`. Outcomes leave it at once, so their number needs no bound."""
        max_waiting, _, max_waiting_bytes, _ = master._bounds
        return cls(master, master._open_session(max_waiting, None, max_waiting_bytes, None))

    def send(self, job: Job, future: JobFuture) -> None:
        """Add a job, whose outcome is to come to `future`; wait for room, where that is bounded."""
        self._check_open()
        me = threading.get_ident()
        outer = self._adding.get(me)  # this may be a handler of a signal, which came while this thread was adding a job
        self._adding[me] = future
        try:
            self.add(job)
        except BaseException:
            self.futures.pop(future._number, None)
            raise
        finally:
            if outer is None:
                self._adding.pop(me, None)
            else:
                self._adding[me] = outer

    def _check_open(self) -> None:
        if self.broken is not None:
            raise self.broken.with_traceback(None)
        if self._ended:
            raise after_shutdown()

    def _note(self, number: int) -> None:
        self._check_open()
        future = self._adding[threading.get_ident()]
        future._number = number
        self.futures[number] = future

    def _wait_for_room(self, job: Job, deadline: Deadline) -> None:
        # A callback that submits is called by the thread that settles futures, which must not wait for others.
        if threading.current_thread() is not self.server:
            super()._wait_for_room(job, deadline)

    def take(self, wanted: JobFuture | None = None) -> tuple[list[tuple[JobFuture, Job, Entry]], list[JobFuture], bool]:
        """Wait until jobs are over, and take them out; or until another thread has done so with the one `wanted`.

        Returns those that were processed, with their futures; the futures of those that will
        not be, for which nobody waits any more but they; and whether that is because the master was closed. All
        empty when nothing is left, and nothing will come.
        """
        master, session = self._master, self._session
        with master._lock:
            while True:
                gone = self._find_gone()
                entries = master._ledger.pop(session, TAKE)
                if entries or gone or (not self.futures and (self._ended or master._closed)):
                    break
                if wanted is not None and self.futures.get(wanted._number) is not wanted:
                    break
                master._await_outcome(FOREVER)
            taken = [(self.futures.pop(entry.number), self._books.let_out(session, entry), entry) for entry in entries]
            if wanted is not None:
                master._came.notify_all()  # those who wait for one of these look for it in vain
        return taken, gone, master._closed

    def _find_gone(self) -> list[JobFuture]:
        """Return the futures of jobs that somebody else cancelled. Called with the lock held."""
        session = self._session
        if session.counts.cancelled == self._cancelled:
            return []
        self._cancelled = session.counts.cancelled
        return [self.futures.pop(number) for number in list(self.futures) if number not in session.entries]

    def unpack(self, job: Job, entry: Entry) -> Outcome:
        """Return the outcome of a job that was taken out, and give it to the job as well."""
        try:
            outcome = self._master._unpack(job, entry)
        except BaseException as error:
            if self._master._runs_in_pops:
                raise  # nothing is decoded there, so it is a Ctrl-C, which is the caller's
            outcome = Outcome.failed(error)  # whoever waits for the future is told
        settle(job, outcome)
        return outcome

    def withdraw(self, futures: list[JobFuture] | None) -> None:
        """Cancel jobs that wait; see `Courier.withdraw`."""
        withdrawn, mine = self.take_back(futures)
        # Of those that are not mine, the thread that settles futures was quicker, and may not be done.
        tell_all([*[future._leave for future in mine], *[future._cancel for future in withdrawn]])

    def abandon(self, job: Job, future: JobFuture) -> None:
        """Let go of a job, in whatever state it is, and of its future, which nobody has."""
        master, session, number = self._master, self._session, future._number
        with master._lock:
            master._ledger.mend()
            self.futures.pop(number, None)
            if number in session.entries:
                master._ledger.discard(session, [number])
            master._mend()
        entry = keeper_of(job)
        if number and isinstance(entry, Entry) and entry.session is session and entry.number == number:
            release(job)  # it was taken out of the books, and was given no outcome

    def take_back(self, futures: list[JobFuture] | None) -> tuple[list[JobFuture], list[JobFuture]]:
        """Discard jobs that wait. Returns the futures of these, and those of them that nobody else settles."""
        master, session = self._master, self._session
        with master._lock:
            if futures is None:
                futures = list(self.futures.values())
            chosen = {future._number: future for future in futures if self.futures.get(future._number) is future}
        withdrawn = master._withdraw(session, list(chosen)) if chosen else []
        with master._lock:
            mine = [future for number in withdrawn if (future := self.futures.pop(number, None)) is not None]
        return [chosen[number] for number in withdrawn], mine

    def give_up(self, why: BaseException) -> list[JobFuture]:
        """Take no more jobs for that reason, and return the futures of all that there are."""
        with self._master._lock:
            self.broken = why
            self._ended = True
            futures = list(self.futures.values())
            self.futures.clear()
            return futures

    def runs(self, future: JobFuture) -> bool:
        """Return whether a slave has been given the job."""
        return self._master._is_assigned(self._session, future._number)

    def end(self) -> None:
        """Take no more jobs; `take` returns when nothing is left."""
        with self._master._lock:
            self._ended = True
            self._master._came.notify_all()
            self._master._room.notify_all()

    def has_sent(self, entry: Entry | None) -> bool:
        """Return whether a job that is under way, or one of those whose descendant it is, came through this lane."""
        while entry is not None and entry.state is ASSIGNED:
            if entry.session is self._session:
                return True
            entry = entry.session.parent
        return False

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the master."""
        return self._master._forked

    def idle_for_good(self) -> bool:
        """Return whether nothing is left, and nothing will come."""
        return self._ended and not self.futures
