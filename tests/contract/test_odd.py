"""Job classes and exceptions with ideas of their own do as others do, or are refused; and they harm no others."""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import NamedTuple

import pytest

import papyros
from tests.contract.jobs_for_tests import EndsTheProgramWhenUnpickled, Square, echo
from tests.contract.odd import (
    EndsAllError,
    Frozen,
    FrozenData,
    HasLock,
    HasTracebackError,
    IsDict,
    MadeWithArguments,
    ShowsNothing,
    ShowsNothingError,
    Slotted,
    SlottedAndMore,
    throw,
)
from tests.support import PATIENCE


def run(master, job):
    """Run a job; return it when it was popped, and another one after it."""
    master.addJob(job)
    popped = master.popProcessedJob(PATIENCE)
    assert popped is job
    master.addJob(Square(3))
    assert master.popProcessedJob(PATIENCE).result == 9
    return popped


def test_job_classes_may_have_ideas_of_their_own(make_master):
    master = make_master()
    for job in [Frozen(7), FrozenData(7), Slotted(6), SlottedAndMore(6), HasLock(5), MadeWithArguments(7)]:
        assert run(master, job).result == 7, type(job)
        assert run(master, job).result == 7, "and again"


def test_exceptions_may_have_ideas_of_their_own(make_master):
    master = make_master()
    job = run(master, throw(HasTracebackError, "a text"))
    assert type(job.exception) is HasTracebackError
    assert job.exception.args == ("a text",)
    assert type(run(master, throw(EndsAllError)).exception) is EndsAllError
    assert type(run(master, throw(ShowsNothingError)).exception) in (ShowsNothingError, papyros.RemoteError)


def test_instances_of_a_class_with_slots_come_back_from_where_the_class_came_by_value(make_master):
    @dataclasses.dataclass(slots=True)
    class Point:
        x: int

    @papyros.job
    def move(point):
        return Point(point.x + 1)

    master = make_master()
    assert run(master, move(Point(2))).result == Point(3)


def test_named_tuples_and_what_is_cached_go_where_their_classes_go_by_value(make_master):
    class Point(NamedTuple):
        x: int
        y: int = 5

        def norm(self):
            return self.x + self.y

    class Circle:
        def __init__(self, radius):
            self.radius = radius

        @functools.cached_property
        def area(self):
            return times_three(self.radius**2)

    @functools.cache
    def times_three(number):
        return 3 * number

    @papyros.job
    def move(point, circle):
        return Point(point.norm()), circle.area

    assert run(make_master(), move(Point(2), Circle(2))).result == (Point(7, 5), 12)


def test_an_object_that_can_be_called_makes_jobs(make_master):
    read_bits = papyros.job(functools.partial(int, base=2))
    assert run(make_master(), read_bits("101")).result == 5


def test_what_cannot_travel_is_refused_in_words(make_process_master):
    master = make_process_master()
    job = run(master, IsDict(number=3))
    assert type(job.exception) is papyros.PayloadError
    assert "IsDict cannot be pickled" in str(job.exception)
    assert "keep it in attributes" in str(job.exception)
    job = run(master, echo(EndsTheProgramWhenUnpickled()))
    assert type(job.exception) is papyros.PayloadError
    assert "SystemExit" in str(job.exception)


def test_a_job_that_cannot_be_shown_takes_no_time_limits_from_others():
    over = threading.Event()
    with papyros.MultiThreadedMaster(1) as master:
        for _ in range(2):
            job = ShowsNothing(over)
            job.timeout = 0.05
            master.addJob(job)
            assert type(master.popProcessedJob(PATIENCE).exception) is papyros.JobTimeout
        over.set()


def test_a_job_that_raises_once_its_master_is_closed_ends_the_pop_in_order():
    master = papyros.SingleThreadedMaster()

    @papyros.job
    def close_and_fail():
        thread = threading.Thread(target=master.close)
        thread.start()
        thread.join()
        raise ValueError("too late")

    master.addJob(close_and_fail())
    assert master.popProcessedJob(PATIENCE) is None


def test_a_call_that_is_async_is_refused_when_its_class_is_made():
    with pytest.raises(TypeError, match=r"Waits\.__call__ is async"):

        class Waits(papyros.Job):
            async def __call__(self):
                pass

    class Mixin:
        async def __call__(self):
            pass

    with pytest.raises(TypeError, match=r"Inherits\.__call__ is async"):

        class Inherits(Mixin, papyros.Job):
            pass

    with pytest.raises(TypeError, match="is async"):
        papyros.job(functools.partial(Mixin.__call__, None))
    with pytest.raises(TypeError, match="is async"):
        papyros.job(Mixin())


@papyros.job
def throw_the_same():
    """Raise one and the same exception each time, and tell how many frames it had before."""
    import tests.contract.odd as here

    error = here.__dict__.setdefault("_the_same", ValueError("the same"))
    frames, trace = 0, error.__traceback__
    while trace is not None:
        frames, trace = frames + 1, trace.tb_next
    error.args = (frames,)
    raise error


def test_the_frames_of_an_exception_that_is_raised_again_and_again_do_not_pile_up(make_process_master):
    master = make_process_master(slaves=1)
    for _ in range(3):
        assert run(master, throw_the_same()).exception.args == (0,)
