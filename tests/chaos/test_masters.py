"""Rows 6, 7, 9, 10, 20, 24: masters and name servers that stop, die, come back, come twice, or are not there yet."""

from __future__ import annotations

import ast
import itertools
import signal
import threading
import time
from pathlib import Path

import pytest

import papyros
from papyros import DistributedMaster
from papyros.distributed.keys import find_key
from papyros.errors import MasterNotFoundError, NameServerNotFoundError
from tests.chaos.conftest import LEASE, SLACK, listener, start_host
from tests.chaos.jobs import note, pause
from tests.contract.jobs_for_tests import double
from tests.distributed.jobs import starts, trace
from tests.distributed.programs import HOST_UP, free_port, uri_of
from tests.support import PATIENCE, Background, wait_until


def let_pass(seconds):
    """Let time pass: it is the fault itself."""
    threading.Event().wait(seconds)


# Row 6 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lease", [1.0, pytest.param(LEASE, marks=pytest.mark.slow)])
def test_row_06_a_master_that_slept_for_three_leases_gives_nobody_up(launch, names, group, gates, tmp_path, lease):
    gate = gates()
    master = launch.master(group, names, f"--lease={lease}", f"--grace={2 * lease}")
    for _ in range(2):
        start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        for name in "abcd":
            client.addJob(trace(str(tmp_path), name, gate.path))
        gate.wait_for_arrivals(4)
        master.send(signal.SIGSTOP)
        let_pass(3 * lease)
        master.send(signal.SIGCONT)
        let_pass(2 * lease)  # in which somebody could be given up
        assert gate.arrivals() == 4
        gate.open()
        assert sorted(job.result for job in client.processedJobs(20)) == list("abcd")
        assert [len(starts(tmp_path, name)) for name in "abcd"] == [1, 1, 1, 1]
        assert client.status().late == 0


# Row 7 ----------------------------------------------------------------------------------


def test_row_07_all_jobs_are_processed_when_the_master_is_killed_and_a_new_one_comes(launch, names, group, tmp_path):
    first = launch.master(group, names, f"--lease={LEASE}")
    for _ in range(2):
        start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        jobs = [pause(str(tmp_path), f"{number:03}", 0.02) for number in range(100)]
        for job in jobs:
            client.addJob(job)
        popped = [client.popProcessedJob(20) for _ in range(20)]
        first.end(signal.SIGKILL)
        launch.master(group, names, f"--lease={LEASE}")
        while (job := client.popProcessedJob(30)) is not None:
            popped.append(job)
        assert len(popped) == 100
        assert set(popped) == set(jobs)
        assert sorted(job.result for job in popped) == [f"{number:03}" for number in range(100)]
        assert client.numPendingJobs() == 0
        assert max(len(starts(tmp_path, job.result)) for job in jobs) <= 2


@pytest.mark.parametrize("opened", ["before the next master comes", "when the host serves the next master"])
def test_row_07_what_ran_when_the_master_was_killed_is_handed_in_to_the_next_one_and_not_run_again(
    launch, names, group, gates, tmp_path, opened
):
    """There are 100 jobs, and one slave host, so none of them is ever anywhere that the next master cannot know of."""
    gate = gates()
    first = launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        running, waiting = ["a", "b"], [f"{number:02}" for number in range(98)]
        for name in running:
            client.addJob(trace(str(tmp_path), name, gate.path))
        gate.wait_for_arrivals(2)
        for name in waiting:
            client.addJob(note(str(tmp_path), name))
        first.end(signal.SIGKILL)
        if opened.startswith("before"):
            gate.open()
        launch.master(group, names, f"--lease={LEASE}")
        if opened.startswith("when"):
            wait_until(lambda: host.text.count(HOST_UP) == 2, "the slave host serves the next master")
            gate.open()
        assert sorted(job.result for job in client.processedJobs(30)) == sorted(running + waiting)
        assert client.popProcessedJob(0) is None
        assert {name: len(starts(tmp_path, name)) for name in running + waiting} == dict.fromkeys(running + waiting, 1)
        assert client.status().late == 0


def test_row_07_a_client_hosts_the_master_when_it_is_killed_and_nobody_else_does(launch, names, group, tmp_path):
    first = launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_after=0.5) as client:
        for number in range(20):
            client.addJob(pause(str(tmp_path), str(number), 0.05))
        assert client.popProcessedJob(20) is not None
        first.end(signal.SIGKILL)
        assert len(client.processedJobs(30)) == 19
        assert client.numPendingJobs() == 0


def test_row_07_a_client_that_is_to_host_the_next_master_leaves_that_to_one_that_comes_in_time(
    launch, names, group, tmp_path
):
    first = launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_after=PATIENCE) as client:
        for number in range(20):
            client.addJob(pause(str(tmp_path), str(number), 0.05))
        assert client.popProcessedJob(20) is not None
        first.end(signal.SIGKILL)
        wait_until(lambda: client._trouble, "the client without a master")
        second = launch.master(group, names, f"--lease={LEASE}")
        assert len(client.processedJobs(20)) == 19
        assert f"process {second.pid} " in client.status().master
        assert client._finder._server is None


# Row 9 ----------------------------------------------------------------------------------


def test_row_09_work_goes_on_without_a_name_server_and_an_empty_one_learns_who_is_there(launch, group, tmp_path):
    names = launch.nameserver()
    address, port = names.address, int(names.address.rpartition(":")[2])
    launch.master(group, address, f"--lease={LEASE}")
    start_host(launch, group, address, 2)
    with DistributedMaster(group, address, host_master=False) as client:
        client.addJob(double(1))
        assert client.popProcessedJob(20).result == 2
        names.end(signal.SIGKILL)
        for number in range(20):
            client.addJob(note(str(tmp_path), str(number)))
        assert len(client.processedJobs(20)) == 20
        launch.nameserver(port)
        wait_until(lambda: uri_of(address, group), "the master registered again", 5 + SLACK)
        with DistributedMaster(group, address, host_master=False) as newcomer:
            newcomer.addJob(double(2))
            assert newcomer.popProcessedJob(20).result == 4


# Row 10 ---------------------------------------------------------------------------------


def test_row_10_a_slave_host_without_a_name_server_asks_ever_less_often_and_says_once_what_it_waits_for(launch, group):
    find_key()  # without one, the host says that it made one
    with listener() as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        host = launch.part(f"--group={group}", f"--nameserver={address}", "--slaves=1", name="host")
        moments = []
        silent.settimeout(20)
        while len(moments) < 8:
            silent.accept()[0].close()
            moments.append(time.monotonic())
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert sorted(gaps[-3:])[1] > 4 * min(gaps[:3]), gaps
        assert moments[-1] - moments[0] < 10, gaps
        assert host.text.count(f"waiting for a name server at {address}") == 1
        assert host.text.count("\n") == 1, host.text
        assert host.end() == 0


def test_row_10_a_client_that_finds_no_name_server_says_so_at_once(group):
    started = time.monotonic()
    with pytest.raises(NameServerNotFoundError, match="no name server answers at"):
        DistributedMaster(group, f"127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 3 + SLACK


def test_row_10_a_client_with_a_timeout_says_once_what_it_waits_for_and_goes_on_when_it_comes(launch, group, caplog):
    """First there is no name server, then none that knows the group's master, and then all is there."""
    port = free_port()
    address = f"localhost:{port}"

    def work():
        with DistributedMaster(group, address, host_master=False, timeout=PATIENCE) as client:
            client.addJob(double(21))
            return client.popProcessedJob(PATIENCE).result

    def said(words):
        return [record for record in caplog.records if words in record.getMessage()]

    waiting = Background(work)
    wait_until(lambda: said(f"no name server answers at {address}"), "words about the name server")
    launch.nameserver(port)
    wait_until(lambda: said(f"no master of the group {group!r} answers"), "words about the master")
    launch.master(group, address, f"--lease={LEASE}")
    start_host(launch, group, address, 1)
    assert waiting.result() == 42
    told = said("waiting for the master of the group")
    assert len(told) == 2, [record.getMessage() for record in told]
    assert all(record.levelname == "WARNING" for record in told), "seen without any configuration"


@pytest.mark.parametrize("there", ["nothing", "name server"])
def test_row_10_a_client_whose_timeout_is_over_gives_up_and_says_why(names, group, there):
    error = NameServerNotFoundError if there == "nothing" else MasterNotFoundError
    address = names if there == "name server" else f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(error, match=r"pyro5-ns|--group="):
        DistributedMaster(group, address, host_master=False, timeout=1)
    assert 1 <= time.monotonic() - started < 1 + SLACK


def test_row_10_a_name_server_that_never_answers_is_none(group):
    with listener() as silent:
        started = time.monotonic()
        with pytest.raises(NameServerNotFoundError):
            DistributedMaster(group, f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 3 + SLACK


def test_row_10_a_host_that_nobody_knows_is_said_so(group):
    find_key()  # without one, that would be what is said first
    with pytest.raises(NameServerNotFoundError, match=r"no-such-host\.invalid"):
        DistributedMaster(group, "no-such-host.invalid:9090")


# Row 20 ---------------------------------------------------------------------------------

#: Clocks that somebody can set.
WALL_CLOCKS = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "datetime"}


def test_row_20_no_module_looks_at_a_clock_that_somebody_can_set():
    """The clock of this machine is not for tests to set; but nothing in Papyros ever looks at it."""
    found = []
    for path in sorted(Path(papyros.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS:
                found.append((path.name, node.lineno))
            if isinstance(node, ast.ImportFrom) and node.module in {"time", "datetime"}:
                found += [(path.name, node.lineno) for alias in node.names if alias.name not in {"monotonic", "sleep"}]
            # A certificate has two fixed dates, which no clock tells; that none is asked there is seen to below.
            if isinstance(node, ast.Import) and path.name != "tls.py":
                found += [(path.name, node.lineno) for alias in node.names if alias.name == "datetime"]
            if isinstance(node, ast.Attribute) and node.attr in {"now", "today", "utcnow", "fromtimestamp"}:
                found.append((path.name, node.lineno))
    assert not found


# Row 24 ---------------------------------------------------------------------------------


def test_row_24_a_second_master_for_a_group_is_refused_and_the_first_goes_on(launch, names, group):
    first = launch.master(group, names)
    second = launch.part(f"--group={group}", f"--nameserver={names}", name="second")
    assert second.ended() == 1
    assert f"process {first.pid}" in second.text
    assert "has a master already" in second.text
    assert first.running


@pytest.mark.slow
def test_row_24_an_old_master_that_wakes_up_gives_way_and_says_so(launch, names, group, tmp_path):
    """While it sleeps its name is taken by another one; what it knew goes over to that one, once."""
    old = launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(double(1))
        assert client.popProcessedJob(20).result == 2
        old.send(signal.SIGSTOP)
        before = uri_of(names, group)
        launch.master(group, names, f"--lease={LEASE}")
        assert uri_of(names, group) != before
        for number in range(10):
            client.addJob(note(str(tmp_path), str(number)))
        old.send(signal.SIGCONT)
        assert sorted(job.result for job in client.processedJobs(30)) == sorted(map(str, range(10)))
        assert old.ended(10) == 1
        assert "this master gives way" in old.text
        assert max(len(starts(tmp_path, str(number))) for number in range(10)) <= 2
        assert client.popProcessedJob(0) is None


@pytest.mark.slow
def test_row_24_work_goes_on_at_a_new_master_while_the_old_one_sleeps(launch, names, group, tmp_path):
    """Nobody knows whether it ever wakes up."""
    old = launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(double(1))
        assert client.popProcessedJob(20).result == 2
        old.send(signal.SIGSTOP)
        launch.master(group, names, f"--lease={LEASE}")
        client.addJob(note(str(tmp_path), "after"))
        job = client.popProcessedJob(6 * LEASE)
        assert job is not None, "client or slave host still waits for the master that sleeps"
        assert job.result == "after"
        old.send(signal.SIGCONT)
        assert old.ended(10) == 1
        assert len(starts(tmp_path, "after")) == 1


@pytest.mark.slow
def test_row_24_a_client_that_hosted_the_master_and_slept_joins_the_one_that_took_its_name(launch, names, group):
    sleeper = launch.script(SLEEPER, group, names, name="sleeper")
    sleeper.wait_for("hosting")
    sleeper.send(signal.SIGSTOP)
    launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 1)
    sleeper.send(signal.SIGCONT)
    sleeper.wait_for("result 42", 15)


SLEEPER = """
    import sys
    from papyros import DistributedMaster
    from tests.contract.jobs_for_tests import double

    master = DistributedMaster(*sys.argv[1:])
    master.addJob(double(21))
    print("hosting", flush=True)
    print("result", master.popProcessedJob().result)
"""
