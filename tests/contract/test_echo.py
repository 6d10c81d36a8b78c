"""What jobs print and log reaches the terminal of the client that asked for it, line by line, each with its job."""

from __future__ import annotations

import io
import re
import sys
import threading

import pytest

import papyros
from tests.contract.jobs_for_tests import Square, print_for, say, say_bytes, wait_at, warn
from tests.support import PATIENCE, at_most, wait_until

pytestmark = pytest.mark.measured

PREFIX = r"\[{job} on [^\s/]+/\d+\] "


def processed(master, *jobs):
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(PATIENCE)) == set(jobs)
    assert [job.exception for job in jobs] == [None] * len(jobs)


def prefixed(job, line):
    return re.compile(f"^{PREFIX.format(job=re.escape(repr(job)))}{re.escape(line)}$", re.MULTILINE)


def assert_shown(capsys, *expected):
    """Each of these pairs of a job and a line is shown, once; returns all that was."""
    shown = ""

    def all_there():
        nonlocal shown
        shown += capsys.readouterr().out
        return all(prefixed(job, line).search(shown) for job, line in expected)

    wait_until(all_there, f"{expected} on the terminal", 10)
    for job, line in expected:
        assert len(prefixed(job, line).findall(shown)) == 1, shown
    return shown


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_prints_come_with_their_job_and_slave(make_process_master, capsys, stream):
    job = say("first", "second", stream=stream)
    processed(make_process_master(echo=True), job)
    shown = assert_shown(capsys, (job, "first"), (job, "second"))
    assert shown.index("first") < shown.index("second", shown.index("] first"))


def test_warnings_of_logging_come_with_their_job(make_process_master, capsys):
    job = warn("beware of the dog")
    processed(make_process_master(echo=True), job)
    assert_shown(capsys, (job, "beware of the dog"))


def test_the_slave_that_is_named_is_the_one_that_ran_the_job(make_process_master, capsys):
    job = say("here I am")
    processed(make_process_master(echo=True), job)
    shown = assert_shown(capsys, (job, "here I am"))
    assert f"on {job.slave}] here I am" in shown


def test_prints_of_many_jobs_are_kept_apart(make_process_master, capsys):
    jobs = [say(f"line {number} a", f"line {number} b") for number in range(40)]
    processed(make_process_master(echo=True), *jobs)
    assert_shown(capsys, *((job, line) for job in jobs for line in job.args))


def test_what_is_printed_while_a_job_runs_is_shown_while_it_runs(make_process_master, capsys):
    gate = make_process_master.gates()

    @papyros.job
    def talk_and_wait(path):
        print("I have begun")
        return wait_at.function(path)

    master = make_process_master(echo=True)
    job = talk_and_wait(gate.path)
    master.addJob(job)
    gate.wait_for_arrivals()
    assert_shown(capsys, (job, "I have begun"))
    assert master.popProcessedJob(0) is None
    gate.open()
    assert master.popProcessedJob(PATIENCE) is job


def test_a_line_without_an_end_is_shown_when_the_job_ends(make_process_master, capsys):
    @papyros.job
    def mumble():
        print("no end", end="")

    job = mumble()
    processed(make_process_master(echo=True), job)
    assert_shown(capsys, (job, "no end"))


def test_words_of_every_kind_are_shown(make_process_master, capsys):
    job = say("Grüße, 你好", "", "  indented", "x" * 300_000)
    processed(make_process_master(echo=True), job)
    assert_shown(capsys, (job, "Grüße, 你好"), (job, "  indented"), (job, "x" * 300_000))


def test_only_who_asks_sees_the_prints(make_process_master, capsys):
    asking, silent = make_process_master(echo=True), make_process_master()
    heard, unheard = say("to be heard"), say("not to be prefixed")
    processed(silent, unheard)
    processed(asking, heard)
    processed(silent, Square(1))
    shown = assert_shown(capsys, (heard, "to be heard"))
    assert "] not to be prefixed" not in shown + capsys.readouterr().out


def test_of_two_who_ask_each_sees_its_own(make_process_master, capsys):
    masters = [make_process_master(echo=True) for _ in range(2)]
    jobs = [say(f"of master {number}") for number in range(2)]
    for master, job in zip(masters, jobs, strict=True):
        processed(master, job)
    assert_shown(capsys, *((job, job.args[0]) for job in jobs))


def test_without_being_asked_for_prints_reach_the_terminal_plainly(capsys):
    with papyros.MultiProcessMaster(1) as master:
        processed(master, say("a plain line"), say("a plain complaint", stream="stderr"), warn("a plain warning"))
        out = err = ""

        def all_there():
            nonlocal out, err
            captured = capsys.readouterr()
            out, err = out + captured.out, err + captured.err
            return "a plain line\n" in out and "a plain complaint\n" in err and "a plain warning\n" in err

        wait_until(all_there, "the lines", 10)
    assert out == "a plain line\n"
    assert sorted(err.splitlines()) == ["a plain complaint", "a plain warning"]


def test_what_threads_of_a_job_print_is_shown_once(make_process_master, capsys):
    @papyros.job
    def talk_in_threads():
        def talk(name):
            for number in range(200):
                print(f"<{name}.{number}>")

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    processed(make_process_master(echo=True), talk_in_threads(), say("the end"))
    shown = ""

    def all_there():
        nonlocal shown
        shown += capsys.readouterr().out
        return all(f"<{name}.{number}>" in shown for name in range(4) for number in range(200))

    wait_until(all_there, "all on the terminal", 10)
    assert shown.count("<") == 800


@papyros.job
def spoil_streams(how):
    print("before")
    sys.stdout = sys.stderr = None if how == "none" else object()
    return how


@pytest.mark.parametrize("how", ["none", "object"])
def test_what_a_job_does_to_its_streams_is_its_own_affair(make_process_master, capsys, how):
    master = make_process_master(slaves=1, echo=True)
    spoiler, job = spoil_streams(how), say("after")
    processed(master, spoiler)
    assert spoiler.result == how
    processed(master, job)
    assert_shown(capsys, (spoiler, "before"), (job, "after"))


@papyros.job
def write_no_text():
    sys.stdout.write(b"bytes")


@papyros.job
def close_streams():
    with sys.stdout, sys.stderr:
        print("the last words")


@pytest.mark.parametrize("echo", [False, True])
def test_a_job_that_writes_no_text_or_closes_its_streams_harms_no_other(make_process_master, echo):
    master = make_process_master(slaves=1, echo=echo)
    refused = write_no_text()
    master.addJob(refused)
    assert master.popProcessedJob(PATIENCE) is refused
    assert type(refused.exception) is TypeError
    processed(master, close_streams())
    job = say("after")
    processed(master, job)
    assert job.slave == refused.slave


@pytest.mark.parametrize("echo", [False, True])
def test_a_job_may_write_bytes(make_process_master, capfd, echo):
    """As it may on the masters of threads: the standard streams have a buffer."""
    processed(make_process_master(echo=echo), say_bytes(b"raw bytes\n"))


@pytest.mark.parametrize("echo", [False, True])
def test_a_terminal_that_is_gone_does_not_end_anything(make_process_master, monkeypatch, echo):
    master = make_process_master(echo=echo)
    terminal = io.StringIO()
    terminal.close()
    monkeypatch.setattr(sys, "stdout", terminal)
    processed(master, *(say("into the void") for _ in range(5)))
    monkeypatch.undo()
    processed(master, Square(1))


@pytest.mark.parametrize("echo", [False, True])
def test_a_program_without_a_terminal_has_masters_all_the_same(make_process_master, monkeypatch, echo):
    """As a daemon's, whose standard streams are None."""
    master = make_process_master(echo=echo)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    processed(master, say("nobody hears"), say("nobody hears", stream="stderr"))
    monkeypatch.undo()
    processed(master, Square(1))


def test_a_job_that_prints_without_end_keeps_neither_its_time_limit_nor_other_jobs_from_being_heeded(
    make_process_master,
):
    """Its prints come faster than they can be shown, so that there are always more."""
    master = make_process_master(echo=True, slaves=2)
    flood, other = print_for(2 * PATIENCE, 1000), Square(3)
    flood.timeout = 1.0
    with at_most(PATIENCE / 2):
        master.addJob(flood)
        master.addJob(other)
        assert {master.popProcessedJob(PATIENCE), master.popProcessedJob(PATIENCE)} == {flood, other}
    assert isinstance(flood.exception, papyros.JobTimeout)
    assert other.result == 9
