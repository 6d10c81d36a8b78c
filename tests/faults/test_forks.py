"""A program that hosts the master, and forks: the child, which may live for longer, keeps nothing of it open."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from tests.contract.jobs_for_tests import Square
from tests.support import fork, processed


@contextlib.contextmanager
def forked(looked):
    """A child of this process that does nothing but live; in the end, what it has looked at is not to be open there."""
    out, end = os.pipe()
    child = fork()
    if not child:
        os.close(end)
        os.read(out, 1)
        os._exit(sum(sock.fileno() != -1 for sock in looked))
    os.close(out)
    try:
        yield
    finally:
        os.close(end)
        _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_forked_child_keeps_neither_the_port_of_a_hosted_master_open_nor_its_connections(group):
    """If the program was killed, its group had no master for as long as the child lived: none that answered."""
    client = group.client(host_master=True)
    host = group.host()
    assert processed(client, Square(6)).result == 36
    daemon = client._finder._server._daemon
    with forked([daemon._sock, *daemon._connections]):
        assert processed(client, Square(7)).result == 49, "in the program, all goes on"
        host.close()
        client.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((daemon.address, daemon.port), 5)
