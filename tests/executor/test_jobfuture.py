"""The future of a job against whoever waits for it in whatever way, while it is being settled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import sys
import threading

import pytest

from papyros.jobfuture import JobFuture
from papyros.outcome import Outcome
from tests.support import PATIENCE

FAILURE = ValueError("no luck")


@pytest.fixture
def hasty():
    """Have threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def by_result(future):
    return future.result(PATIENCE)


def by_exception(future):
    return future.exception(PATIENCE) or future.result(0)


def by_callback(future):
    called = threading.Event()
    future.add_done_callback(lambda future: called.set())
    assert called.wait(PATIENCE)
    return future.result(0)


def by_wait(future):
    assert concurrent.futures.wait([future], PATIENCE).done == {future}
    return future.result(0)


def by_as_completed(future):
    return next(concurrent.futures.as_completed([future], PATIENCE)).result(0)


def by_asyncio(future):
    async def wrapped():
        return await asyncio.wait_for(asyncio.wrap_future(future), PATIENCE)

    return asyncio.run(wrapped())


WAYS = [by_result, by_exception, by_callback, by_wait, by_as_completed]


def outcomes(ways, future, settle):
    """Have threads wait for a future, each in its way, while another one settles it; return what each got."""
    start = threading.Barrier(len(ways) + 1)
    found = []

    def wait(way):
        start.wait()
        try:
            found.append(way(future))
        except ValueError as error:
            found.append(error)

    threads = [threading.Thread(target=wait, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    start.wait()
    settle()
    for thread in threads:
        thread.join(2 * PATIENCE)
    return found


@pytest.mark.parametrize("outcome", [Outcome(7), Outcome(exception=FAILURE)], ids=["result", "exception"])
def test_nobody_waits_in_vain(hasty, outcome):
    for _ in range(150):
        future = JobFuture(None)
        found = outcomes(WAYS, future, lambda future=future: future._settle(outcome))
        assert found == [outcome.exception or 7] * len(WAYS)


def test_nobody_waits_in_vain_for_many_at_a_time(hasty):
    """Whoever waits for several futures holds all their locks: in any order, and nobody gets stuck."""
    for _ in range(30):
        futures = [JobFuture(None) for _ in range(6)]

        def wait_for_all(_, futures=futures):
            assert not concurrent.futures.wait(futures, PATIENCE).not_done
            return sum(future.result(0) for future in concurrent.futures.as_completed(futures, PATIENCE))

        def settle(futures=futures):
            for future, number in zip(futures, itertools.count(), strict=False):
                future._settle(Outcome(number))

        assert outcomes([wait_for_all] * 4, futures[0], settle) == [15] * 4


def test_asyncio_waits_for_it():
    future = JobFuture(None)
    assert outcomes([by_asyncio], future, lambda: future._settle(Outcome(7))) == [7]
    assert outcomes([by_asyncio], future, lambda: None) == [7]


def test_it_is_settled_once():
    future = JobFuture(None)
    future._settle(Outcome(7))
    for again in (
        lambda: future._settle(Outcome(8)),
        lambda: future.set_result(8),
        lambda: future.set_exception(FAILURE),
    ):
        with pytest.raises(concurrent.futures.InvalidStateError):
            again()
    assert not future.cancel()
    assert future.result() == 7
    assert future.exception() is None
    assert future.done()
    assert "finished returned int" in repr(future)


def test_what_was_cancelled_as_its_outcome_came_is_over_for_those_who_wait():
    """`Future.cancel` alone tells nobody: that is left to who works on it."""
    future = JobFuture(None)
    future._cancel()
    future._settle(Outcome(7))
    assert concurrent.futures.wait([future], PATIENCE).done == {future}
    assert future.cancelled()


@pytest.mark.parametrize("outcome", [Outcome(7), Outcome(exception=FAILURE)], ids=["result", "exception"])
def test_what_is_cancelled_between_two_steps_of_its_outcome_is_over_for_those_who_wait(outcome):
    class Late(JobFuture):
        """Is cancelled by another thread just after `_settle` has looked whether it is."""

        looks = 0

        @property
        def _state(self):
            found = vars(self).get("state", "PENDING")
            self.looks += 1
            if self.looks == 1:
                self._cancel()
            return found

        @_state.setter
        def _state(self, state):
            vars(self)["state"] = state

    future = Late(None)
    future._settle(outcome)
    assert concurrent.futures.wait([future], 0).done == {future}
    assert future.cancelled()


def test_what_a_callback_raises_keeps_nobody_waiting():
    future = JobFuture(None)
    future.add_done_callback(lambda _: sys.exit("a callback"))
    with pytest.raises(SystemExit, match="a callback"):
        future._leave()
    assert concurrent.futures.wait([future], 0).done == {future}
    assert next(concurrent.futures.as_completed([future], 0)) is future


def test_what_nobody_waited_for_has_no_condition():
    future = JobFuture(None)
    future._settle(Outcome(7))
    assert future.result() == 7
    assert future.done()
    assert set(vars(future)) == {"_courier", "_result", "_exception", "_state", "_made"}
