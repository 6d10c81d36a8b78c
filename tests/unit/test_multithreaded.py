"""What only the master of threads promises."""

from __future__ import annotations

import threading

import pytest

import papyros
from tests.contract.jobs_for_tests import Square, call
from tests.support import PATIENCE, none_to_spare


def slaves():
    return [thread for thread in threading.enumerate() if thread.name.startswith("papyros-slave")]


def test_threads_start_with_the_first_job_and_never_more_than_there_are_slaves():
    with papyros.MultiThreadedMaster(3) as master:
        assert slaves() == []
        for number in range(100):
            master.addJob(Square(number))
        assert 1 <= len(slaves()) <= 3
        assert len(master.processedJobs(PATIENCE)) == 100
        assert all(thread.daemon for thread in slaves())
    assert slaves() == []


def test_as_many_jobs_run_at_a_time_as_there_are_slaves():
    meeting = threading.Barrier(4)
    with papyros.MultiThreadedMaster(4) as master:
        for _ in range(4):
            master.addJob(call(meeting.wait, PATIENCE))
        assert sorted(job.result for job in master.processedJobs(PATIENCE)) == [0, 1, 2, 3]


def test_closing_from_inside_a_job_does_not_hang():
    master = papyros.MultiThreadedMaster(2)
    done = threading.Event()

    def close():
        master.close()
        done.set()

    master.addJob(call(close))
    assert done.wait(PATIENCE)
    master.close()


def test_a_thread_that_cannot_be_started_adds_nothing(monkeypatch):
    """`addJob` says: whatever is raised, nothing was added."""
    master = papyros.MultiThreadedMaster(2)
    job = Square(3)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_to_spare)
        with pytest.raises(RuntimeError, match="no thread to spare"):
            master.addJob(job)
    assert master.numPendingJobs() == 0
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert job.result == 9
    master.close()


def test_a_master_that_is_closed_lets_go_of_the_end_of_the_program(monkeypatch):
    import atexit

    registered = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", registered.remove)
    master = papyros.MultiThreadedMaster(1)
    master.addJob(Square(1))
    assert registered == [master._end_with_program]
    assert master.popProcessedJob(PATIENCE) is not None
    master.close()
    assert registered == []
