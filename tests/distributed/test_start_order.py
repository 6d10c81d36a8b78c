"""The parts start in any order, and outlive each other."""

from __future__ import annotations

import itertools
import math
import signal
import socket

import pytest

from papyros import DistributedMaster
from papyros.distributed.line import Line
from papyros.distributed.security import Role
from tests.contract.jobs_for_tests import double, nap
from tests.distributed.jobs import starts, trace
from tests.distributed.programs import HOST_UP, MASTER_UP, alive, free_port, groups, slaves_of, uri_of
from tests.support import at_most, security, wait_until

pytestmark = pytest.mark.measured

ORDERS = list(itertools.permutations(["names", "master", "host"]))


def doubled(client, numbers):
    """Have numbers doubled, and return what comes back."""
    for number in numbers:
        client.addJob(double(number))
    return [job.result for job in client.processedJobs(30)]


@pytest.mark.parametrize("order", ORDERS, ids=["-".join(order) for order in ORDERS])
def test_the_parts_start_in_any_order_and_say_once_what_they_wait_for(order, launch, group):
    port = free_port()
    address = f"localhost:{port}"
    waits_for_names = f"waiting for a name server at {address}"
    waits_for_master = f"waiting for a master of the group '{group}'"
    started = {}
    for part in order:
        if part == "names":
            launch.nameserver(port)
        else:
            slaves = ["--slaves=2"] if part == "host" else []
            started[part] = launch.part(f"--group={group}", f"--nameserver={address}", *slaves, name=part)
        up = {"names", *started} if "names" in order[: order.index(part) + 1] else set(started)
        # Nothing is started before those that are there have said what they wait for, or that they are up.
        for name, program in started.items():
            if "names" not in up:
                program.wait_for("waiting for a name server")
            elif name == "master":
                program.wait_for(MASTER_UP)
            else:
                program.wait_for(HOST_UP if "master" in up else waits_for_master)
    with DistributedMaster(group, address, host_master=False) as client:
        assert sorted(doubled(client, range(20))) == list(range(0, 40, 2))
    host, master = started["host"], started["master"]
    assert host.text.count(waits_for_names) == (order.index("host") < order.index("names"))
    assert master.text.count("waiting for") == (order.index("master") < order.index("names"))
    if order.index("master") < order.index("host") and "names" in order[: order.index("host")]:
        assert "waiting for" not in host.text
    assert host.text.count(waits_for_master) <= 1
    assert host.text.count(HOST_UP) == 1
    assert host.end() == 0
    assert master.end() == 0
    assert groups(address) == []


CLIENT = """
    import sys
    import helpers
    from papyros import DistributedMaster, Job

    class Cube(Job):
        def __call__(self, number):
            return number**3

    def in_function(summand):
        class Sum(Job):
            def __call__(self, number):
                return number + summand + helpers.ONE
        return Sum

    master = DistributedMaster(sys.argv[1], sys.argv[2], host_master=False)
    Sum = in_function(99)
    jobs = [Cube(3), helpers.Quotient(84, 2), helpers.quotient(21, 7), Sum(0)]
    for job in jobs:
        master.addJob(job)
    for job in iter(master.popProcessedJob, None):
        print(type(job).__name__, job.result)
    print("that is all")
"""

HELPERS = """
import papyros

ONE = 1

class Quotient(papyros.Job):
    def __call__(self, dividend, divisor):
        return dividend // divisor

@papyros.job
def quotient(dividend, divisor):
    return dividend // divisor
"""


def test_slaves_first_then_the_master_then_a_client_script_of_ones_own(launch, names, group, tmp_path):
    host = launch.part(f"--group={group}", f"--nameserver={names}", "--slaves=2", name="host")
    host.wait_for(f"waiting for a master of the group '{group}'")
    launch.master(group, names)
    home = tmp_path / "a folder of one's own"
    home.mkdir()
    (home / "helpers.py").write_text(HELPERS)
    client = launch.script(CLIENT, group, names, folder=home, alone=True)
    assert client.ended() == 0
    lines = sorted(client.text.splitlines())
    assert lines == ["Cube 27", "Quotient 42", "Sum 100", "quotient 3", "that is all"]
    assert host.text.count("waiting for") == 1


@pytest.mark.parametrize("first", ["client", "host"])
def test_a_client_hosts_the_master_itself(first, launch, names, group):
    arguments = [f"--group={group}", f"--nameserver={names}", "--slaves=2"]
    if first == "host":
        launch.part(*arguments, name="host").wait_for("waiting for a master")
    with DistributedMaster(group, names) as client:
        assert groups(names).count(group) == 1
        for number in range(50):
            client.addJob(double(number))
        if first == "client":
            launch.part(*arguments, name="host")
        assert sorted(job.result for job in client.processedJobs(30)) == list(range(0, 100, 2))
        with DistributedMaster(group, names, host_master=False) as guest:
            assert doubled(guest, [4]) == [8]
    assert group not in groups(names)


def test_a_client_that_hosts_the_master_says_when_a_silent_slave_host_is_given_up(
    launch, names, group, gates, tmp_path
):
    gate = gates()
    with DistributedMaster(group, names, lease=2, grace=30) as client:
        first = launch.host(group, names, 1)
        client.addJob(trace(str(tmp_path), "a", gate.path))
        gate.wait_for_arrivals()
        launch.host(group, names, 1)
        with at_most(8):  # ten seconds is the default
            first.end(signal.SIGKILL)
            gate.wait_for_arrivals(2)
        gate.open()
        assert client.popProcessedJob(30).result == "a"


@pytest.mark.parametrize("option", ["lease", "grace"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (0.01, ValueError),
        (1e11, ValueError),
        (10**400, ValueError),
        (math.inf, ValueError),
        (math.nan, ValueError),
        ("2", TypeError),
    ],
)
def test_a_bad_lease_or_grace_of_a_hosted_master_is_refused_before_anybody_is_asked(option, value, error):
    with pytest.raises(error, match=option):
        DistributedMaster(nameserver=f"localhost:{free_port()}", **{option: value})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_slaves_outlive_their_master_and_serve_the_next_one(number, launch, names, group, tmp_path):
    first = launch.master(group, names)
    host = launch.host(group, names, 2)
    before = sorted(slaves_of(host.pid))
    with DistributedMaster(group, names, host_master=False) as client:
        jobs = [nap(0.02, name) for name in range(60)]
        for job in jobs:
            client.addJob(job)
        popped = [client.popProcessedJob(30) for _ in range(5)]
        assert first.end(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        client.addJob(late := nap(0, "late"))
        launch.master(group, names)
        popped += client.processedJobs(30)
        assert len(popped) == 61
        assert set(popped) == {*jobs, late}
        assert sorted(job.result for job in jobs) == list(range(60))
        assert client.numPendingJobs() == 0
        assert client.popProcessedJob() is None
    assert sorted(slaves_of(host.pid)) == before
    assert host.running
    assert host.text.count(HOST_UP) == 2


def test_a_client_takes_over_when_the_master_is_killed_and_none_comes(launch, names, group):
    first = launch.master(group, names)
    launch.host(group, names, 2)
    with DistributedMaster(group, names) as client:
        for number in range(60):
            client.addJob(nap(0.02, number))
        popped = [client.popProcessedJob(30).result for _ in range(5)]
        first.end(signal.SIGKILL)
        popped += [job.result for job in client.processedJobs(30)]
        assert sorted(popped) == list(range(60))
        second = launch.part(f"--group={group}", f"--nameserver={names}", name="second")
        assert second.ended() == 1
        assert "has a master already" in second.text
    assert group not in groups(names)


def test_the_stale_name_of_a_killed_master_is_replaced(launch, names, group):
    launch.master(group, names).end(signal.SIGKILL)
    stale = uri_of(names, group)
    assert stale is not None
    second = launch.master(group, names)
    assert uri_of(names, group) not in (None, stale)
    launch.host(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        assert doubled(client, [1]) == [2]
    assert second.end() == 0


def test_the_stale_name_of_a_killed_master_does_not_keep_a_client_from_hosting(launch, names, group):
    launch.master(group, names).end(signal.SIGKILL)
    with DistributedMaster(group, names) as client:
        launch.host(group, names)
        assert doubled(client, [1]) == [2]


def test_a_client_that_hosts_a_master_beside_those_of_other_groups_says_which_there_are(launch, names, group, caplog):
    right, slip = f"{group}.lab", f"{group}.lap"
    launch.master(right, names)
    with DistributedMaster(slip, names):
        [told] = [record.getMessage() for record in caplog.records if slip in record.getMessage()]
        assert "this program hosts it; groups that have one: " in told
        assert right in told.partition("groups that have one: ")[2].split(", ")
        caplog.clear()
        with DistributedMaster(slip, names), DistributedMaster(right, names):
            assert not caplog.records


def test_slaves_that_wait_for_a_master_say_which_groups_there_are(launch, names, group):
    launch.master(f"{group}.lab", names)
    host = launch.part(f"--group={group}.lap", f"--nameserver={names}", "--slaves=1", name="host")
    told = host.wait_for("groups that have one: ")
    assert f"waiting for a master of the group '{group}.lap'" in told
    assert f"{group}.lab" in told.partition("groups that have one: ")[2]


def test_a_client_that_hosts_the_only_master_there_is_says_nothing(launch, group, caplog):
    with DistributedMaster(group, launch.nameserver().address):
        assert not caplog.records


def test_a_second_master_of_a_group_is_refused_and_told_where_the_first_is(launch, names, group):
    first = launch.master(group, names)
    second = launch.part(f"--group={group}", f"--nameserver={names}", name="second")
    assert second.ended() == 1
    address = first.find(r"is up at (\S+),")[1]
    for fact in (group, address, f"process {first.pid} ", socket.gethostname()):
        assert fact in second.text
    assert len(second.text.splitlines()) == 1
    assert first.running
    assert address in uri_of(names, group)


def test_two_groups_at_one_name_server_do_not_mix(launch, names, group):
    hosts = {}
    for name in (f"{group}.a", f"{group}.b"):
        launch.master(name, names)
        hosts[name] = launch.host(name, names, 2)
    with DistributedMaster(f"{group}.a", names) as a, DistributedMaster(f"{group}.b", names) as b:
        clients = {f"{group}.a": a, f"{group}.b": b}
        for name, client in clients.items():
            for number in range(30):
                client.addJob(nap(0.001, (name, number)))
        for name, client in clients.items():
            done = client.processedJobs(30)
            assert sorted(job.result for job in done) == [(name, number) for number in range(30)]
            ran = {int(job.slave.rpartition("/")[2]) for job in done}
            assert ran <= set(slaves_of(hosts[name].pid))


def test_a_group_is_not_served_by_another_ones_master_on_the_port_of_a_killed_one(launch, names, group):
    port = free_port()
    launch.master(f"{group}.a", names, f"--port={port}").end(signal.SIGKILL)
    launch.master(f"{group}.b", names, f"--port={port}")  # to which the stale name of the first one leads
    host = launch.part(f"--group={group}.a", f"--nameserver={names}", "--slaves=1", name="host")
    wait_until(lambda: "waiting for a master" in host.text or HOST_UP in host.text, "the host to look around")
    assert HOST_UP not in host.text
    with DistributedMaster(f"{group}.a", names) as client:  # it hosts the master of its own group
        assert doubled(client, [1]) == [2]
        host.wait_for(HOST_UP)


FIVE = """
    import sys
    from papyros import DistributedMaster
    from tests.contract.jobs_for_tests import nap

    group, names, me = sys.argv[1:]
    with DistributedMaster(group, names, host_master=False) as master:
        for number in range(100):
            master.addJob(nap(0, (me, number)))
        results = [job.result for job in iter(master.popProcessedJob, None)]
    assert sorted(results) == [(me, number) for number in range(100)], results
    print("all mine")
"""


def test_jobs_of_five_clients_of_a_group_never_mix(launch, names, group):
    launch.master(group, names)
    launch.host(group, names, 2)
    clients = [launch.script(FIVE, group, names, f"client {i}", name=f"client{i}") for i in range(5)]
    for client in clients:
        assert client.ended() == 0
        assert client.text == "all mine\n"


def test_what_a_slave_host_had_not_finished_runs_elsewhere_when_it_ends(launch, names, group, gates, tmp_path):
    launch.master(group, names)
    first = launch.host(group, names)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(trace(str(tmp_path), "running", gate.path))
        client.addJob(double(4))
        gate.wait_for_arrivals(1)
        assert first.end(signal.SIGINT, 5) == 0
        second = launch.host(group, names)
        gate.wait_for_arrivals(2)
        gate.open()
        assert sorted(str(job.result) for job in client.processedJobs(30)) == ["8", "running"]
        assert [alive(pid) for pid in starts(tmp_path, "running")] == [False, True]
        assert second.running


SLEEPER = """
    import sys
    from papyros import DistributedMaster
    from tests.contract.jobs_for_tests import double

    master = DistributedMaster(*sys.argv[1:])
    master.addJob(double(21))
    print("hosting", flush=True)
    print("result", master.popProcessedJob().result)
"""


def test_a_client_whose_hosted_master_lost_its_name_joins_the_new_one(launch, group):
    """The name server forgot; while one client slept, another one hosted a master for the same group."""
    names = launch.nameserver()
    address, port = names.address, int(names.address.rpartition(":")[2])
    sleeper = launch.script(SLEEPER, group, address, name="sleeper")
    sleeper.wait_for("hosting")
    sleeper.send(signal.SIGSTOP)
    names.end(signal.SIGKILL)
    launch.nameserver(port)
    with DistributedMaster(group, address) as client:
        launch.host(group, address)
        sleeper.send(signal.SIGCONT)
        assert doubled(client, [1]) == [2]
        sleeper.wait_for("result 42", 8)


def test_a_slave_host_whose_reader_has_gone_still_serves_the_next_master(launch, names, group, read_once):
    first = launch.master(group, names)
    read_once(f"--group={group}", f"--nameserver={names}", "--slaves=1")
    first.end(signal.SIGKILL)
    launch.master(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(double(1))
        assert client.popProcessedJob(5) is not None, "the slave host did not come back"


def test_a_connection_that_says_nothing_keeps_nobody_out(launch, names, group):
    master = launch.master(group, names)
    host, _, port = master.find(r"is up at (\S+),")[1].rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(5)]
    try:
        launch.host(group, names)
        with (
            DistributedMaster(group, names, host_master=False) as client,
            Line(uri_of(names, group), security(), Role.WATCHER),
        ):
            assert doubled(client, [1]) == [2]
    finally:
        for sock in silent:
            sock.close()
