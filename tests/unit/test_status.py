"""What a status says, from given numbers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from papyros.status import SharedStatus, SlaveStatus, Status

BUSY = SlaveStatus("mars/17", "Square(3)", 12.34, 2)
IDLE = SlaveStatus("mars/18")
STARTING = SlaveStatus("mars/19", ready=False)
THREAD = SlaveStatus("papyros-slave-1")


def test_a_slave_knows_its_host_and_its_number():
    assert (BUSY.host, BUSY.pid) == ("mars", 17)
    assert (THREAD.host, THREAD.pid) == ("", 0)
    odd = SlaveStatus("a/b/17")
    assert (odd.host, odd.pid) == ("a/b", 17)


def test_what_slaves_do_is_told_one_a_line():
    lines = str(Status("a master", (BUSY, IDLE, STARTING), 2, 3, 1, 4, 5, 6, 7)).splitlines()
    assert lines[0] == "a master"
    assert "  mars/17: Square(3) for 12.3 s, 2 ahead" in lines
    assert "  mars/18: idle" in lines
    assert "  mars/19: starting" in lines
    assert "  3 slaves, 2 clients" in lines
    assert "  jobs: 3 waiting, 1 assigned, 4 processed but not popped" in lines
    assert "  since the start: slaves lost 5, jobs retried 6, outcomes late 7" in lines


def test_what_a_silent_slave_host_said_last_is_told_as_such():
    last = SlaveStatus("mars/17", "Square(3)", 2.0, 1, silent=4.2)
    assert str(last) == "mars/17: Square(3) for 2.0 s, 1 ahead (its slave host has been silent for 4 s since)"


def test_jobs_that_wait_for_hosts_that_do_not_answer_are_not_said_to_wait_for_none():
    gone = SlaveStatus("mars/17", ready=False, silent=4.2)
    assert "2 jobs wait, and no slave host answers" in Status("a master", (gone, gone), waiting=2).stalled
    assert "starting" in Status("a master", (gone, STARTING), waiting=2).stalled


def test_lost_slave_hosts_are_told_where_there_are_any():
    lost = Status("a master", lost=5, hosts_lost=2)
    assert "  since the start: slaves lost 5, slave hosts lost 2, jobs retried 0, outcomes late 0" in str(lost)


def test_one_is_not_told_in_the_plural():
    text = str(Status("a master", (IDLE,), 1))
    assert "1 slave, 1 client" in text
    assert "1 slaves" not in text
    assert "1 clients" not in text


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (Status("m"), ""),
        (Status("m", (IDLE,)), ""),
        (Status("m", processed=5), ""),
        (Status("m", waiting=1), "1 job waits, no slave is connected"),
        (Status("m", waiting=12), "12 jobs wait, no slave is connected"),
        (Status("m", (STARTING, STARTING), waiting=2), "2 jobs wait, the slaves are starting"),
        (Status("m", (BUSY, IDLE), waiting=2), ""),
        (Status("m", (IDLE,), waiting=2, assigned=1), ""),
        (Status("m", (IDLE,), waiting=2, held=2), "2 jobs wait, and no slave may start one"),
    ],
)
def test_it_says_why_nothing_goes_on(status, told):
    assert status.stalled.startswith(told)
    assert bool(status.stalled) is bool(told)
    assert ("  stalled: " in str(status)) is bool(told)


def test_what_is_shared_is_told_where_there_is_any():
    one, other = SharedStatus("mars/1", 1, 100_000_000), SharedStatus("venus/2", 1, 100_000_000)
    assert "shared" not in str(Status("master"))
    here = Status("master", shared=2, shared_bytes=1_500_000)
    assert "\n  shared: 2 values, 1.5 MB\n" in f"{here}\n"
    everywhere = Status("master", shared=1, shared_bytes=100_000_000, shared_on=(one, other))
    assert "\n  shared: 1 value, 100 MB, on 2 slave hosts\n" in f"{everywhere}\n"
    partly = dataclasses.replace(everywhere, shared=2, shared_bytes=100_000_500)
    assert "\n  shared: 2 values, 100 MB\n    on mars/1: 1 value, 100 MB\n    on venus/2: 1" in str(partly)


def test_a_status_is_read_as_it_was_sent():
    sent = Status("master", (BUSY, IDLE), shared=1, shared_bytes=5, shared_on=(SharedStatus("mars/1", 1, 5),))
    assert Status.read(json.loads(json.dumps(dataclasses.asdict(sent)))) == sent


def test_nobody_changes_a_snapshot():
    for snapshot, name in ((BUSY, "job"), (Status("m"), "waiting")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(snapshot, name, 5)
    assert Status("m", (IDLE,)) == Status("m", (IDLE,))
    assert dataclasses.asdict(Status("m", (IDLE,)))["slaves"][0]["name"] == "mars/18"
