"""What a master says to its name server, again and again, costs little; and one that is started anew learns it."""

from __future__ import annotations

import pytest

from papyros import NameServerNotFoundError
from papyros.distributed import naming
from papyros.distributed.daemon import Daemon
from papyros.distributed.nameserver import Names
from papyros.distributed.naming import Address, NameServer
from papyros.distributed.security import Role
from tests.distributed.programs import free_port
from tests.support import security

URI = "PYRO:papyros.master@127.0.0.1:4711"


@pytest.fixture
def made(monkeypatch):
    """The lines that are made to name servers."""
    lines = []

    class Line(naming.Line):
        def __init__(self, *args, **kwds):
            super().__init__(*args, **kwds)
            lines.append(self)

    monkeypatch.setattr(naming, "Line", Line)
    return lines


def name_server(port):
    daemon = Daemon("127.0.0.1", port, security(), Role.NAME_SERVER, Names())
    daemon.start()
    return daemon


def test_a_master_stays_registered_over_one_line_also_when_the_name_server_is_another_one(made):
    daemon = name_server(free_port())
    address = Address("127.0.0.1", daemon.port)
    names = NameServer(address, security(), keeps_line=True)
    try:
        names.register("lab", URI)
        for _ in range(5):
            names.stay_registered("lab", URI)
        assert len(made) == 1
        daemon.close()
        with pytest.raises(NameServerNotFoundError):
            names.stay_registered("lab", URI)
        daemon = name_server(address.port)
        names.stay_registered("lab", URI)
        assert NameServer(address, security()).lookup("lab") == URI
        lines = len(made)
        daemon.close()
        daemon = name_server(address.port)
        names.stay_registered("lab", URI)  # nothing was asked in between, so the line broke under the question
        assert NameServer(address, security()).lookup("lab") == URI
        assert names.lookup("lab") == URI
        assert len(made) == lines + 2
    finally:
        names.close()
        daemon.close()
    assert all(line.broken for line in made)


def test_others_keep_no_line(made):
    daemon = name_server(free_port())
    try:
        names = NameServer(Address("127.0.0.1", daemon.port), security())
        names.register("lab", URI)
        assert names.lookup("lab") == URI
        assert len(made) == 2
        assert all(line.broken for line in made)
    finally:
        daemon.close()
