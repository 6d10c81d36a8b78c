"""Slaves that are sent away since they are not needed any more: what their jobs have left may keep them from ending."""

from __future__ import annotations

import os
import sys
import threading

import pytest

import papyros
from papyros import process
from papyros.process import SlaveProcess
from papyros.screen import Screen
from papyros.tasks import CrewOptions
from papyros.wire import MAX_PAYLOAD_BYTES, Packer
from tests.contract.families import run_child
from tests.support import PATIENCE, gone, processed, wait_until
from tests.unit.test_process import receive_until, tasks_of

pytestmark = pytest.mark.pure


@papyros.job
def leave_thread():
    """Leave a thread behind that is no daemon, and does not end."""
    threading.Thread(target=threading.Event().wait).start()
    return os.getpid()


def with_a_spare_that_does_not_end(master):
    """Have a master's crew of one slave send away the one in which a child ran."""
    return processed(master, run_child(leave_thread())).result


def test_a_spare_that_does_not_end_when_it_is_sent_away_is_killed(monkeypatch):
    monkeypatch.setattr("papyros.staff.SPARE_SECONDS", 0.05)
    monkeypatch.setattr("papyros.crew.CLOSE_SECONDS", 0.05)
    with papyros.MultiProcessMaster(1) as master:
        pid = with_a_spare_that_does_not_end(master)
        wait_until(lambda: gone(pid), "it to be killed", 3)  # by itself, it would stay for longer
        assert [slave.ready for slave in master.status().slaves] == [True]


def test_nobody_listens_to_a_spare_that_was_sent_away_and_does_not_end(monkeypatch):
    """Its connection has ended, so it could be read all the time, and the crew's thread would never rest."""
    monkeypatch.setattr("papyros.staff.SPARE_SECONDS", 0.05)
    with papyros.MultiProcessMaster(1) as master:
        monkeypatch.setattr("papyros.crew.CLOSE_SECONDS", PATIENCE)
        with_a_spare_that_does_not_end(master)
        crew = master._crew
        [spare] = wait_until(lambda: [slave for slave in crew._slaves if slave.dismissed], "it to be sent away")
        wait_until(lambda: not crew._busy, "the crew has nothing to do")
        assert spare.socket_fd not in crew._loop.selector.get_map()
        assert spare.death_fd in crew._loop.selector.get_map()
        spare.kill()
        wait_until(lambda: len(crew._slaves) == 1, "it to be buried")
        monkeypatch.setattr("papyros.crew.CLOSE_SECONDS", 1.0)
        assert processed(master, run_child(papyros.job(os.getpid)())).result


def test_a_slave_that_was_sent_away_leaves_by_itself_whatever_a_job_has_left(monkeypatch):
    monkeypatch.setattr(process, "PROGRAM", f"import papyros.slave as s; s.LEAVE_SECONDS = 0.05; {process.PROGRAM}")
    slave = SlaveProcess(CrewOptions(MAX_PAYLOAD_BYTES, sys.path), Screen())
    try:
        packer = Packer()
        slave.send(tasks_of(packer, leave_thread()), packer.definitions.__getitem__)
        receive_until(slave, lambda events: events)
        slave.dismiss()
        assert slave._death.wait(PATIENCE), "it has ended"
    finally:
        assert slave.bury().cause == "ended with exit code 1"
