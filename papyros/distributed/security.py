"""Who may talk to whom: both ends of a connection prove that they have the cluster's key.

It happens before anything else is said, in frames of fixed sizes that are compared
and never deserialized::

    from who connects    hello: versions, role, kind of connection, nonce, the address it meant to reach
    from who listens     reply: versions, role, kind of connection, nonce; its proof
    from who connects    its proof

A proof is a keyed digest of hello and reply, under another key for each side: so
it holds for this connection only, for these two roles, in this direction.

On the loopback address that is all, since other users can neither read nor change
what goes over it; the address in the hello tells apart who is meant from somebody
between. Everywhere else the frames, and all that follows, travel in TLS 1.3, with
a certificate that both sides derive from the key. Who listens may always ask for
that; nobody may ask for less.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import secrets
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import papyros
from papyros.distributed.keys import ClusterKey
from papyros.errors import KeyRefusedError, VersionMismatchError
from papyros.logs import logger_of

__all__ = [
    "HANDSHAKE_SECONDS",
    "NotAuthenticatedError",
    "NotReachedError",
    "Peer",
    "Role",
    "Security",
    "hang_up",
    "is_loopback",
]

log = logger_of(__name__)

#: The version of what is said over connections, handshake and calls. Both sides must have the same.
PROTOCOL = 3

#: How long the whole of a handshake may take.
HANDSHAKE_SECONDS = 5.0

#: Who is hung up on before a reply, as when all places for strangers are taken, tries again so often.
TRIES = 5
RETRY_SECONDS = 0.05

MAGIC = b"PAPYROS\n"

_PREFIX = struct.Struct("!8sH")  # magic, protocol: these stay as they are for ever
_REST = struct.Struct("!BBBB24s32s")  # role, kind, Python's major and minor version, Papyros' version, nonce
_ADDRESS_BYTES = 18
_PROOF_BYTES = 32
_HELLO_BYTES = _PREFIX.size + _REST.size + _ADDRESS_BYTES
_REPLY_BYTES = _PREFIX.size + _REST.size

_PLAIN, _TLS, _ASKS_FOR_TLS = 0, 1, 2
_TLS_RECORD = 0x16
_PYRO = b"PYRO"


class NotReachedError(OSError):
    """No connection came about, and nobody has refused it: who may be there is not known."""


class Role(IntEnum):
    """What a side of a connection is there for; proofs hold for one role only."""

    CLIENT = 1
    SLAVE_HOST = 2
    WATCHER = 3  # looks at status, asks who is there, looks up names
    MASTER = 10
    NAME_SERVER = 11

    @property
    def words(self) -> str:
        """This role, for people."""
        return self.name.lower().replace("_", " ")


class NotAuthenticatedError(ConnectionError):
    """The other side did not finish the handshake."""


class _AskedForTlsError(Exception):
    """The other side wants the connection to be encrypted."""


@dataclass(frozen=True)
class Peer:
    """The other side of a connection, which has proved to have the key."""

    role: Role
    address: str


class _Greeting(NamedTuple):
    """What both frames say of who sends them."""

    role: int
    kind: int
    python: tuple[int, int]
    version: str
    nonce: bytes

    def pack(self) -> bytes:
        version = self.version.encode()[:24]
        return _PREFIX.pack(MAGIC, PROTOCOL) + _REST.pack(self.role, self.kind, *self.python, version, self.nonce)

    @classmethod
    def unpack(cls, frame: bytes) -> _Greeting:
        role, kind, major, minor, version, nonce = _REST.unpack_from(frame, _PREFIX.size)
        text = version.rstrip(b"\0").decode("ascii", "replace")
        return cls(role, kind, (major, minor), text if text.isprintable() else ascii(text), nonce)

    @classmethod
    def own(cls, role: Role, kind: int) -> _Greeting:
        return cls(role, kind, sys.version_info[:2], papyros.__version__, secrets.token_bytes(32))


class Security:
    """What a process proves itself with, and checks others by.

    Args:
        key: the key of the cluster.
    """

    def __init__(self, key: ClusterKey) -> None:
        self.key = key

    @cached_property
    def _identity(self) -> tuple[bytes, ssl.SSLContext, ssl.SSLContext]:
        # Loaded where it is needed: on one machine it never is.
        from papyros.distributed.tls import identity_of, tls_context

        identity = identity_of(self.key.derive("tls identity"))
        return identity.certificate, tls_context(identity, server=True), tls_context(identity, server=False)

    # The side that connects ---------------------------------------------------------------

    def connect(
        self, host: str, port: int, role: Role, other: Role = Role.MASTER, timeout: float = HANDSHAKE_SECONDS
    ) -> socket.socket:
        """Return a connection to who has the key and that role, and is convinced that this side has, too.

        Raises:
            KeyRefusedError: one of both sides does not have the key of the other.
            VersionMismatchError: the versions of both sides do not go together.
            NotReachedError: there is no way to that machine, or it says nothing.
            OSError: nobody listens there, or does not finish the handshake in time.
        """
        deadline = time.monotonic() + timeout
        encrypt = False
        for tries in range(TRIES + 1):
            try:
                sock = socket.create_connection((host, port), _remaining(deadline))
            except ConnectionRefusedError:
                raise
            except OSError as error:
                raise NotReachedError(*error.args) from error
            try:
                # Without this the frames of a handshake wait for each other's acknowledgements: 40 ms.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._prove(sock, role, other, deadline, encrypt)
            except _AskedForTlsError:
                sock.close()
                encrypt = True
            except NotAuthenticatedError:
                sock.close()
                if tries >= TRIES or time.monotonic() + RETRY_SECONDS > deadline:
                    raise
                time.sleep(RETRY_SECONDS * (1 + secrets.randbelow(100) / 100))
            except BaseException:
                sock.close()
                raise
        raise NotAuthenticatedError(f"no agreement with {host}:{port} on how to encrypt")

    def _prove(self, sock: socket.socket, role: Role, other: Role, deadline: float, encrypt: bool) -> socket.socket:
        address = sock.getpeername()
        shown = f"{address[0]}:{address[1]}"
        kind = _PLAIN if is_loopback(address[0]) and not encrypt else _TLS
        if kind == _TLS:
            sock = self._encrypt(sock, deadline, f"the {other.words} at {shown}", server=False)
        try:
            mine = _Greeting.own(role, kind)
            hello = mine.pack() + (_packed(address) if kind == _PLAIN else bytes(_ADDRESS_BYTES))
            with _broken_in_handshake():
                sock.sendall(hello)
            reply = _receive(sock, _REPLY_BYTES, deadline)
            _check_prefix(reply, f"the {other.words} at {shown}")
            theirs = _Greeting.unpack(reply)
            if kind == _PLAIN and theirs.kind == _ASKS_FOR_TLS:
                raise _AskedForTlsError
            proof = _receive(sock, _PROOF_BYTES, deadline)
            if theirs.kind != kind or not hmac.compare_digest(proof, self._proof("server", hello, reply)):
                sock.sendall(bytes(_PROOF_BYTES))  # so that the other side can tell its people
                raise self._refused(f"the {other.words} at {shown}")
            sock.sendall(self._proof("client", hello, reply))
            _check_versions(mine, theirs, f"the {other.words} at {shown}")
            if theirs.role != other:
                raise NotAuthenticatedError(f"at {shown} is no {other.words}")
            sock.settimeout(None)
            return sock
        except BaseException:
            sock.close()
            raise

    # The side that listens ----------------------------------------------------------------

    def accept(
        self,
        sock: socket.socket,
        role: Role,
        demand_tls: bool,
        deadline: float,
        on_wrapped: Callable[[socket.socket], None] | None = None,
    ) -> tuple[socket.socket, Peer]:
        """Return the connection, maybe wrapped, and who is at its other end, once that has proved to have the key.

        Args:
            sock: a connection of which nothing was read.
            role: what this side is.
            demand_tls: whether it has to be encrypted, wherever it comes from.
            deadline: when to give up, on the monotonic clock.
            on_wrapped: is told, before anything is waited for, which socket has taken the place of `sock`, by which
                nobody can be hung up on any more; what it raises ends the connection.

        Raises:
            KeyRefusedError: the other side does not have the key.
            VersionMismatchError: the versions of both sides do not go together.
            OSError: it did not finish the handshake in time, or does not speak this language.
        """
        address = sock.getpeername()
        kind = _PLAIN
        sock.settimeout(_remaining(deadline))
        if sock.recv(1, socket.MSG_PEEK)[:1] == bytes([_TLS_RECORD]):
            kind = _TLS
            sock = self._encrypt(sock, deadline, f"who connects from {address[0]}", True, on_wrapped)
        try:
            hello = self._hello(sock, role, deadline)
            theirs = _Greeting.unpack(hello)
            local = sock.getsockname()
            strangers = demand_tls or not (is_loopback(local[0]) and is_loopback(address[0]))
            if kind == _PLAIN and (strangers or hello[-_ADDRESS_BYTES:] != _packed(local)):
                # Between this machine's users nothing has to be hidden; but somebody is between, or far away.
                sock.sendall(_Greeting.own(role, _ASKS_FOR_TLS).pack())
                raise NotAuthenticatedError(f"{address[0]} was asked to encrypt")
            return sock, self._convince(sock, hello, theirs, _Greeting.own(role, kind), deadline)
        except BaseException:
            sock.close()
            raise

    def _convince(self, sock: socket.socket, hello: bytes, theirs: _Greeting, mine: _Greeting, deadline: float) -> Peer:
        reply = mine.pack()
        address = sock.getpeername()[0]
        who = f"{_role_words(theirs.role)} at {address}"
        sock.settimeout(_remaining(deadline))
        sock.sendall(reply + self._proof("server", hello, reply))
        proof = _receive(sock, _PROOF_BYTES, deadline)
        if theirs.kind != mine.kind or not hmac.compare_digest(proof, self._proof("client", hello, reply)):
            raise self._refused(who)
        _check_versions(mine, theirs, who)
        if theirs.role not in set(Role):
            raise NotAuthenticatedError(f"{address} has a role that nobody knows")
        sock.settimeout(None)
        return Peer(Role(theirs.role), address)

    def _hello(self, sock: socket.socket, role: Role, deadline: float) -> bytes:
        """Read the first frame; what is none is answered in words, as far as it can be understood."""
        start = _receive(sock, len(_PYRO), deadline)
        if start == _PYRO:
            with contextlib.suppress(OSError):
                sock.sendall(pyro_refusal(f"this {role.words} asks for the key of its cluster"))
            raise NotAuthenticatedError(f"{sock.getpeername()[0]} speaks Pyro without having proved anything")
        prefix = start + _receive(sock, _PREFIX.size - len(start), deadline)
        magic, protocol = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise NotAuthenticatedError(f"{sock.getpeername()[0]} does not speak Papyros")
        if protocol != PROTOCOL:
            with contextlib.suppress(OSError):
                sock.sendall(_Greeting.own(role, _PLAIN).pack())
        _check_prefix(prefix, f"who connects from {sock.getpeername()[0]}")
        return prefix + _receive(sock, _HELLO_BYTES - len(prefix), deadline)

    # Both ---------------------------------------------------------------------------------

    def _proof(self, side: str, hello: bytes, reply: bytes) -> bytes:
        return hmac.digest(self.key.derive("proof of a " + side), hello + reply, "sha256")

    def _encrypt(
        self,
        sock: socket.socket,
        deadline: float,
        who: str,
        server: bool,
        on_wrapped: Callable[[socket.socket], None] | None = None,
    ) -> ssl.SSLSocket:
        certificate, *contexts = self._identity
        tls = contexts[0 if server else 1].wrap_socket(sock, server_side=server, do_handshake_on_connect=False)
        try:
            if on_wrapped is not None:
                on_wrapped(tls)
            tls.settimeout(_remaining(deadline))
            with _broken_in_handshake():
                tls.do_handshake()
            if tls.getpeercert(binary_form=True) != certificate:
                raise self._refused(who)
        except ssl.SSLError as error:
            tls.close()
            if isinstance(error, ssl.SSLCertVerificationError) or "ALERT" in (error.reason or ""):
                raise self._refused(who) from error
            raise NotAuthenticatedError(f"{who} does not encrypt as it should: {error.reason or error}") from error
        except BaseException:
            tls.close()
            raise
        return tls

    def _refused(self, who: str) -> KeyRefusedError:
        made = ", which was made here just now" if self.key.fresh else ""
        return KeyRefusedError(
            f"{who} and this process have different keys; the one here is {self.key.fingerprint}, of "
            f"{self.key.source}{made}: copy the key file of the cluster to all of its machines, or name it with "
            "--key-file FILE; --show-key-fingerprint compares two"
        )


def hang_up(sock: socket.socket) -> None:
    """End a connection, also under a call of another thread, which then fails."""
    with contextlib.suppress(OSError):
        # The method of TLS sockets would first forget that they are encrypted.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def is_loopback(host: str) -> bool:
    """Whether a numeric address never leaves this machine."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def pyro_refusal(text: str) -> bytes:
    """Return what tells a program that speaks Pyro, in its own language, why it is not served."""
    from Pyro5 import protocol
    from Pyro5.serializers import serializers

    serpent = serializers["serpent"]
    message = protocol.SendingMessage(protocol.MSG_CONNECTFAIL, 0, 0, serpent.serializer_id, serpent.dumps(text))
    return bytes(message.data)


def _packed(address: tuple[str, int]) -> bytes:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    return (ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed) + address[1].to_bytes(2, "big")


@contextlib.contextmanager
def _broken_in_handshake() -> Iterator[None]:
    """Tell that a connection broke in the handshake, as it does under who is hung up on."""
    try:
        yield
    except ConnectionError as error:
        raise NotAuthenticatedError(f"the connection broke in the handshake: {error}") from error


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    received = b""
    while len(received) < size:
        sock.settimeout(_remaining(deadline))
        with _broken_in_handshake():
            chunk = sock.recv(size - len(received))
        if not chunk:
            raise NotAuthenticatedError("the connection was closed in the middle of the handshake")
        received += chunk
    return received


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the handshake took too long")
    return remaining


def _check_prefix(frame: bytes, who: str) -> None:
    magic, protocol = _PREFIX.unpack_from(frame)
    if magic != MAGIC:
        raise NotAuthenticatedError(f"{who} does not speak Papyros")
    if protocol != PROTOCOL:
        raise VersionMismatchError(
            f"{who} speaks version {protocol} of Papyros' protocol, this process (Papyros {papyros.__version__}) "
            f"version {PROTOCOL}: install the same Papyros on all machines"
        )


def _check_versions(mine: _Greeting, theirs: _Greeting, who: str) -> None:
    if mine.python != theirs.python:
        here, there = (".".join(map(str, greeting.python)) for greeting in (mine, theirs))
        raise VersionMismatchError(
            f"{who} runs Python {there} (Papyros {theirs.version}), this process Python {here} (Papyros "
            f"{mine.version}): what one of them pickles the other cannot unpickle; use one of them on all machines"
        )


def _role_words(role: int) -> str:
    return f"a {Role(role).words}" if role in set(Role) else "somebody"
