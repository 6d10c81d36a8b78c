"""Ctrl-C while a client is closed that hosts the master: nobody else could end that, or take its name back."""

from __future__ import annotations

import threading

import pytest

from papyros.distributed.naming import NameServer
from papyros.distributed.server import MasterServer
from tests.support import Background, security, wait_until


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("thread", ["papyros-send", "papyros-receive", "papyros-keeper", "papyros-sweep"])
def test_the_master_that_a_client_hosts_ends_though_ctrl_c_comes_while_that_is_closed(group, monkeypatch, thread):
    client = group.client(host_master=True)
    join, is_alive, interrupted = threading.Thread.join, threading.Thread.is_alive, []

    def join_others(self, timeout=None):
        if self.name == thread and not interrupted:
            interrupted.append(thread)
            raise KeyboardInterrupt
        join(self, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", join_others)
        # It may have ended by the time that it is looked whether to wait for it.
        patch.setattr(threading.Thread, "is_alive", lambda self: self.name == thread or is_alive(self))
        with pytest.raises(KeyboardInterrupt):
            client.close()
    assert interrupted
    assert NameServer(group.names, security()).lookup(group.name) is None
    client.close()  # and no thread or socket is left, as for all tests


def test_a_master_that_was_about_to_be_hosted_ends_though_ctrl_c_kept_its_client_from_waiting_for_it(
    group, monkeypatch
):
    first = group.master()
    first.register()
    client = group.client(host_master=True, host_after=0.0)
    registered, go_on = threading.Event(), threading.Event()
    register = MasterServer.register

    def register_slowly(server):
        register(server)
        registered.set()
        assert go_on.wait(10)

    monkeypatch.setattr(MasterServer, "register", register_slowly)
    first.close()
    assert registered.wait(10)
    monkeypatch.setattr(client._threads[0], "join", interrupt)
    closing = Background(client.close)
    with pytest.raises(KeyboardInterrupt):
        closing.result()
    go_on.set()
    names = NameServer(group.names, security())
    wait_until(lambda: names.lookup(group.name) is None, "an end to the master")
    threading.Thread.join(client._threads[0])
