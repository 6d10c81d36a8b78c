"""How programs with executors end, and masters of which only the public calls are known."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import papyros
from tests.executor.functions import add, fail, pass_gate
from tests.support import PATIENCE, refuse_threads, wait_until

PROGRAM = """
import papyros, time

def tell(word):
    time.sleep(0.3)
    with open({path!r}, "a") as file:
        file.write(word)

master = {master}
executor = master.executor()
executor.submit(tell, "apple")
{ending}
"""


def run(program):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, time.monotonic() - started


@pytest.mark.parametrize("ending", ["", "executor.shutdown(wait=False)", "del executor"])
@pytest.mark.parametrize(
    "master",
    [
        "papyros.MultiThreadedMaster(2)",
        "papyros.MultiProcessMaster(1)",
        "(cluster := papyros.LocalCluster(slaves=1)).master()",
    ],
    ids=["threads", "processes", "cluster"],
)
def test_a_program_that_ends_has_done_what_it_submitted(tmp_path, master, ending):
    path = tmp_path / "told"
    told, _ = run(PROGRAM.format(path=str(path), master=master, ending=ending))
    assert told == ""
    assert path.read_text() == "apple"


def test_a_program_that_ends_after_its_master_was_closed_does_not_wait(tmp_path):
    told, seconds = run(
        PROGRAM.format(path=str(tmp_path / "told"), master="papyros.MultiProcessMaster(1)", ending="master.close()")
    )
    assert told == ""
    assert seconds < PATIENCE


def test_a_program_that_ends_after_its_cluster_was_closed_does_not_wait(tmp_path):
    program = PROGRAM.format(
        path=str(tmp_path / "told"),
        master="(cluster := papyros.LocalCluster(slaves=1)).master()",
        ending="executor.submit(time.sleep, 600); cluster.close()",
    )
    told, seconds = run(program)
    assert seconds < PATIENCE, told


def test_a_connection_is_made_when_no_thread_can_be_started_any_more(monkeypatch):
    """From Python 3.12 on that is so when a program ends, before what it submitted is done."""
    with papyros.LocalCluster(slaves=1) as cluster:
        refuse_threads(monkeypatch, "papyros-line")
        with cluster.master() as master, master.executor() as executor:
            assert executor.submit(add, 1, 2).result(PATIENCE) == 3


@pytest.mark.skipif(
    sys.version_info[:3] in {(3, 12, 0), (3, 12, 1)},
    reason="these start no thread for a pool any more when a program ends (CPython's issue 113964)",
)
@pytest.mark.parametrize("pool", ["thread.ThreadPoolExecutor", "process.ProcessPoolExecutor"])
def test_a_program_over_a_pool_that_ends_has_done_what_it_submitted(tmp_path, pool):
    """Python ends pools before it asks anybody else, and they take nothing from then on."""
    path = tmp_path / "told"
    module, name = pool.split(".")
    made = f"__import__('importlib').import_module('concurrent.futures.{module}').{name}(1)"
    master = f"papyros.ExecutorMaster({made}, 1)"
    ending = "for _ in range(3): executor.submit(tell, ' pear')"
    told, _ = run(PROGRAM.format(path=str(path), master=master, ending=ending))
    assert told == ""
    assert path.read_text() == "apple pear pear pear"


FORKED = """
import os
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(
    "master",
    [
        "papyros.MultiProcessMaster(1)",
        "papyros.ExecutorMaster(__import__('concurrent.futures').futures.ThreadPoolExecutor(1))",
    ],
    ids=["processes", "threadpool"],
)
def test_a_fork_that_ends_does_not_wait_for_what_its_parent_does(tmp_path, master):
    path = tmp_path / "told"
    run(PROGRAM.format(path=str(path), master=master, ending=FORKED))
    assert path.read_text() == "apple"


LEAVING = """
import os, papyros, threading, time

with {master} as master, master.executor() as executor:
    future = executor.submit(time.sleep, 0.5)
    jobs = master.execute(map(papyros.job(abs), range(9)))
    next(jobs)
    held, forked = threading.Event(), threading.Event()

    def hold():
        with master._lock:
            held.set()
            forked.wait()

    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    forked.set()
    if not child:
        assert not future.running()
        assert not future.cancel()
        jobs.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert future.result() is None
"""


@pytest.mark.parametrize("master", ["papyros.MultiThreadedMaster(2)", "papyros.MultiProcessMaster(2)"])
def test_a_fork_leaves_the_blocks_of_its_parent_at_once(master):
    """Threads that would do anything, or have a lock, are not there."""
    told, _ = run(LEAVING.format(master=master))
    assert told == ""


def test_what_a_thread_submits_when_the_pool_has_ended_is_refused(tmp_path):
    pool = "__import__('concurrent.futures').futures.ThreadPoolExecutor(1)"
    ending = """
import threading

def submit():
    threading.main_thread().join()
    while not executor._courier._over.wait(0.01):
        pass
    try:
        executor.submit(tell, " pear")
    except RuntimeError as error:
        tell(f" {error}")

threading.Thread(target=submit).start()
"""
    run(PROGRAM.format(path=str(tmp_path / "told"), master=f"papyros.ExecutorMaster({pool}, 1)", ending=ending))
    assert (tmp_path / "told").read_text() == "apple cannot schedule new futures after shutdown"


def test_nothing_is_submitted_when_the_program_is_over(tmp_path):
    late = """
import atexit

def late():
    try:
        executor.submit(tell, "pear")
    except RuntimeError as error:
        print(error)

atexit.unregister(late)
executor.submit(tell, "plum").result()
"""
    program = "import atexit\natexit.register(lambda: late())\n" + PROGRAM.format(
        path=str(tmp_path / "told"), master="papyros.MultiThreadedMaster(1)", ending=late
    )
    run(program)
    assert (tmp_path / "told").read_text() == "appleplum"


class Foreign(papyros.Master):
    """A master that shares nothing with those of this package but the contract."""

    def __init__(self) -> None:
        self._inner = papyros.MultiThreadedMaster(2)

    def addJob(self, job, timeout=None):
        self._inner.addJob(job, timeout)

    def popProcessedJob(self, timeout=None):
        return self._inner.popProcessedJob(timeout)

    def execute(self, jobs: Iterable[Any], ordered=False, timeout=None, progress=False) -> Iterator[Any]:
        return self._inner.execute(jobs, ordered, timeout, progress)

    def cancelJob(self, job):
        return self._inner.cancelJob(job)

    def cancelAllJobs(self):
        self._inner.cancelAllJobs()

    def numPendingJobs(self):
        return self._inner.numPendingJobs()

    def status(self):
        return self._inner.status()

    def close(self):
        self._inner.close()


def numbers(master):
    status = master.status()
    return status.assigned, status.waiting


def test_any_master_makes_an_executor(tmp_path):
    gate = tmp_path / "gate"
    with Foreign() as master, master.executor() as executor:
        assert list(executor.map(add, range(100), range(100))) == [2 * number for number in range(100)]
        with pytest.raises(ValueError, match="no luck"):
            executor.submit(fail, 1).result(PATIENCE)
        futures = [executor.submit(pass_gate, str(gate), number) for number in range(40)]
        try:
            assert futures[-1].cancel()  # 32 of them are with the master at a time
            assert futures[-1].cancelled()
            wait_until(lambda: numbers(master) == (2, 30), "those behind the two that run to be with the master")
            master.cancelAllJobs()
            wait_until(lambda: sum(future.cancelled() for future in futures) >= 31, "their futures to hear of it")
        finally:
            gate.touch()
        left = [(number, future) for number, future in enumerate(futures) if not future.cancelled()]
        assert len(left) == 9, "two ran, whichever came first, and seven were not with the master yet"
        assert all(future.result(PATIENCE) == number for number, future in left)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(add, 1)


AFTER_A_REFUSAL = """
import papyros

@papyros.job
def work(number):
    print("ran", number, flush=True)

master, other = papyros.open_master("threads:1"), papyros.SingleThreadedMaster()
executor, pending = master.executor(), work(0)
other.addJob(pending)
try:
    executor.submit(pending)
except papyros.PendingJobError:
    other.cancelJob(pending)
futures = [executor.submit(work, number) for number in (1, 2)]
"""


def test_a_program_whose_first_submit_was_refused_has_done_the_others_at_its_end():
    done = subprocess.run([sys.executable, "-c", AFTER_A_REFUSAL], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout.split(), done.stderr) == (["ran", "1", "ran", "2"], "")


def test_threads_share_an_executor_that_runs_calls_in_their_submits():
    """Each of them may run the calls of others, and settle their futures."""
    interval = sys.getswitchinterval()
    with papyros.SingleThreadedMaster() as master, master.executor() as executor, ThreadPoolExecutor(4) as threads:
        sys.setswitchinterval(1e-5)
        try:
            submitted = [threads.submit(lambda n=n: executor.submit(add, n, n).result(PATIENCE)) for n in range(3000)]
            assert [future.result(PATIENCE) for future in submitted] == list(range(0, 6000, 2))
        finally:
            sys.setswitchinterval(interval)


def count_couriers(after):
    """Leave a future open that nobody waits for; return how many threads of such there are in the end."""
    executor = papyros.current_master().executor()
    assert executor.submit(add, 1, 1).result() == 2
    # Only now: nobody waits for this one, but where it ran first, it would keep the only slave from the other.
    left_open = executor.submit(pass_gate, after, 2)

    def couriers():
        return sum(thread.name == "papyros-courier" for thread in threading.enumerate())

    # That of a job before was told to end; this one's own is there as long as its future is open.
    wait_until(lambda: couriers() <= 1, "an end to the threads of jobs before")
    assert not left_open.done()
    return couriers()


def test_futures_that_a_job_leaves_open_leave_no_thread_in_its_slave(tmp_path):
    with papyros.MultiProcessMaster(1) as master:
        jobs = [papyros.job(count_couriers)(str(tmp_path / "never")) for _ in range(5)]
        assert [job.result for job in master.execute(jobs, ordered=True)] == [1] * 5
