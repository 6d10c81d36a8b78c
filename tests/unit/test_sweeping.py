"""What is swept up: all that carries a mark, also after whoever has started it was killed."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from papyros import sweeping
from papyros.sweeper import Sweeper
from papyros.sweeping import MARK, sweep, sweep_thoroughly, wait_for_end
from tests.distributed.programs import alive
from tests.support import PATIENCE, Background, at_most, wait_until

PAUSE = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"


def started(mark=None, **options):
    environment = dict(os.environ)
    environment.pop(MARK, None)
    if mark is not None:
        environment[MARK] = mark
    process = subprocess.Popen([sys.executable, "-c", PAUSE], stdout=subprocess.PIPE, env=environment, **options)
    process.stdout.readline()
    return process


@pytest.fixture
def processes():
    made = []
    yield made
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


def test_all_that_carry_the_mark_are_swept_up_and_nobody_else(processes):
    mark = uuid.uuid4().hex
    processes += [started(mark), started(mark, start_new_session=True)]
    others = [started(), started(uuid.uuid4().hex), started(f"{mark}0"), started(mark[:-1])]
    processes += others
    assert sweep(mark) == 2
    assert [process.wait(10) for process in processes[:2]] == [-9, -9]
    assert [process.poll() for process in others] == [None] * 4
    assert sweep(mark) == 0


def test_one_that_begins_with_its_program_is_looked_at_again_until_its_mark_can_be_seen(processes, monkeypatch):
    """The system has no environment, nor a command line, of it in that moment; it takes long where others compute."""
    mark = uuid.uuid4().hex
    processes += [started(mark)]
    read, looks = sweeping._read, []

    def begin(name, what):
        if int(name) != processes[0].pid or len(looks) >= 5:
            return read(name, what)
        looks.append(what)
        return b""

    monkeypatch.setattr(sweeping, "_read", begin)
    assert sweep(mark) == 1
    assert processes[0].wait(10) == -9
    assert len(looks) == 5


def test_sweeping_what_does_not_exist_is_harmless():
    assert sweep(uuid.uuid4().hex) == 0


def test_the_mark_of_a_crew_is_that_of_all_its_slaves(processes):
    crew = uuid.uuid4().hex
    processes += [started(f"{crew}.1"), started(f"{crew}.10", start_new_session=True)]
    assert sweep(f"{crew}.1") == 1
    assert processes[0].wait(10) == -9
    assert processes[1].poll() is None
    assert sweep(crew) == 1
    assert processes[1].wait(10) == -9


def test_it_is_looked_again_until_nothing_is_found_twice(monkeypatch):
    found = [3, 0, 1, 0, 0]
    monkeypatch.setattr(sweeping, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(sweeping, "sweep", lambda mark: found.pop(0))
    sweep_thoroughly("mark")
    assert found == []


def test_what_goes_on_starting_processes_is_not_swept_for_ever(monkeypatch):
    monkeypatch.setattr(sweeping, "sweep", lambda mark: 1)
    with at_most(5):
        sweep_thoroughly("mark", 0.2)


# The sweeper ----------------------------------------------------------------------------


def sweepers(mark):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if sweeping.__file__.encode() in words and mark.encode() in words:
                found.append(int(folder.name))
    return found


@pytest.fixture
def selector():
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def sweeper(selector):
    sweeper = Sweeper()
    sweeper.start(selector)
    yield sweeper
    sweeper.close()
    assert sweeper.pid is None
    assert sweepers(sweeper.mark) == []


def ready(sweeper):
    """Wait until the process can be sent signals that it ignores."""
    ignored = 1 << (signal.SIGTERM - 1)

    def ignores():
        [line] = [li for li in Path(f"/proc/{sweeper.pid}/status").read_text().splitlines() if li.startswith("SigIgn")]
        return int(line.split()[1], 16) & ignored

    wait_until(ignores, "a sweeper that ignores SIGTERM")


def test_a_sweeper_that_is_told_goodbye_ends_and_touches_nobody(sweeper, processes):
    processes.append(started(f"{sweeper.mark}.1"))
    pid = sweeper.pid
    sweeper.close()
    assert not alive(pid)
    assert processes[0].poll() is None


def test_a_sweeper_is_out_of_reach_of_signals_to_its_group_and_of_those_that_ask_to_end(sweeper):
    ready(sweeper)
    assert os.getsid(sweeper.pid) == os.getpgid(sweeper.pid) == sweeper.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(sweeper.pid, number)
    assert alive(sweeper.pid)


def test_a_sweeper_does_not_carry_the_mark_of_the_slave_that_it_is_started_in(selector, monkeypatch):
    monkeypatch.setenv(MARK, "outer.1")
    sweeper = Sweeper()
    sweeper.start(selector)
    try:
        ready(sweeper)
        assert MARK.encode() not in Path(f"/proc/{sweeper.pid}/environ").read_bytes()
    finally:
        sweeper.close()


def test_a_sweeper_that_is_killed_is_started_again(sweeper, selector):
    first = sweeper.pid
    os.kill(first, signal.SIGKILL)
    [(key, _)] = selector.select(PATIENCE)
    key.data()
    assert sweeper.pid not in (None, first)
    assert sweepers(sweeper.mark) in ([sweeper.pid], [])  # it may not have become another program yet


def test_sweepers_that_cannot_start_are_not_started_for_ever(selector, monkeypatch):
    monkeypatch.setattr("papyros.sweeper.sys.executable", "/bin/false")
    sweeper = Sweeper()
    sweeper.start(selector)
    rounds = 0
    while sweeper.pid is not None:
        [(key, _)] = selector.select(PATIENCE)
        key.data()
        rounds += 1
        assert rounds < 100
    assert not selector.get_map()
    sweeper.close()


def test_where_no_process_can_be_started_there_is_no_sweeper(selector, monkeypatch):
    monkeypatch.setattr("papyros.sweeper.sys.executable", "/nowhere/python")
    sweeper = Sweeper()
    sweeper.start(selector)
    assert sweeper.pid is None
    sweeper.close()


def test_a_sweeper_waits_for_a_word_or_for_the_end_of_its_crew():
    for word, died in ((sweeping.BYE, False), (b"", True)):
        out, end = os.pipe()
        waiting = Background(wait_for_end, out, os.getppid())
        assert waiting.running
        os.write(end, word)
        os.close(end)
        assert waiting.result() is died
        os.close(out)


def test_a_sweeper_whose_crew_was_gone_before_it_began_does_not_wait():
    out, end = os.pipe()
    assert wait_for_end(out, 2**22 - 1)
    os.close(out)
    os.close(end)


PROGRAM = """
import os, sys, time
import papyros
from tests.chaos.jobs import leave_processes

master = papyros.MultiProcessMaster(1)
for how in ("session", "daemon"):
    master.addJob(leave_processes(sys.argv[1], how))
left = [job.result for job in iter(master.popProcessedJob, None)]
if os.fork() == 0:  # it holds on to all that its parent has open
    for number in (1, 2):
        os.close(number)
    os.read(0, 1)
    os._exit(0)
print(master._crew._sweeper.mark, *left, flush=True)
time.sleep(100)
"""


def test_row_19_what_jobs_leave_behind_ends_after_their_program_was_killed(tmp_path):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with program:
        mark, *left = program.stdout.readline().decode().split()
        assert len(left) == 2
        try:
            assert all(map(alive, left))
            program.kill()
            wait_until(lambda: not any(map(alive, left)), "an end to what was left behind", 5)
            wait_until(lambda: not sweepers(mark), "an end to the sweeper", 5)
        finally:
            sweep(mark)
