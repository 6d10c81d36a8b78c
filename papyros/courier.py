"""How outcomes come to futures: a lane of a master whose jobs each have a future.

A *courier* is such a lane. What is sent through it is settled by one thread of
its own, `papyros-courier`, which begins with the first job and ends when the courier was told to end and nothing
is left; or, where jobs run inside the calls that pop them, by the call that
sends. It knows nothing of executors, so that one that is forgotten can go.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from papyros.bookkeeping import BookkeepingMaster
from papyros.current import running_here
from papyros.deadlines import FOREVER
from papyros.ending import program_end
from papyros.entries import Entry
from papyros.errors import MasterClosedError, SlaveLost
from papyros.futurelane import FutureLane, after_shutdown, tell_all
from papyros.jobfuture import JobFuture
from papyros.jobs import Job
from papyros.keeping import check_job
from papyros.logs import logger_of
from papyros.master import Master
from papyros.outcome import Outcome
from papyros.threads import worker

__all__ = ["Courier", "courier_of"]

log = logger_of(__name__)

#: While more futures than these are waited for, outcomes may gather for so many seconds.
MANY = 100
GATHER_SECONDS = 0.002

#: So many jobs are at a time with a master that is known by its public calls only.
UNKNOWN_SLAVES = 32

#: A program that ends waits for its futures; after so many seconds it says so.
PATIENT_SECONDS = 5.0


class Courier(Protocol):
    """What an executor and its futures need of a way through a master."""

    def send(self, job: Job, future: JobFuture) -> None:
        """Add a job, whose outcome is to come to `future`."""

    def withdraw(self, futures: list[JobFuture] | None = None) -> None:
        """Cancel those jobs that wait, all when None, and their futures."""

    def runs(self, future: JobFuture) -> bool:
        """Return whether a slave has been given the job."""

    def end(self) -> None:
        """Take no more jobs, and let go of the master when nothing is left. May be called twice."""

    def forget(self) -> None:
        """End, because nobody knows the executor any more. May be called at any moment, in any thread."""

    def join(self) -> None:
        """Wait until nothing is left."""


def courier_of(
    master: Master,
    at_end: Callable[[], None] | None = None,
    is_fatal: Callable[[BaseException], bool] | None = None,
) -> Courier:
    """Return a way through a master, which calls `at_end` at its end; a job that raises what is fatal breaks it."""
    if isinstance(master, BookkeepingMaster):
        return LaneCourier(master, at_end, is_fatal)
    return CallersCourier(master) if master._runs_in_pops else PlainCourier(master)


class LaneCourier:
    """Sends jobs through a lane of a master that keeps its books in a ledger."""

    def __init__(
        self,
        master: BookkeepingMaster,
        at_end: Callable[[], None] | None,
        is_fatal: Callable[[BaseException], bool] | None,
    ) -> None:
        self._is_fatal = is_fatal
        self._inline = master._runs_in_pops
        self._at_end = at_end
        self._lane = FutureLane.through(master)
        self._start = threading.RLock()  # a handler of a signal may submit, too, while the thread is being started
        self._thread: threading.Thread | None = None
        self._waited_for = False  # at the end of the program
        self._over = threading.Event()
        self._in_hand: deque[tuple[JobFuture, Job, Entry]] = deque()  # those that are being settled

    def send(self, job: Job, future: JobFuture) -> None:
        """Add a job; see `Courier.send`."""
        if self._inline:
            self._run_here(job, future)
            return
        if self._waited_for:
            self._lane.send(job, future)
            return
        self._start_thread()
        self._lane.send(job, future)
        # After the master has begun, which closes itself at the exit: what is registered last is called first.
        with self._start:
            if not self._over.is_set():
                atexit.unregister(self._exit)
                atexit.register(self._exit)
                if self._lane.over_executor:
                    program_end.calls(self._exit)
                self._waited_for = True

    def _run_here(self, job: Job, future: JobFuture) -> None:
        try:
            self._lane.send(job, future)
            while not future.done():
                if not self._deliver(future):
                    future._wait(None)  # another thread has its outcome in hand
        except BaseException:  # the user's Ctrl-C: wherever the job is, nobody is to run it later
            self._lane.abandon(job, future)
            raise
        finally:
            self._close_if_idle()

    def _start_thread(self) -> None:
        with self._start:
            if self._thread is None:
                thread = worker("papyros-courier", self._serve, self._broke)
                self._lane.server = self._thread = thread
                try:
                    thread.start()
                except BaseException:
                    self._thread = None
                    raise

    def _serve(self) -> None:
        while self._deliver():
            if len(self._lane.futures) > MANY:
                time.sleep(GATHER_SECONDS)  # woken for each of them, this thread would get in the way of all others
        self._close()

    def _broke(self, why: str) -> None:
        """Let nobody wait for a future that nobody will settle."""
        error = SlaveLost(f"{why}; make another executor to go on")
        for future in [*(future for future, *_ in self._in_hand), *self._lane.give_up(error)]:
            self._guard(future._settle, Outcome(exception=error))
        self._close()

    def _deliver(self, wanted: JobFuture | None = None) -> bool:
        """Settle futures whose jobs are over, when there are some; False when there will be none any more.

        Also where the one that is `wanted` is in the hands of another thread.
        """
        taken, gone, closed = self._lane.take(wanted)
        if gone:
            self._tell_gone(gone, closed)
        hand = self._in_hand = deque(taken)  # each call has its own: callers may settle their futures themselves
        try:
            while hand:
                future, job, entry = hand[0]
                outcome = self._lane.unpack(job, entry)
                raised = outcome.exception
                if raised is not None and self._is_fatal is not None and self._is_fatal(raised):
                    self._abandon(raised)
                hand.popleft()
                self._guard(future._settle, outcome)
        except BaseException:
            if self._inline:  # Ctrl-C, in a thread of the user's: others wait for what it has in hand
                for future, job, entry in hand:
                    with contextlib.suppress(BaseException):
                        future._settle(self._lane.unpack(job, entry))
            raise
        return bool(taken or gone)

    def _tell_gone(self, gone: list[JobFuture], closed: bool) -> None:
        error = self._lane.broken
        if closed and error is None:
            error = MasterClosedError("the master was closed before the job was processed")
        if error is None:
            tell_all([partial(self._guard, future._leave) for future in gone])
        else:
            tell_all([partial(self._guard, future._settle, Outcome(exception=error)) for future in gone])

    def _guard(self, tell: Callable[..., None], *arguments: Any) -> None:
        """Tell a future, whatever its callbacks raise: there are others, which only this thread can tell."""
        try:
            tell(*arguments)
        except BaseException:
            if self._inline:
                raise  # here it is the caller's own thread
            log.critical("a callback of a future, or who settled it, did harm; all others go on", exc_info=True)

    def _close(self) -> None:
        try:
            self._lane.close()
            if self._at_end is not None:
                self._at_end()
        finally:
            with self._start:
                self._over.set()
                atexit.unregister(self._exit)
                program_end.calls_no_more(self._exit)

    def _close_if_idle(self) -> None:
        """Close what no thread will close, if nothing is left, and nothing will come."""
        if self._thread is None and self._lane.idle_for_good():
            self._close()

    def withdraw(self, futures: list[JobFuture] | None = None) -> None:
        """Cancel jobs that wait; see `Courier.withdraw`."""
        if not self._lane.forked:
            self._lane.withdraw(futures)
            self._close_if_idle()

    def _abandon(self, why: BaseException) -> None:
        """Take no more jobs, since this happened, which is told to the futures of those that wait, too."""
        self._lane.broken = why
        for future in self._lane.take_back(None)[1]:
            self._guard(future._settle, Outcome(exception=why))

    def runs(self, future: JobFuture) -> bool:
        """Return whether a slave has been given the job."""
        return not self._lane.forked and self._lane.runs(future)

    def end(self) -> None:
        """Take no more jobs; see `Courier.end`."""
        if self._lane.forked:
            return  # a thread that is not here may have the lock; and none is taken anyhow
        self._lane.end()
        self._close_if_idle()

    def forget(self) -> None:
        """End; see `Courier.forget`.

        The thread may be one that holds a lock, if it is there that the garbage collector
        runs: so the work is left to another thread, and starting that one takes no lock either.
        """
        _thread.start_new_thread(self.end, ())

    def join(self) -> None:
        """Wait until nothing is left; see `Courier.join`.

        Raises:
            RuntimeError: the caller is a job that came this way, or a child of one.
        """
        if self._lane.has_sent(running_here()):
            raise _waits_for_itself()
        thread = self._thread
        if thread is not threading.current_thread() and not self._lane.forked:
            FOREVER.wait_for(self._over)
            if thread is not None:
                thread.join()

    def _exit(self) -> None:
        """The program ends: as with other executors, what was submitted is done before."""
        if self._lane.forked:
            return  # it is a child that ends, in which nothing of this goes on
        self.end()
        if not self._over.wait(PATIENT_SECONDS):
            left = len(self._lane.futures)
            log.warning(
                "the program is over, but for %s of an executor; "
                "shutdown(cancel_futures=True) drops those that no slave was given",
                "1 job that is waited for" if left == 1 else f"{left} jobs that are waited for",
            )
        self.join()


def _waits_for_itself() -> RuntimeError:
    return RuntimeError(
        "a call cannot wait for the end of the executor that makes it: it would wait for itself; "
        "the executor takes no more calls from now on"
    )


def _tell(future: JobFuture, processed: Job | None) -> None:
    """Tell a future what an `execute` of its job alone has yielded: nothing, if it was cancelled at the master."""
    if processed is None:
        future._leave()
    else:
        future._settle(processed._require_outcome())


class PlainCourier:
    """Sends jobs through a master of which only the public calls are known, each by an `execute` of its own."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._pool = ThreadPoolExecutor(UNKNOWN_SLAVES, thread_name_prefix="papyros-courier")
        self._sent: dict[JobFuture, Future[None]] = {}

    def send(self, job: Job, future: JobFuture) -> None:
        """Add a job; see `Courier.send`."""
        check_job(job)
        self._sent[future] = sent = self._pool.submit(self._process, job, future)
        sent.add_done_callback(lambda _: self._sent.pop(future, None))

    def _process(self, job: Job, future: JobFuture) -> None:
        try:
            processed = next(iter(self._master.execute([job])), None)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the future is told
            future._settle(Outcome.failed(error))
            return
        _tell(future, processed)

    def withdraw(self, futures: list[JobFuture] | None = None) -> None:
        """Cancel jobs that the master was not given yet; see `Courier.withdraw`."""
        for future, sent in list(self._sent.items()):
            if (futures is None or future in futures) and sent.cancel():
                future._leave()

    def runs(self, future: JobFuture) -> bool:
        """Return whether the master was given the job."""
        sent = self._sent.get(future)
        return sent is not None and sent.running()

    def end(self) -> None:
        """Take no more jobs; see `Courier.end`."""
        self._pool.shutdown(wait=False)

    def forget(self) -> None:
        """End; see `Courier.forget` and why in `LaneCourier.forget`."""
        _thread.start_new_thread(self.end, ())

    def join(self) -> None:
        """Wait until nothing is left; see `Courier.join`."""
        self._pool.shutdown()


class CallersCourier:
    """Has jobs processed in the call that sends them, by a master that does so, and of which no more is known."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._ended = False
        self._under_way: dict[JobFuture, int] = {}  # in which thread each of them is

    def send(self, job: Job, future: JobFuture) -> None:
        """Add a job; see `Courier.send`. What ends that, but for what the job raises, is the caller's."""
        check_job(job)
        if self._ended:
            raise after_shutdown()
        self._under_way[future] = threading.get_ident()
        try:
            _tell(future, next(iter(self._master.execute([job])), None))
        except BaseException:
            future._cancel()  # nobody has it but those who wait for all in `join`
            raise
        finally:
            del self._under_way[future]

    def withdraw(self, futures: list[JobFuture] | None = None) -> None:
        """Cancel jobs that wait: there are none. See `Courier.withdraw`."""

    def runs(self, future: JobFuture) -> bool:
        """Return whether the job is being processed."""
        return future in self._under_way

    def end(self) -> None:
        """Take no more jobs; see `Courier.end`."""
        self._ended = True

    def forget(self) -> None:
        """End; see `Courier.forget`."""
        self._ended = True

    def join(self) -> None:
        """Wait until nothing is left; see `Courier.join`.

        Raises:
            RuntimeError: the caller is a job that came this way.
        """
        under_way = dict(self._under_way)
        if threading.get_ident() in under_way.values():
            raise _waits_for_itself()
        for future in under_way:
            future._wait(None)
