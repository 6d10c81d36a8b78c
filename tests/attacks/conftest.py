"""What tests of attacks share: a group to attack, strangers, and holders of the key that misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from papyros.distributed.keys import ClusterKey
from papyros.distributed.line import Line
from papyros.distributed.security import Role, Security
from tests.distributed.conftest import launch, mark  # noqa: F401 - fixtures
from tests.faults.conftest import gates, group, names  # noqa: F401 - the same
from tests.support import security

HEADER = struct.Struct("!4sHBBHHII16sHH")

#: The numbers of Pyro's serializers: serpent, JSON, marshal, msgpack; and one that there is not.
SERIALIZERS = {"serpent": 1, "json": 2, "marshal": 3, "msgpack": 4, "nobody's": 77}


def header(kind: int, serializer: int = 2, flags: int = 0, length: int = 0, beside: int = 0, number: int = 1) -> bytes:
    """Return the header of one of Pyro's messages, whatever it says."""
    return HEADER.pack(b"PYRO", 502, kind, serializer, flags, number, length, beside, bytes(16), 0, 0x4DC5)


def stranger() -> Security:
    """Return what somebody proves himself with who made a key of his own."""
    return Security(ClusterKey(b"another key, just as long as one", "somewhere else"))


def hears(sock: socket.socket, seconds: float = 10.0) -> bytes:
    """Return all that comes over a connection until it is closed."""
    sock.settimeout(seconds)
    heard = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(1 << 16):
            heard += chunk
    return heard


def own_address() -> str:
    """Return an address of this machine that others could reach; skips the test where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("SKIPPED LOUDLY: this machine has no address but loopback, so encryption is not tested here")
    return address


@pytest.fixture
def server(group):  # noqa: F811
    server = group.master()
    server.register()
    return server


@pytest.fixture
def host_line(server) -> Iterator[Line]:
    """A connection of somebody who has the key, and claims to be a slave host."""
    with Line(server.uri, security(), Role.SLAVE_HOST) as line:
        yield line
