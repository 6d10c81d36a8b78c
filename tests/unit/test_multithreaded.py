"""What only the master of threads promises."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

import papyros
from papyros import bookkeeping
from tests.contract.jobs_for_tests import Square, call, wait_at
from tests.support import PATIENCE, Background, Bug, Clock, Gates, none_to_spare, processed, refuse_threads, wait_until


@pytest.fixture
def gates(tmp_path):
    gates = Gates(tmp_path)
    yield gates
    gates.open_all()


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


def test_a_bug_that_ends_each_thread_does_not_start_them_without_end(monkeypatch):
    monkeypatch.setattr("papyros.multithreaded.FIRST_REST_SECONDS", PATIENCE)
    bug = Bug.put_into(monkeypatch, papyros.MultiThreadedMaster, "_next_entry", loose=True)
    with papyros.MultiThreadedMaster(1) as master:
        jobs = [Square(number) for number in range(5)]
        master.addJob(jobs[0])
        wait_until(lambda: master._resting)
        for job in jobs[1:]:
            master.addJob(job)  # it is told when it is its turn
        assert master._started == 2
        bug.loose = False
        master._end_rest()
        assert master.processedJobs(PATIENCE) == jobs


def test_a_rest_grows_as_long_as_threads_break_down_one_after_the_other(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("papyros.multithreaded.time", SimpleNamespace(monotonic=clock))
    rests = []
    with papyros.MultiThreadedMaster(1) as master:
        monkeypatch.setattr(master._alarm, "set_earliest", lambda moment, _: rests.append(moment - clock.now))
        for _ in range(10):
            master._take_rest()
            clock.now += 0.2 + master._rest
        assert rests == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
        clock.now += 100
        master._take_rest()
        assert len(rests) == 9
        assert master._rest == 0
        master._resting = False


def test_a_job_that_was_assigned_to_a_thread_which_broke_down_before_it_knew_is_run_by_another(monkeypatch):
    next_entry = papyros.MultiThreadedMaster._next_entry
    broken = []

    def break_down_once(master, mine):
        found = next_entry(master, mine)
        if found is not None and not broken:
            broken.append(found[0])
            master._threads[mine] = None
            found[0].session.line.clear()  # the books are spoilt, too
            raise AssertionError(Bug.TEXT)
        return found

    monkeypatch.setattr(papyros.MultiThreadedMaster, "_next_entry", break_down_once)
    with papyros.MultiThreadedMaster(1) as master:
        with master._lock:  # nobody takes one before all are there
            jobs = [Square(number) for number in range(5)]
            for job in jobs:
                master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(jobs)
        assert sorted(job.result for job in jobs) == [0, 1, 4, 9, 16]
    assert broken


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


def test_while_the_system_has_no_more_threads_those_that_there_are_do_all_the_work(monkeypatch, caplog):
    monkeypatch.setattr("papyros.multithreaded.START_AGAIN_SECONDS", PATIENCE)
    with papyros.MultiThreadedMaster(4) as master:
        assert processed(master, Square(2)).result == 4
        refuse_threads(monkeypatch, "papyros-slave-2")
        jobs = [Square(number) for number in range(50)]
        for job in jobs:
            master.addJob(job)
        assert set(master.processedJobs(PATIENCE)) == set(jobs)
        assert len(slaves()) == 1
    assert caplog.text.count("1 of 4 slaves work: can't start new thread") == 1, "that is told once"


def test_threads_that_could_not_be_had_are_started_later_though_nothing_is_added(monkeypatch, gates):
    monkeypatch.setattr("papyros.multithreaded.START_AGAIN_SECONDS", 0.02)
    gate = gates()
    with papyros.MultiThreadedMaster(3) as master:
        with monkeypatch.context() as patch:
            master.addJob(wait_at(gate.path))
            gate.wait_for_arrivals(1)
            refuse_threads(patch, "papyros-slave-2")
            for _ in range(2):
                master.addJob(wait_at(gate.path))
            assert len(slaves()) == 1
        gate.wait_for_arrivals(3)
        gate.open()
        assert len(master.processedJobs(PATIENCE)) == 3


def test_who_waits_for_room_in_one_queue_is_woken_though_somebody_else_has_waited_longer_for_room_in_another_one(gates):
    """A loop over `execute` has a queue of its own, which takes its turn."""
    first, second = gates(), gates()
    with papyros.MultiThreadedMaster(1, max_waiting=1) as master:
        master.addJob(wait_at(first.path))
        first.wait_for_arrivals(1)
        mine, other = master._open_lane(), master._open_lane()
        mine.add(wait_at(second.path), None)
        other.add(Square(1), None)
        adding = Background(other.add, Square(2), None)
        wait_until(lambda: master._room._waiters, "somebody to wait for room")
        also = Background(mine.add, Square(3), None)
        wait_until(lambda: len(master._room._waiters) == 2, "both to wait for room")
        first.open()
        also.result()  # now that the only slave has taken the job before it, and runs that
        assert adding.running
        second.open()
        adding.result()
        for lane in (mine, other):
            assert [lane.pop(PATIENCE) is not None for _ in range(2)] == [True, True]
            lane.close()
        assert master.popProcessedJob(PATIENCE) is not None


def test_the_place_of_a_job_that_nobody_wants_any_more_is_taken_once_its_time_is_up(gates):
    """A loop that was left has no use for what a thread goes on with, and others have use for the thread."""
    gate = gates()
    with papyros.MultiThreadedMaster(1) as master:
        hung = wait_at(gate.path)
        hung.timeout = 0.3
        with pytest.raises(TimeoutError):
            list(master.execute([hung], timeout=0.1))
        assert processed(master, Square(3)).result == 9


def test_of_retries_that_are_due_together_each_has_a_thread_of_its_own(monkeypatch):
    meeting, failed = threading.Barrier(4), threading.Semaphore(0)

    class FailOnce(papyros.Job):
        retries, backoff = 1, 1000.0

        def __call__(self, begun):
            if not begun:
                begun.append(True)
                failed.release()
                raise ValueError("at first")
            return meeting.wait(PATIENCE)

    with papyros.MultiThreadedMaster(4) as master:
        for _ in range(4):
            master.addJob(FailOnce([]))
        for _ in range(4):
            assert failed.acquire(timeout=PATIENCE)
        wait_until(lambda: master.status().waiting == 4)
        monkeypatch.setattr(bookkeeping, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 2000))
        master._wake_delayed()
        assert sorted(job.result for job in master.processedJobs(PATIENCE)) == [0, 1, 2, 3]
