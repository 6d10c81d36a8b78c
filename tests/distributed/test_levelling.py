"""No job waits behind another one while a slave has nothing to do, be it on another machine."""

from __future__ import annotations

from papyros import DistributedMaster
from tests.contract.jobs_for_tests import double, wait_at
from tests.support import PATIENCE, at_most, wait_until

QUICK = 40


def test_jobs_behind_a_long_one_go_to_a_slave_host_that_comes(launch, names, group, gates):
    launch.master(group, names)
    launch.host(group, names, 1)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        for number in range(QUICK):
            client.addJob(double(number))
        assert {client.popProcessedJob(PATIENCE).result for _ in range(QUICK)} == {2 * n for n in range(QUICK)}
        client.addJob(wait_at(gate.path, "long"))  # the master takes it to be as quick as the others
        for number in range(QUICK):
            client.addJob(double(number))
        gate.wait_for_arrivals()
        wait_until(lambda: client.status().assigned > 1, "jobs that wait behind the long one")
        launch.host(group, names, 1)
        with at_most(PATIENCE):
            assert {client.popProcessedJob(PATIENCE).result for _ in range(QUICK)} == {2 * n for n in range(QUICK)}
        gate.open()
        assert client.popProcessedJob(PATIENCE).result == "long"


def test_no_job_waits_at_a_host_for_slaves_that_it_cannot_start(launch, names, group, gates):
    """It had said how many it should have, and was given a job for each of them."""
    launch.master(group, names)
    bounded = launch.bounded("NOFILE", 48, f"--group={group}", f"--nameserver={names}", "--slaves=8")
    few = int(bounded.find(r"(\d+) of 8 slaves serve the group")[1])
    assert 0 < few < 8
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        for number in range(9):
            client.addJob(wait_at(gate.path, number))
        gate.wait_for_arrivals(few)
        launch.host(group, names, 9 - few)
        gate.wait_for_arrivals(9)
        gate.open()
        assert {client.popProcessedJob(PATIENCE).result for _ in range(9)} == set(range(9))
