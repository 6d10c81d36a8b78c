"""Jobs that wait for their children while what they run on is killed."""

from __future__ import annotations

import signal

from papyros import DistributedMaster
from tests.chaos.conftest import LEASE, start_host
from tests.contract import families
from tests.contract.jobs_for_tests import starts
from tests.support import PATIENCE, wait_until


def wait_for_start(folder, name):
    wait_until(lambda: starts(folder, name), f"{name} was started")


def test_parents_and_children_go_on_when_the_master_is_killed_and_a_new_one_comes(
    launch, names, group, gates, tmp_path
):
    """The parent finds the next master, and adds its children there; what was done by then is not done again."""
    gate = gates()
    first = launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(families.note_and_wait(str(tmp_path), "child", gate.path, 3))
        wait_for_start(tmp_path, "child-0")
        first.end(signal.SIGKILL)
        launch.master(group, names, f"--lease={LEASE}")
        gate.open()
        assert client.popProcessedJob(PATIENCE).result == 3
        client.addJob(families.tree_sum(3))
        assert client.popProcessedJob(PATIENCE).result == 15
        wait_until(lambda: client.status().assigned == 0, "nothing is assigned any more")


def test_a_family_whose_slave_host_is_killed_begins_anew_on_another_one(launch, names, group, gates, tmp_path):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}")
    first = start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(families.wait_for_child(str(tmp_path), "parent", gate.path))
        wait_for_start(tmp_path, "child-of-parent")
        start_host(launch, group, names, 1)
        first.end(signal.SIGKILL)
        wait_until(lambda: len(starts(tmp_path, "parent")) == 2, "the parent runs again")
        gate.open()
        assert client.popProcessedJob(PATIENCE).result == "child-of-parent"
        status = wait_until(lambda: (s := client.status()).assigned == 0 and s, "nothing is assigned any more")
        assert status.waiting == status.processed == 0


def test_what_a_client_leaves_behind_when_it_is_gone_is_stopped_with_all_generations(
    launch, names, group, gates, tmp_path
):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}")
    start_host(launch, group, names, 1)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(families.wait_for_child(str(tmp_path), "parent", gate.path))
        wait_for_start(tmp_path, "child-of-parent")
    with DistributedMaster(group, names, host_master=False) as another:
        assert another.popProcessedJob(0) is None
        status = wait_until(lambda: (s := another.status()).assigned == 0 and s, "all of it was stopped")
        assert status.waiting == 0
        assert status.clients == 1
        another.addJob(families.tree_sum(2))
        assert another.popProcessedJob(PATIENCE).result == 7
