"""The ends of local clusters and of clients that are interrupted: nothing of them is left, without any process."""

from __future__ import annotations

import os

import pytest

from papyros.distributed import DistributedMaster
from papyros.distributed import cluster as cluster_module
from papyros.distributed.cluster import LocalCluster
from papyros.distributed.finder import MasterFinder


class Interrupt(BaseException):
    """Ctrl-C, which ends a test and not all of them."""


class FakePart:
    """A part that is ready at once, and ends when it is asked to."""

    pid = 0
    failed = False

    def __init__(self, name, module, arguments, key_file=None):
        self.name = name
        self.asked = self.closed = False
        self._heard, self._said = os.pipe()

    def wait_ready(self, timeout):
        return {"port": 1, "address": "127.0.0.1:1"}

    def fileno(self):
        return self._heard

    def end(self):
        if not self.asked:
            self.asked = True
            os.close(self._said)

    def wait(self):
        pass

    def close(self):
        if not self.closed:
            self.closed = True
            os.close(self._heard)


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(cluster_module, "Part", FakePart)
    cluster = LocalCluster()
    yield cluster
    cluster.close()


class FakeClient:
    """A client whose end is interrupted."""

    closed = False

    def close(self):
        self.closed = True
        raise Interrupt


def test_parts_end_and_all_clients_are_closed_though_the_end_of_clients_is_interrupted(cluster):
    clients = FakeClient(), FakeClient()
    cluster._clients.update(clients)
    with pytest.raises(Interrupt):
        cluster.close()
    assert all(client.closed for client in clients)
    assert all(part.closed for part in cluster._parts)
    cluster._clients.clear()


def test_all_parts_are_asked_to_end_when_nobody_waits_for_them_any_longer(cluster, monkeypatch):
    def wait(part):
        raise Interrupt

    with monkeypatch.context() as patch:
        patch.setattr(FakePart, "wait", wait)
        with pytest.raises(Interrupt):
            cluster.close()
    assert [part.asked for part in cluster._parts] == [True] * 3
    cluster.close()
    assert all(part.closed for part in cluster._parts), "who closes it again lets go of everything"


def test_a_client_that_is_interrupted_while_it_joins_ends_the_master_that_it_hosts(monkeypatch):
    class Server:
        closed = False

        def close(self):
            self.closed = True

    server = Server()

    def first(finder, deadline):
        finder._server = server
        raise Interrupt

    monkeypatch.setattr(MasterFinder, "first", first)
    with pytest.raises(Interrupt):
        DistributedMaster("lab", "127.0.0.1:1")
    assert server.closed
