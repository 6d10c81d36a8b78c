"""A RayMaster on a real cluster of Ray, by its own address and by Ray Client's, and on one that it starts itself."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

import papyros
from tests.contract import families
from tests.contract.jobs_for_tests import call, double, end_slave, fail_until, starts, wait_at
from tests.engines.jobs import be_told_to_end, note_order, note_times, order, overlaps, stay, stays
from tests.support import PATIENCE, at_most, gone, processed, wait_until

ray = pytest.importorskip("ray")
# Python keeps no note of what Ray's own sockets and processes are closed by; none of it is ours.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")

CPUS = 2
#: Starting a worker of Ray takes seconds where the machine is busy.
LONG = 3 * PATIENCE
processed = functools.partial(processed, seconds=LONG)


@pytest.fixture(scope="module")
def cluster(free_port):
    from ray.cluster_utils import Cluster

    port = free_port()
    # Ray Client forks a process for each client, for which it waits 30 seconds: too few where all is busy.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "60")
    # With it, what is forked in the midst of calls of gRPC dies at times, and Ray's client waits for it for minutes.
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    head = {"num_cpus": CPUS, "num_gpus": 1, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.client_address = f"ray://127.0.0.1:{port}"
    wait_until(lambda: listens(port), "the client server")
    yield cluster
    cluster.shutdown()
    monkeypatch.undo()


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def make(cluster):
    """Make masters of the cluster's own address."""
    from papyros.engines.ray import RayMaster

    made = []

    def make(**options):
        made.append(RayMaster(cluster.address, **options))
        return made[-1]

    yield make
    for master in made:
        master.close()
    assert not ray.is_initialized()


# Which cluster it is. -----------------------------------------------------------------------


def test_a_master_starts_a_ray_of_its_own_which_others_share_and_the_last_one_ends(monkeypatch):
    from papyros.engines.ray import RayMaster

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    first = RayMaster("local", 1)
    try:
        assert processed(first, double(2)).result == 4
        second = RayMaster(slaves=1)
        with pytest.raises(ValueError, match=r"this program is connected to the Ray cluster at .* ray.shutdown\(\)"):
            RayMaster("10.0.0.1:6379")
        first.close()
        assert ray.is_initialized(), "the second one needs it still"
        assert processed(second, double(3)).result == 6
        second.close()
        assert not ray.is_initialized()
    finally:
        first.close()
        ray.shutdown()


def test_a_note_of_a_cluster_that_is_gone_does_not_keep_anybody_waiting(monkeypatch, free_port):
    """Ray leaves it behind when a machine is switched off, and would try for minutes."""
    from ray._private import utils

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(utils, "read_ray_address", lambda: f"127.0.0.1:{free_port()}")
    with at_most(LONG), papyros.open_master("ray://", slaves=1) as master:
        assert processed(master, double(2)).result == 4
    assert not ray.is_initialized()


def test_one_word_opens_a_cluster_by_its_client_server_and_its_jobs_run_there(cluster):
    """As in Ray itself, `ray://` is Ray Client."""
    with papyros.open_master(cluster.client_address) as master:
        assert type(master).__name__ == "RayMaster"
        assert len(master.status().slaves) == CPUS
        jobs = list(master.execute(map(double, range(50)), ordered=True))
        assert [job.result for job in jobs] == [2 * number for number in range(50)]
        assert str(os.getpid()) not in {job.slave.rpartition("/")[2] for job in jobs}
        assert processed(master, families.descend(3)).result == 3
        with papyros.open_master(cluster.client_address, slaves=1) as other:
            assert processed(other, double(2)).result == 4
        assert processed(master, double(3)).result == 6
    assert not ray.is_initialized()


def test_through_the_client_server_jobs_are_stopped_too(cluster, tmp_path):
    with papyros.open_master(cluster.client_address) as master:
        job = stay(str(tmp_path))
        job.timeout = 5
        assert type(processed(master, job).exception) is papyros.JobTimeout
        [pid] = stays(tmp_path)
        wait_until(lambda: gone(pid), "its process to be gone")


def test_the_environment_says_which_cluster_it_is(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with papyros.open_master("ray://") as master:
        assert ray.get_runtime_context().gcs_address == cluster.address
        assert processed(master, double(2)).result == 4


def test_a_program_that_is_connected_stays_so(cluster):
    from papyros.engines.ray import RayMaster

    ray.init(cluster.address, log_to_driver=False)
    try:
        for address in (None, cluster.address):
            with RayMaster(address, 1) as master:
                assert processed(master, double(2)).result == 4
            assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_where_nobody_listens_is_refused_in_words_and_soon(free_port):
    from papyros.engines.ray import RayMaster

    for address in (f"127.0.0.1:{free_port()}", f"ray://127.0.0.1:{free_port()}"):
        with at_most(15), pytest.raises(ConnectionError, match=r"no Ray cluster listens at 127\.0\.0\.1"):
            RayMaster(address)
    with pytest.raises(ValueError, match="write HOST:PORT, or ray://HOST:PORT"):
        RayMaster("nowhere")


WRONG_PORT = """
import sys
import papyros
from ray.util.client import worker

worker.INITIAL_TIMEOUT_SEC = worker.MAX_TIMEOUT_SEC = 1  # Ray's own are half a minute
try:
    papyros.open_master(sys.argv[1])
except ConnectionError as error:
    print(error)
"""


def test_a_port_that_is_not_that_of_the_client_server_is_told_from_it(cluster):
    """In a program of its own, since a Ray that could not connect once is of no use any more."""
    command = [sys.executable, "-c", WRONG_PORT, f"ray://{cluster.address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert f"no Ray Client server answers at ray://{cluster.address}" in done.stdout, done.stderr
    assert "its port is 10001" in done.stdout


def test_a_program_that_disconnects_is_told_of_each_job(make):
    master = make(slaves=1)
    assert processed(master, double(1)).result == 2
    ray.shutdown()
    for number in range(2):
        job = processed(master, double(number))
        assert type(job.exception) is papyros.SlaveLost
        assert "not connected to Ray any more" in str(job.exception)
    assert not ray.is_initialized(), "Ray starts another cluster when it is asked for something"


@pytest.mark.parametrize("again", [False, True], ids=["for good", "and connects again"])
def test_jobs_that_run_when_the_program_disconnects_are_told_soon(cluster, make, gates, again):
    master, gate = make(slaves=1), gates()
    jobs = [wait_at(gate.path, number) for number in range(3)]
    for job in jobs:
        master.addJob(job)
    gate.wait_for_arrivals(1)
    ray.shutdown()
    if again:
        ray.init(cluster.address, log_to_driver=False)
    try:
        with at_most(10):
            assert set(master.processedJobs(LONG)) == set(jobs)
        assert {type(job.exception) for job in jobs} == {papyros.SlaveLost}
        assert all("not connected to Ray any more" in str(job.exception) for job in jobs)
    finally:
        master.close()
        ray.shutdown()


def test_a_master_of_an_earlier_connection_does_not_end_a_later_one(cluster):
    from papyros.engines.ray import RayMaster

    earlier = RayMaster(cluster.address, 1)
    ray.shutdown()
    ray.init(cluster.address, log_to_driver=False)
    try:
        earlier.close()
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    earlier = RayMaster(cluster.address, 1)
    ray.shutdown()
    with RayMaster(cluster.address, 1) as later:
        earlier.close()
        assert processed(later, double(2)).result == 4
    assert not ray.is_initialized()


# What jobs ask for. -------------------------------------------------------------------------


def test_cpus_are_those_of_ray(make, tmp_path):
    assert len(list(make().execute(note_times(str(tmp_path), number, 0.4) for number in range(4)))) == 4
    assert overlaps(tmp_path) > 0
    folder = tmp_path / "two"
    folder.mkdir()
    master = make(num_cpus=CPUS)
    assert len(master.status().slaves) == 1
    greedy = make(num_cpus=CPUS, slaves=4)  # although Ray is given four at a time
    assert len(list(greedy.execute(note_times(str(folder), number, 0.4) for number in range(4)))) == 4
    assert overlaps(folder) == 0


def test_gpus_are_those_of_ray(make, tmp_path):
    """Ray takes the number for granted, and tells the jobs which of them are theirs."""
    master = make(num_gpus=1, slaves=4)
    assert len(list(master.execute(note_times(str(tmp_path), number, 0.4) for number in range(4)))) == 4
    assert overlaps(tmp_path) == 0
    assert processed(master, call(os.getenv, "CUDA_VISIBLE_DEVICES")).result == "0"
    assert processed(master, families.tree_sum(3)).result == 15, "children need no GPU beside that of their parent"
    assert not processed(make(), call(os.getenv, "CUDA_VISIBLE_DEVICES")).result


def test_priorities_are_kept_by_the_master(make, tmp_path, gates):
    master, gate = make(slaves=1), gates()
    master.addJob(wait_at(gate.path))
    gate.wait_for_arrivals(1)
    for number in range(5):
        job = note_order(str(tmp_path), number)
        job.priority = number
        master.addJob(job)
    gate.open()
    assert len(master.processedJobs(LONG)) == 6
    assert order(tmp_path) == [4, 3, 2, 1, 0]


def test_what_fails_is_tried_again_by_the_master(make, tmp_path):
    job = fail_until(str(tmp_path), "job", 3)
    job.retries, job.backoff = 2, 0.01
    assert processed(make(), job).result == 3


# Workers and machines that die. -------------------------------------------------------------


def test_a_job_that_ends_its_worker_is_tried_three_times_and_one_that_may_run_once_is_not(make, tmp_path):
    master = make()
    job = processed(master, end_slave(str(tmp_path), "job", "kill"))
    assert type(job.exception) is papyros.SlaveLost
    assert str(job.exception).count("Ray tells: WorkerCrashedError") == 3
    assert len(starts(tmp_path, "job")) == 3
    once = end_slave(str(tmp_path), "once", "exit")
    once.at_most_once = True
    assert type(processed(master, once).exception) is papyros.SlaveLost
    assert len(starts(tmp_path, "once")) == 1
    assert master.status().lost == 4
    assert processed(master, double(4)).result == 8


def test_a_job_whose_worker_is_told_to_end_runs_again_in_another_one(make, tmp_path):
    """Ray has that raise a SystemExit in the midst of the job, which has nothing to do with it."""
    master = make()
    assert processed(master, be_told_to_end(str(tmp_path))).result == "done"
    assert master.status().lost == 1


def test_a_job_that_exits_has_that_as_its_outcome(make):
    with pytest.raises(SystemExit, match="enough"):
        _ = processed(make(), call(sys.exit, "enough")).result


def test_a_job_whose_machine_dies_runs_again_on_another_one(cluster, make, tmp_path, gates):
    """The machine is what Ray calls a node; the job needs what only such machines have."""
    gate = gates()
    first = cluster.add_node(num_cpus=1, resources={"special": 1})
    master = make(slaves=1, resources={"special": 1})
    job = wait_at(gate.path, "done")
    master.addJob(job)
    gate.wait_for_arrivals(1)
    cluster.remove_node(first, allow_graceful=False)
    wait_until(lambda: master.status().lost == 1, "its death to be noticed", LONG)
    second = cluster.add_node(num_cpus=1, resources={"special": 1})
    try:
        gate.wait_for_arrivals(2)
        gate.open()
        assert master.popProcessedJob(LONG) is job
        assert job.result == "done"
    finally:
        cluster.remove_node(second)


def test_all_that_ray_says_of_lost_workers_leads_to_another_try(make, monkeypatch):
    """What a test cannot have happen, as a machine without memory, is said in Ray's stead."""
    from papyros.engines import ray as engine

    master = make(slaves=1)
    submit = master._submit
    errors = [engine.OutOfMemoryError("of memory, there is too little"), engine.LocalRayletDiedError()]
    assert all(isinstance(error, engine.LOSSES) for error in errors)

    def lose(payload, entry):
        if not errors:
            return submit(payload, entry)
        future: Future = Future()
        future.set_exception(errors.pop())
        return future

    monkeypatch.setattr(master, "_submit", lose)
    assert processed(master, double(4)).result == 8
    assert master.status().lost == 2


# Stopping. ----------------------------------------------------------------------------------


def test_a_job_that_runs_is_stopped_with_its_process(make, tmp_path):
    master = make()
    late = stay(str(tmp_path / "late"))
    (tmp_path / "late").mkdir()
    late.timeout = 5
    assert type(processed(master, late).exception) is papyros.JobTimeout
    [pid] = stays(tmp_path / "late")
    wait_until(lambda: gone(pid), "its process to be gone")
    unwanted = stay(str(tmp_path))
    master.addJob(unwanted)
    wait_until(lambda: stays(tmp_path), "it runs", LONG)
    assert master.cancelJob(unwanted) is True
    wait_until(lambda: gone(stays(tmp_path)[0]), "its process to be gone")
    assert processed(master, double(4)).result == 8
    assert not [thread for thread in threading.enumerate() if thread.name == "test-background"]
