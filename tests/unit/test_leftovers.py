"""What programs print that end without having popped their jobs."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

ADDS = """
    import sys
    import papyros

    @papyros.job
    def double(number):
        return 2 * number

    master = papyros.{kind}({arguments})
    for number in range(3):
        master.addJob(double(number))
    {then}
"""
KINDS = [("SingleThreadedMaster", ""), ("MultiThreadedMaster", "1"), ("MultiProcessMaster", "1")]


def printed(kind, then):
    program = textwrap.dedent(ADDS.format(kind=kind[0], arguments=kind[1], then=then))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_ends_with_jobs_pending_says_so_in_one_line(kind):
    [line] = printed(kind, "").splitlines()
    assert line.startswith(f"a {kind[0]} ends with 3 jobs pending, added and not popped")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("then", ["master.processedJobs()", "master.cancelAllJobs()"])
def test_nothing_is_said_where_nobody_waits_for_anything(kind, then):
    assert printed(kind, then) == ""


@pytest.mark.parametrize("then", ["master.close(); sys.exit()", "del master; sys.exit()"])
def test_what_has_been_said_is_not_said_again_at_the_end(then):
    assert len(printed(KINDS[0], then).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_fails_says_why_and_nothing_else(kind):
    lines = printed(kind, "1 / 0").splitlines()
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "pending" not in "".join(lines)


def test_an_interactive_session_tells_of_jobs_though_a_line_of_it_has_failed():
    """Such a line does not end it, and so does not say why jobs are left."""
    session = """
        import papyros
        master = papyros.SingleThreadedMaster()
        1 / 0
        master.addJob(papyros.job(abs)(3))
    """
    done = subprocess.run(
        [sys.executable, "-q", "-i"],
        input=textwrap.dedent(session),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert done.stderr.count("a SingleThreadedMaster ends with 1 job pending, added and not popped") == 1


def test_a_forked_child_says_nothing_of_what_is_its_parents():
    then = "import os; pid = os.fork(); pid and (os.waitpid(pid, 0), master.processedJobs())"
    assert printed(KINDS[0], then) == ""
