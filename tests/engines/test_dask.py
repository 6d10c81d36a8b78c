"""A DaskMaster on a real scheduler with a real worker, in processes of their own, found by their address."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

import papyros
from tests.contract.jobs_for_tests import double, end_slave, fail_until, starts, wait_at
from tests.engines.jobs import note_order, note_times, order, overlaps
from tests.support import PATIENCE, wait_until

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

THREADS = 2


@contextmanager
def scheduler_at(port):
    """A scheduler that gives a job up when it has lost two workers, and a worker that is replaced when it dies."""
    address = f"127.0.0.1:{port}"
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{address}", "--no-dashboard"]
    worker = subprocess.Popen([*command, "--nthreads", str(THREADS), "--resources", "GPU=1"], **quiet)
    try:
        with distributed.Client(address, timeout=PATIENCE) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
        yield address, scheduler
    finally:
        for process in (worker, scheduler):
            process.terminate()
        for process in (worker, scheduler):
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def address(free_port):
    with scheduler_at(free_port()) as (address, _):
        yield address


@pytest.fixture
def make(address):
    """Make masters of the address, as a user does."""
    made = []

    def make(**options):
        made.append(papyros.open_master(f"dask://{address}", **options))
        return made[-1]

    yield make
    for master in made:
        master.close()


def processed(master, job):
    master.addJob(job)
    assert master.popProcessedJob(2 * PATIENCE) is job
    return job


ENDING = """
import papyros, sys, time

def nap(number):
    time.sleep(0.1)
    return number

executor = papyros.open_master(sys.argv[1]).executor()
for number in range(5):
    executor.submit(nap, number).add_done_callback(lambda future: print(future.result()))
"""


def test_a_program_that_ends_has_done_what_it_submitted(address):
    """What Dask's client is called back by takes nothing any more once the main thread has ended."""
    command = [sys.executable, "-c", ENDING, f"dask://{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=True)
    assert sorted(done.stdout.split()) == list("01234")


def test_one_word_opens_a_cluster_that_runs_and_its_jobs_run_there(make):
    master = make()
    assert type(master).__name__ == "DaskMaster"
    jobs = list(master.execute(map(double, range(50)), ordered=True))
    assert [job.result for job in jobs] == [2 * number for number in range(50)]
    assert str(os.getpid()) not in {job.slave.rpartition("/")[2] for job in jobs}
    assert len(master.status().slaves) == THREADS


def test_a_client_of_the_address_ends_with_its_master_and_one_of_the_users_does_not(address):
    from papyros.engines.dask import DaskMaster

    with DaskMaster(address, 1) as master:
        own = master._client
        assert processed(master, double(2)).result == 4
    assert own.status == "closed"
    with distributed.Client(address) as client:
        with DaskMaster(client, 1) as master:
            assert processed(master, double(2)).result == 4
        assert client.submit(abs, -1).result(PATIENCE) == 1


def test_a_client_that_is_asynchronous_is_refused_in_words(address):
    from papyros.engines.dask import DaskMaster

    async def make():
        async with distributed.Client(address, asynchronous=True) as client:
            DaskMaster(client)

    with pytest.raises(ValueError, match="not asynchronous"):
        asyncio.run(make())


def test_the_priority_of_a_job_is_that_of_dask(make, tmp_path, gates):
    """More jobs than there are threads are with Dask already: there, too, the urgent ones come first."""
    master, gate = make(slaves=20), gates()
    for _ in range(THREADS):
        master.addJob(wait_at(gate.path))
    gate.wait_for_arrivals(THREADS)
    for number in range(6):
        job = note_order(str(tmp_path), number)
        job.priority = number
        master.addJob(job)
    wait_until(lambda: master.status().waiting == 0, "all to be handed over")
    gate.open()
    assert len(master.processedJobs(PATIENCE)) == 6 + THREADS
    places = {number: place for place, number in enumerate(order(tmp_path))}
    # Its two threads may overtake each other by one place.
    assert all(places[number] - places[number + 2] > 0 for number in range(4)), places


def test_resources_are_those_of_dask(make, tmp_path):
    """The worker has two threads and one GPU."""
    assert len(list(make(slaves=4).execute(note_times(str(tmp_path), number) for number in range(4)))) == 4
    assert overlaps(tmp_path) > 0
    folder = tmp_path / "gpu"
    folder.mkdir()
    master = make(slaves=4, resources={"GPU": 1})
    assert len(list(master.execute(note_times(str(folder), number) for number in range(4)))) == 4
    assert overlaps(folder) == 0


def test_what_fails_is_tried_again_by_the_master(make, tmp_path):
    job = fail_until(str(tmp_path), "job", 3)
    job.retries, job.backoff = 2, 0.01
    assert processed(make(), job).result == 3


def test_a_job_that_ends_its_worker_is_tried_as_often_as_dask_allows_and_told(make, tmp_path):
    master = make()
    job = processed(master, end_slave(str(tmp_path), "job", "exit"))
    assert type(job.exception) is papyros.SlaveLost
    assert "KilledWorker" in str(job.exception)
    assert "Dask did not process end_slave(" in str(job.exception)
    assert len(starts(tmp_path, "job")) == 2
    assert processed(master, double(4)).result == 8


def test_a_job_that_may_run_once_is_refused_in_words_and_nothing_is_added(make):
    master = make()
    job = double(4)
    job.at_most_once = True
    with pytest.raises(ValueError, match="Dask starts a job again whose worker died"):
        master.addJob(job)
    assert master.numPendingJobs() == 0


def test_a_job_that_runs_is_not_stopped_and_that_is_told_in_words(make, gates):
    master, gate = make(), gates()
    job = wait_at(gate.path, 1)
    job.timeout = 0.5
    master.addJob(job)
    gate.wait_for_arrivals(1)
    assert master.cancelJob(job) is False
    assert master.popProcessedJob(PATIENCE) is job
    assert type(job.exception) is papyros.JobTimeout
    assert "Dask cannot stop it, and it goes on" in str(job.exception)


def test_a_scheduler_that_goes_away_is_told_of_each_job(free_port, gates):
    port, gate = free_port(), gates()
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        scheduler_at(port) as (address, scheduler),
        papyros.open_master(f"dask://{address}") as master,
    ):
        running = wait_at(gate.path, 1)
        master.addJob(running)
        gate.wait_for_arrivals(1)
        scheduler.kill()
        assert master.popProcessedJob(2 * PATIENCE) is running
        assert type(running.exception) is papyros.SlaveLost
        assert "Dask" in str(running.exception)
        later = processed(master, double(1))
        assert type(later.exception) is papyros.SlaveLost
        gate.open()


def test_an_address_where_no_scheduler_is_is_refused_in_words(free_port):
    port = free_port()
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "500ms"}),
        pytest.raises(ConnectionError, match=f"no Dask scheduler answers at 127.0.0.1:{port}"),
    ):
        papyros.open_master(f"dask://127.0.0.1:{port}")


def test_what_is_neither_a_client_nor_an_address_is_refused():
    from papyros.engines.dask import DaskMaster

    with pytest.raises(TypeError, match=r"a distributed.Client, or of an address"):
        DaskMaster(3)
