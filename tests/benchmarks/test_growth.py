"""Growth: the arithmetic, and small forms of what is otherwise large."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks import growth
from benchmarks.capacity import World, carry
from benchmarks.growth import Line, Waiting
from benchmarks.processes import children, cpu_seconds, exact_cpu_seconds, resident_bytes, tree


def test_processes_tell_what_they_use():
    program = "import time\nwhile time.process_time() < 0.2: pass\ninput()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    try:
        assert child.pid in children(os.getpid())
        assert tree(os.getpid())[0] == os.getpid()
        deadline = time.monotonic() + 20
        while cpu_seconds([child.pid]) < 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.01)  # polling: another process computes
        assert exact_cpu_seconds([child.pid]) == pytest.approx(cpu_seconds([child.pid]), rel=0.5)
        assert 1 << 20 < resident_bytes(child.pid) < 1 << 30
    finally:
        child.communicate(b"\n")


def test_throughput_counts_adding_and_popping():
    assert Waiting(1000, 1000, adding=1.0, popping=3.0, grown=0, kept=0).rate == 250


def test_waiting_jobs_are_judged_by_the_most_of_them(monkeypatch):
    monkeypatch.setattr(growth, "_payload_bytes", lambda: 100)
    found = {
        10**3: Waiting(10**3, 10**3, 0.5, 0.5, 0, 0),
        10**4: Waiting(10**4, 10**4, 0.5, 0.5, 0, 0),
        10**6: Waiting(10**6, 5 * 10**5, 100.0, 100.0, 900 * 10**6, 500 * 10**6),
    }
    rate, memory, kept = growth._judge_waiting("M", found)
    assert (rate.measured, rate.reached) == ("0.50", False)  # 5,000 a second, not 8,000 of 10,000
    assert (memory.measured, memory.reached) == ("1,700", False)  # half of them waited elsewhere
    assert (kept.measured, kept.reached) == ("56% (500 MB)", False)


def test_costs_that_grow_are_not_flat():
    assert growth._flat("slaves", {1: 10.0, 10: 30.0, 100: 12.0}).reached
    assert not growth._flat("slaves", {1: 10.0, 100: 13.0}).reached


@pytest.mark.parametrize("what", [growth.slaves, growth.clients])
def test_costs_are_measured(what, monkeypatch):
    monkeypatch.setattr(growth, "ROUNDS", 1)
    lines = list(what([1, 2], 500))
    assert [line.reached is None for line in lines[:2]] == [True, True]
    assert all(line.reached is not None and float(line.measured) > 0 for line in lines[2:])


def test_what_is_not_asked_for_is_not_judged():
    text = growth.growth_table([Line("a", "1", "", None), Line("b", "2", "3", False)])
    assert [line.split("|")[-2].strip() for line in text.splitlines()[2:]] == ["", "no"]


def test_jobs_wait_and_are_all_popped(monkeypatch):
    monkeypatch.setattr(growth, "ROUNDS", 2)
    monkeypatch.setattr(growth, "GIVE_BACK_SECONDS", 0.2)  # so few jobs leave nothing that is worth a wait
    lines = list(growth.waiting_jobs([200, 400]))
    assert len(lines) == 2 * (2 + 3)


def test_an_idle_cluster_is_watched():
    *parts, total = growth.idleness(1, 0.2)
    assert {line.what.split(": ")[1].split(",")[0] for line in parts} == {
        "name server",
        "master",
        "slave host",
        "slaves",
        "client",
    }
    assert total.reached is not None


def test_a_shared_value_is_followed():
    _, crossed, held, told = growth.shared(20_000_000, 20)
    assert crossed.reached, crossed
    assert 1.0 <= float(held.measured) < 2.0  # of so little, what slaves need to run any job at all is a large part
    assert told.measured == "shared: 1 value, 20.0 MB, on 1 slave host"
    assert told.reached


def test_the_masters_time_is_virtual_and_for_one_call_at_a_time():
    world = World(call_seconds=1.0, round_trip=0.5)
    answered = []
    for name in "ab":
        world.call(lambda: None, lambda _, name=name: answered.append((name, round(world.now, 2))))
    world.run(10)
    # Half a round trip, its turn, half a round trip.
    assert answered == [("a", 1.5), ("b", 2.5)]
    assert world.busy == pytest.approx(2.0, abs=0.01)


def test_a_master_that_has_time_keeps_all_slaves_busy_and_one_that_has_not_does_not():
    easy = carry(hosts=2, call_seconds=0.0, slaves=2, job_seconds=0.1, seconds=2.0)
    assert easy.wanted == 40
    assert 36 <= easy.carried <= 40
    assert easy.busy < 0.5
    hard = carry(hosts=2, call_seconds=0.1, slaves=2, job_seconds=0.1, seconds=4.0)
    assert hard.busy > 0.95
    assert hard.carried < 0.8 * hard.wanted
