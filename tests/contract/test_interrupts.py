"""Ctrl-C at any moment while a program adds, pops or cancels: it is raised, and the books stay right.

A real interrupt raises where Python looks for signals: where a function begins, and after a call of one that is
written in C. The profiler is told of just these, so each of them can have its Ctrl-C, one after the other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import random
import signal
import sys
import threading
import time

import pytest

import papyros
from papyros import books
from papyros.keeping import keeper_of
from tests.contract.jobs_for_tests import Square, wait_at
from tests.support import PATIENCE, Background, wait_until

HOUSE = os.path.dirname(papyros.__file__)

#: More moments than any call has.
MANY = 1000

#: So many come in a row, at moments that nobody chose.
INTERRUPTS = 50


@pytest.fixture(autouse=True)
def real_interrupts():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread, and the tests run in another one")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interruption:
    """Interrupts a call at its moment of that number.

    Attributes:
        happened: whether the call had so many moments.
        raised: whether it was left with a KeyboardInterrupt.
    """

    def __init__(self, moment):
        self._left = moment
        self.happened = self.raised = False

    def _look(self, frame, event, _):
        if event not in ("call", "c_return") or self.happened or not self._ours(frame):
            return
        self._left -= 1
        if not self._left:
            self.happened = True
            signal.raise_signal(signal.SIGINT)

    def _ours(self, frame):
        return frame.f_code.co_filename.startswith((HOUSE, threading.__file__))

    def of(self, call, *args):
        before = sys.getprofile()
        try:
            sys.setprofile(self._look)
            answer = call(*args)
            sys.setprofile(before)
        except KeyboardInterrupt:
            sys.setprofile(before)
            self.raised = True
            return None
        return answer


def moments(at_least, compiled=None):
    """Interruptions at one moment after the other, until a call has no more; which are fewer where it is `compiled`."""
    if compiled is not None and not books.__file__.endswith(".py"):
        at_least = compiled
    for number in range(1, MANY):
        interruption = Interruption(number)
        yield interruption
        assert interruption.raised == interruption.happened
        if not interruption.happened:
            assert number > at_least
            return
    pytest.fail("the call has no end of moments")


def pop_all(master):
    popped = []
    while (job := master.popProcessedJob(PATIENCE)) is not None:
        popped.append(job)
    return popped


@pytest.mark.parametrize("options", [{}, {"max_waiting": 100, "max_processed": 100}], ids=["unbounded", "bounded"])
def test_what_was_interrupted_while_it_was_added_was_not_added(make_master, options):
    master = make_master(**options)
    master.addJob(Square(0))
    assert len(pop_all(master)) == 1
    for number, interruption in enumerate(moments(at_least=15, compiled=3)):
        job = Square(number)
        interruption.of(master.addJob, job)
        if interruption.raised:
            assert master.numPendingJobs() == 0
            assert keeper_of(job) is None
            master.addJob(job)
        assert pop_all(master) == [job]
        assert job.result == number**2
        assert master.numPendingJobs() == 0


def test_an_interrupted_addition_leaves_the_former_outcome(make_master):
    master = make_master()
    job = Square(7)
    master.addJob(job)
    pop_all(master)
    for interruption in moments(at_least=15, compiled=3):
        interruption.of(master.addJob, job)
        if interruption.raised:
            assert job.result == 49
    assert pop_all(master) == [job]


def test_a_pop_that_was_interrupted_has_popped_nothing(make_master):
    master = make_master()
    for number, interruption in enumerate(moments(at_least=8, compiled=3)):
        jobs = [Square(number), Square(number + 1)]
        for job in jobs:
            master.addJob(job)
        if not master._runs_in_pops:
            wait_until(lambda: len(master._main._session.processed) == 2, "both are processed")
        popped = [interruption.of(master.popProcessedJob)]
        if interruption.raised:
            assert master.numPendingJobs() == 2
            for job in jobs:
                with pytest.raises(papyros.UnprocessedJobError):
                    _ = job.result
                with pytest.raises(papyros.PendingJobError):
                    master.addJob(job)
            popped.clear()
        popped += pop_all(master)
        assert sorted(popped, key=lambda job: job.args) == jobs
        assert [job.result for job in jobs] == [number**2, (number + 1) ** 2]
        assert master.numPendingJobs() == 0


def test_a_pop_that_was_interrupted_while_it_waits_leaves_the_lock_to_others(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_at(gate.path, "late")
    master.addJob(job)
    gate.wait_for_arrivals(1)
    for interruption in moments(at_least=15):
        interruption.of(master.popProcessedJob, 0.001)
        assert master.numPendingJobs() == 1
        assert Background(master.numPendingJobs).result() == 1
    gate.open()
    assert pop_all(master) == [job]


@pytest.mark.parametrize("call", ["cancelJob", "cancelAllJobs"])
def test_what_was_interrupted_while_it_was_cancelled_is_cancelled_or_not(call):
    master = papyros.SingleThreadedMaster()
    for number, interruption in enumerate(moments(at_least=8)):
        jobs = [Square(number), Square(number + 1), Square(number + 2)]
        for job in jobs:
            master.addJob(job)
        interruption.of(getattr(master, call), *([jobs[1]] if call == "cancelJob" else []))
        kept = [job for job in jobs if keeper_of(job) is not None]
        assert master.numPendingJobs() == len(kept)
        assert pop_all(master) == kept
        for job in jobs:
            master.addJob(job)
        assert pop_all(master) == jobs
    master.close()


class Interrupter:
    """A thread that interrupts this one when it is told to, and sees that the interrupt is raised.

    Python itself drops one that comes while it runs a callback of the garbage collector, as Hypothesis has one, or
    a `__del__`, and says so to a hook: then the user presses Ctrl-C again.

    Attributes:
        in_vain: whether one was not raised, though nobody dropped it.
    """

    def __init__(self):
        self.in_vain = False
        self._wanted = queue.SimpleQueue()
        self._raised = threading.Event()
        self._dropped = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve)

    def want(self, seconds):
        """Have one come after so long."""
        self._raised = threading.Event()
        self._wanted.put((seconds, self._raised))

    def came(self):
        """Say that it was raised."""
        self._raised.set()

    def __enter__(self):
        self._hook, sys.unraisablehook = sys.unraisablehook, self._note_dropped
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._wanted.put(None)
        self._raised.set()
        self._thread.join()
        sys.unraisablehook = self._hook

    def _note_dropped(self, unraisable):
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._dropped.put(True)
        else:
            self._hook(unraisable)

    def _serve(self):
        while (wanted := self._wanted.get()) is not None:
            seconds, raised = wanted
            time.sleep(seconds)  # at any moment, so that there is no event to wait for
            self._interrupt()
            deadline = time.monotonic() + PATIENCE
            while not raised.wait(0.01):
                if not self._dropped.empty():
                    self._dropped.get()
                    self._interrupt()
                elif time.monotonic() > deadline:
                    faulthandler.dump_traceback()
                    self.in_vain = True
                    self._interrupt()  # so that the test comes to an end
                    break

    def _interrupt(self):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def add_what_was_interrupted(master, jobs, popped):
    """Add the last one of these jobs again, if it was interrupted before it was added."""
    if jobs and jobs[-1] not in popped:
        with contextlib.suppress(papyros.PendingJobError):
            master.addJob(jobs[-1])


def add_and_pop_though_interrupted(master, make, at_a_time, longest):
    """Add and pop jobs, so many at a time, with an interrupt after up to so many seconds, again and again.

    Returns the jobs that were added, and those that were popped.
    """
    jobs, popped = [], []
    chance = random.Random(5)

    def add_and_pop_for_ever():
        add_what_was_interrupted(master, jobs, popped)
        while True:
            for _ in range(at_a_time):
                jobs.append(make(len(jobs)))
                master.addJob(jobs[-1])
            for _ in range(at_a_time):
                popped.append(master.popProcessedJob(PATIENCE))

    with Interrupter() as interrupter:
        for _ in range(INTERRUPTS):
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - one comes for each that is wanted
                interrupter.want(chance.uniform(0, longest))
                add_and_pop_for_ever()
            interrupter.came()
            assert not interrupter.in_vain, "an interrupt was not raised; where this thread was is told on stderr"
    return jobs, popped


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread here")
# One that comes just when a file was opened leaves it to the collector, which closes it and says so.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_whenever_interrupts_come_every_job_is_popped_once(make_master):
    master = make_master()
    jobs, popped = add_and_pop_though_interrupted(master, Square, 3, longest=0.005)
    popped += pop_all(master)
    assert master.numPendingJobs() == 0
    assert len(popped) == len(set(popped))
    assert set(popped) >= set(jobs[:-1])  # the last one may have been interrupted
    assert all(job.result == job.args[0] ** 2 for job in popped)
    master.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms here")
@pytest.mark.alone  # that is, without coverage, whose tracer has a lock of its own that an alarm leaves taken
# One that comes just in a callback of Python's own, or when it has opened a file or begun a thread, is told so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_whenever_an_alarm_raises_every_job_is_popped_once(make_master):
    class TooLongError(Exception):
        """What took too long was left: an alarm of the program's own raises it."""

    def ring(number, frame):
        raise TooLongError

    master = make_master()
    for number in range(100):  # so that threads were begun: one that is, by Python's own means, survives no alarm
        master.addJob(Square(number))
    pop_all(master)
    jobs, popped = [], []
    chance = random.Random(7)

    def add_and_pop_for_a_while():
        add_what_was_interrupted(master, jobs, popped)
        for _ in range(30):  # not for ever: an alarm may go to a job, or to the collector, which drops it
            jobs.append(Square(len(jobs)))
            master.addJob(jobs[-1])
            if not len(jobs) % 3:
                popped.append(master.popProcessedJob(PATIENCE))

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for _ in range(6 * INTERRUPTS):
            with contextlib.suppress(TooLongError):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.001))
                add_and_pop_for_a_while()
                signal.setitimer(signal.ITIMER_REAL, 0)
        assert signal.getsignal(signal.SIGALRM) is ring
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    popped += pop_all(master)
    assert master.numPendingJobs() == 0
    assert len(popped) == len(set(popped))
    assert set(popped) >= set(jobs[:-1])  # the last one may have been left
    for job in popped:
        # What was raised in the midst of a job that runs in this thread, or while it was pickled, is its outcome.
        assert job.exception is not None or job.result == job.args[0] ** 2
        assert job.exception is None or "TooLongError" in repr(job.exception)
    master.close()


def test_what_had_not_begun_when_ctrl_c_came_is_not_mended_without_the_lock(monkeypatch):
    master = papyros.SingleThreadedMaster()
    mended = []
    monkeypatch.setattr(master, "_mend", lambda: mended.append(1))
    begun = master._mending()
    begun.__enter__()
    begun.gen.close()  # as the block that it was for is left before its first line
    assert not mended
