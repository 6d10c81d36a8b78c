"""Who may take the name of a master: nobody who merely cannot reach it."""

from __future__ import annotations

import contextlib
import socket

import pytest

from papyros import ClusterError, DistributedMaster
from papyros.distributed.naming import MASTER_OBJECT, NameServer, parse_address
from papyros.distributed.server import MasterServer
from tests.contract.jobs_for_tests import double
from tests.distributed.programs import uri_of
from tests.support import PATIENCE, security, wait_until


@contextlib.contextmanager
def silence():
    """A port at which somebody listens, who never says a word: as far as others can see, no more than a lost packet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"PYRO:{MASTER_OBJECT}@127.0.0.1:{server.getsockname()[1]}"


def register(names, group, uri):
    NameServer(parse_address(names), security())._ask("register", f"papyros.master.{group}", uri, False)


def test_a_client_that_cannot_tell_whether_there_is_a_master_hosts_none(names, group):
    with silence() as uri:
        register(names, group, uri)
        with pytest.raises(ClusterError, match=r"cannot be reached from here: .*timed out"):
            DistributedMaster(group, names)
        assert uri_of(names, group) == uri


def test_a_client_that_does_not_find_the_machine_hosts_none(names, group):
    uri = f"PYRO:{MASTER_OBJECT}@nobody.invalid:9091"
    register(names, group, uri)
    with pytest.raises(ClusterError, match="cannot be reached from here"):
        DistributedMaster(group, names)
    assert uri_of(names, group) == uri


def test_a_master_that_is_started_takes_the_name_of_one_that_says_nothing(launch, names, group):
    with silence() as uri:
        register(names, group, uri)
        launch.master(group, names)
        assert uri_of(names, group) != uri


def test_a_master_takes_its_name_back_from_one_that_a_client_hosts(launch, names, group):
    """As a client may do that is cut off from it: it gives way, and goes on at the other one if it can."""
    master = launch.master(group, names)
    own = uri_of(names, group)
    launch.host(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        over = []
        hosted = MasterServer(group, parse_address(names), security(), on_over=over.append, hosted=True)
        try:
            register(names, group, hosted.uri)
            hosted._keeper.start()
            wait_until(lambda: uri_of(names, group) == own, "the name to be taken back")
            wait_until(lambda: over, "the other one to give way")
        finally:
            hosted.close()
        client.addJob(double(21))
        assert client.popProcessedJob(PATIENCE).result == 42
    assert master.running


def test_none_is_hosted_where_nobody_else_could_reach_it(group, monkeypatch):
    monkeypatch.setattr("papyros.distributed.naming.is_here", lambda _: False)
    with pytest.raises(ClusterError, match="can be reached from this machine only"):
        MasterServer(group, parse_address("lab1"), security())
