"""What anybody may expect of an executor of `concurrent.futures`, on every master.

The cases are those of the interface's manual, and of Python's own tests of its executors.
"""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import functools
import gc
import itertools
import logging
import operator
import threading
import weakref

import pytest

import papyros
from papyros.executor import MasterExecutor
from tests.contract.jobs_for_tests import double, fail_until
from tests.executor.functions import (
    EmptyError,
    Thing,
    add,
    capture,
    fail,
    fail_at,
    fail_emptily,
    make_lock,
    pass_gate,
)
from tests.support import PATIENCE, Background, wait_until

# Calls ----------------------------------------------------------------------------------


def test_it_is_an_executor(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor.submit(add, 1), concurrent.futures.Future)


def test_a_call_has_a_result(executor):
    future = executor.submit(pow, 2, 8)
    assert future.result(PATIENCE) == 256
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None


def test_arguments_may_have_any_names(executor):
    assert executor.submit(capture, 1, self=2, fn=3, function=4, job=5).result(PATIENCE) == (
        (1,),
        {"self": 2, "fn": 3, "function": 4, "job": 5},
    )
    with pytest.raises(TypeError):
        executor.submit(fn=capture)


def test_anything_that_can_be_called_can_be_submitted(executor):
    offset = 10
    calls = [
        (lambda number: number + offset, 1, 11),
        (lambda number: number + 1, 1, 2),
        (functools.partial(add, 2), 3, 5),
        (functools.partial(add, right=2), 3, 5),
        (Thing(4).plus, 5, 9),
        ("word".count, "o", 1),
        (operator.itemgetter(1), "ab", "b"),
        (str, 7, "7"),
        (abs, -7, 7),
    ]
    futures = [executor.submit(function, argument) for function, argument, _ in calls]
    assert [future.result(PATIENCE) for future in futures] == [expected for *_, expected in calls]


def test_a_closure_is_taken_as_it_is_when_it_is_submitted(executor):
    futures = []
    for number in range(5):

        def tell(number=number, *, factor=number):
            return number * factor

        futures.append(executor.submit(tell))
        futures.append(executor.submit(lambda number=number: number))
    assert [future.result(PATIENCE) for future in futures] == [0, 0, 1, 1, 4, 2, 9, 3, 16, 4]


def test_a_cell_that_changes_between_calls_is_sent_anew(executor):
    number = 1
    futures = []

    def tell():
        return number

    for number in range(3):
        futures.append(executor.submit(tell))
        assert futures[-1].result(PATIENCE) == number


def test_many_functions_of_one_line_do_not_make_many_classes(executor):
    for number in range(20):
        assert executor.submit(lambda: 1).result(PATIENCE) == 1
        assert executor.submit(lambda number=number: number).result(PATIENCE) == number
    assert len(executor._calls._classes) == 1


def test_what_cannot_be_called_is_refused(executor):
    for wrong in (None, 3, "pow"):
        with pytest.raises(TypeError, match="none"):
            executor.submit(wrong, 1)


def test_an_executor_is_made_of_a_master():
    with pytest.raises(TypeError, match="made of a master"):
        MasterExecutor(concurrent.futures.Executor())


def test_a_master_makes_executors(make_master):
    master = make_master()
    with master.executor() as executor:
        assert executor.master is master
        assert executor.submit(add, 1, 2).result(PATIENCE) == 3
    master.addJob(double(4))  # the master goes on
    assert master.popProcessedJob(PATIENCE).result == 8


def test_the_jobs_do_not_mix_with_others(make_master):
    master = make_master()
    master.addJob(double(4))
    with master.executor() as first, master.executor() as second:
        futures = [executor.submit(add, number) for number in range(5) for executor in (first, second)]
        assert [job.result for job in master.execute(map(double, range(3)), ordered=True)] == [0, 2, 4]
        assert master.popProcessedJob(PATIENCE).result == 8
        assert [future.result(PATIENCE) for future in futures] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert master.numPendingJobs() == 0


# Jobs -----------------------------------------------------------------------------------


def test_an_abstract_job_class_has_job_classes_that_stand_for_their_jobs(executor):
    class Abstract(papyros.Job, metaclass=abc.ABCMeta):
        @abc.abstractmethod
        def factor(self):
            """By what it multiplies."""

        def __call__(self, number):
            return self.factor() * number

    class Triple(Abstract):
        def factor(self):
            return 3

    assert executor.submit(Triple, 2).result(PATIENCE) == 6
    assert list(executor.map(Triple, range(3))) == [0, 3, 6]


def test_a_job_class_stands_for_its_jobs_with_their_options(executor, tmp_path):
    assert executor.submit(double, 4).result(PATIENCE) == 8
    assert list(executor.map(double, range(4))) == [0, 2, 4, 6]

    class Patient(fail_until):
        retries = 3
        backoff = 0.01

    assert executor.submit(Patient, str(tmp_path), "job", 3).result(PATIENCE) == 3


def test_a_job_is_given_its_outcome_before_its_future(executor):
    job = double(21)
    seen = []
    future = executor.submit(job)
    future.add_done_callback(lambda future: seen.append((job.result, future.result())))
    assert future.result(PATIENCE) == 42
    wait_until(lambda: seen == [(42, 42)])
    with pytest.raises(TypeError, match="arguments already"):
        executor.submit(double(1), 2)


def test_a_job_that_is_pending_is_refused(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    busy = [concurrent_executor.submit(pass_gate, gate.path) for _ in range(2)]
    job = double(4)
    first = concurrent_executor.submit(job)
    with pytest.raises(papyros.PendingJobError):
        concurrent_executor.submit(job)
    gate.open()
    assert first.result(PATIENCE) == 8
    concurrent.futures.wait(busy)
    assert concurrent_executor.submit(job).result(PATIENCE) == 8


# Failures -------------------------------------------------------------------------------


def test_an_exception_comes_back_with_its_traceback(executor):
    future = executor.submit(fail, 3)
    error = future.exception(PATIENCE)
    assert isinstance(error, ValueError)
    assert "fail" in error.traceback
    with pytest.raises(ValueError, match="no luck with 3"):
        future.result()


def test_an_exception_that_is_false_is_raised_all_the_same(executor):
    future = executor.submit(fail_emptily, 1)
    with pytest.raises(EmptyError):
        future.result(PATIENCE)
    with pytest.raises(EmptyError):
        future.result()
    with pytest.raises(EmptyError):
        list(executor.map(fail_emptily, range(3)))


def test_a_result_that_cannot_be_pickled_is_told(make_process_master):
    with make_process_master().executor() as executor:
        with pytest.raises(papyros.PayloadError, match="cannot be pickled"):
            executor.submit(make_lock).result(PATIENCE)
        with pytest.raises(papyros.PayloadError, match="cannot be pickled"):
            executor.submit(add, threading.Lock()).result(PATIENCE)
        assert executor.submit(add, 1).result(PATIENCE) == 1


def test_a_callback_that_raises_is_logged_and_does_no_harm(executor, caplog):
    called = threading.Event()

    def bad(future):
        raise ArithmeticError("a bad callback")

    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future = executor.submit(add, 1, 2)
        future.add_done_callback(bad)
        future.add_done_callback(lambda future: called.set())
        assert called.wait(PATIENCE)
    assert future.result() == 3
    assert "a bad callback" in caplog.text
    assert executor.submit(add, 4).result(PATIENCE) == 4


# Map ------------------------------------------------------------------------------------


def test_map_is_as_the_builtin_one(executor):
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(add, range(5), range(3), chunksize=3)) == [0, 2, 4]
    assert list(executor.map(add, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(add, [1], chunksize=0)


def test_map_raises_where_the_result_would_be(executor):
    results = executor.map(fail_at, itertools.repeat(2), range(4))
    assert next(results) == 0
    assert next(results) == 1
    with pytest.raises(ValueError, match="no luck with 2"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_has_a_timeout(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    results = concurrent_executor.map(pass_gate, [gate.path] * 5, timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    gate.open()
    wait_until(lambda: concurrent_executor.master.numPendingJobs() == 0)


def test_map_yields_what_is_there_before_its_time_is_up(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    assert concurrent_executor.submit(operator.add, 1, 1).result(PATIENCE) == 2  # slaves have started
    calls = [lambda: "here", functools.partial(pass_gate, gate.path), lambda: "too late"]
    results = concurrent_executor.map(operator.call, calls, timeout=2)
    assert next(results) == "here"
    with pytest.raises(TimeoutError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    gate.open()


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_map_with_time_enough(executor, timeout):
    assert list(executor.map(pow, [2] * 5, range(5), timeout=timeout)) == [1, 2, 4, 8, 16]


def test_map_takes_all_at_once_without_a_buffersize(executor):
    taken = []
    results = executor.map(add, (taken.append(number) or number for number in range(10)))
    assert taken == list(range(10))
    assert list(results) == list(range(10))


@pytest.mark.parametrize("buffersize", [1, 3])
def test_map_takes_no_more_than_its_buffersize(executor, buffersize):
    taken = []
    results = executor.map(add, (taken.append(number) or number for number in itertools.count()), buffersize=buffersize)
    assert len(taken) == buffersize
    for number in range(10):
        assert next(results) == number
        assert len(taken) == number + 1 + buffersize
    results.close()
    assert len(taken) == 10 + buffersize


def test_a_map_with_a_buffersize_comes_to_an_end(executor):
    assert list(executor.map(add, range(10), buffersize=3)) == list(range(10))
    assert list(executor.map(add, range(3), buffersize=10)) == list(range(3))
    assert list(executor.map(add, [], buffersize=10)) == []


def test_a_map_with_a_buffersize_keeps_its_executor_as_long_as_there_are_calls_to_make(make_master):
    executor = MasterExecutor(make_master())
    gone = weakref.ref(executor)
    results = executor.map(add, range(10), buffersize=3)
    del executor
    assert [next(results) for _ in range(7)] == list(range(7))
    assert gone() is not None
    assert next(results) == 7
    wait_until(lambda: gc.collect() >= 0 and gone() is None, "the executor is forgotten")
    assert list(results) == [8, 9]


def test_a_buffersize_is_a_number_from_1_or_none(executor):
    for wrong in ("2", 2.5):
        with pytest.raises(TypeError, match="buffersize must be an integer or None"):
            executor.map(add, [1], buffersize=wrong)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            executor.map(add, [1], buffersize=wrong)


def test_an_iterator_that_is_left_cancels_what_waits(concurrent_executor):
    gate = concurrent_executor.factory.gates()
    results = concurrent_executor.map(pass_gate, [gate.path] * 20)
    gate.wait_for_arrivals(2)
    next_one = Background(next, results)
    gate.open()
    next_one.result()
    results.close()
    wait_until(lambda: concurrent_executor.master.numPendingJobs() == 0)


# asyncio --------------------------------------------------------------------------------


async def serve(executor, number):
    """Answer so many requests, as a web server would."""
    loop = asyncio.get_running_loop()

    async def handle(request):
        return await loop.run_in_executor(executor, add, request, 1)

    answers = await asyncio.gather(*(handle(request) for request in range(number)))
    wrapped = await asyncio.wrap_future(executor.submit(add, 1, 2))
    with pytest.raises(ValueError, match="no luck"):
        await loop.run_in_executor(executor, fail, 3)
    return answers, wrapped


def test_a_thousand_requests_of_an_asyncio_program(executor):
    assert asyncio.run(serve(executor, 1000)) == (list(range(1, 1001)), 3)


def test_who_cancels_in_asyncio_cancels_what_waits(concurrent_executor):
    gate = concurrent_executor.factory.gates()

    async def program():
        loop = asyncio.get_running_loop()
        busy = [loop.run_in_executor(concurrent_executor, pass_gate, gate.path, 1) for _ in range(2)]
        await asyncio.to_thread(gate.wait_for_arrivals, 2)
        task = loop.run_in_executor(concurrent_executor, add, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        return await asyncio.gather(*busy)

    assert asyncio.run(program()) == [1, 1]
    wait_until(lambda: concurrent_executor.master.numPendingJobs() == 0)
