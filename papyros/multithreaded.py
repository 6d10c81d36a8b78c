"""A master whose slaves are threads of this process.

For jobs that wait (for files, networks, other programs) or that compute in
extensions that release the interpreter's lock. Jobs and results are not copied.
"""

from __future__ import annotations

import atexit
import math
import threading
import time

from papyros.bookkeeping import BookkeepingMaster
from papyros.checks import check_slaves
from papyros.current import Place
from papyros.deadlines import Deadline
from papyros.entries import ASSIGNED, Entry, Session
from papyros.errors import JobTimeout, SlaveLost
from papyros.family import Family, WaitingParents
from papyros.jobs import Job
from papyros.keeping import wants_retry
from papyros.logs import logger_of
from papyros.outcome import Outcome
from papyros.running import leave_fork, run_job
from papyros.status import SlaveStatus
from papyros.threads import worker

__all__ = ["MultiThreadedMaster"]

log = logger_of(__name__)

#: A thread that cannot be started is tried again after so long.
START_AGAIN_SECONDS = 1.0

#: Where one slave after the other breaks down, so long is waited before there is another: twice as long each time.
FIRST_REST_SECONDS = 0.1
MAX_REST_SECONDS = 10.0

#: A breakdown is one of its own when the one before is so many times longer ago than was waited after that.
LONG_AGO = 10

#: How long `close` waits for a job that runs. A thread cannot be stopped: one that goes on is left behind.
CLOSE_SECONDS = 5.0


class MultiThreadedMaster(BookkeepingMaster):
    """Runs jobs in threads.

    The threads start with the first job. They are daemon threads: a program
    that ends without closing its master waits for running jobs for a few seconds.

    A thread cannot be stopped. When the `timeout` of a job is up, its outcome
    is a `JobTimeout` all the same and another thread takes the place of the
    one that runs it, but that one goes on until the job ends by itself. `cancelJob`
    discards waiting jobs only.

    While a job waits for jobs that it has added, another thread takes its place.

    Args:
        slaves: the number of threads; by default the CPUs that this process may use.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
    """

    def __init__(
        self,
        slaves: int | None = None,
        max_waiting: int | None = None,
        max_processed: int | None = None,
    ) -> None:
        super().__init__(max_waiting, max_processed)
        self._slaves = check_slaves(slaves)
        self._work = threading.Condition(self._lock)
        self._holder = self._ledger.enlist("threads", self._slaves)
        self._threads: dict[threading.Thread, tuple[Entry, float] | None] = {}  # what each runs, since when
        self._started = 0
        self._idle = 0
        self._in_want = False  # the system had no thread to spare when one was to be started
        self._broke_down = -math.inf  # when that was, the last time
        self._rest = 0.0  # how long no thread was started then
        self._resting = False
        self._parents = WaitingParents()  # jobs that wait for their children, and do not take up a place

    def _places(self) -> int:
        return self._slaves + len(self._parents)

    def _await_child(self, session: Session, deadline: Deadline) -> bool:
        if deadline.expired():
            return False
        try:
            with self._parents.waiting(session):
                self._work_came()
                return self._wait(deadline)
        finally:
            if session.parent not in self._parents:
                self._work.notify()  # one of those that are idle may be one too many now

    def _work_came(self) -> None:
        if self._lacking() > 0:
            self._start_slave()
        self._work.notify()

    def _lacking(self) -> int:
        """How many threads there may be, and are not, for jobs that wait. Called with the lock held."""
        free = self._places() - len(self._threads)
        if free <= 0 or self._closed or self._resting:
            return 0
        return min(free, sum(session.assignable() for session in self._ledger.sessions.values()) - self._idle)

    def _job_came(self) -> None:
        self._work_came()
        if self._in_want and not self._threads:
            raise RuntimeError("the system has no thread to spare now, and none runs jobs here: the job was not added")

    def _start_slave(self) -> None:
        name = f"papyros-slave-{self._started + 1}"
        thread = worker(name, self._serve, lambda why: self._replace(thread, why))
        try:
            thread.start()  # it waits for the lock
        except RuntimeError as error:
            self._start_later(error)
            return
        if not self._started:
            atexit.register(self._end_with_program)
        self._started += 1
        self._threads[thread] = None
        self._in_want = False

    def _start_later(self, error: RuntimeError) -> None:
        """Leave the work to those threads that there are, and try again: the system may have one to spare then."""
        if not self._in_want:
            self._in_want = True
            log.warning("%d of %d slaves work: %s", len(self._threads), self._places(), error)
        self._alarm.set_earliest(time.monotonic() + START_AGAIN_SECONDS, self._start_again)

    def _start_again(self) -> None:
        with self._lock:
            for _ in range(self._lacking()):  # each would have been started when its job was added
                self._work_came()
                if self._in_want:
                    return

    def _replace(self, thread: threading.Thread, why: str) -> None:
        """Let another thread take the place of one that a bug has ended, of which the job that it ran tells."""
        with self._lock:
            runs = self._threads.pop(thread, None)
            self._take_rest()
            self._mend()  # that may be what has ended it, and would end the next one
            if runs is not None and runs[0].state is ASSIGNED:
                self._finish(runs[0], Outcome.failed(SlaveLost(why), thread.name), 0.0)
            self._give_back_strays()
            self._outcomes_came()
            self._work_came()

    def _take_rest(self) -> None:
        """See to it that a bug which ends all threads does not start them without end. Called with the lock held."""
        now = time.monotonic()
        if now - self._broke_down > LONG_AGO * max(self._rest, FIRST_REST_SECONDS):
            self._rest = 0.0
        else:
            self._rest = min(max(2 * self._rest, FIRST_REST_SECONDS), MAX_REST_SECONDS)
            self._resting = True
            self._alarm.set_earliest(now + self._rest, self._end_rest)
        self._broke_down = now

    def _end_rest(self) -> None:
        with self._lock:
            self._resting = False
        self._start_again()

    def _give_back_strays(self) -> None:
        """Let jobs wait again that were assigned, and that no thread has got. Called with the lock held."""
        run = [runs[0] for runs in self._threads.values() if runs is not None]
        strays = [entry for entry in self._holder.assigned if entry not in run]
        self._ledger.give_back(self._holder, strays, None)

    def _serve(self) -> None:
        mine = threading.current_thread()
        while self._serve_next(mine):
            pass

    def _serve_next(self, mine: threading.Thread) -> bool:
        """Wait for a job, and run it; False when this thread is to end. While it waits, it keeps nothing."""
        found = self._next_entry(mine)
        if found is None:
            return False
        entry, job, alarm = found
        # One for each job, since what a job hands to an event loop takes along the context in which it was.
        place = Place(lambda: Family(self, entry), lambda: entry)
        token = place.enter()
        outcome = run_job(job, mine.name)
        if self._forked:
            leave_fork(outcome)  # else a process that the job has forked would be another slave, of a copy of the books
        place.close(token)
        again = outcome.exception is not None and wants_retry(job, outcome.exception)
        with self._lock:
            self._finish(entry, outcome, outcome.seconds, again=again)
            self._outcomes_came()
            if mine in self._threads:  # else it was given up
                self._threads[mine] = None
            if alarm is not None:
                self._alarm.cancel(alarm)
        return True

    def _next_entry(self, mine: threading.Thread) -> tuple[Entry, Job, int | None] | None:
        """Wait for a job to run; None when this thread is to end."""
        with self._lock:
            while True:
                if self._closed or mine not in self._threads:
                    return None
                if len(self._threads) > self._places():
                    del self._threads[mine]  # those whose places it has taken for a while go on
                    self._work.notify()
                    return None
                if batch := self._ledger.assign(self._holder, 1):
                    break
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            [entry] = batch
            now = time.monotonic()
            self._threads[mine] = (entry, now)
            self._room.notify_all()  # those who wait may do so for room in different queues
            alarm = None
            if entry.terms.timeout is not None:
                alarm = self._alarm.set(now + entry.terms.timeout, lambda: self._abandon(mine, entry, now))
            return entry, entry.payload, alarm  # it has no payload once it is dropped, with the loop that added it

    def _abandon(self, thread: threading.Thread, entry: Entry, since: float) -> None:
        """Give up a thread whose job has run for too long, and let another one take its place."""
        with self._lock:
            if self._threads.get(thread) != (entry, since):
                return
            del self._threads[thread]
            if entry.state is not ASSIGNED:  # nobody wants the job any more, but others want the place
                self._work_came()
                return
            text = (
                f"{self._job_text(entry.number)} ran longer than its timeout of {entry.terms.timeout:g} s; "
                f"the thread {thread.name} cannot be stopped and goes on"
            )
            self._finish(entry, Outcome.failed(JobTimeout(text), thread.name, entry.terms.timeout or 0.0), 0.0)
            self._outcomes_came()
            self._work_came()

    def _slaves_now(self) -> tuple[SlaveStatus, ...]:
        now = time.monotonic()
        slaves = [
            SlaveStatus(thread.name, self._job_text(runs[0].number), now - runs[1])
            if runs is not None
            else SlaveStatus(thread.name)
            for thread, runs in self._threads.items()
        ]
        to_come = self._slaves - len(slaves)  # they are started when there is work for them
        return (*slaves, *[SlaveStatus("a slave to come", ready=False)] * to_come)

    def _stop(self) -> None:
        with self._lock:
            self._work.notify_all()
            self._came.notify_all()  # for jobs that wait for others
            threads = list(self._threads)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
