"""A master over an executor: what the contract's tests do not say, since it is about executors.

The contract's tests run on such masters, too: ``PAPYROS_ENGINES=threadpool,processpool pytest tests/contract``.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import sys
import threading
import time
import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import resource_tracker

import pytest

import papyros
from papyros.delegating import CLOSE_SECONDS
from papyros.encoded import decode_outcome
from papyros.jobs import result_of
from papyros.parcels import KEPT_LARGE_CLASSES, LARGE_BYTES, run_parcel
from papyros.parcels import _load as load_class
from papyros.wire import MAX_PAYLOAD_BYTES, Packer
from tests.contract import families
from tests.contract.jobs_for_tests import (
    FORK_ENDS,
    double,
    end_slave,
    fail,
    fail_until,
    fork_and_wait,
    wait_at,
    where,
)
from tests.support import PATIENCE, Gate, at_most, processed, refuse_threads, wait_until


@pytest.mark.parametrize("how", FORK_ENDS)
def test_a_process_that_a_job_has_forked_is_no_thread_of_the_executor(how):
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads) as master:
        jobs = [fork_and_wait(how), *[double(number) for number in range(3)]]
        assert set(master.execute(jobs)) == set(jobs)
        assert jobs[0].result == FORK_ENDS[how]


def test_a_child_that_is_dropped_while_it_is_taken_back_from_the_executor_takes_up_no_place(monkeypatch):
    """Its parent ends in the moment between the two."""
    taken, over = threading.Event(), threading.Event()
    cancel = Future.cancel

    def cancel_late(ticket):
        cancelled = cancel(ticket)
        if threading.current_thread().name == "papyros-slave-beside":
            taken.set()
            assert over.wait(PATIENCE)
        return cancelled

    @papyros.job
    def leave_child():
        own = papyros.current_master()
        own.addJob(double(1))
        while not taken.is_set():
            own.popProcessedJob(0.01)

    monkeypatch.setattr(Future, "cancel", cancel_late)
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads, slaves=2) as master:
        assert processed(master, leave_child()).exception is None
        over.set()
        wait_until(lambda: not master._flying, "all places are free")


@pytest.fixture
def standing():
    resource_tracker.ensure_running()  # which multiprocessing never ends


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_jobs_run_in_threads_of_the_executor_which_stays_open():
    with ThreadPoolExecutor(3, thread_name_prefix="mine") as threads:
        with papyros.ExecutorMaster(threads, max_waiting=4) as master:
            jobs = [double(number) for number in range(100)]
            assert {job.result for job in master.execute(jobs)} == {2 * number for number in range(100)}
            assert {job.slave.rpartition("_")[0] for job in jobs} == {"mine"}
            assert len(master.status().slaves) == 3
        assert threads.submit(abs, -1).result() == 1


def test_whatever_can_be_pickled_by_value_goes_to_an_executor_of_processes(pool, tmp_path):
    offset = 5

    @papyros.job(retries=2, backoff=0.01)
    def local(number):
        return number + offset

    with papyros.ExecutorMaster(pool) as master:
        jobs = [local(1), where(), fail(ValueError, "no luck"), fail_until(str(tmp_path), "job", 2)]
        jobs[3].retries = 1
        assert set(master.execute(jobs)) == set(jobs)
        assert jobs[0].result == 6
        assert jobs[1].slave.endswith(f"/{jobs[1].result[0]}")
        assert "no luck" in jobs[2].exception.traceback
        assert jobs[3].result == 2


def test_an_executor_that_breaks_is_told_of_each_job(pool, tmp_path):
    with papyros.ExecutorMaster(pool) as master:
        jobs = [end_slave(str(tmp_path), "job", "exit"), *(double(number) for number in range(20))]
        for job in jobs:
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(jobs)
        told = [job.exception for job in jobs]
        assert isinstance(told[0], papyros.SlaveLost)
        assert "the ProcessPoolExecutor" in str(told[0])
        assert "BrokenProcessPool" in str(told[0])
        assert all(error is None or isinstance(error, papyros.SlaveLost) for error in told)
        late = double(1)
        master.addJob(late)
        assert master.popProcessedJob(PATIENCE) is late
        assert "never started" in str(late.exception)


def test_an_executor_that_was_shut_down_is_told_of_each_job():
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with papyros.ExecutorMaster(threads) as master:
        jobs = [double(number) for number in range(3)]
        for job in jobs:
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(jobs)
        assert all("after shutdown" in str(job.exception) for job in jobs)


class Moody(Executor):
    """Refuses every other call, by turns with a RuntimeError, and cancels every third one."""

    def __init__(self):
        self.calls = 0

    def submit(self, fn, /, *args, **kwds):
        self.calls += 1
        if self.calls % 2 == 0:
            raise ValueError("not now") if self.calls % 4 else RuntimeError("not now either")
        future = Future()
        if self.calls % 3 == 0:
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            future.set_result(fn(*args, **kwds))
        return future


def test_what_an_executor_refuses_or_cancels_is_the_outcome_of_that_job_only():
    with papyros.ExecutorMaster(Moody(), 1) as master:
        outcomes = [str(job.exception or job.result) for job in master.execute(map(double, range(6)), ordered=True)]
    assert outcomes[0] == "0"
    assert "ValueError: not now" in outcomes[1]
    assert "cancelled" in outcomes[2]
    assert "RuntimeError: not now either" in outcomes[3]
    assert outcomes[4] == "8"  # not broken for good
    assert "double(5)" in outcomes[5]


class Strange(Executor):
    """Answers with what is no future, or with one that can do nothing."""

    def __init__(self, answer):
        self.answer = answer

    def submit(self, fn, /, *args, **kwds):
        return self.answer


class Stubborn(Future):
    def cancel(self):
        raise OSError("the engine is gone")


def test_an_executor_that_answers_with_no_future_is_told_of_each_job():
    with papyros.ExecutorMaster(Strange(None), 1) as master:
        jobs = [double(number) for number in range(3)]
        assert set(master.execute(jobs, timeout=PATIENCE)) == set(jobs)
        assert all("AttributeError" in str(job.exception) for job in jobs)


def test_a_job_that_cannot_be_recalled_holds_up_nobody(caplog):
    with papyros.ExecutorMaster(Strange(Stubborn()), 2) as master:
        late, never = double(1), double(2)
        late.timeout = 0.1
        master.addJob(late)
        master.addJob(never)
        assert isinstance(master.popProcessedJob(PATIENCE).exception, papyros.JobTimeout)
        wait_until(lambda: "could not be told to drop a job" in caplog.text)
    assert master.numPendingJobs() == 0


class Full(Executor):
    """Has a job wait for room until somebody lets it in."""

    def __init__(self):
        self.asked, self.room = threading.Event(), threading.Event()

    def submit(self, fn, /, *args, **kwds):
        self.asked.set()
        self.room.wait()
        return Future()


def test_an_executor_that_takes_no_job_keeps_no_master_from_its_end(monkeypatch):
    monkeypatch.setattr("papyros.delegating.CLOSE_SECONDS", 0.1)
    executor = Full()
    master = papyros.ExecutorMaster(executor, 2)
    assert str(master.status()).startswith("an ExecutorMaster\n")
    for number in range(2):
        master.addJob(double(number))
    assert executor.asked.wait(PATIENCE)
    with at_most(PATIENCE / 3):
        master.close()
    assert master.numPendingJobs() == 0
    executor.room.set()
    master._feeder.join(PATIENCE)
    assert not master._feeder.is_alive()


def test_children_wait_for_a_thread_beside_the_executor_where_the_system_has_none_to_spare(monkeypatch, caplog):
    """That is no reason for the master to break, nor for the parents to fail."""
    monkeypatch.setattr("papyros.executormaster.HELP_AGAIN_SECONDS", 0.02)
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads) as master:
        with monkeypatch.context() as patch:
            refuse_threads(patch, "papyros-slave-beside")
            job = families.tree_sum(3)
            master.addJob(job)
            wait_until(lambda: caplog.text.count("have to wait on: can't start new thread") >= 2)
        assert master.popProcessedJob(PATIENCE) is job
        assert job.result == 15
        assert processed(master, families.tree_sum(2)).result == 7


class Unread(io.StringIO):
    """A stream that nobody reads any more."""

    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("how", ["none", "closed", "unread"])
def test_what_a_job_has_done_to_the_streams_of_an_engine_is_no_loss_of_what_it_returns(monkeypatch, how):
    stream = {"none": None, "closed": io.TextIOWrapper(io.BytesIO()), "unread": Unread()}[how]
    if how == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    packer = Packer()
    payload = packer.pack(double(4))
    answer = run_parcel(packer.definitions[payload.definition], payload.blob, MAX_PAYLOAD_BYTES)
    monkeypatch.undo()
    assert result_of(decode_outcome(answer.outcome, None)) == 8


def test_a_job_that_closes_its_own_master_does_not_wait_for_itself():
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads) as master:
        took = []

        @papyros.job
        def close():
            began = time.monotonic()
            master.close()
            took.append(time.monotonic() - began)

        master.addJob(close())
        wait_until(lambda: took, "the master to be closed")
        assert took[0] < CLOSE_SECONDS / 2


def test_of_large_classes_a_process_of_an_engine_keeps_few():
    """Those that hold an array of their script, say: it would have hundreds of them in the end."""
    kept = []
    for number in range(6):
        large = bytes([number]) * (LARGE_BYTES + 1)

        class Holder(papyros.Job):
            def __call__(self, held=large):
                return type(self), held[0]

        packer = Packer()
        payload = packer.pack(Holder())
        definition = packer.definitions[payload.definition]
        kept.append(weakref.ref(load_class(definition)))
        assert load_class(definition) is kept[-1]()
    gc.collect()
    assert sum(gone() is not None for gone in kept) == KEPT_LARGE_CLASSES


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_job_that_runs_cannot_be_stopped_and_that_is_told_in_words(kind, tmp_path):
    context = {} if kind is ThreadPoolExecutor else {"mp_context": multiprocessing.get_context("spawn")}
    with kind(1, **context) as executor, papyros.ExecutorMaster(executor) as master:
        gate = str(tmp_path / "gate")
        running = wait_at(gate, 1)
        running.timeout = 0.2
        try:
            master.addJob(running)
            wait_until(lambda: list(tmp_path.glob("gate.*")))
            assert not master.cancelJob(running)
            assert master.popProcessedJob(PATIENCE) is running
            assert isinstance(running.exception, papyros.JobTimeout)
            assert f"the {kind.__name__} cannot stop it, and it goes on" in str(running.exception)
            waiting = double(2)
            master.addJob(waiting)  # the only slave is busy still
            assert master.popProcessedJob(0.05) is None
            assert master.cancelJob(waiting)
        finally:
            (tmp_path / "gate").touch()
        master.addJob(waiting)
        assert master.popProcessedJob(PATIENCE).result == 4


@pytest.mark.parametrize("slaves", [1, 2, 5])
def test_jobs_that_wait_for_their_children_never_take_up_all_threads(slaves):
    """However many jobs the executor was handed, of which it has not begun some."""
    with ThreadPoolExecutor(2) as threads, papyros.ExecutorMaster(threads, slaves) as master:
        jobs = [families.descend(20), *(families.tree_sum(4) for _ in range(6))]
        for job in jobs:
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(jobs)
        assert [job.result for job in jobs] == [20, *[31] * 6]
        assert threads.submit(abs, -1).result(PATIENCE) == 1
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "papyros-slave-beside"])


def test_children_run_although_others_keep_all_threads_of_the_executor(tmp_path):
    gate = Gate(str(tmp_path / "gate"))
    with ThreadPoolExecutor(2) as threads, papyros.ExecutorMaster(threads, 2) as master:
        job = families.run_when_told(gate.path)
        master.addJob(job)
        gate.wait_for_arrivals(1)
        stay = threading.Event()
        others = [threads.submit(stay.wait, PATIENCE) for _ in range(2)]
        try:
            gate.open()
            assert master.popProcessedJob(PATIENCE) is job
            assert job.result == 31
        finally:
            stay.set()
        assert all(future.result(PATIENCE) for future in others)


def test_a_child_that_runs_for_too_long_beside_the_executor_is_told(tmp_path):
    gate = str(tmp_path / "gate")
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads) as master:
        child = wait_at(gate, 1)
        child.timeout = 0.2
        try:
            master.addJob(families.exceptions_of(child, double(2)))
            told = master.popProcessedJob(PATIENCE).result
        finally:
            (tmp_path / "gate").touch()
        assert "ran longer than its timeout of 0.2 s" in told[0]
        assert told[1] == "None"


def test_in_a_process_of_an_executor_children_run_with_their_parent(pool):
    with papyros.ExecutorMaster(pool) as master:
        jobs = [families.descend(50), families.tree_sum(4), families.map_reduce(["a b", "b"]), families.fail_deep(2)]
        assert set(master.execute(jobs)) == set(jobs)
        assert [job.result for job in jobs[:2]] == [50, 31]
        assert jobs[2].result["b"] == 2
        assert "the leaf falls" in str(jobs[3].exception)


def test_in_a_process_of_an_executor_a_child_that_runs_for_too_long_is_told(pool, tmp_path):
    gate = Gate(str(tmp_path / "gate"))
    late, quick, parent = wait_at(gate.path, 1), double(2), families.tree_sum(2)
    for child in (late, quick, parent):
        child.timeout = 0.5
    quick.timeout = parent.timeout = PATIENCE
    late.retries, late.backoff = 2, 0.01  # a job that has run for too long is not tried again: it goes on
    with papyros.ExecutorMaster(pool) as master:
        try:
            master.addJob(families.exceptions_of(late, quick, parent))
            told = master.popProcessedJob(PATIENCE).result
        finally:
            gate.open()
        assert "ran longer than its timeout of 0.5 s" in told[0]
        assert "cannot be stopped, and it goes on" in told[0]
        assert told[1:] == ["None", "None"]
        assert gate.arrivals() == 1
        master.addJob(families.run_child(parent))
        assert master.popProcessedJob(PATIENCE).result == 7


def test_what_is_no_executor_is_refused():
    for wrong in (None, 3, "threads"):
        with pytest.raises(TypeError):
            papyros.ExecutorMaster(wrong)


def test_a_master_over_an_executor_over_a_master():
    with (
        papyros.MultiThreadedMaster(2) as inner,
        inner.executor() as executor,
        papyros.ExecutorMaster(executor, 2) as master,
        master.executor() as outer,
    ):
        assert list(outer.map(pow, range(20), range(20))) == list(map(pow, range(20), range(20)))


@pytest.mark.parametrize("end", ["a result", "an exception", "cancelled by the executor"])
def test_what_has_ended_is_not_kept_until_its_timeout_would_be_over(end):
    """Else an hour's results would be kept in memory where each job may take an hour."""
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads, slaves=1) as master:
        job = fail(ValueError) if end == "an exception" else double(2)
        job.timeout = 3600.0
        if end == "cancelled by the executor":
            gate = threading.Event()
            threads.submit(gate.wait, PATIENCE)
            master.addJob(job)
            wait_until(lambda: master._tickets, "it to be with the executor")
            for ticket in list(master._tickets.values()):
                ticket.cancel()
            gate.set()
        else:
            master.addJob(job)
        assert master.popProcessedJob(PATIENCE) is job
        wait_until(lambda: not master._flying, "the rest of it")
        assert not master._alarms
        assert not master._alarm._calls


def test_what_is_cancelled_before_the_executor_has_begun_it_is_not_kept_until_its_timeout_would_be_over():
    gate = threading.Event()
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads, slaves=1) as master:
        threads.submit(gate.wait, PATIENCE)
        job = double(2)
        job.timeout = 3600.0
        master.addJob(job)
        wait_until(lambda: master._tickets, "it to be with the executor")
        assert master._alarm._calls
        master.cancelJob(job)
        gate.set()
        wait_until(lambda: not master._alarm._calls, "nothing to wait for")


def test_a_master_whose_thread_cannot_be_started_now_adds_nothing_and_starts_it_later(monkeypatch):
    with ThreadPoolExecutor(1) as threads, papyros.ExecutorMaster(threads) as master:
        job = double(2)
        with monkeypatch.context() as patch:
            refuse_threads(patch, "papyros-feed")
            with pytest.raises(RuntimeError, match="new thread"):
                master.addJob(job)
        assert master.numPendingJobs() == 0
        assert processed(master, job).result == 4
