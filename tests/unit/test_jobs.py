"""Jobs by themselves, without a master."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest

import papyros
from papyros.errors import PendingJobError, UnprocessedJobError
from papyros.keeping import check_job, claim, keeper_of, release, settle, user_state
from papyros.outcome import Outcome
from tests.contract.jobs_for_tests import ForgetsSuper, Scaled, Square, double, urgent
from tests.support import at_most


class Unspeakable:
    def __repr__(self):
        raise RuntimeError("no words")


class Abstract(papyros.Job):
    """Overrides nothing."""


def test_making_a_job_runs_nothing():
    ran = []
    job = papyros.job(ran.append)(1)
    assert ran == []
    assert job.args == (1,)
    assert job.kwds == {}


def test_a_job_can_be_called_here_and_now():
    assert Square(0)(7) == 49
    assert double.function(4) == 8
    assert double(1)(5) == 10


def test_its_repr_shows_its_arguments():
    assert repr(Square(12)) == "Square(12)"
    assert repr(double(number="x")) == "double(number='x')"
    assert repr(papyros.Job(1, "two", three=[3])) == "Job(1, 'two', three=[3])"


@pytest.mark.parametrize(
    "argument",
    [
        "x" * 10_000,
        b"x" * 10_000,
        list(range(10_000)),
        {n: n for n in range(10_000)},
        10**3000,
        [["x" * 999] * 99] * 99,
    ],
    ids=["str", "bytes", "list", "dict", "int", "nested"],
)
def test_its_repr_shortens_long_arguments(argument):
    assert len(repr(Square(argument, named=argument))) < 5000


@pytest.mark.parametrize(
    "argument",
    [Unspeakable(), [Unspeakable()], {1: Unspeakable()}, 10**5000, [10**5000]],
    ids=lambda a: type(a).__name__,
)
def test_its_repr_never_raises(argument):
    """It is in every message about the job; an integer can be too long to be shown, too."""
    assert repr(Square(argument)).startswith("Square(")


def test_an_error_that_names_a_job_is_that_error_whatever_its_repr_raises():
    class Shy(Square):
        def __repr__(self):
            raise RuntimeError("no words for this")

    job, master = Shy(1), papyros.SingleThreadedMaster()
    with pytest.raises(UnprocessedJobError, match="a Shy has no result yet"):
        _ = job.result
    master.addJob(job)
    with pytest.raises(PendingJobError, match="a Shy is pending already"):
        master.addJob(job)


def test_its_repr_works_before_init():
    assert repr(Square.__new__(Square)) == "Square()"
    assert repr(ForgetsSuper(1)) == "ForgetsSuper()"


def test_jobs_are_told_apart_by_identity():
    first, second = Square(1), Square(1)
    assert first != second
    assert len({first, second, first}) == 2


def test_an_unprocessed_job_says_so():
    job = Square(3)
    for name in ("result", "exception", "slave", "seconds"):
        with pytest.raises(papyros.UnprocessedJobError, match=r"Square\(3\) has no result yet") as caught:
            getattr(job, name)
        assert isinstance(caught.value, RuntimeError)


def test_an_unprocessed_job_has_attributes_to_hasattr():
    # UnprocessedJobError is no AttributeError, so that it is not swallowed where somebody probes.
    with pytest.raises(papyros.UnprocessedJobError):
        hasattr(Square(3), "result")


def test_a_function_becomes_a_job_class_of_its_name():
    assert issubclass(double, papyros.Job)
    assert issubclass(double, papyros.FunctionJob)
    assert double.__name__ == double.__qualname__ == "double"
    assert double.__module__ == "tests.contract.jobs_for_tests"
    assert double.__doc__ == "Return twice the number."


def test_options_become_class_attributes_that_an_instance_may_override():
    assert urgent.priority == 7
    assert double.priority == papyros.Job.priority == 0
    job = urgent(1)
    job.priority = 2
    assert (job.priority, urgent.priority) == (2, 7)


def test_parentheses_without_options_are_fine():
    @papyros.job()
    def plain(number):
        return number

    assert issubclass(plain, papyros.Job)
    assert plain(3)(3) == 3


@pytest.mark.parametrize("option", ["prioritty", "args", "result", "__call__", "function"])
def test_an_unknown_option_is_refused_at_once(option):
    with pytest.raises(TypeError, match=option):
        papyros.job(**{option: 1})


@pytest.mark.parametrize("thing", [5, "name", []])
def test_what_cannot_be_called_becomes_no_job(thing):
    with pytest.raises(TypeError, match="makes a job of a function"):
        papyros.job(thing)


def test_what_is_a_job_class_already_becomes_none():
    for decorate in (papyros.job, papyros.job(timeout=60)):
        with pytest.raises(TypeError, match="Square is a class of jobs already: its options are attributes"):
            decorate(Square)
        with pytest.raises(TypeError, match="double is a class of jobs already"):
            decorate(double)


def test_an_async_function_becomes_no_job():
    async def fetch(url):
        """Nothing would ever run this."""

    async def follow(url):
        yield url

    for function in fetch, functools.partial(fetch, "there"), follow:
        with pytest.raises(TypeError, match=r"call of it would run nothing: .* asyncio.run\(.*\(...\)\)"):
            papyros.job(function)


def test_a_generator_becomes_no_job():
    """In one thread it would run in the program that reads its result, and in processes not at all."""

    def count(bound):
        yield from range(bound)

    for function in count, functools.partial(count, 3):
        with pytest.raises(TypeError, match=r"has a yield, .*: have it return a list"):
            papyros.job(function)
    with pytest.raises(TypeError, match=r"Count.__call__ has a yield"):

        class Count(papyros.Job):
            def __call__(self, bound):
                yield from range(bound)


def test_named_arguments_may_have_any_name():
    @papyros.job
    def named(**names):
        return sorted(names)

    job = named(self=1, function=2, args=3, priority=4)
    assert job(*job.args, **job.kwds) == ["args", "function", "priority", "self"]


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda job: pickle.loads(pickle.dumps(job))])
def test_a_copy_is_a_new_job_unprocessed_and_pending_nowhere(clone):
    job = Scaled([1])
    job.scale = 2
    settle(job, Outcome("done"))
    assert claim(job, object())
    twin = clone(job)
    assert twin.args == ([1],)
    assert twin.scale == 2
    assert keeper_of(twin) is None
    with pytest.raises(papyros.UnprocessedJobError):
        twin.result


def test_a_subclass_may_have_an_init_of_its_own():
    class Power(papyros.Job):
        def __init__(self, base, exponent=2):
            super().__init__(base, exponent)
            self.name = f"{base}^{exponent}"

        def __call__(self, base, exponent):
            return base**exponent

    job = Power(3)
    check_job(job)
    assert job.args == (3, 2)
    assert user_state(job) == {"name": "3^2"}


def test_what_is_no_job_is_refused_with_a_hint():
    for candidate, hint in [
        (5, "only jobs can be added"),
        (Square, r"did you mean Square\(\.\.\.\)\?"),
        (len, r"@papyros\.job makes a job class of a function"),
        (papyros.Job(), "does not override __call__"),
        (Abstract(1), "Abstract does not override __call__"),
        (ForgetsSuper(1), "does not call Job.__init__"),
    ]:
        with pytest.raises(papyros.NotAJobError, match=hint) as caught:
            check_job(candidate)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, papyros.PapyrosError)


def test_calling_an_abstract_job_says_what_is_missing():
    with pytest.raises(papyros.NotAJobError, match="Abstract does not override __call__"):
        Abstract(1)()


def test_a_function_job_without_a_function_is_abstract():
    with pytest.raises(papyros.NotAJobError):
        check_job(papyros.FunctionJob(1))


def test_a_job_has_one_keeper_at_a_time():
    job, first, second = Square(1), object(), object()
    assert keeper_of(job) is None
    assert claim(job, first)
    assert not claim(job, second)
    assert keeper_of(job) is first
    release(job)
    assert claim(job, second)
    settle(job, Outcome(5))
    assert keeper_of(job) is None
    assert job.result == 5


def test_what_a_user_sets_is_told_from_what_a_job_keeps():
    job = Square(1)
    assert user_state(job) is None
    claim(job, object())
    settle(job, Outcome(1))
    assert user_state(job) is None
    job.scale = 2
    assert user_state(job) == {"scale": 2}


def test_the_flat_face_has_all_that_it_promises():
    assert len(set(papyros.__all__)) == len(papyros.__all__)
    assert set(papyros.__all__) <= set(dir(papyros))
    with pytest.raises(AttributeError, match="no attribute 'Slave'"):
        papyros.Slave


def test_each_error_is_a_papyros_error_with_words_of_its_own():
    from papyros import errors

    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, papyros.PapyrosError)
        assert error.__doc__
        assert error.__doc__ is not papyros.PapyrosError.__doc__ or error is papyros.PapyrosError


def test_each_error_survives_a_pickle():
    from papyros import errors

    for name in errors.__all__:
        error = getattr(errors, name)("some text")
        twin = pickle.loads(pickle.dumps(error))
        assert type(twin) is type(error)
        assert str(twin) == str(error)
    stand_in = pickle.loads(pickle.dumps(papyros.RemoteError("text", "module.Kind")))
    assert (str(stand_in), stand_in.type_name) == ("module.Kind: text", "module.Kind")


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_its_repr_of_very_long_bytes_is_short_and_takes_no_time(kind):
    job = Square(kind(100 << 20))
    with at_most(0.3):  # of all of it, the text would be 400 MB
        text = repr(job)
    assert len(text) < 250
    assert "104,857,600 bytes" in text
