"""Futures of executors, as anybody may wait for them, be called back by them, and cancel them, on every master.

The cases are those of the interface's manual, and of Python's own tests of its futures.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import logging
import sys
import threading
import weakref
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

import pytest

from tests.executor.functions import add, fail, fail_at, pass_gate
from tests.support import PATIENCE, wait_until


@pytest.fixture
def gated(concurrent_executor):
    """A call that runs until its gate is opened, with the gate."""
    gate = concurrent_executor.factory.gates()
    future = concurrent_executor.submit(pass_gate, gate.path, "gated")
    gate.wait_for_arrivals(1)
    return future, gate


@pytest.fixture
def cancelled(concurrent_executor):
    """A call that was cancelled before it ran, beside others that keep all slaves busy meanwhile."""
    gate = concurrent_executor.factory.gates()
    busy = [concurrent_executor.submit(pass_gate, gate.path, number) for number in range(2)]
    gate.wait_for_arrivals(2)
    future = concurrent_executor.submit(add, 1)
    assert future.cancel()
    gate.open()
    assert [each.result(PATIENCE) for each in busy] == [0, 1]
    return future


# Callbacks and waiting ------------------------------------------------------------------


@pytest.mark.parametrize(("ask", "told"), [("result", "gated"), ("exception", None)])
def test_who_waits_for_a_future_looks_for_ctrl_c_now_and_then(gated, monkeypatch, ask, told):
    """A signal that comes just as a wait for a lock begins does not end it."""
    monkeypatch.setattr("papyros.deadlines.LOOK_SECONDS", 0.01)
    future, gate = gated
    condition, waits = future._condition, []
    wait = condition.wait

    def noted(seconds=None):
        waits.append(seconds)
        if len(waits) == 3:
            gate.open()
        return wait(seconds)

    monkeypatch.setattr(condition, "wait", noted)
    assert getattr(future, ask)() == told
    assert waits[:3] == [0.01] * 3


def test_a_callback_that_wants_to_end_the_program_does_no_harm(make_process_master, caplog):
    """Nor does somebody who settles a future in the master's place: the thread that settles the others goes on."""
    with make_process_master(1).executor() as executor:
        first = executor.submit(add, 1, 2)
        first.add_done_callback(lambda future: sys.exit("a bad callback"))
        stolen = executor.submit(add, 2, 3)
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            stolen.set_result("mine")
        assert executor.submit(add, 3, 4).result(PATIENCE) == 7
        assert first.result(PATIENCE) == 3


def test_callbacks_are_called_with_the_future(executor):
    seen = []
    futures = [executor.submit(add, number) for number in range(10)]
    for future in futures:
        future.add_done_callback(seen.append)
    concurrent.futures.wait(futures, PATIENCE)
    wait_until(lambda: len(seen) == 10)
    assert set(seen) == set(futures)


def test_a_callback_may_submit(executor):
    """Even where the number of waiting jobs is bounded: whoever makes room does not wait for it."""
    done = threading.Event()

    def more(future):
        if future.result() < 5:
            executor.submit(add, future.result(), 1).add_done_callback(more)
        else:
            done.set()

    executor.submit(add, 0).add_done_callback(more)
    assert done.wait(PATIENCE)


def test_callbacks_may_submit_into_a_line_that_is_full(make_concurrent_master):
    master = make_concurrent_master(2, max_waiting=1, max_processed=1)
    with master.executor() as executor:
        seen = []
        gate = make_concurrent_master.gates()
        blocked = [executor.submit(pass_gate, gate.path, 0) for _ in range(2)]
        gate.wait_for_arrivals(2)
        for future in blocked:
            for number in range(5):
                future.add_done_callback(
                    lambda _, number=number: executor.submit(add, number).add_done_callback(seen.append)
                )
        gate.open()
        wait_until(lambda: len(seen) == 10)
        assert sorted(future.result() for future in seen) == sorted([*range(5)] * 2)


def test_wait_and_as_completed(executor):
    futures = [executor.submit(fail_at, 3, number) for number in range(6)]
    done, not_done = concurrent.futures.wait(futures, PATIENCE)
    assert done == set(futures)
    assert not not_done
    assert set(concurrent.futures.as_completed(futures, PATIENCE)) == set(futures)
    done, _ = concurrent.futures.wait(futures, PATIENCE, concurrent.futures.FIRST_EXCEPTION)
    assert futures[3] in done


def test_a_future_that_is_not_done_in_time(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    future = concurrent_executor.submit(pass_gate, gate.path, 7)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0.01)
    done, not_done = concurrent.futures.wait([future], 0.01)
    assert (done, not_done) == (set(), {future})
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([future], 0.01))
    gate.open()
    assert future.result(PATIENCE) == 7


# What is done already -------------------------------------------------------------------


@pytest.mark.parametrize("function", [add, fail])
def test_who_comes_late_is_called_at_once(executor, function):
    future = executor.submit(function, 1)
    concurrent.futures.wait([future], PATIENCE)
    seen = []
    for _ in range(2):
        future.add_done_callback(lambda future: seen.append((future, threading.current_thread())))
        assert seen.pop() == (future, threading.current_thread())


def test_who_comes_late_to_a_cancelled_one_is_called_at_once(cancelled):
    seen = []
    cancelled.add_done_callback(seen.append)
    assert seen == [cancelled]
    assert "state=cancelled" in repr(cancelled)


def test_a_late_callback_that_raises_is_logged(executor, caplog):
    future = executor.submit(add, 1)
    assert future.result(PATIENCE) == 1
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.add_done_callback(lambda future: 1 / 0)
    assert "division by zero" in caplog.text
    assert future.result() == 1


def test_what_is_settled_stays_so(executor):
    future = executor.submit(add, 1)
    assert future.result(PATIENCE) == 1
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result(2)
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_exception(ValueError())
    assert future.result(0) == 1
    assert "state=finished returned int" in repr(future)
    failed = executor.submit(fail, 1)
    assert isinstance(failed.exception(PATIENCE), ValueError)
    assert isinstance(failed.exception(0), ValueError)
    assert "state=finished raised ValueError" in repr(failed)


def test_callbacks_are_called_in_the_order_in_which_they_were_added(gated):
    future, gate = gated
    seen = []
    for number in range(5):
        future.add_done_callback(lambda _, number=number: seen.append(number))
    gate.open()
    wait_until(lambda: seen == list(range(5)))


# wait -----------------------------------------------------------------------------------


def test_wait_for_one_and_the_same(executor):
    future = executor.submit(add, 1)
    assert concurrent.futures.wait([future, future], PATIENCE) == ({future}, set())


def test_wait_for_the_first_that_is_completed(concurrent_executor, gated):
    slow, _ = gated
    quick = concurrent_executor.submit(add, 1)
    assert concurrent.futures.wait([slow, quick], PATIENCE, FIRST_COMPLETED) == ({quick}, {slow})


def test_wait_for_the_first_where_some_are_completed_already(concurrent_executor, cancelled):
    done = concurrent_executor.submit(add, 1)
    assert done.result(PATIENCE) == 1
    gate = concurrent_executor.factory.gates()
    slow = concurrent_executor.submit(pass_gate, gate.path)
    assert concurrent.futures.wait([slow, cancelled, done], PATIENCE, FIRST_COMPLETED) == ({cancelled, done}, {slow})
    assert concurrent.futures.wait([slow, cancelled], PATIENCE, FIRST_COMPLETED) == ({cancelled}, {slow})


def test_wait_for_the_first_exception(concurrent_executor, gated):
    slow, _ = gated
    good = concurrent_executor.submit(add, 1)
    assert good.result(PATIENCE) == 1
    bad = concurrent_executor.submit(fail, 1)
    assert concurrent.futures.wait([good, bad, slow], PATIENCE, FIRST_EXCEPTION) == ({good, bad}, {slow})
    # one that has failed already
    assert concurrent.futures.wait([bad, slow], PATIENCE, FIRST_EXCEPTION) == ({bad}, {slow})


def test_wait_for_an_exception_that_nobody_raises_is_to_wait_for_all(concurrent_executor, cancelled):
    """A call that was cancelled has raised nothing."""
    futures = {concurrent_executor.submit(add, number) for number in range(5)}
    assert concurrent.futures.wait({*futures, cancelled}, PATIENCE, FIRST_EXCEPTION) == ({*futures, cancelled}, set())


def test_wait_for_all_however_they_end(concurrent_executor, cancelled):
    futures = {concurrent_executor.submit(fail_at, 2, number) for number in range(5)}
    assert concurrent.futures.wait({*futures, cancelled}, PATIENCE, ALL_COMPLETED) == ({*futures, cancelled}, set())


def test_wait_for_some_time(concurrent_executor, gated):
    slow, gate = gated
    quick = concurrent_executor.submit(add, 1)
    assert quick.result(PATIENCE) == 1
    assert concurrent.futures.wait([slow, quick], 0.05) == ({quick}, {slow})
    assert concurrent.futures.wait([slow, quick], 0) == ({quick}, {slow})
    gate.open()
    assert concurrent.futures.wait([slow, quick], PATIENCE) == ({slow, quick}, set())


def test_many_threads_wait_for_the_same(concurrent_executor, gated):
    slow, gate = gated
    found = []
    threads = [threading.Thread(target=lambda: found.append(slow.result(PATIENCE))) for _ in range(10)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == ["gated"] * 10


# as_completed ---------------------------------------------------------------------------


def test_what_is_given_twice_is_yielded_once(executor):
    future = executor.submit(add, 1)
    assert list(concurrent.futures.as_completed([future, future], PATIENCE)) == [future]
    assert list(concurrent.futures.as_completed(iter([future, future]), PATIENCE)) == [future]


def test_those_that_are_done_are_yielded_before_the_time_is_up(concurrent_executor, gated):
    slow, _ = gated
    quick = concurrent_executor.submit(add, 1)
    assert quick.result(PATIENCE) == 1
    found = []
    with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        found.extend(concurrent.futures.as_completed([slow, quick], 0.05))
    for timeout in (0, 0.05):
        seen = []
        with contextlib.suppress(TimeoutError):
            for future in concurrent.futures.as_completed([slow, quick], timeout):
                seen.append(future)
        assert seen == [quick]


def test_as_completed_yields_what_was_cancelled_too(concurrent_executor, cancelled):
    futures = {concurrent_executor.submit(fail_at, 2, number) for number in range(5)}
    assert set(concurrent.futures.as_completed({*futures, cancelled}, PATIENCE)) == {*futures, cancelled}


def test_as_completed_keeps_nothing_that_it_has_yielded(executor):
    futures = [executor.submit(add, number) for number in range(5)]
    done = concurrent.futures.as_completed(futures, PATIENCE)
    futures.clear()
    for future in done:
        gone = weakref.ref(future)
        future.result()
        del future
        wait_until(lambda gone=gone: gc.collect() >= 0 and gone() is None, "the future is forgotten")


# Cancelling and running -----------------------------------------------------------------


def test_what_waits_can_be_cancelled_and_what_runs_cannot(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    running = [concurrent_executor.submit(pass_gate, gate.path, 1) for _ in range(2)]
    gate.wait_for_arrivals(2)
    waiting = [concurrent_executor.submit(add, number) for number in range(6)]
    seen = []
    waiting[0].add_done_callback(seen.append)
    for future in running:
        wait_until(future.running)
        assert "state=running" in repr(future)
        assert not future.cancel()
        assert not future.done()
    assert not any(future.running() for future in waiting)
    assert all("state=pending" in repr(future) for future in waiting)
    for future in waiting[:3]:
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert future.cancel()  # as often as you like
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
    assert seen == waiting[:1]
    assert concurrent.futures.wait(waiting[:3], 0).done == set(waiting[:3])
    assert set(concurrent.futures.as_completed(waiting[:3], 0)) == set(waiting[:3])
    gate.open()
    assert [future.result(PATIENCE) for future in waiting[3:]] == [3, 4, 5]
    assert [future.result(PATIENCE) for future in running] == [1, 1]
    assert not any(future.cancel() for future in [*running, *waiting[3:]])
    assert concurrent_executor.master.numPendingJobs() == 0


def test_who_cancels_jobs_at_the_master_cancels_futures(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    running = [concurrent_executor.submit(pass_gate, gate.path, 1) for _ in range(2)]
    gate.wait_for_arrivals(2)
    waiting = [concurrent_executor.submit(add, number) for number in range(6)]
    concurrent_executor.master.cancelAllJobs()
    assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
    assert all(future.cancelled() for future in waiting)
    gate.open()
    assert [future.result(PATIENCE) for future in running] == [1, 1]
