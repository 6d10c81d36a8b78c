"""What was given ahead, since the jobs before it were quick, does not wait behind one that takes long."""

from __future__ import annotations

import pytest

from tests.contract.jobs_for_tests import Square, starts, wait_and_note
from tests.support import PATIENCE, wait_until


@pytest.fixture
def busy(make_process_master, gates, tmp_path):
    """A master whose slaves have run quick jobs and run some that take long, with others behind them; and a gate."""
    master = make_process_master()
    quick = master.execute(Square(number) for number in range(200))
    assert len(list(quick)) == 200
    gate = gates()
    for number in range(20):
        master.addJob(wait_and_note(str(tmp_path), f"job-{number}", gate.path))
    gate.wait_for_arrivals(make_process_master.slaves)
    return master, gate, make_process_master.slaves


def test_it_can_be_cancelled(busy, tmp_path):
    master, gate, slaves = busy

    def cancelled():
        master.cancelAllJobs()
        return master.numPendingJobs() == slaves

    wait_until(cancelled, "all but those that run to be cancelled")
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == slaves
    assert len(starts(tmp_path, "job-*")) == slaves


def test_it_is_overtaken_by_what_is_more_urgent(busy, tmp_path):
    master, gate, slaves = busy
    wait_until(lambda: not any(slave.ahead for slave in master.status().slaves), "nothing waits in a slave")
    wait_until(lambda: master.status().waiting == 20 - slaves, "the others wait again")
    urgent = wait_and_note(str(tmp_path), "urgent", gate.path)
    urgent.priority = 1
    master.addJob(urgent)
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == 21
    [(moment, _)] = starts(tmp_path, "urgent")
    assert sum(start < moment for start, _ in starts(tmp_path, "job-*")) <= 10
