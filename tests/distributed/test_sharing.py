"""Shared values between real programs: what crosses, what is held, and what is left when parts are killed."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
from collections import defaultdict

import pytest

import papyros
from papyros import DistributedMaster
from tests.chaos.conftest import start_host
from tests.chaos.wire import wire_to_master
from tests.contract.sharing import mapping, pick
from tests.contract.test_sharing import held_by
from tests.distributed.programs import HOST_UP, slaves_of
from tests.support import PATIENCE, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LEASE = 2.0


@contextlib.contextmanager
def two_hosts(launch, names, group):
    """A master, and two slave hosts with two slaves each, behind wires that count what goes to and fro."""
    launch.master(group, names, f"--lease={LEASE}")
    with contextlib.ExitStack() as stack:
        far = [launch.nameserver().address for _ in range(2)]
        wires = [stack.enter_context(wire_to_master(names, address, group)) for address in far]
        hosts = [start_host(launch, group, address, 2) for address in far]
        yield wires, hosts


def share_among_hosts(launch, names, group, gates, size, jobs):
    """Share a value with many jobs on two slave hosts, and check how often it crosses and is held."""
    content = os.urandom(size)
    with (
        two_hosts(launch, names, group) as (wires, hosts),
        DistributedMaster(group, names, host_master=False) as client,
    ):
        before = [wire.carried for wire in wires]
        handle = papyros.shared(memoryview(content))
        gate = gates()  # before there is any reason to take jobs for quick ones, of which a slave is given some ahead
        looking = [mapping(handle, gate.path) for _ in range(4)]
        for job in looking:
            client.addJob(job)
        gate.wait_for_arrivals(4)
        gate.open()
        assert set(client.processedJobs(PATIENCE)) == set(looking)

        added = [pick(handle, number) for number in range(jobs)]
        for job in added:
            client.addJob(job)
        assert set(client.processedJobs(4 * PATIENCE)) == set(added)
        assert [job.result for job in added] == list(content[:jobs])
        crossed = [(wire.carried - then) / size for wire, then in zip(wires, before, strict=True)]
        assert all(1 <= times < 1.2 for times in crossed), crossed

        found = defaultdict(list)
        for job in looking:
            pid, host, inode, resident, part, _ = job.result
            found[host].append((pid, inode, resident, part))
        assert set(found) == {host.pid for host in hosts}
        for host, slaves in found.items():
            assert {pid for pid, *_ in slaves} == set(slaves_of(host))
            [inode] = {inode for _, inode, _, _ in slaves}
            assert held_by(host) == {inode}
            assert all(resident >= size for _, _, resident, _ in slaves)
            assert sum(part for *_, part in slaves) < 1.1 * size, "slaves of one host have more than one copy"

        status = wait_until(lambda: len((s := client.status()).shared_on) == 2 and s, "both to tell what they hold")
        assert status.shared == 1
        assert size <= status.shared_bytes < size + 10_000
        assert sorted(held.host.rpartition("/")[2] for held in status.shared_on) == sorted(str(h.pid) for h in hosts)
        assert re.search(r"^  shared: 1 value, [\d.]+ MB, on 2 slave hosts$", str(status), re.M)


def test_a_value_of_20_mb_crosses_to_each_slave_host_once_and_is_held_there_once(launch, names, group, gates):
    share_among_hosts(launch, names, group, gates, 20_000_000, 1000)


@pytest.mark.slow
def test_a_value_of_100_mb_crosses_to_each_slave_host_once_and_is_held_there_once(launch, names, group, gates):
    share_among_hosts(launch, names, group, gates, 100_000_000, 1000)


def test_a_value_is_gone_on_with_where_a_connection_broke(launch, names, group):
    size = 20_000_000
    launch.master(group, names, f"--lease={LEASE}")
    far = launch.nameserver().address
    with wire_to_master(names, far, group) as wire, DistributedMaster(group, names, host_master=False) as client:
        start_host(launch, group, far)
        wire.cut_after = size // 3
        handle = papyros.shared(memoryview(bytes(size)))
        client.addJob(pick(handle, 5))
        assert client.popProcessedJob(PATIENCE).result == 0
        assert wire.accepted > 4  # two connections at first, and one for each third at least
        assert wire.carried < 2 * size


def test_jobs_that_need_nothing_go_on_while_a_value_is_on_its_way(launch, names, group):
    launch.master(group, names, f"--lease={LEASE}")
    far = launch.nameserver().address
    with wire_to_master(names, far, group) as wire, DistributedMaster(group, names, host_master=False) as client:
        start_host(launch, group, far, 2)
        wire.rate = 1_000_000
        handle = papyros.shared(memoryview(bytes(20_000_000)))
        slow, quick = pick(handle, 5), pick([1, 2, 3], 2)
        client.addJob(slow)
        client.addJob(quick)
        assert client.popProcessedJob(PATIENCE) is quick
        assert quick.result == 3
        assert client.numPendingJobs() == 1
        wire.resume()
        assert client.popProcessedJob(PATIENCE) is slow
        assert slow.result == 0


def test_a_master_that_is_killed_and_replaced_gets_values_again_and_slave_hosts_keep_theirs(
    launch, names, group, gates
):
    gate = gates()
    first = launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        handle = papyros.shared(list(range(100_000)))
        jobs = [pick(handle, number, gate.path) for number in range(40)]
        for job in jobs:
            client.addJob(job)
        gate.wait_for_arrivals(2)
        held = held_by(host.pid)
        assert len(held) == 1
        first.end(signal.SIGKILL)
        launch.master(group, names, f"--lease={LEASE}")
        gate.open()
        assert set(client.processedJobs(PATIENCE)) == set(jobs)
        assert [job.result for job in jobs] == list(range(40))
        assert held_by(host.pid) == held

        def told():
            status = client.status()
            return status.shared == 1 and [found.values for found in status.shared_on] == [1]

        wait_until(told, "a status that tells of the value, at the new master too")
        host.end(signal.SIGKILL)
        late = start_host(launch, group, names, 1)
        job = pick(handle, 77)
        client.addJob(job)
        assert client.popProcessedJob(PATIENCE) is job
        assert job.result == 77
        assert len(held_by(late.pid)) == 1
        del handle, job, jobs
        gc.collect()
        wait_until(lambda: not client.status().shared, "a master that holds nothing")
        for pid in (late.pid, *slaves_of(late.pid)):
            wait_until(lambda pid=pid: not held_by(pid), f"process {pid} holds nothing")


def test_a_client_that_is_gone_leaves_nothing_held(launch, names, group):
    launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as watcher:
        with DistributedMaster(group, names, host_master=False) as client:
            handle = papyros.shared(list(range(1000)))
            client.addJob(pick(handle, 5))
            assert client.popProcessedJob(PATIENCE).result == 5
            assert watcher.status().shared == 1
        assert watcher.status().shared == 0
        wait_until(lambda: not held_by(host.pid), "a slave host that holds nothing")
        with DistributedMaster(group, names, host_master=False) as client:
            client.addJob(pick(handle, 6))
            assert client.popProcessedJob(PATIENCE).result == 6


def test_two_clients_that_share_the_same_share_it(launch, names, group):
    launch.master(group, names, f"--lease={LEASE}")
    host = start_host(launch, group, names, 1)
    clients = [DistributedMaster(group, names, host_master=False) for _ in range(2)]
    with clients[0], clients[1]:
        for client in clients:
            client.addJob(pick(papyros.shared(list(range(1000))), 5))
        for client in clients:
            assert client.popProcessedJob(PATIENCE).result == 5
        assert len(held_by(host.pid)) <= 1  # whoever came first may be done already


def test_jobs_whose_value_a_host_cannot_hold_go_to_another_one(launch, names, group):
    """They stayed with the host that could not, for ever."""
    launch.master(group, names)
    small = launch.bounded("FSIZE", 2 << 20, f"--group={group}", f"--nameserver={names}", "--slaves=2")
    small.wait_for(HOST_UP)
    content = os.urandom(8 << 20)
    with DistributedMaster(group, names, host_master=False) as client:
        added = [pick(papyros.shared(content), number) for number in range(6)]
        for job in added:
            client.addJob(job)
        small.wait_for("cannot be held here now: [Errno 27] File too large")
        launch.host(group, names, 1)
        assert {client.popProcessedJob(PATIENCE) for _ in added} == set(added)
        assert [job.result for job in added] == list(content[:6])
    assert small.text.count("cannot be held here now") == 1
