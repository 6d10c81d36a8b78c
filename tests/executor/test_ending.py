"""How executors end, and what they keep, on every master. How programs end is in `test_ends`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import gc
import sys
import threading
import weakref

import pytest

import papyros
from papyros.executor import MasterExecutor
from tests.executor.functions import EmptyError, Thing, add, fail, fail_emptily, make_thing, nap, pass_gate
from tests.support import PATIENCE, Background, refuse_threads, wait_until

# The end --------------------------------------------------------------------------------


def test_nothing_can_be_submitted_after_shutdown(make_master):
    executor = MasterExecutor(make_master())
    executor.submit(add, 1)
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(add, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(add, [1])


def test_an_executor_that_was_never_used_can_be_shut_down(make_master):
    MasterExecutor(make_master()).shutdown()
    MasterExecutor(make_master()).shutdown(wait=False, cancel_futures=True)


def test_shutdown_waits_for_all(executor):
    futures = [executor.submit(nap, 0.01) for _ in range(20)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [0.01] * 20


def test_shutdown_without_waiting_lets_all_be_done(make_concurrent_master):
    executor = MasterExecutor(make_concurrent_master(2))
    gate = make_concurrent_master.gates()
    futures = [executor.submit(pass_gate, gate.path, number) for number in range(5)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result(PATIENCE) for future in futures] == list(range(5))


def test_shutdown_may_cancel_what_waits(make_concurrent_master):
    executor = MasterExecutor(make_concurrent_master(2))
    gate = make_concurrent_master.gates()
    running = [executor.submit(pass_gate, gate.path, number) for number in range(2)]
    gate.wait_for_arrivals(2)
    waiting = [executor.submit(add, number) for number in range(50)]
    ended = Background(functools.partial(executor.shutdown, cancel_futures=True))
    assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
    assert all(future.cancelled() for future in waiting)
    assert ended.running
    gate.open()
    ended.result()
    assert [future.result(0) for future in running] == [0, 1]


def test_a_call_that_is_cancelled_just_before_shutdown_does_not_keep_it(executor):
    executor.submit(add, 1).cancel()
    Background(executor.shutdown).result()


def test_a_call_that_waits_for_the_end_of_its_own_executor_is_told(make_thread_master):
    """It would wait for itself, and the program for it when it ends."""
    executor = MasterExecutor(make_thread_master(1))

    def shut_down_in_a_child():
        with papyros.current_master().executor() as children:
            return children.submit(executor.shutdown).exception(PATIENCE)

    assert "wait for itself" in str(executor.submit(executor.shutdown).exception(PATIENCE))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1)
    Background(executor.shutdown).result()
    executor = MasterExecutor(executor.master)
    assert "wait for itself" in str(executor.submit(shut_down_in_a_child).result(PATIENCE))
    executor = MasterExecutor(executor.master)
    other = MasterExecutor(executor.master)
    assert executor.submit(other.shutdown).result(PATIENCE) is None
    executor.shutdown()


def test_a_handler_that_submits_while_the_thread_of_the_futures_is_being_started(make_concurrent_master, monkeypatch):
    """It runs in the very thread that starts it, and must not wait for that."""
    executor = MasterExecutor(make_concurrent_master(1))
    start, submitted = threading.Thread.start, []

    def start_when_handled(thread):
        if thread.name == "papyros-courier" and not submitted:
            submitted.append(executor.submit(add, 1))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_when_handled)
    future = Background(executor.submit, add, 2).result()
    assert [each.result(PATIENCE) for each in (*submitted, future)] == [1, 2]
    executor.shutdown()


def test_an_executor_whose_thread_could_not_be_started_tries_again(make_concurrent_master, monkeypatch):
    executor = MasterExecutor(make_concurrent_master(1))
    with monkeypatch.context() as patch:
        refuse_threads(patch, "papyros-courier")
        with pytest.raises(RuntimeError, match="can't start new thread"):
            executor.submit(add, 1)
    assert executor.submit(add, 1).result(PATIENCE) == 1
    executor.shutdown()


def test_children_of_a_master_without_slaves_run_in_the_submits_of_their_parent():
    """A breakpoint in one of them works, and no two of them run at a time."""

    def parent():
        children = papyros.current_master().executor()
        where = [children.submit(threading.get_ident) for _ in range(3)]
        assert all(future.done() for future in where)
        assert isinstance(children.submit(fail, 7).exception(0), ValueError)
        assert "wait for itself" in str(children.submit(children.shutdown).exception(0))
        with pytest.raises(RuntimeError, match="after shutdown"):
            children.submit(add, 1)
        children.shutdown()
        return {future.result(0) for future in where}

    def closing():
        family = papyros.current_master()
        children = family.executor()
        family.close()
        with pytest.raises(papyros.MasterClosedError):
            children.submit(add, 1)
        return True

    with papyros.SingleThreadedMaster() as master, master.executor() as executor:
        assert executor.submit(parent).result(0) == {threading.get_ident()}
        assert executor.submit(closing).result(0)


def test_an_executor_that_is_forgotten_lets_go_when_all_is_done(make_master):
    master = make_master()
    before = set(threading.enumerate())
    executor = MasterExecutor(master)
    results = executor.map(abs, range(-5, 5))
    del executor
    assert list(results) == list(map(abs, range(-5, 5)))
    wait_until(lambda: not [t for t in threading.enumerate() if t not in before and t.name == "papyros-courier"])
    wait_until(lambda: len(master._ledger.sessions) == 1, "its lane was closed")


def test_a_master_that_is_closed_takes_nothing_and_leaves_no_future_open(make_concurrent_master):
    master = make_concurrent_master(2)
    executor = MasterExecutor(master)
    done = executor.submit(add, 1)
    done.result(PATIENCE)
    gate = make_concurrent_master.gates()
    futures = [executor.submit(pass_gate, gate.path, number) for number in range(5)]
    gate.wait_for_arrivals(2)
    closing = Background(master.close)
    wait_until(lambda: master._closed)
    if make_concurrent_master.kind == "multithreaded":
        gate.open()  # threads are waited for
    closing.result()
    ends = [future.exception(PATIENCE) for future in futures]
    assert sum(isinstance(error, papyros.MasterClosedError) for error in ends) >= 3
    with pytest.raises(papyros.MasterClosedError):
        executor.submit(add, 1)
    Background(executor.shutdown).result()


def test_what_a_callback_raises_keeps_no_other_future_from_being_cancelled(make_concurrent_master):
    executor = MasterExecutor(make_concurrent_master(1))
    gate = make_concurrent_master.gates()
    running = executor.submit(pass_gate, gate.path)
    gate.wait_for_arrivals(1)
    waiting = [executor.submit(add, number) for number in range(5)]
    for future in waiting[1:3]:
        future.add_done_callback(lambda _: sys.exit("a callback"))
    with contextlib.suppress(SystemExit):  # it may be the thread that settles futures which is quicker to call it
        executor.shutdown(wait=False, cancel_futures=True)
    assert concurrent.futures.wait(waiting, PATIENCE).done == set(waiting)
    assert [future.cancelled() for future in waiting] == [True] * 5
    gate.open()
    running.result(PATIENCE)
    executor.shutdown()


def test_shutdown_may_cancel_what_waits_without_waiting_itself(make_concurrent_master):
    executor = MasterExecutor(make_concurrent_master(2))
    gate = make_concurrent_master.gates()
    running = [executor.submit(pass_gate, gate.path, number) for number in range(2)]
    gate.wait_for_arrivals(2)
    waiting = [executor.submit(add, number) for number in range(50)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
    assert all(future.cancelled() for future in waiting)
    assert not any(future.done() for future in running)
    gate.open()
    assert [future.result(PATIENCE) for future in running] == [0, 1]


def test_leaving_the_block_waits_for_all_also_after_an_exception(make_master):
    futures = []
    with contextlib.suppress(LookupError), MasterExecutor(make_master()) as executor:
        futures += [executor.submit(nap, 0.01) for _ in range(10)]
        raise LookupError
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1)


def test_a_master_whose_closing_was_interrupted_leaves_no_future_open(make_concurrent_master, monkeypatch):
    master = make_concurrent_master(2)
    executor = MasterExecutor(master)
    gate = make_concurrent_master.gates()
    futures = [executor.submit(pass_gate, gate.path, number) for number in range(4)]
    gate.wait_for_arrivals(2)
    stop = master._stop

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(master, "_stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        master.close()
    assert concurrent.futures.wait(futures, PATIENCE).not_done == set()
    assert all(isinstance(future.exception(0), papyros.MasterClosedError) for future in futures)
    Background(executor.shutdown).result()
    gate.open()
    stop()


def test_a_ctrl_c_in_the_block_cancels_what_waits(make_concurrent_master, caplog):
    """Else nothing would seem to happen for as long as all that waits takes."""
    gate = make_concurrent_master.gates()
    with MasterExecutor(make_concurrent_master(2)) as executor:
        running = [executor.submit(pass_gate, gate.path, number) for number in range(2)]
        gate.wait_for_arrivals(2)
        waiting = [executor.submit(add, number) for number in range(50)]
        left = Background(executor.__exit__, KeyboardInterrupt, KeyboardInterrupt(), None)
        assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
        assert all(future.cancelled() for future in waiting)
        gate.open()
        left.result()
    assert [future.result(0) for future in running] == [0, 1]
    assert "those that run are waited for" in caplog.text


def test_results_can_be_had_after_shutdown(make_master):
    executor = MasterExecutor(make_master())
    futures = [executor.submit(fail_or_add, number) for number in range(20)]
    results = executor.map(add, range(5))
    executor.shutdown(wait=False)
    assert [future.result(PATIENCE) for future in futures[1:]] == list(range(1, 20))
    assert isinstance(futures[0].exception(PATIENCE), ZeroDivisionError)
    assert list(results) == list(range(5))


def fail_or_add(number):
    return 1 // number * 0 + number


def test_executors_may_come_and_go_quickly(make_master):
    """Each with a call that is under way, or with none."""
    master = make_master()
    for number in range(20):
        executor = MasterExecutor(master)
        future = executor.submit(add, number) if number % 2 else None
        executor.shutdown()
        assert future is None or future.result(0) == number
    assert master.numPendingJobs() == 0


# Memory ---------------------------------------------------------------------------------


def test_nothing_is_kept_that_nobody_needs(executor):
    thing = Thing()
    gone = weakref.ref(thing)
    executor.submit(thing.plus, 1)
    del thing
    wait_until(lambda: gc.collect() >= 0 and gone() is None, "what was submitted is forgotten")


def test_map_keeps_no_result(executor):
    for thing in executor.map(make_thing, range(10)):
        gone = weakref.ref(thing)
        del thing
        gc.collect()
        wait_until(lambda gone=gone: gone() is None, "the result is forgotten")


def test_a_future_of_a_call_that_failed_is_in_no_cycle(concurrent_executor):
    """Else it, and what its exception holds, would stay until the garbage collector comes by."""
    gc.disable()
    try:
        for function in (fail, fail_emptily):
            future = concurrent_executor.submit(function, 1)
            concurrent.futures.wait([future], PATIENCE)
            for _ in range(2):
                with contextlib.suppress(ValueError, EmptyError):
                    future.result(0)
            gone = weakref.ref(future)
            del future
            wait_until(lambda gone=gone: gone() is None, "the future is forgotten")
    finally:
        gc.enable()


def memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def use_futures(executor, number):
    for result in executor.map(add, range(number), buffersize=500):
        assert result >= 0


def memory_grows_by(executor, number):
    use_futures(executor, 5000)
    gc.collect()
    before = memory()
    use_futures(executor, number)
    gc.collect()
    return memory() - before


def test_memory_stays_flat(executor):
    """Of what was consumed nothing is left: 10,000 futures that were kept would take more than 15 megabytes."""
    assert memory_grows_by(executor, 10_000) < 6


def test_memory_stays_flat_over_fifty_thousand_futures():
    """So many futures that were kept would take more than 75 megabytes."""
    with papyros.MultiProcessMaster(2) as master, master.executor() as executor:
        assert memory_grows_by(executor, 50_000) < 10


@pytest.mark.slow
def test_memory_stays_flat_over_a_million_futures(make_process_master):
    with make_process_master(2).executor() as executor:
        assert memory_grows_by(executor, 1_000_000) < 20
