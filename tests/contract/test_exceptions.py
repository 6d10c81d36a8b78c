"""A job that raises has an outcome like any other, and it tells where it raised."""

from __future__ import annotations

import linecache
import sys
import traceback

import pytest

import papyros
from tests.contract.jobs_for_tests import (
    DefaultedError,
    FrozenError,
    KeywordOnly,
    NoArgs,
    Square,
    StrangelyReducedError,
    TextAsArgs,
    TwoArguments,
    UnspeakableError,
    call,
    double,
    fail,
    fail_until,
    fail_visibly,
    fail_with_cause,
    starts,
)
from tests.support import PATIENCE, processed

SOURCE_LINE = 'raise ValueError(f"no luck with {number}")'


def printed(error):
    return "".join(traceback.format_exception(error))


def test_the_exception_is_raised_where_the_result_is_asked_for(make_master):
    job = processed(make_master(), fail_visibly(13))
    with pytest.raises(ValueError, match=r"^no luck with 13$") as caught:
        job.result
    assert caught.value is job.exception
    assert type(job.exception) is ValueError
    assert job.exception.args == ("no luck with 13",)


def test_the_traceback_text_shows_the_line_that_raised(make_master):
    job = processed(make_master(), fail_visibly(13))
    assert job.exception.traceback.startswith("Traceback (most recent call last):")
    assert SOURCE_LINE in job.exception.traceback
    assert job.exception.traceback.rstrip().endswith("ValueError: no luck with 13")


#: A cell of a notebook. There is no file of that name; IPython tells `linecache` what is in it.
CELL, IN_CELL = (
    "/tmp/ipykernel_1/a_cell.py",
    """
import papyros

@papyros.job
def share(cake):
    def cut():
        return cake / 0  # a crumb
    return cut()
""",
)


def test_the_traceback_shows_lines_of_a_notebook_of_which_there_is_no_file(make_master, monkeypatch):
    monkeypatch.setitem(linecache.cache, CELL, (len(IN_CELL), None, IN_CELL.splitlines(keepends=True), CELL))
    names = {"__name__": "__main__"}
    exec(compile(IN_CELL, CELL, "exec"), names)
    text = processed(make_master(), names["share"](1)).exception.traceback
    assert text.startswith(f'Traceback (most recent call last):\n  File "{CELL}", line 8, in share\n    return cut()\n')
    assert "return cake / 0  # a crumb\n" in text


def test_the_traceback_begins_with_the_function_of_which_the_job_was_made(make_master):
    lines = processed(make_master(), fail_visibly(13)).exception.traceback.splitlines()
    assert lines[1].endswith("in fail_visibly")
    assert sum(line.startswith("  File ") for line in lines) == 1


def test_what_python_prints_shows_the_line_that_raised(make_master):
    job = processed(make_master(), fail_visibly(13))
    with pytest.raises(ValueError) as caught:
        job.result
    assert SOURCE_LINE in printed(caught.value)


def test_on_process_masters_the_original_text_is_in_the_chain(make_process_master):
    job = processed(make_process_master(), fail_visibly(13))
    assert job.exception.traceback in printed(job.exception)
    assert job.exception.__cause__ is not None


def test_a_cause_is_shown(make_master):
    job = processed(make_master(), fail_with_cause())
    assert type(job.exception) is RuntimeError
    for text in (job.exception.traceback, printed(job.exception)):
        assert "KeyError: 'the first error'" in text
        assert "RuntimeError: the second error" in text


def test_the_line_of_a_local_function_is_shown(make_master):
    @papyros.job
    def local():
        raise LookupError("look here")  # marked line

    job = processed(make_master(), local())
    assert "# marked line" in job.exception.traceback


def test_looking_at_a_result_again_does_not_pile_up_frames(make_master):
    job = processed(make_master(), fail_visibly(1))
    depths = []
    for _ in range(5):
        try:
            job.result
        except ValueError as error:
            depths.append(len(traceback.extract_tb(error.__traceback__)))
    assert len(set(depths)) == 1


def test_an_exception_whose_constructor_takes_two_arguments_keeps_its_type(make_master):
    job = processed(make_master(), fail(TwoArguments, 404, "not found"))
    assert type(job.exception) is TwoArguments
    assert (job.exception.code, job.exception.reason) == (404, "not found")
    assert str(job.exception) == "404: not found"


def test_an_exception_whose_constructor_changes_its_text_keeps_its_text(make_master):
    job = processed(make_master(), fail(DefaultedError, 404, "not found"))
    assert type(job.exception) is DefaultedError
    assert str(job.exception) == "404 (not found)"
    assert job.exception.code == 404


def test_an_exception_that_pickles_itself_strangely_keeps_its_name_and_text(make_master):
    job = processed(make_master(), fail(StrangelyReducedError, "odd"))
    assert "StrangelyReducedError" in printed(job.exception)
    assert "odd" in str(job.exception)


@pytest.mark.parametrize("kind", [TextAsArgs, NoArgs])
def test_an_exception_whose_class_spoils_its_arguments_is_an_outcome(make_master, tmp_path, kind):
    master = make_master()
    job = processed(master, fail_until(str(tmp_path), "odd", 2, kind))
    assert kind.__name__ in printed(job.exception)
    assert len(starts(tmp_path, "odd")) == 1, "its slave is none the worse for it"


def test_an_exception_whose_constructor_takes_names_only_keeps_its_type(make_master):
    @papyros.job
    def fail_by_name():
        raise KeywordOnly(code=5)

    job = processed(make_master(), fail_by_name())
    assert type(job.exception) is KeywordOnly
    assert job.exception.code == 5


def test_an_exception_of_a_local_class_keeps_its_name_and_text(make_master):
    class LocalError(Exception):
        pass

    job = processed(make_master(), fail(LocalError, "from here"))
    assert type(job.exception).__name__ == "LocalError"
    assert str(job.exception) == "from here"


def test_an_exception_without_words_is_an_outcome(make_master):
    master = make_master()
    job = processed(master, fail(UnspeakableError))
    assert type(job.exception) is UnspeakableError
    assert "UnspeakableError" in job.exception.traceback
    assert processed(master, Square(2)).result == 4


def test_an_exception_that_refuses_attributes_is_an_outcome(make_master):
    master = make_master()
    job = processed(master, fail(FrozenError, "cold"))
    # Threads hand over the object itself; elsewhere a stand-in is as good, if it tells the name.
    if make_master.in_process:
        assert type(job.exception) is FrozenError
    assert "FrozenError" in printed(job.exception)
    assert processed(master, Square(2)).result == 4


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_what_would_end_a_program_does_not_end_a_slave(make_master, kind):
    master = make_master()
    for _ in range(3):
        job = processed(master, fail(kind, "out"))
        assert type(job.exception) is kind
        assert job.exception.args == ("out",)
        with pytest.raises(kind):
            job.result
    assert processed(master, Square(3)).result == 9


def test_sys_exit_is_an_outcome_with_its_code(make_master):
    job = processed(make_master(), call(sys.exit, 3))
    assert type(job.exception) is SystemExit
    assert job.exception.code == 3


def test_running_out_of_stack_is_an_outcome(make_master):
    @papyros.job
    def dive(depth):
        def deeper(depth):
            return deeper(depth + 1)

        return deeper(depth)

    master = make_master()
    assert type(processed(master, dive(0)).exception) is RecursionError
    assert processed(master, double(4)).result == 8


def test_an_exception_group_keeps_its_parts(make_master):
    @papyros.job
    def fail_twice():
        raise ExceptionGroup("both", [ValueError("one"), KeyError("two")])

    job = processed(make_master(), fail_twice())
    assert [type(part) for part in job.exception.exceptions] == [ValueError, KeyError]
    assert "ValueError: one" in job.exception.traceback


def test_notes_on_an_exception_are_kept(make_master):
    @papyros.job
    def fail_with_note():
        error = ValueError("bad")
        error.add_note("mind the gap")
        raise error

    job = processed(make_master(), fail_with_note())
    assert job.exception.__notes__ == ["mind the gap"]
    assert "mind the gap" in printed(job.exception)


def test_wrong_arguments_are_an_outcome(make_master):
    job = processed(make_master(), Square(1, 2, 3))
    assert type(job.exception) is TypeError
    assert "positional argument" in str(job.exception)


def test_an_exception_does_not_disturb_other_jobs(make_master):
    master = make_master()
    jobs = [fail_visibly(number) if number % 3 else Square(number) for number in range(30)]
    for job in jobs:
        master.addJob(job)
    assert len(master.processedJobs(PATIENCE)) == 30
    assert [job.exception is None for job in jobs] == [number % 3 == 0 for number in range(30)]
