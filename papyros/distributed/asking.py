"""A question to Pyro's own name server, which knows no key: what it answers is small, data, and a hint.

Pyro's proxies read answers with whatever deserializer the other side chooses, as
much of it as that says. Anybody may listen where a name server is expected, so the
header of an answer is looked at here before anything else of it is read.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from Pyro5 import errors, protocol
from Pyro5.serializers import serializers
from Pyro5.socketutil import SocketConnection

from papyros.deadlines import Deadline

__all__ = ["NotThereError", "ask"]

#: An answer with the names of some ten thousand masters is as large.
MAX_ANSWER_BYTES = 4 << 20

_HEADER_BYTES = 40


class NotThereError(OSError):
    """No connection came about, so nobody was asked."""


def ask(host: str, port: int, name: str, method: str, args: tuple[Any, ...], timeout: float) -> Any:
    """Call a method of the object that Pyro knows by that name; `timeout` is to connect, and then for all the rest.

    Raises:
        NotThereError: nobody can be connected to there.
        PyroError: it does not answer, or not as it should, or not this question.
        OSError: the same.
    """
    serpent = serializers["serpent"]
    number = serpent.serializer_id
    try:
        sock = socket.create_connection((host, port), timeout)
    except OSError as error:
        raise NotThereError(*error.args) from error
    with _Guarded(sock, number, timeout) as connection:
        hello = serpent.dumps({"handshake": "hello", "object": name})
        connection.send(protocol.SendingMessage(protocol.MSG_CONNECT, 0, 0, number, hello).data)
        answer = _receive(connection, [protocol.MSG_CONNECTOK, protocol.MSG_CONNECTFAIL])
        if answer.type == protocol.MSG_CONNECTFAIL:
            raise errors.CommunicationError(f"it says: {_words(_read(answer.data))}")
        call = serpent.dumpsCall(name, method, args, {})
        connection.send(protocol.SendingMessage(protocol.MSG_INVOKE, 0, 1, number, call).data)
        answer = _receive(connection, [protocol.MSG_RESULT])
        result = _read(answer.data)
    if answer.flags & protocol.FLAGS_EXCEPTION:
        if isinstance(result, errors.NamingError):
            raise errors.NamingError(_words(result))
        raise errors.CommunicationError(f"it raised: {_words(result)}")
    return result


def _receive(connection: _Guarded, kinds: Sequence[int]) -> protocol.ReceivingMessage:
    try:
        return protocol.recv_stub(connection, kinds)
    except ValueError:  # of an annotation whose name is no text
        raise errors.ProtocolError("what it answers is no message") from None


def _read(data: bytes) -> Any:
    try:
        found = serializers["serpent"].loads(data)
        repr(found)  # an address may be made of parts that do not go together: nobody could show it later
    except Exception as error:  # noqa: BLE001 - whoever answers may write what serpent was not made for
        raise errors.ProtocolError(f"what it answers cannot be read: {type(error).__name__}") from None
    return found


def _words(said: Any) -> str:
    """Return what was said, in a few words. Not as `str` has it: some exceptions, with parts of others, have none."""
    return (said if isinstance(said, str) else repr(said))[:500]


class _Guarded(SocketConnection):  # type: ignore[misc] # Pyro has no types
    """Reads messages with one serializer, of a bounded size, in a bounded time, and nothing compressed."""

    def __init__(self, sock: socket.socket, serializer: int, timeout: float) -> None:
        super().__init__(sock)
        self._serializer = serializer
        self._deadline = Deadline(timeout)
        self._header = b""

    def recv(self, size: int) -> bytes:
        if size > MAX_ANSWER_BYTES:
            raise errors.ProtocolError(f"an answer of {size:,} bytes is more than a name server has to say")
        received = self._receive_all(size)
        if len(self._header) < _HEADER_BYTES:
            self._header += received
            if len(self._header) == _HEADER_BYTES:
                self._check()
        else:
            self._header = b""
        return received

    def _receive_all(self, size: int) -> bytes:
        """Receive so many bytes. A timeout of the socket would begin anew with each of them."""
        received = bytearray()
        while len(received) < size:
            remaining = self._deadline.remaining()
            if not remaining:
                raise TimeoutError("it takes too long to answer")
            self.sock.settimeout(remaining)
            chunk = self.sock.recv(size - len(received))
            if not chunk:
                raise errors.ConnectionClosedError("it hung up before all of its answer had come")
            received += chunk
        return bytes(received)

    def _check(self) -> None:
        message = protocol.ReceivingMessage(self._header)
        if message.serializer_id != self._serializer or message.flags & protocol.FLAGS_COMPRESSED:
            raise errors.ProtocolError("it answers in a way that was not asked for")
