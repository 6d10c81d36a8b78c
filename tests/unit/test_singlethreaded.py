"""What only the master without concurrency promises."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

import pytest

import papyros
from papyros.family import Family
from papyros.nested import open_family
from tests.contract.jobs_for_tests import Square, call, fail, leave_mark, where
from tests.support import PATIENCE, Background


@papyros.job
def interrupt_once(marks):
    """The user presses Ctrl-C while the job runs for the first time."""
    if not marks:
        marks.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        # The signal is handled by now, or at the next moment.
        threading.Event().wait(PATIENCE)
    return "done"


@pytest.fixture(autouse=True)
def _signals_are_as_before():
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_reaches_the_caller_and_the_job_is_pending_again():
    master = papyros.SingleThreadedMaster()
    job, other = interrupt_once([]), Square(2)
    master.addJob(job)
    master.addJob(other)
    with pytest.raises(KeyboardInterrupt):
        master.popProcessedJob()
    assert master.numPendingJobs() == 2
    with pytest.raises(papyros.UnprocessedJobError):
        job.result
    assert master.popProcessedJob() is job  # it kept its place
    assert job.result == "done"
    assert master.popProcessedJob() is other


def test_ctrl_c_in_processed_jobs_leaves_the_master_usable():
    master = papyros.SingleThreadedMaster()
    job = interrupt_once([])
    master.addJob(job)
    with pytest.raises(KeyboardInterrupt):
        master.processedJobs()
    assert master.processedJobs() == [job]


def test_ctrl_c_in_execute_drops_the_rest():
    master = papyros.SingleThreadedMaster()
    jobs = [interrupt_once([]), Square(1)]
    with pytest.raises(KeyboardInterrupt):
        list(master.execute(jobs))
    assert master.numPendingJobs() == 0
    assert list(master.execute(jobs)) == jobs


def test_a_keyboard_interrupt_that_a_job_raises_is_its_outcome():
    master = papyros.SingleThreadedMaster()
    job = fail(KeyboardInterrupt)
    master.addJob(job)
    assert master.popProcessedJob() is job
    assert type(job.exception) is KeyboardInterrupt


def test_a_signal_handler_of_the_users_stays_in_charge(monkeypatch):
    got = []
    before = signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    try:
        master = papyros.SingleThreadedMaster()
        master.addJob(call(os.kill, os.getpid(), signal.SIGINT))
        assert master.popProcessedJob().exception is None
        assert got == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_signal_handler_of_the_users_raises_reaches_the_caller():
    def interrupt(number, frame):
        raise KeyboardInterrupt("the handler's")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        master = papyros.SingleThreadedMaster()
        job = interrupt_once([])
        master.addJob(job)
        with pytest.raises(KeyboardInterrupt, match="the handler's"):
            master.popProcessedJob()
        assert master.numPendingJobs() == 1
        assert master.popProcessedJob() is job
        assert job.result == "done"
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@papyros.job
def wait_for(number):
    """A signal of that number comes while the job runs, and its handler raises."""
    os.kill(os.getpid(), number)
    threading.Event().wait(PATIENCE)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of this kind")
def test_a_program_that_is_told_to_end_while_a_job_runs_ends():
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
    try:
        master = papyros.SingleThreadedMaster()
        master.addJob(wait_for(signal.SIGTERM))
        with pytest.raises(SystemExit):
            master.popProcessedJob()
        assert master.numPendingJobs() == 1
        master.close()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarms here")
def test_what_an_alarm_raises_in_a_job_is_its_outcome_and_a_handler_that_it_sets_stays():
    def give_up(number, frame):
        raise TimeoutError("too long")

    def set_and_wait():
        signal.signal(signal.SIGALRM, give_up)
        wait_for.function(signal.SIGALRM)

    before = signal.getsignal(signal.SIGALRM)
    try:
        master = papyros.SingleThreadedMaster()
        for job in call(set_and_wait), wait_for(signal.SIGALRM):
            master.addJob(job)
            assert master.popProcessedJob() is job
            assert type(job.exception) is TimeoutError
            assert signal.getsignal(signal.SIGALRM) is give_up
    finally:
        signal.signal(signal.SIGALRM, before)


def test_leaving_a_debugger_with_quit_reaches_the_caller():
    import bdb

    master = papyros.SingleThreadedMaster()
    job = fail(bdb.BdbQuit)
    master.addJob(job)
    with pytest.raises(bdb.BdbQuit):
        master.popProcessedJob()
    assert master.numPendingJobs() == 1


def test_the_exception_is_the_original_object_with_its_frames():
    error = LookupError("the very one")

    @papyros.job
    def raise_it():
        local = "seen by a debugger"  # noqa: F841 - what a post-mortem debugger shows
        raise error

    master = papyros.SingleThreadedMaster()
    job = raise_it()
    master.addJob(job)
    master.popProcessedJob()
    assert job.exception is error
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_locals)
        traceback = traceback.tb_next
    assert any(variables.get("local") == "seen by a debugger" for variables in frames)


def test_the_result_is_the_original_object():
    value = object()
    master = papyros.SingleThreadedMaster()
    master.addJob(call(lambda: value))
    assert master.popProcessedJob().result is value


def test_jobs_run_in_the_thread_that_pops():
    master = papyros.SingleThreadedMaster()
    master.addJob(where())
    master.addJob(where())
    assert master.popProcessedJob().result == (os.getpid(), threading.get_ident())
    job = Background(master.popProcessedJob).result()
    assert job.result[1] != threading.get_ident()


def test_nothing_runs_before_it_is_popped(tmp_path):
    with papyros.SingleThreadedMaster() as master:
        for name in "abc":
            master.addJob(leave_mark(str(tmp_path), name))
        assert list(tmp_path.iterdir()) == []
        assert master.popProcessedJob(0).result == "a"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_pop_without_waiting_runs_one_job():
    master = papyros.SingleThreadedMaster()
    for number in range(3):
        master.addJob(Square(number))
    for left in (2, 1, 0):
        assert master.popProcessedJob(timeout=0) is not None
        assert master.numPendingJobs() == left
    assert master.popProcessedJob(timeout=0) is None


def test_a_full_queue_makes_room_by_running_a_job(tmp_path):
    master = papyros.SingleThreadedMaster(max_waiting=2)
    for name in "abcd":
        master.addJob(leave_mark(str(tmp_path), name), timeout=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert [job.result for job in master.processedJobs()] == list("abcd")


def test_where_neither_bound_leaves_room_an_adder_is_told():
    import queue

    master = papyros.SingleThreadedMaster(max_waiting=1, max_processed=1)
    master.addJob(Square(1), timeout=0)
    master.addJob(Square(2), timeout=0)  # the first one is run to make room
    with pytest.raises(queue.Full):
        master.addJob(Square(3), timeout=0)
    assert [job.result for job in master.processedJobs()] == [1, 4]


def test_a_job_may_add_jobs_to_the_master_that_runs_it():
    master = papyros.SingleThreadedMaster()
    master.addJob(call(lambda: master.addJob(Square(5))))
    assert [job.exception for job in master.processedJobs()] == [None, None]


def test_the_outcome_names_the_thread():
    master = papyros.SingleThreadedMaster()
    master.addJob(Square(1))
    assert master.popProcessedJob().slave == threading.current_thread().name


def test_it_starts_no_thread():
    before = threading.active_count()
    master = papyros.SingleThreadedMaster()
    seen = [job.result for job in master.execute([call(threading.active_count)])]
    assert seen == [before]


def test_a_depth_of_frames_does_not_grow_with_the_number_of_jobs():
    """A loop over many jobs must not recurse."""
    master = papyros.SingleThreadedMaster()
    jobs = [call(lambda: len(_frames())) for _ in range(100)]
    depths = {job.result for job in master.execute(jobs)}
    assert len(depths) == 1


def _frames():
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


@pytest.mark.parametrize(
    "name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF"]
)
def test_a_signal_that_comes_while_books_change_is_held_back(name, monkeypatch):
    class CameError(Exception):
        """A handler of the program's raises it."""

    def handle(number, frame):
        raise CameError

    master = papyros.SingleThreadedMaster()
    job = papyros.job(abs)(-1)
    master.addJob(job)
    assign, number = master._ledger.assign, getattr(signal, name)

    def assign_and_be_interrupted(holder, limit):
        assigned = assign(holder, limit)
        signal.raise_signal(number)  # just when they are assigned, and nobody has them
        return assigned

    before = signal.signal(number, handle)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(master._ledger, "assign", assign_and_be_interrupted)
            with pytest.raises(CameError):
                master.popProcessedJob()
        assert signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)
    assert master.popProcessedJob() is job
    assert not master.numPendingJobs()


def test_of_signals_that_are_held_back_together_each_reaches_its_handler(monkeypatch):
    class CameError(Exception):
        """Each of the handlers raises it."""

    def handle(number, frame):
        came.append(number)
        raise CameError

    came, numbers = [], [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    master = papyros.SingleThreadedMaster()
    job = papyros.job(abs)(-1)
    master.addJob(job)
    assign = master._ledger.assign

    def assign_and_be_interrupted(holder, limit):
        assigned = assign(holder, limit)
        for number in numbers:
            signal.raise_signal(number)
        return assigned

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(master._ledger, "assign", assign_and_be_interrupted)
            with pytest.raises(CameError):
                master.popProcessedJob()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert came == numbers
    assert master.popProcessedJob() is job


def test_what_fails_after_a_job_went_on_despite_ctrl_c_is_no_interruption():
    @papyros.job
    def go_on():
        family = papyros.current_master()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(PATIENCE)
        child = fail(ValueError, "by itself")
        family.addJob(child)
        family.popProcessedJob()
        return repr(child.exception)

    master = papyros.SingleThreadedMaster()
    job = go_on()
    master.addJob(job)
    assert master.popProcessedJob() is job
    assert job.result == "ValueError('by itself')"


def test_masters_leave_nothing_with_the_system(monkeypatch):
    """Each would stay for good, in a process that runs jobs, or makes masters, for days."""
    monkeypatch.setattr(os, "register_at_fork", lambda **_: pytest.fail("what is told to the system stays for good"))
    open_family().close()
    papyros.SingleThreadedMaster().close()
    papyros.MultiThreadedMaster(1).close()


def test_a_lane_that_is_opened_while_the_job_closes_its_master_is_closed_too():
    """It has threads, say."""
    master = papyros.SingleThreadedMaster()

    @papyros.job
    def close_meanwhile():
        family = Family(master, next(iter(master._since)))
        opened = []

        def open_and_be_closed(parent, open_session=master._open_family):
            opened.append(open_session(parent))
            family.close()
            return opened[0]

        master._open_family = open_and_be_closed
        with pytest.raises(papyros.MasterClosedError):
            next(iter(family.execute([Square(2)])))
        return opened[0].dropped

    job = close_meanwhile()
    master.addJob(job)
    assert master.popProcessedJob() is job
    assert job.result is True
