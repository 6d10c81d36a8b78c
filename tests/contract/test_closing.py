"""A closed master lets go of everything, soon, and says that it is closed."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import cloudpickle
import pytest

import papyros
from tests.contract.jobs_for_tests import Square, wait_at
from tests.support import PATIENCE, Background, at_most, fork, wait_until


@pytest.fixture
def standing(request):
    """Start the cluster before leaks are counted, if the test needs it."""
    spec = getattr(request.node, "callspec", None)
    if "cluster" in request.fixturenames or (spec is not None and "distributed" in spec.params.values()):
        request.getfixturevalue("cluster")


@pytest.fixture(autouse=True)
def _short_wait_for_threads(monkeypatch):
    # A thread cannot be stopped, so a master waits for it; here the tests know that in vain.
    monkeypatch.setattr("papyros.multithreaded.CLOSE_SECONDS", 0.2)


def test_closing_twice_is_harmless(make_master):
    master = make_master()
    master.addJob(Square(1))
    assert master.popProcessedJob(PATIENCE) is not None
    master.close()
    master.close()


def test_a_master_that_was_never_used_closes(make_master):
    with at_most(PATIENCE / 3):
        make_master().close()


def test_closing_from_several_threads_is_harmless(make_master):
    master = make_master()
    master.addJob(Square(1))
    closers = [Background(master.close) for _ in range(5)]
    for closer in closers:
        closer.result()


def test_closing_in_a_handler_of_a_signal_waits_for_nobody(make_master):
    """A handler runs wherever the main thread happens to be, also in the midst of `addJob`."""
    master = make_master()
    jobs = [Square(number) for number in range(50)]
    for job in jobs:
        master.addJob(job)
    with at_most(PATIENCE / 3), master._lock:
        master.close()
    with pytest.raises(papyros.MasterClosedError):
        master.addJob(Square(1))
    popped = list(iter(master.popProcessedJob, None))
    assert [job.result for job in popped] == [job.args[0] ** 2 for job in popped]
    assert master.numPendingJobs() == 0


def test_a_closed_master_still_tells_what_it_has(make_master):
    master = make_master()
    for number in range(3):
        master.addJob(Square(number))
    assert master.popProcessedJob(PATIENCE) is not None
    master.close()
    status = master.status()
    assert (status.slaves, status.waiting, status.assigned) == ((), 0, 0)
    assert status.processed == master.numPendingJobs() == len(master.processedJobs())
    assert status.stalled == ""
    assert "closed" in str(status)
    assert master.status().processed == 0


def test_with_closes(make_master):
    with make_master() as master:
        master.addJob(Square(3))
        assert master.popProcessedJob(PATIENCE).result == 9
    with pytest.raises(papyros.MasterClosedError):
        master.addJob(Square(1))


def test_with_closes_when_the_block_raises(make_master):
    master = make_master()
    with pytest.raises(ZeroDivisionError), master:
        1 / 0
    with pytest.raises(papyros.MasterClosedError):
        master.addJob(Square(1))


def test_closing_with_pending_jobs_drops_them_in_bounded_time(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    jobs = [Square(number) for number in range(50)]
    for job in jobs:
        master.addJob(job)
    with at_most(PATIENCE / 2):
        master.close()
    assert master.numPendingJobs() == 0
    with at_most(PATIENCE / 3):
        assert master.popProcessedJob() is None
        assert master.processedJobs() == []
    other = papyros.SingleThreadedMaster()
    for job in jobs:
        other.addJob(job)  # they are pending nowhere any more
    assert set(other.processedJobs()) == set(jobs)


def test_a_client_that_is_closed_has_left_its_cluster(cluster):
    """Whatever it was about to send: otherwise its jobs and results stay at the master for a minute."""
    with cluster.master() as watcher:
        before = watcher.status()
        for number in range(20):
            client = cluster.master()
            jobs = client.execute(Square(n) for n in range(100))
            for _ in range(number % 4):
                next(jobs)
            jobs.close()
            if number % 2:
                client.addJob(Square(1))
            client.close()
        after = watcher.status()
    assert after.clients == before.clients
    assert after.processed == before.processed


def test_what_was_processed_can_still_be_popped(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    quick, slow = Square(5), wait_at(gate.path)
    master.addJob(quick)
    master.addJob(Square(6))
    assert master.popProcessedJob(PATIENCE) is not None
    master.addJob(slow)
    gate.wait_for_arrivals()
    # Of two slaves one is at the gate; that the other is done with both squares is seen at the next one.
    probe = Square(7)
    master.addJob(probe)
    found = [master.popProcessedJob(PATIENCE)]
    master.close()
    found += iter(master.popProcessedJob, None)
    assert slow not in found
    assert all(job.result in (25, 36, 49) for job in found)
    assert master.numPendingJobs() == 0


def test_processed_jobs_outlive_the_closing(make_thread_master):
    # Only where the test can see, without popping, that a job is processed.
    master = make_thread_master(slaves=1)
    done = []

    @papyros.job
    def note():
        done.append(1)
        return len(done)

    jobs = [note(), note()]
    for job in jobs:
        master.addJob(job)
    first = master.popProcessedJob(PATIENCE)
    # Not only until it has noted that it ran: what becomes of it comes a moment later.
    wait_until(lambda: master.status().processed == 1 or make_thread_master.kind == "singlethreaded")
    master.close()
    rest = list(iter(master.popProcessedJob, None))
    # In the single thread the second one was never run, so it is dropped.
    assert [first, *rest] == (jobs[:1] if make_thread_master.kind == "singlethreaded" else jobs)


def test_a_popper_that_waits_returns_when_another_thread_closes(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    master.addJob(wait_at(gate.path))
    gate.wait_for_arrivals()
    poppers = [Background(master.popProcessedJob) for _ in range(3)]
    with at_most(PATIENCE / 2):
        master.close()
        assert [popper.result() for popper in poppers] == [None, None, None]


def test_jobs_are_let_go_when_the_master_is_closed(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_at(gate.path, "again")
    master.addJob(job)
    gate.wait_for_arrivals()
    master.close()
    with pytest.raises(papyros.UnprocessedJobError):
        job.result
    gate.open()
    other = papyros.SingleThreadedMaster()
    other.addJob(job)
    assert other.popProcessedJob() is job
    assert job.result == "again"


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_a_master_cannot_be_pickled(make_master, dumps):
    with pytest.raises(TypeError, match=r"Master cannot be pickled: it belongs to this process"):
        dumps(make_master())


def test_a_master_cannot_be_copied(make_master):
    import copy

    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.copy(make_master())


def in_forked_child(check):
    """Run `check` in a forked child; return the child's exit status, which is 0 if it returned true."""
    pid = fork()
    if pid == 0:
        status = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)  # a child that hangs dies, and the test sees it
            status = 0 if check() else 1
        except BaseException:
            status = 2
        finally:
            os._exit(status)
    try:
        _, status = wait_until(lambda: _ended(pid), "the child to end")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(status)


def _ended(pid):
    ended, status = os.waitpid(pid, os.WNOHANG)
    return (ended, status) if ended else None


def refuses(call):
    """Whether the call says that the master belongs to the process from which this one was forked."""
    try:
        call()
    except RuntimeError as error:
        return not isinstance(error, papyros.PapyrosError) and "fork" in str(error)
    return False


@pytest.mark.parametrize("locked", [False, True], ids=["", "while another thread keeps the books"])
def test_a_loop_that_began_before_a_fork_hands_out_nothing_in_the_child(make_concurrent_master, locked):
    master = make_concurrent_master()

    gate = make_concurrent_master.gates()

    def jobs():
        yield from (wait_at(gate.path) for _ in range(4))
        gate.open()
        wait_until(lambda: master.status().processed == 4, "all of them are processed, so that none is waited for")
        yield Square(4)

    loop = master.execute(jobs())
    next(loop)
    if locked:
        keeps, forked = threading.Event(), threading.Event()

        def keep():
            with master._lock:
                keeps.set()
                forked.wait(PATIENCE)

        other = Background(keep)
        assert keeps.wait(PATIENCE)
    try:
        assert in_forked_child(lambda: refuses(lambda: next(loop))) == 0
    finally:
        if locked:
            forked.set()
            other.result()
    assert len(list(loop)) == 4


@pytest.mark.parametrize(
    "use",
    [
        lambda master: master.addJob(Square(1)),
        lambda master: master.popProcessedJob(0),
        lambda master: master.processedJobs(0),
        lambda master: list(master.execute([Square(1)])),
    ],
    ids=["addJob", "popProcessedJob", "processedJobs", "execute"],
)
@pytest.mark.parametrize("pending", [0, 3])
def test_a_forked_child_is_told_to_make_its_own(make_master, use, pending):
    master = make_master()
    master.addJob(Square(0))
    assert master.popProcessedJob(PATIENCE) is not None
    for number in range(pending):
        master.addJob(Square(number))
    assert in_forked_child(lambda: refuses(lambda: use(master))) == 0
    assert len(master.processedJobs(PATIENCE)) == pending


def test_a_fork_while_other_threads_are_busy_does_not_hang_the_child(make_master):
    """The child inherits locks that nobody in it will ever release."""
    master = make_master()
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            master.addJob(Square(1))
            master.popProcessedJob(PATIENCE)

    busy = [Background(keep_busy) for _ in range(2)]
    try:
        for _ in range(10):
            assert in_forked_child(lambda: refuses(lambda: master.addJob(Square(1)))) == 0
            assert in_forked_child(lambda: refuses(lambda: master.popProcessedJob(0))) == 0
            assert in_forked_child(lambda: refuses(master.numPendingJobs)) == 0
            assert in_forked_child(lambda: master.close() is None) == 0
    finally:
        stop.set()
    for call in busy:
        call.result()


def test_a_forked_child_that_closes_does_no_harm(make_master):
    master = make_master()
    master.addJob(Square(0))
    assert master.popProcessedJob(PATIENCE) is not None
    assert in_forked_child(lambda: master.close() is None) == 0
    master.addJob(Square(2))
    assert master.popProcessedJob(PATIENCE).result == 4


def test_a_master_is_made_anew_in_a_forked_child(make_master):
    make_master().addJob(Square(0))

    def check():
        with papyros.MultiThreadedMaster(2) as own:
            return sorted(job.result for job in own.execute(map(Square, range(4)))) == [0, 1, 4, 9]

    assert in_forked_child(check) == 0


def test_a_master_that_nobody_closes_does_not_hold_up_the_end_of_a_program(tmp_path):
    import subprocess
    import sys

    program = tmp_path / "program.py"
    program.write_text(
        "import papyros, time\n"
        "master = papyros.MultiThreadedMaster(1)\n"
        "master.addJob(papyros.job(print)('ran'))\n"
        "print(master.popProcessedJob() is not None)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["ran", "True"]
    assert done.stderr == ""
    assert time.monotonic() - started < PATIENCE
