"""One slave process, without a crew: how it is told apart, taken back from, and buried."""

from __future__ import annotations

import os
import random
import selectors
import signal
import sys

import pytest

import papyros
from papyros import protocol
from papyros.bundles import pack_bundle, read
from papyros.deaths import Death
from papyros.encoded import decode_outcome
from papyros.environment import python_environment
from papyros.frames import Frame, FrameReader, pack_frame
from papyros.jobs import result_of
from papyros.keeping import terms_of
from papyros.pickling import hold_value
from papyros.process import (
    LAST_LINES,
    TOLD_CHARACTERS,
    Outcomes,
    Part,
    Printed,
    SlaveProcess,
)
from papyros.progress import Recalled
from papyros.screen import Screen
from papyros.tasks import CrewOptions, Task
from papyros.wire import MAX_PAYLOAD_BYTES, Packer
from tests.contract.jobs_for_tests import Square, hang, say, scribble, starts, wait_at, write_without_end
from tests.contract.sharing import pick
from tests.contract.vandals import spoil
from tests.distributed.jobs import blob, this_slave
from tests.support import PATIENCE, Gate, wait_until

pytestmark = pytest.mark.compiled


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
    return [result_of(outcome) for outcome in outcomes(events)]


def test_it_says_who_it_is_when_it_is_ready(slave):
    assert not slave.ready
    receive_until(slave, lambda _: slave.ready)
    assert slave.name == f"{os.uname().nodename}/{slave.pid}"
    assert slave.progress.running() is None
    assert slave.progress.started() == []


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
    assert slave.progress.recall().tasks == tasks[1:]
    assert list(slave.queue) == tasks[:1]
    assert slave.progress.running()[0] is tasks[0]
    assert slave.progress.started() == tasks[:1]
    assert slave.progress.recall() == Recalled([], None)


def test_what_was_taken_back_can_be_sent_again(slave, packer):
    tasks = tasks_of(packer, *map(Square, range(50)))
    events, left = [], tasks
    for _ in range(20):
        slave.send(left, packer.definitions.__getitem__)
        left = slave.progress.recall().tasks
        assert [*slave.queue, *left] == tasks[len(finished(events)) :], "nothing is lost, and all is in order"
        events += slave.receive()
    slave.send(left, packer.definitions.__getitem__)
    events += receive_until(slave, lambda more: len(finished(events)) + len(finished(more)) == 50)
    assert sorted(finished(events)) == list(range(50))


# Bundles --------------------------------------------------------------------------------


@papyros.job
def stop_if(stop):
    if stop:
        os.kill(os.getpid(), signal.SIGSTOP)


def test_what_has_ended_is_not_among_what_is_left_though_it_was_not_told(slave, packer):
    receive_until(slave, lambda _: slave.ready)
    first, *others = tasks_of(packer, *map(stop_if, [False, True, *[False] * 5]))
    bundle = bundle_of(packer, "bundle", *map(stop_if, [False] * 3))
    slave.send([first, bundle, *others], packer.definitions.__getitem__)
    slave.outbox.flush()
    assert slave.progress.jobs == 10
    wait_until(lambda: slave.progress.started()[-1:] == others[:1], "the one that stops it")
    wait_until(lambda: [*slave.receive()] == [], "what it has told")
    assert slave.progress.left() == (6, 6)
    os.waitid(os.P_PID, slave.pid, os.WSTOPPED)  # it may be about to stop itself only
    os.kill(slave.pid, signal.SIGCONT)
    receive_until(slave, lambda _: not slave.queue)
    assert slave.progress.left() == (0, 0)


def bundle_of(packer, tag, *jobs):
    payloads = [packer.pack(job) for job in jobs]
    blob = pack_bundle([payload.blob for payload in payloads])
    return Task(tag, payloads[0].definition, blob, terms_of(jobs[0])._replace(jobs=len(jobs)))


def told(events):
    """Return the results of each job of each bundle that was told of, by tag and position."""
    found = {}
    for event in events:
        pairs = (
            [(event.task, event.encoded)] if isinstance(event, Part) else zip(event.tasks, event.encoded, strict=True)
        )
        for task, encoded in pairs:
            if task.terms.jobs > 1:
                start, outcomes, _, _ = read(encoded, task.terms.jobs)
                for position, one in enumerate(outcomes, start):
                    assert (task.tag, position) not in found, "nothing is told twice"
                    found[task.tag, position] = result_of(decode_outcome(bytes(one), None))
            else:
                found[task.tag, 0] = result_of(decode_outcome(bytes(encoded), None))
    return found


def test_a_bundle_is_run_to_its_end_and_told_in_order(slave, packer):
    tasks = [bundle_of(packer, tag, *(Square(10 * tag + n) for n in range(10))) for tag in range(5)]
    slave.send(tasks, packer.definitions.__getitem__)
    assert slave.progress.jobs == 50
    events = receive_until(slave, lambda events: len(finished(events)) == 5)
    assert told(events) == {(tag, n): (10 * tag + n) ** 2 for tag in range(5) for n in range(10)}
    assert slave.progress.jobs == 0


def long_bundle(packer, path, behind=9):
    """A bundle of which one job waits at a gate."""
    gate, passed = Gate(path / "gate"), Gate(path / "passed")
    passed.open()
    one = wait_at(gate.path, 3)
    return gate, bundle_of(packer, "long", *[wait_at(passed.path, n) for n in range(3)], one, *[one] * behind)


def test_of_a_bundle_that_runs_what_it_has_not_started_is_cut_off_once(slave, packer, tmp_path):
    gate, long = long_bundle(packer, tmp_path)
    tasks = [long, *tasks_of(packer, *map(Square, range(3))), bundle_of(packer, "behind", *map(Square, range(5)))]
    slave.send(tasks, packer.definitions.__getitem__)
    gate.wait_for_arrivals()
    assert slave.progress.recall() == Recalled(tasks[1:], (long, 4))
    assert slave.progress.jobs == len(slave.queue) == 1
    for _ in range(3):
        assert slave.progress.recall() == Recalled([], None), "it was said once"
        slave.send(tasks[1:], packer.definitions.__getitem__)
        assert slave.progress.jobs == 9
        assert slave.progress.recall() == Recalled(tasks[1:], None)
    slave.send(tasks[1:], packer.definitions.__getitem__)
    gate.open()
    events = receive_until(slave, lambda events: len(finished(events)) == 5)
    results = told(events)
    assert {n for tag, n in results if tag == "long"} == {0, 1, 2, 3}
    assert len(results) == 4 + 3 + 5
    assert slave.progress.jobs == 0


def test_of_a_bundle_that_runs_nothing_is_cut_off_that_is_not_worth_it(slave, packer, tmp_path):
    gate, long = long_bundle(packer, tmp_path)
    behind = tasks_of(packer, *map(Square, range(3)))
    slave.send([long, *behind], packer.definitions.__getitem__)
    gate.wait_for_arrivals()
    for _ in range(3):
        assert slave.progress.recall(worth=10) == Recalled(behind, None)
        assert slave.progress.jobs == 13
        slave.send(behind, packer.definitions.__getitem__)
    gate.open()
    events = receive_until(slave, lambda events: len(finished(events)) == 4)
    assert len(told(events)) == 13 + 3
    assert slave.progress.jobs == 0


def test_of_the_last_job_of_a_bundle_nothing_is_cut_off(slave, packer, tmp_path):
    gate, long = long_bundle(packer, tmp_path, behind=0)
    slave.send([long], packer.definitions.__getitem__)
    gate.wait_for_arrivals()
    assert slave.progress.recall() == Recalled([], None)
    assert slave.progress.jobs == 1, "as one of which nothing can be taken back"
    gate.open()
    assert len(told(receive_until(slave, lambda events: len(finished(events)) == 1))) == 4


def test_what_a_bundle_has_to_tell_so_far_comes_while_it_runs(slave, packer, tmp_path):
    gate, long = long_bundle(packer, tmp_path)
    slave.send([long], packer.definitions.__getitem__)
    before = receive_until(slave, lambda events: [event for event in events if isinstance(event, Part)])
    assert told(before) == {("long", n): n for n in range(3)}
    gate.open()
    events = receive_until(slave, lambda events: len(finished(events)) == 1)
    assert set(told(events)) == {("long", n) for n in range(3, 13)}


def test_in_a_storm_of_recalls_each_job_of_a_bundle_is_run_or_cut_off(slave, packer):
    chance = random.Random(7)
    events, cut, left = [], set(), [bundle_of(packer, tag, *map(Square, range(64))) for tag in range(10)]
    while left or slave.queue:
        if left:
            slave.send(left, packer.definitions.__getitem__)
        worth = chance.choice([1, 1, 30, 64])
        recalled = slave.progress.recall(worth)
        if recalled.cut is not None:
            task, kept = recalled.cut
            assert 0 < kept < 64
            assert 64 - kept >= worth
            cut |= {(task.tag, n) for n in range(kept, 64)}
        left = recalled.tasks
        events += slave.receive()
    results = told(events)
    assert results.keys() | cut == {(tag, n) for tag in range(10) for n in range(64)}
    assert not results.keys() & cut
    assert slave.progress.jobs == 0


def test_a_large_result_in_a_bundle_is_told_by_itself(slave, packer):
    slave.send([bundle_of(packer, 0, *(blob(size) for size in (1, 3 << 20, 1, 2)))], packer.definitions.__getitem__)
    events = receive_until(slave, lambda events: len(finished(events)) == 1)
    parts = [event.encoded for event in events if isinstance(event, Part)]
    assert [(read(part, 4).start, len(read(part, 4).outcomes)) for part in parts] == [(0, 1), (1, 1)]
    assert [len(result) for result in told(events).values()] == [1, 3 << 20, 1, 2]


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
    wait_until(lambda: starts(tmp_path, "job") and slave.progress.running() is None, "the job to have written all over")
    events = receive_until(slave, lambda _: slave.garbled)
    assert finished(events) == [0, 1, 2]
    assert [task.tag for task in slave.progress.started()] == [3]


@papyros.job
def rename(name):
    """Say that this slave has another name, and run until that is noticed."""
    import threading

    this_slave()._sock.sendall(b"".join(pack_frame(protocol.READY, 0, [name])))
    threading.Event().wait()


@pytest.mark.parametrize("ready", [True, False])
def test_a_slave_says_once_and_briefly_who_it_is(slave, packer, ready):
    """Each outcome is told with its name, and what is larger than any message can be told to nobody."""
    if ready:
        receive_until(slave, lambda _: slave.ready)
        slave.send(tasks_of(packer, rename(b"mars/17")), packer.definitions.__getitem__)
        slave.outbox.flush()
        receive_until(slave, lambda _: slave.garbled)
    else:
        with pytest.raises(ValueError, match="who it is"):
            list(slave._events(Frame(protocol.READY, 0, memoryview(b"x" * 1000))))
    assert slave.name == f"{os.uname().nodename}/{slave.pid}"


def test_a_part_that_no_message_holds_is_not_taken(slave, packer, monkeypatch, tmp_path):
    gate, long = long_bundle(packer, tmp_path)
    slave.send([long], packer.definitions.__getitem__)
    gate.wait_for_arrivals()
    monkeypatch.setattr(protocol, "OUTCOME_BYTES", 8)
    assert receive_until(slave, lambda _: slave.garbled) == []


def test_of_what_a_slave_says_that_no_slave_says_the_beginning_is_told_with_its_death(slave):
    slave.distrust("of children of its job, " + "x" * (1 << 20))
    slave.wait(PATIENCE)
    death = slave.bury()
    assert "it says what no slave says (of children of its job, xxx" in death.cause
    assert len(death.cause) < 2 * TOLD_CHARACTERS


@papyros.job
def scribble_and_wait(folder):
    """Write to whatever is open, and run until that is noticed."""
    import threading

    from tests.contract.jobs_for_tests import scribble

    scribble.function(folder, "job")
    threading.Event().wait()


def test_of_a_slave_whose_slate_is_spoilt_no_more_has_ended_than_it_had(slave, packer, tmp_path):
    receive_until(slave, lambda _: slave.ready)
    tasks = tasks_of(packer, *map(Square, range(3)), scribble_and_wait(str(tmp_path)), Square(4))
    slave.send(tasks, packer.definitions.__getitem__)
    slave.outbox.flush()
    wait_until(lambda: slave.progress.ended() > 3, "the slate to be written over")
    assert slave.progress.ended() == 5
    assert slave.progress.left() == (0, 0)
    assert finished(receive_until(slave, lambda _: slave.garbled)) == [0, 1, 2]


def test_a_slave_whose_tokens_a_job_has_read_leaves_what_comes_after_it_to_another_one(slave, packer, tmp_path):
    receive_until(slave, lambda _: slave.ready)
    vandal, *others = tasks_of(packer, spoil(str(tmp_path), "job", "drain_pipes"), *map(Square, range(3)))
    slave.send([vandal, *others[:2]], packer.definitions.__getitem__)
    slave.outbox.flush()
    assert finished(receive_until(slave, finished)) == [vandal.tag]
    slave.send(others[2:], packer.definitions.__getitem__)  # of the same epoch: its token was not read
    slave.outbox.flush()
    events = receive_until(slave, lambda _: slave.retired)
    assert finished(events) == []
    assert list(slave.queue) == others
    assert slave.progress.started() == []


def test_no_result_that_a_master_allows_is_too_large_for_a_slave_to_tell():
    assert MAX_PAYLOAD_BYTES + len(b"R") == protocol.OUTCOME_BYTES


@papyros.job
def announce(length):
    """Say that outcomes of so many bytes will come, as only the slave itself should."""
    import threading

    from papyros.frames import HEADER
    from papyros.protocol import OUTCOMES

    this_slave()._sock.sendall(HEADER.pack(OUTCOMES, 1, length))
    threading.Event().wait()


@pytest.mark.parametrize("length", [1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_a_job_that_announces_more_than_there_is_memory_for_costs_its_slave_and_no_more(slave, packer, length):
    receive_until(slave, lambda _: slave.ready)
    slave.send(tasks_of(packer, announce(length)), packer.definitions.__getitem__)
    slave.outbox.flush()
    receive_until(slave, lambda _: slave.garbled)
    slave.wait(PATIENCE)
    told = f"was killed by SIGKILL, since it says what no slave says (no frame has {length:,} bytes)"
    assert slave.bury().cause == told


@pytest.mark.pure
def test_a_slave_that_sends_more_than_there_is_memory_for_here_is_killed_and_that_is_told(slave, monkeypatch):
    receive_until(slave, lambda _: slave.ready)

    def fail(_):
        raise MemoryError

    monkeypatch.setattr(FrameReader, "read", fail)
    assert list(slave.receive()) == []
    slave.wait(PATIENCE)
    assert "was killed by SIGKILL, since it says what no slave says (there is no memory here" in slave.bury().cause


@papyros.job
def speak_for(ordinals):
    """Send outcomes, as only the slave itself should, of tasks from one on; if of others, run until that is noticed."""
    import threading
    from array import array

    from papyros.encoded import encode_outcome
    from papyros.frames import join_column, pack_frame
    from papyros.protocol import ORDINAL, OUTCOMES

    forged = [encode_outcome(papyros.outcome.Outcome("forged"), None) for _ in ordinals]
    body = [ORDINAL.pack(ordinals[0]), array("d", [0.0] * len(forged)).tobytes(), *join_column(forged)]
    this_slave()._sock.sendall(b"".join(pack_frame(OUTCOMES, len(forged), body)))
    if ordinals != [1]:
        threading.Event().wait()
    return "true"


@pytest.mark.parametrize("ordinals", [[2], [1, 2], [1]], ids=["another", "also another", "its own"])
def test_a_job_that_speaks_for_its_slave_speaks_for_no_other_job(slave, packer, ordinals):
    receive_until(slave, lambda _: slave.ready)
    slave.send(tasks_of(packer, speak_for(ordinals), Square(3), Square(4)), packer.definitions.__getitem__)
    slave.outbox.flush()
    events = receive_until(slave, lambda _: slave.garbled)
    assert results(events) == (["forged"] if ordinals == [1] else [])
    assert [task.tag for task in slave.queue] == list(range(len(results(events)), 3))


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
