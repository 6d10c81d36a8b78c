"""Outcomes, and what is printed of an exception that was raised elsewhere."""

from __future__ import annotations

import sys
import traceback
import types

import pytest

import papyros
from papyros.jobs import result_of
from papyros.outcome import Outcome, describe_exception
from papyros.running import run_job
from tests.contract.jobs_for_tests import FrozenError, Square, UnspeakableError, fail, fail_visibly

pytestmark = pytest.mark.compiled


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_result_is_returned():
    assert result_of(Outcome([1])) == [1]
    assert result_of(Outcome(None)) is None
    assert result_of(Outcome(ValueError("a value"))).args == ("a value",)


def test_an_exception_is_raised_each_time_and_its_frames_do_not_pile_up():
    outcome = Outcome.failed(raised(KeyError("k")))
    depths = []
    for _ in range(4):
        with pytest.raises(KeyError) as caught:
            result_of(outcome)
        assert caught.value is outcome.exception
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(depths)) == 1


def test_the_text_of_the_traceback_is_on_the_exception():
    outcome = Outcome.failed(raised(KeyError("k")), "host/1", 0.5)
    assert outcome.exception.traceback == outcome.traceback
    assert outcome.traceback.startswith("Traceback (most recent call last):")
    assert "raise error" in outcome.traceback
    assert (outcome.slave, outcome.seconds) == ("host/1", 0.5)


def test_an_exception_of_elsewhere_prints_the_text_it_came_with():
    outcome = Outcome.failed_elsewhere(KeyError("k"), "Traceback: far away\n", "host/1")
    assert outcome.exception.traceback == "Traceback: far away\n"
    assert "Traceback: far away" in describe_exception(outcome.exception)
    with pytest.raises(KeyError) as caught:
        result_of(outcome)
    assert "Traceback: far away" in describe_exception(caught.value)


@pytest.mark.parametrize("make", [Outcome.failed, lambda error: Outcome.failed_elsewhere(error, "far away")])
def test_an_exception_that_refuses_attributes_is_an_outcome_all_the_same(make):
    outcome = make(raised(FrozenError("cold")))
    with pytest.raises(FrozenError):
        result_of(outcome)


def test_an_exception_without_words_can_be_described():
    text = describe_exception(raised(UnspeakableError()))
    assert "UnspeakableError" in text
    assert "raise error" in text


def test_an_exception_whose_words_end_the_program_can_be_described():
    class Exiting(Exception):
        def __str__(self):
            raise SystemExit(1)

    assert "Exiting" in describe_exception(raised(Exiting()))


def test_running_a_job_times_it_and_names_the_slave():
    outcome = run_job(Square(6), "me")
    assert (outcome.value, outcome.exception, outcome.slave) == (36, None, "me")
    assert outcome.seconds >= 0


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, FrozenError])
def test_running_a_job_catches_whatever_it_raises(kind):
    outcome = run_job(fail(kind, "x"), "me")
    assert type(outcome.exception) is kind
    assert "raise kind(*args)" in outcome.traceback


def test_a_traceback_begins_with_the_job_and_not_with_who_runs_it():
    outcome = run_job(fail_visibly(1), "me")
    assert "running.py" not in outcome.traceback
    assert "this very line is looked for" in outcome.traceback


def test_a_stand_in_tells_what_it_stands_for():
    error = papyros.RemoteError("some text", "module.Kind")
    assert str(error) == "module.Kind: some text"
    assert error.type_name == "module.Kind"


@pytest.mark.pure  # where this is compiled, it keeps hold of the module that it has imported once
@pytest.mark.parametrize("module", [None, types.ModuleType("traceback")], ids=["none", "another"])
def test_an_exception_is_told_also_where_what_describes_it_cannot_be_loaded_any_more(monkeypatch, module):
    """A job has left no file descriptor for that, say, or has a module of that name."""
    monkeypatch.setitem(sys.modules, "traceback", module)
    outcome = run_job(fail_visibly(1), "me")
    first, *frames, last = outcome.traceback.splitlines()
    assert first == "Traceback (most recent call last):"
    assert frames
    assert all(frame.startswith('  File "') for frame in frames)
    assert "in fail_visibly" in frames[0]
    assert last == f"{type(outcome.exception).__qualname__}: {outcome.exception}"
