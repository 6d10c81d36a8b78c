"""The slaves of this machine, fed by a source that the test holds in its hands."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

import papyros
from papyros import hiring, limits, process
from papyros.crew import Crew
from papyros.deadlines import LOOK_SECONDS
from papyros.jobs import result_of
from papyros.pace import AHEAD_BYTES
from papyros.tasks import CrewOptions
from papyros.wire import MAX_PAYLOAD_BYTES
from tests.contract import vandals
from tests.contract.jobs_for_tests import (
    Square,
    double,
    end_slave,
    hang,
    leave_children,
    note_start,
    starts,
    wait_and_note,
    where,
)
from tests.support import PATIENCE, Background, at_most, wait_until
from tests.unit.crews import FakeSource, crew_of

pytestmark = [pytest.mark.compiled, pytest.mark.measured]


@pytest.fixture
def source():
    return FakeSource()


@papyros.job
def note(folder, name, seconds=0.0):
    note_start(folder, name)
    time.sleep(seconds)
    return name


@papyros.job
def note_and_stop(folder, name, stop):
    note_start(folder, name)
    if stop:
        os.kill(os.getpid(), signal.SIGSTOP)
    return name


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def test_a_crew_knows_how_many_tasks_have_ended_of_which_their_slaves_have_not_told(source, tmp_path):
    with crew_of(source, 1) as crew:
        known = 0
        while crew._feeder.pace.target < 11:  # until they are known to be quick, so that so many are given ahead
            source.add(known, note_and_stop(tmp_path, "known", False))
            source.wait_for_outcomes(known := known + 1)
        assert crew.ended() == 0
        with source.lock:  # all at a time
            for position in range(11):
                source.add(known + position, note_and_stop(tmp_path, "stop", position == 1))
        crew.poke()
        wait_until(lambda: len(starts(tmp_path, "stop")) == 2, "one stops its slave")
        # Where that took for ever, the slave has told meanwhile.
        wait_until(lambda: crew.ended() + len(source.outcomes) == known + 1, "one has ended before")
        begun = crew.recall()
        with source.lock:
            assert sorted([*source.outcomes, *begun]) == list(range(known + 2)), "what has ended is not given back"
        [view] = crew.views()
        os.waitid(os.P_PID, view.pid, os.WSTOPPED)  # it may be about to stop itself only
        os.kill(view.pid, signal.SIGCONT)
        source.wait_for_outcomes(known + 11)
        assert crew.ended() == 0


def test_every_task_is_finished_once_by_slaves_that_are_processes(source):
    with crew_of(source, 2) as crew:
        assert crew.wait_ready(PATIENCE)
        pids = {view.pid for view in crew.views()}
        assert len(pids) == 2
        for number in range(200):
            source.add(number, Square(number))
        source.wait_for_outcomes(200)
    assert [result_of(source.outcomes[number]) for number in range(200)] == [number**2 for number in range(200)]
    assert set(source.finishes.values()) == {1}
    assert {int(slave.rpartition("/")[2]) for slave in source.slaves.values()} <= pids
    assert all(gone(pid) for pid in pids)
    assert source.deaths == source.late == source.reasons == []


def test_a_definition_is_sent_once_to_each_slave(source):
    with crew_of(source, 2):
        for number in range(100):
            source.add(number, Square(number))
            source.add(1000 + number, double(number))
        source.wait_for_outcomes(200)
    assert len(source.defined) == 2
    assert max(source.defined.values()) <= 2


def test_a_slave_that_replaces_another_is_sent_the_definitions_again(source, tmp_path):
    with crew_of(source, 1):
        source.add(1, Square(2))
        source.wait_for_outcomes(1)
        source.add(2, end_slave(str(tmp_path), "job", "kill"))
        source.wait_for(lambda: source.deaths, "the death")
        source.add(3, Square(3))
        source.wait_for_outcomes(2)
    assert result_of(source.outcomes[3]) == 9
    assert max(source.defined.values()) == 2


def test_under_a_storm_of_recalls_no_task_is_lost_and_none_is_run_twice(source, tmp_path):
    """Quick jobs, which are sent many ahead, and a few longer ones that hold a slave up."""
    stop = threading.Event()
    total = 400

    def storm():
        recalls = 0
        while not stop.is_set():
            source.crew.recall()
            recalls += 1
        return recalls

    with crew_of(source, 2) as crew:
        assert crew.wait_ready(PATIENCE)
        storms = [Background(storm) for _ in range(2)]
        try:
            for number in range(total):
                source.add(number, note(str(tmp_path), f"job{number}", 0.02 if number % 20 == 7 else 0.0))
            source.wait_for_outcomes(total)
        finally:
            stop.set()
        recalls = sum(each.result() for each in storms)
    assert recalls > 50
    assert source.given_back, "nothing was ever recalled"
    assert set(source.finishes.values()) == {1}
    assert {result_of(source.outcomes[number]) for number in range(total)} == {
        f"job{number}" for number in range(total)
    }
    marks = [path.name.split(".")[0] for path in tmp_path.iterdir()]
    assert sorted(marks) == sorted(f"job{number}" for number in range(total)), "a task was run twice"


def test_an_idle_slave_gets_what_another_one_has_not_started(source, tmp_path):
    gates = [tmp_path / "gate-0"]
    with crew_of(source, 2) as crew:
        assert crew.wait_ready(PATIENCE)
        for number in range(300):  # quick ones, so that some are sent ahead from now on
            source.add(number, Square(number))
        source.wait_for_outcomes(300)
        source.add("long", wait_and_note(str(tmp_path), "long", str(gates[0])))
        for number in range(1000, 1300):
            source.add(number, Square(number))
        source.wait_for(lambda: all(number in source.outcomes for number in range(1000, 1300)), "all others")
        assert "long" not in source.outcomes
        gates[0].touch()
        source.wait_for_outcomes(601)
    assert set(source.finishes.values()) == {1}


def test_draining_gives_back_what_was_not_started_and_lets_the_rest_end(source, tmp_path):
    gate = tmp_path / "gate"
    with crew_of(source, 2) as crew:
        for number in range(2):
            source.add(number, wait_and_note(str(tmp_path), f"job{number}", str(gate)))
        wait_until(lambda: all(starts(tmp_path, f"job{number}") for number in range(2)), "both to run")
        for number in range(10, 20):
            source.add(number, Square(number))
        assert crew.drain(0.05) is False
        draining = Background(crew.drain)
        gate.touch()
        assert draining.result() is True
        assert sorted(source.outcomes) == [0, 1]
        assert len(source.waiting) == 10, "nothing new is begun"
        assert all(not reason for _, reason in source.given_back)


def test_an_idle_crew_is_drained_at_once(source):
    with crew_of(source, 2) as crew, at_most(5):
        assert crew.drain(PATIENCE) is True
        assert crew.drain(PATIENCE) is True


@pytest.mark.pure
def test_who_waits_for_the_end_of_a_drain_looks_up_again_and_again_for_a_signal(source):
    """One that comes just as a wait begins ends no wait: it is heard once that is over."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread, and the tests run in another one")

    waits = []

    class Late(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return len(waits) == 3

    crew = Crew(1, source, CrewOptions(MAX_PAYLOAD_BYTES, sys.path))
    crew._loop._runner = threading.current_thread()
    crew._drained = Late()
    assert crew.drain(PATIENCE) is True
    assert all(timeout is not None and timeout <= LOOK_SECONDS for timeout in waits)
    assert len(waits) == 3


class Interrupted(threading.Thread):
    """A thread whose start is interrupted by Ctrl-C: before it has begun, or while whoever starts it waits for that."""

    moments: ClassVar = []
    started: ClassVar = []

    def start(self):
        moment = self.moments.pop(0) if self.moments and self.name == "papyros-crew" else None
        if moment == "before":
            raise KeyboardInterrupt
        super().start()
        if self.name == "papyros-crew":
            self.started.append(self)
        if moment == "after":
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch):
    monkeypatch.setattr(threading, "Thread", Interrupted)
    monkeypatch.setattr(Interrupted, "started", [])

    def at(*moments):
        monkeypatch.setattr(Interrupted, "moments", list(moments))

    yield at
    for thread in Interrupted.started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("moments", [["before"], ["after"], ["before", "after"]], ids="-".join)
def test_a_crew_whose_start_was_interrupted_is_started_when_that_is_called_again(source, interrupted, moments):
    """And only one thread looks after the slaves then."""
    interrupted(*moments)
    crew = Crew(1, source, CrewOptions(MAX_PAYLOAD_BYTES, sys.path))
    try:
        for _ in moments:
            with pytest.raises(KeyboardInterrupt):
                crew.start()
        crew.start()
        source.add(1, Square(3))
        crew.poke()
        source.wait_for_outcomes(1)
        assert [thread.name for thread in threading.enumerate()].count("papyros-crew") == 1
    finally:
        crew.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crew_whose_start_was_interrupted_can_be_closed(source, interrupted, moment):
    interrupted(moment)
    crew = Crew(1, source, CrewOptions(MAX_PAYLOAD_BYTES, sys.path))
    with pytest.raises(KeyboardInterrupt):
        crew.start()
    with at_most(10):
        crew.close()
        assert crew.wait_ready(PATIENCE), "nobody is to wait for what will not come"
        assert crew.drain(PATIENCE)
        crew.recall()
    crew.start()
    assert not crew.views()


def test_two_threads_of_a_crew_whose_start_was_interrupted_do_not_share_its_slaves(source, interrupted):
    """The first one may have been started, and begin only after the second."""
    interrupted()
    crew = Crew(1, source, CrewOptions(MAX_PAYLOAD_BYTES, sys.path))
    crew.start()
    late = Background(crew._loop._serve)
    late.result()
    source.add(1, Square(3))
    crew.poke()
    source.wait_for_outcomes(1)
    crew.close()
    Background(crew._loop._serve).result()


def test_closing_gives_back_all_and_tells_apart_what_was_started(source, tmp_path):
    with crew_of(source, 2) as crew:
        for number in range(2):
            source.add(number, hang(str(tmp_path), f"job{number}", "sleep"))
        wait_until(lambda: all(starts(tmp_path, f"job{number}") for number in range(2)), "both to run")
        pids = [view.pid for view in crew.views()]
        source.closed = True
        with at_most(10):
            crew.close()
        crew.close()
    assert {tag for tag, reason in source.given_back if "was stopped with its host" in reason} == {0, 1}
    assert all(gone(pid) for pid in pids)
    assert source.deaths == [], "nobody is charged"


def test_a_crew_that_is_closed_in_the_midst_of_its_feeding_ends_when_that_is_over(tmp_path):
    """In a handler of a signal, which interrupts whoever has added a job: its thread waits for the end of this."""

    class Closing(FakeSource):
        feeds = None

        def take(self, limit):
            if self.feeds is threading.current_thread():
                with at_most(5):
                    self.crew.close()
                self.closed = True
            return super().take(limit)

    source = Closing()
    with crew_of(source, 1) as crew:
        wait_until(lambda: crew.may_be_fed, "a slave that has nothing to do")
        pids = [view.pid for view in crew.views()]
        source.feeds = threading.current_thread()
        with at_most(10):
            crew.feed()
        assert not [thread for thread in threading.enumerate() if thread.name == "papyros-crew"]
        assert all(gone(pid) for pid in pids)


def test_what_is_asked_of_a_crew_that_has_ended_is_done_at_once(source):
    with crew_of(source, 1) as crew:
        source.add(1, Square(2))
        source.wait_for_outcomes(1)
        crew.close()
        with at_most(1):
            crew.recall()
            crew.cancel([1])
            crew.tell(1, b"")
            crew.unshare([])
            assert crew.drain(PATIENCE)
    assert source.given_back == []


@pytest.mark.parametrize("argument", [2, bytes(1 << 23)], ids=["small", "large"])
@pytest.mark.parametrize("slaves", [1, 2])
def test_a_slave_that_is_stopped_between_two_jobs_is_replaced_and_nobody_charged(source, monkeypatch, slaves, argument):
    monkeypatch.setattr(limits, "DEAF_LOOK_SECONDS", 0.4)
    with crew_of(source, slaves) as crew:
        assert crew.wait_ready(PATIENCE)
        pids = [view.pid for view in crew.views()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for number in range(10):
            source.add(number, double(argument))
        source.wait_for_outcomes(10)
        wait_until(lambda: all(map(gone, pids)), "those that were stopped to be gone")
    assert source.deaths == []
    assert set(source.finishes.values()) == {1}


def test_a_job_that_wipes_out_its_traces_and_hangs_is_charged(source, monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "DEAF_LOOK_SECONDS", 0.2)
    with crew_of(source, 1):
        source.add("vandal", vandals.spoil(str(tmp_path), "vandal", "wipe_and_hang"))
        source.wait_for(lambda: source.deaths, "it to be charged")
    assert len(starts(tmp_path, "vandal")) == 1


def test_a_crew_is_ready_though_one_of_its_slaves_cannot_be_started(source, monkeypatch, tmp_path):
    monkeypatch.setattr("papyros.hiring.HIRE_AGAIN_SECONDS", 0.01)
    first, go = str(tmp_path / "first"), tmp_path / "go"
    others = f"""
import os, time
try:
    os.close(os.open({first!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    os._exit(1)
"""
    monkeypatch.setattr("papyros.process.PROGRAM", others + process.PROGRAM)
    with crew_of(source, 2) as crew:
        wait_until(lambda: any(view.ready for view in crew.views()), "the first of them")
        go.touch()
        assert crew.wait_ready(PATIENCE)
        source.add("one", Square(3))
        source.wait_for_outcomes(1)
    assert source.reasons == []


def test_slaves_that_die_while_they_start_are_tried_again_while_others_work(source, monkeypatch, tmp_path):
    monkeypatch.setattr("papyros.hiring.HIRE_AGAIN_SECONDS", 0.01)
    tries = tmp_path / "tries"
    with crew_of(source, 2) as crew:
        assert crew.wait_ready(PATIENCE)
        with monkeypatch.context() as patch:
            patch.setattr("papyros.process.PROGRAM", f"open({str(tries)!r}, 'a').write('x'); import os; os._exit(1)")
            os.kill(crew.views()[0].pid, signal.SIGKILL)
            wait_until(
                lambda: tries.exists() and tries.stat().st_size > hiring.MAX_FALSE_STARTS + 1,
                "it to be tried again",
            )
            source.add("one", Square(3))
            source.wait_for_outcomes(1)
        wait_until(lambda: [view.ready for view in crew.views()] == [True, True], "one that starts")
    assert source.reasons == []


def test_a_slave_is_left_alone_while_its_job_takes_long(source, monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "DEAF_LOOK_SECONDS", 0.01)
    with crew_of(source, 1) as crew:
        source.add("long", note(str(tmp_path), "long", 1.0))
        source.add("next", note(str(tmp_path), "next"))
        source.wait_for_outcomes(2)
        assert len(crew.views()) == 1
    assert len(starts(tmp_path, "long")) == len(starts(tmp_path, "next")) == 1


def test_the_views_tell_who_runs_what(source, tmp_path):
    with crew_of(source, 1) as crew:
        source.add("tag", hang(str(tmp_path), "job", "sleep"))
        [view] = wait_until(lambda: [view for view in crew.views() if view.tag == "tag"], "the task to be seen")
        [(_, pid)] = wait_until(lambda: starts(tmp_path, "job"), "it to run")
        assert view.pid == pid
        assert view.name.endswith(f"/{pid}")
        assert 0 <= view.seconds < PATIENCE


# Deaths -------------------------------------------------------------------------------------


def test_only_the_task_that_ran_is_charged_and_the_others_are_run_elsewhere(source, tmp_path):
    with crew_of(source, 1):
        for number in range(100):
            source.add(number, Square(number))
        source.add("ender", end_slave(str(tmp_path), "ender", "kill"))
        for number in range(100, 200):
            source.add(number, Square(number))
        source.wait_for_outcomes(200)
    [(tag, death)] = source.deaths
    assert tag == "ender"
    assert death.cause == "was killed by SIGKILL"
    assert death.lines == ("the last words of ender",)
    assert death.slave.endswith(f"/{starts(tmp_path, 'ender')[0][1]}")
    assert set(source.finishes.values()) == {1}


@pytest.mark.parametrize("how", ["child", "session"])
def test_what_a_slave_started_is_swept_up_when_it_dies(source, tmp_path, how):
    with crew_of(source, 1) as crew:
        source.add(1, leave_children(str(tmp_path), how))
        child = int(wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "child"))
        try:
            [view] = crew.views()
            os.kill(view.pid, signal.SIGKILL)
            source.wait_for(lambda: source.deaths, "the death")
            wait_until(lambda: gone(child), "the child to be gone", 5)
        finally:
            if not gone(child):
                os.kill(child, signal.SIGKILL)


def test_a_job_that_is_stopped_leaves_those_behind_it_to_others(source, tmp_path):
    with crew_of(source, 1) as crew:
        source.add("unwanted", hang(str(tmp_path), "unwanted", "busy"))
        wait_until(lambda: starts(tmp_path, "unwanted"), "it to run")
        for number in range(20):
            source.add(number, Square(number))
        crew.cancel({"unwanted"})
        source.wait_for_outcomes(20)
    assert "unwanted" not in source.outcomes
    assert source.deaths == source.late == []
    assert "unwanted" not in {tag for tag, _ in source.given_back}


def test_a_job_that_is_late_is_told_of_as_late(source, tmp_path):
    with crew_of(source, 1):
        source.add("first", where())  # what a slave has to import for the next one is of that one's time no more
        source.wait_for_outcomes(1)
        job = hang(str(tmp_path), "late", "busy")
        job.timeout = 1.0
        source.add("late", job)
        source.add("next", where())
        source.wait_for_outcomes(2)
    [(tag, slave, timeout)] = source.late
    assert (tag, timeout) == ("late", 1.0)
    assert slave.endswith(f"/{starts(tmp_path, 'late')[0][1]}")
    assert list(source.outcomes) == ["first", "next"]
    assert source.deaths == []


@papyros.job
def spoil(folder, what):
    """Change what this slave does from now on, so that a moment that is rare lasts."""
    from papyros import slave

    run, flush = slave.Slave._run, slave.Slave._flush

    def slow_run(self, *job):
        Path(folder, "about-to-run").touch()
        time.sleep(1)
        run(self, *job)

    def slow_flush(self):
        if self._started > 1:
            time.sleep(PATIENCE)
        flush(self)

    if what == "run":
        slave.Slave._run = slow_run
    else:
        slave.Slave._flush = slow_flush


@pytest.mark.pure
def test_a_job_that_is_just_about_to_start_is_stopped_too(source, tmp_path):
    """Its token is taken, so it cannot be recalled; and it has not noted its start, so it does not seem to run."""
    with crew_of(source, 1):
        source.add("spoil", spoil(str(tmp_path), "run"))
        source.wait_for_outcomes(1)
        source.add("unwanted", hang(str(tmp_path), "unwanted", "sleep"))
        wait_until((tmp_path / "about-to-run").exists, "the job to be about to start")
        source.crew.cancel({"unwanted"})
        source.add("next", Square(3))
        source.wait_for(lambda: "next" in source.outcomes, "the slave to have time for others")


def test_a_job_that_ends_in_the_moment_in_which_its_time_is_up_is_not_lost(source, tmp_path, monkeypatch):
    """It is told of as late, or as finished; but something is told of it."""
    kill = process.SlaveProcess.kill

    def kill_when_it_has_ended(self):
        (tmp_path / "gate").touch()
        wait_until(lambda: self.progress.running() is None, "the job to end")
        kill(self)

    with crew_of(source, 1):
        source.add("spoil", spoil(str(tmp_path), "flush"))
        source.wait_for_outcomes(1)
        job = wait_and_note(str(tmp_path), "job", str(tmp_path / "gate"))
        job.timeout = 0.3
        monkeypatch.setattr(process.SlaveProcess, "kill", kill_when_it_has_ended)
        source.add("job", job)
        source.add("next", Square(3))
        source.wait_for(lambda: "next" in source.outcomes, "the next one")
        monkeypatch.undo()
        told = [tag for tag, *_ in source.late + source.deaths + source.given_back] + list(source.outcomes)
        assert "job" in told


# Slaves that cannot be started ----------------------------------------------------------------


def test_slaves_that_never_start_break_the_crew_and_it_says_why(source, monkeypatch):
    popen = subprocess.Popen

    def refuse(command, **options):
        return popen([sys.executable, "-c", "import sys; sys.exit('no slave today')"], **options)

    monkeypatch.setattr(process.subprocess, "Popen", refuse)
    with crew_of(source, 2) as crew:
        source.wait_for(lambda: source.reasons, "the crew to give up")
        assert crew.wait_ready(PATIENCE)
        assert "slaves cannot be started" in source.reasons[0]
        assert "exit code 1" in source.reasons[0]
        assert "no slave today" in source.reasons[0]


def test_a_slave_that_does_not_start_at_first_is_tried_again(source, monkeypatch):
    popen = subprocess.Popen
    attempts = []

    def refuse_at_first(command, **options):
        if not any("papyros.slave" in word for word in command):
            return popen(command, **options)
        attempts.append(command)
        if len(attempts) <= 2:
            command = [sys.executable, "-c", "raise SystemExit('not yet')"]
        return popen(command, **options)

    monkeypatch.setattr(process.subprocess, "Popen", refuse_at_first)
    with crew_of(source, 1):
        source.add(1, Square(3))
        source.wait_for_outcomes(1)
    assert result_of(source.outcomes[1]) == 9
    assert source.reasons == []
    assert len(attempts) == 3


@pytest.mark.pure
def test_a_slave_that_cannot_be_replaced_at_once_is_replaced_later(source, tmp_path, monkeypatch, caplog):
    """No file descriptor is left, no process, no memory: that may pass, and those that there are go on."""
    monkeypatch.setattr("papyros.hiring.HIRE_AGAIN_SECONDS", 0.05)
    with crew_of(source, 2) as crew:
        assert crew.wait_ready(PATIENCE)
        failures = [OSError(errno.EMFILE, "Too many open files")] * 5
        start = process.SlaveProcess._start

        def fail(self, undo):
            if failures:
                raise failures.pop()
            start(self, undo)

        monkeypatch.setattr(process.SlaveProcess, "_start", fail)
        source.add(1, end_slave(str(tmp_path), "job", "kill"))
        source.add(2, Square(3))
        source.wait_for_outcomes(1)
        assert result_of(source.outcomes[2]) == 9
        wait_until(lambda: not failures, "five tries in vain")
        wait_until(lambda: len(crew.views()) == 2 and all(view.ready for view in crew.views()), "two slaves again")
        assert caplog.text.count("a slave cannot be started now: [Errno 24] Too many open files") == 1
        assert not source.reasons


@pytest.mark.pure
def test_slaves_that_the_system_never_lets_start_break_the_crew(source, monkeypatch):
    def fail(self, undo):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("papyros.hiring.HIRE_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(process.SlaveProcess, "_start", fail)
    with crew_of(source, 1) as crew:
        source.wait_for(lambda: source.reasons, "it to give up")
        assert crew._hiring.again_at is None, "nothing is tried again, so nothing is to be looked after"
    assert "slaves cannot be started" in source.reasons[0]
    assert "Cannot allocate memory" in source.reasons[0]


def test_a_source_that_fails_breaks_the_crew_and_not_the_program(source, monkeypatch, caplog):
    def fail(limit):
        raise ZeroDivisionError("a bug in the source")

    monkeypatch.setattr(source, "take", fail)
    with crew_of(source, 1):
        source.add(1, Square(3))
        source.wait_for(lambda: source.reasons, "the crew to give up")
    assert "broke down" in source.reasons[0]
    assert "a bug in the source" in caplog.text


def test_no_task_waits_behind_a_long_one_though_all_before_were_quick(source, tmp_path):
    """Few quick tasks go to one slave, since it is not worth the while to wake another one for them."""
    with crew_of(source, 2):
        for number in range(50):
            source.add(number, Square(number))
        source.wait_for_outcomes(50)
        with source.lock:  # so that the crew takes all of them at once
            source.add("long", hang(str(tmp_path), "long", "sleep"))
            for number in range(100, 110):
                source.add(number, Square(number))
        source.wait_for_outcomes(60)
    assert "long" not in source.outcomes


@papyros.job
def size_of(payload):
    return len(payload)


@pytest.mark.pure
def test_of_large_tasks_few_are_sent_ahead_and_all_slaves_get_some(source):
    """Else a slave would wait for megabytes that are for later, and others for what it was sent."""
    payload = bytes(1 << 20)
    held = []
    with crew_of(source, 2) as crew:
        assert crew.wait_ready(PATIENCE)
        send = process.SlaveProcess.send

        def note(slave, tasks, *rest):
            size = send(slave, tasks, *rest)
            held.append(sum(len(task.blob) for task in slave.queue))
            return size

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process.SlaveProcess, "send", note)
            with source.lock:
                for number in range(100):
                    source.add(number, size_of(payload))
            source.wait_for_outcomes(100)
    most = 2 * AHEAD_BYTES  # what several are sent is shared out evenly
    assert max(held[4:]) <= most  # at first nothing is known of them
    assert len(set(source.slaves.values())) == 2


@papyros.job(timeout=0.3)
def hang_with_a_child():
    """The child holds the slave's standard streams, so that these end when it does, in the moment it is killed."""
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    time.sleep(600)


def test_streams_that_end_with_their_slave_break_nothing(source):
    with crew_of(source, 3):
        for number in range(12):
            source.add(number, hang_with_a_child())
        source.wait_for(lambda: len(source.late) == 12, "all of them to be stopped")
    assert source.reasons == []


def test_what_ended_before_a_job_that_is_stopped_is_not_run_again(source, tmp_path):
    """Not even if that job holds the interpreter's lock, so that nothing can be told while it runs."""
    with crew_of(source, 1):
        for number in range(50):
            source.add(number, Square(number))
        source.wait_for_outcomes(50)
        with source.lock:  # so that all of these come at once
            for number in range(8):
                source.add(f"quick{number}", note(str(tmp_path), f"quick{number}"))
            deaf = hang(str(tmp_path), "deaf", "sum")
            deaf.timeout = 0.5
            source.add("deaf", deaf)
        source.wait_for(lambda: source.late, "the job to be stopped")
        source.wait_for_outcomes(58)
    assert [len(starts(tmp_path, f"quick{number}")) for number in range(8)] == [1] * 8


@pytest.mark.pure
def test_a_crew_that_breaks_down_gives_all_back_though_no_slave_can_be_buried(source, tmp_path, monkeypatch):
    bury = process.SlaveProcess.bury

    def fail(slave):
        bury(slave)
        raise OSError("nobody expects this")

    with crew_of(source, 3):
        for number in range(3):
            source.add(number, hang(str(tmp_path), str(number), "sleep"))
        wait_until(lambda: all(starts(tmp_path, str(number)) for number in range(3)), "all to run")
        monkeypatch.setattr(process.SlaveProcess, "bury", fail)
        source.closed = True  # what is given back is not to be taken again
        pids = [view.pid for view in source.crew.views()]
        os.kill(pids[0], signal.SIGKILL)
        source.wait_for(lambda: source.reasons, "the crew to say that it broke down")
        assert sorted(tag for tag, _ in source.given_back) == [0, 1, 2]
        assert all(map(gone, pids))


@pytest.mark.pure
def test_a_crew_that_breaks_down_when_a_slave_is_buried_gives_all_back(source, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("nobody expects this")

    monkeypatch.setattr("papyros.aftermath.Aftermath.settle", fail)
    with crew_of(source, 1):
        source.add("running", end_slave(str(tmp_path), "running", "kill"))
        source.closed = True
        source.wait_for(lambda: source.reasons, "the crew to say that it broke down")
        assert [tag for tag, _ in source.given_back] == ["running"]


@pytest.mark.pure
def test_a_slave_that_the_system_lets_nobody_watch_is_replaced(source, monkeypatch):
    monkeypatch.setattr("papyros.hiring.HIRE_AGAIN_SECONDS", 0.05)
    register = selectors.DefaultSelector.register
    calls = []

    def refuse_once(self, fd, events, data=None):
        calls.append(fd)
        if len(calls) == 3:  # the first one is the crew's own pipe; so it is in the midst of what is watched of a slave
            raise OSError(errno.ENOSPC, "No space left on device")
        return register(self, fd, events, data)

    monkeypatch.setattr(selectors.DefaultSelector, "register", refuse_once)
    with crew_of(source, 1) as crew:
        source.add(1, Square(3))
        source.wait_for_outcomes(1)
        assert result_of(source.outcomes[1]) == 9
        assert len(crew.views()) == 1
    assert not source.reasons


@pytest.mark.pure
def test_a_crew_that_breaks_down_while_a_slave_is_buried_gives_all_back(source, tmp_path, monkeypatch):
    bury = process.SlaveProcess.bury

    def fail(slave):
        bury(slave)
        raise OSError("nobody expects this")

    with crew_of(source, 1):
        source.add("running", hang(str(tmp_path), "running", "sleep"))
        wait_until(lambda: starts(tmp_path, "running"), "it to run")
        monkeypatch.setattr(process.SlaveProcess, "bury", fail)
        source.closed = True  # what is given back is not to be taken again
        [pid] = [view.pid for view in source.crew.views()]
        os.kill(pid, signal.SIGKILL)
        source.wait_for(lambda: source.reasons, "the crew to say that it broke down")
        assert [tag for tag, _ in source.given_back] == ["running"]
        assert "was stopped with its host" in source.given_back[0][1], "it was started, and that is told"
