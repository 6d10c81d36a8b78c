"""One slave process, without a crew: how it is told apart, taken back from, and buried."""

from __future__ import annotations

import os
import selectors
import signal
import sys

import pytest

import papyros
from papyros.deaths import Death
from papyros.environment import python_environment
from papyros.jobs import terms_of
from papyros.pickling import hold_value
from papyros.process import (
    LAST_LINES,
    TOLD_CHARACTERS,
    Outcomes,
    Printed,
    Recalled,
    SlaveProcess,
)
from papyros.screen import Screen
from papyros.tasks import CrewOptions, Task
from papyros.wire import MAX_PAYLOAD_BYTES, Packer, decode_outcome
from tests.contract.jobs_for_tests import Square, hang, say, scribble, starts, wait_at, write_without_end
from tests.contract.sharing import pick
from tests.support import PATIENCE, Gate, wait_until


@pytest.fixture
def slave():
    slave = SlaveProcess(CrewOptions(MAX_PAYLOAD_BYTES, sys.path), Screen())
    yield slave
    if not slave.gone:
        slave.bury()


@pytest.fixture
def packer():
    packer = Packer()
    yield packer
    packer.forget_all()


def tasks_of(packer, *jobs, echo=False):
    found = []
    for tag, job in enumerate(jobs):
        payload = packer.pack(job)
        found.append(Task(tag, payload.definition, payload.blob, terms_of(job)._replace(echo=echo)))
    return found


def receive_until(slave, condition):
    """Receive until that is so; return all events that came."""
    events = []
    with selectors.DefaultSelector() as selector:
        selector.register(slave.socket_fd, selectors.EVENT_READ)
        while not condition(events):
            assert selector.select(PATIENCE), "nothing comes any more"
            events += slave.receive()
            slave.outbox.flush()
    return events


def finished(events):
    return [task.tag for event in events if isinstance(event, Outcomes) for task in event.tasks]


def outcomes(events):
    encoded = [one for event in events if isinstance(event, Outcomes) for one in event.encoded]
    return [decode_outcome(bytes(one), None) for one in encoded]


def results(events):
    return [outcome.get() for outcome in outcomes(events)]


def test_it_says_who_it_is_when_it_is_ready(slave):
    assert not slave.ready
    receive_until(slave, lambda _: slave.ready)
    assert slave.name == f"{os.uname().nodename}/{slave.pid}"
    assert slave.running() is None
    assert slave.started() == []


def test_outcomes_come_in_the_order_of_the_tasks(slave, packer):
    slave.send(tasks_of(packer, *map(Square, range(100))), packer.definitions.__getitem__)
    events = receive_until(slave, lambda events: len(finished(events)) == 100)
    assert finished(events) == list(range(100))
    assert results(events) == [number**2 for number in range(100)]
    assert len(slave.queue) == 0


def test_what_was_not_started_can_be_taken_back_and_only_that(slave, packer, tmp_path):
    jobs = [hang(str(tmp_path), "job", "sleep"), *map(Square, range(20))]
    tasks = tasks_of(packer, *jobs)
    slave.send(tasks, packer.definitions.__getitem__)
    wait_until(lambda: starts(tmp_path, "job"), "the first one to run")
    assert slave.recall().tasks == tasks[1:]
    assert list(slave.queue) == tasks[:1]
    assert slave.running()[0] is tasks[0]
    assert slave.started() == tasks[:1]
    assert slave.recall() == Recalled([], None)


def test_what_was_taken_back_can_be_sent_again(slave, packer):
    tasks = tasks_of(packer, *map(Square, range(50)))
    events, left = [], tasks
    for _ in range(20):
        slave.send(left, packer.definitions.__getitem__)
        left = slave.recall().tasks
        assert [*slave.queue, *left] == tasks[len(finished(events)) :], "nothing is lost, and all is in order"
        events += slave.receive()
    slave.send(left, packer.definitions.__getitem__)
    events += receive_until(slave, lambda more: len(finished(events)) + len(finished(more)) == 50)
    assert sorted(finished(events)) == list(range(50))


def test_prints_come_with_their_task_and_before_its_outcome(slave, packer):
    tasks = tasks_of(packer, say("one"), say("two", "three"), echo=True)
    slave.send(tasks, packer.definitions.__getitem__)
    events = receive_until(slave, lambda events: len(finished(events)) == 2)
    texts = {tag: "".join(e.text for e in events if isinstance(e, Printed) and e.task.tag == tag) for tag in (0, 1)}
    assert texts == {0: "one\n", 1: "two\nthree\n"}


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGTERM, "was killed by SIGTERM")]
)
def test_a_death_tells_how_it_was(slave, number, cause):
    receive_until(slave, lambda _: slave.ready)
    os.kill(slave.pid, number)
    slave.wait(PATIENCE)
    death = slave.bury()
    assert death.cause == cause
    assert death.slave == slave.name
    assert "MB" in death.memory
    assert slave.gone
    assert not os.path.exists(f"/proc/{slave.pid}")


def test_a_death_is_told_also_where_somebody_else_reaps_the_dead(packer):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        slave = SlaveProcess(CrewOptions(MAX_PAYLOAD_BYTES, sys.path), Screen())
        receive_until(slave, lambda _: slave.ready)
        os.kill(slave.pid, signal.SIGKILL)
        slave.wait(PATIENCE)
        death = slave.bury()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert "its exit code is not known" in death.cause
    assert death.memory == ""


def test_an_endless_line_is_forwarded_in_parts_and_told_in_short(slave, packer, capsys):
    receive_until(slave, lambda _: slave.ready)
    slave.send(tasks_of(packer, write_without_end(1 << 20)), packer.definitions.__getitem__)
    with selectors.DefaultSelector() as selector:
        for fd, action in slave.streams(selector):
            selector.register(fd, selectors.EVENT_READ, action)
        while selector.get_map() and len(slave._lines) < LAST_LINES - 5:
            for key, _ in selector.select(PATIENCE):
                key.data()
    slave.kill()
    death = slave.bury()
    assert death.lines
    assert max(map(len, death.lines)) <= TOLD_CHARACTERS
    assert capsys.readouterr().err.count("x") > 1 << 19


def test_a_slave_that_is_stopped_by_a_signal_can_be_killed_and_buried(slave):
    receive_until(slave, lambda _: slave.ready)
    os.kill(slave.pid, signal.SIGSTOP)
    slave.kill()
    slave.wait(PATIENCE)
    assert slave.bury().cause == "was killed by SIGKILL"


def test_a_busy_slave_finds_a_shared_value_that_others_have_let_go_of_meanwhile(slave, packer, tmp_path):
    gate = Gate(tmp_path / "gate")
    handles = [papyros.shared([17, 4]), papyros.shared([17, 4])]
    [running, needing, further] = tasks_of(packer, wait_at(gate.path), *[pick(handle, 0) for handle in handles])
    held = [hold_value(handle.value) for handle in handles]
    assert held[0].digest == held[1].digest
    slave.send([running], packer.definitions.__getitem__)
    slave.outbox.flush()
    gate.wait_for_arrivals()
    slave.send([needing], packer.definitions.__getitem__, lambda _: held[0])
    slave.outbox.flush()
    del held[0]  # as when the family has ended that had shared it first; another one needs the same
    slave.send([further], packer.definitions.__getitem__, lambda _: held[0])
    gate.open()
    events = receive_until(slave, lambda events: len(finished(events)) == 3)
    assert results(events)[1:] == [17, 17]


@pytest.mark.parametrize("lacking", ["the definition", "the value"])
def test_what_was_not_there_for_a_job_that_nobody_waits_for_is_there_for_the_next_one(slave, packer, lacking):
    handle = papyros.shared([17, 4])

    @papyros.job
    def look_up(position):
        return handle.value[position]

    [task, another] = tasks_of(packer, look_up(1), look_up(1))
    held = hold_value(handle.value)
    if lacking == "the definition":
        slave.send([task], lambda _: b"", lambda _: held)
    else:
        slave.send([task], packer.definitions.__getitem__, lambda _: None)
    [lost] = outcomes(receive_until(slave, finished))
    assert lost.exception is not None
    slave.send([another], packer.definitions.__getitem__, lambda _: held)
    slave.outbox.flush()
    assert results(receive_until(slave, finished)) == [4]


def test_outcomes_that_are_read_together_with_garbage_count(slave, packer, tmp_path):
    receive_until(slave, lambda _: slave.ready)
    slave.send(tasks_of(packer, *map(Square, range(3)), scribble(str(tmp_path), "job")), packer.definitions.__getitem__)
    slave.outbox.flush()
    wait_until(lambda: starts(tmp_path, "job") and slave.running() is None, "the job to have written all over")
    events = receive_until(slave, lambda _: slave.garbled)
    assert finished(events) == [0, 1, 2]
    assert [task.tag for task in slave.started()] == [3]


def test_an_idle_slave_that_is_dismissed_ends_by_itself(slave):
    receive_until(slave, lambda _: slave.ready)
    slave.dismiss()
    slave.wait(PATIENCE)
    assert slave.bury().cause == "ended with exit code 0"


def test_a_death_is_told_with_its_last_lines_indented():
    told = str(Death("mars/17", "ended with exit code 3", ("first", "second"), "its memory was 3 MB at its peak"))
    assert told == (
        "slave mars/17 ended with exit code 3 (its memory was 3 MB at its peak), its last lines:\n    first\n    second"
    )
    assert str(Death("mars/17", "was killed by SIGKILL", ())) == "slave mars/17 was killed by SIGKILL"


def test_the_environment_of_another_python_finds_this_papyros(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    environment = python_environment()
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == "/somewhere"
