"""Pyro's messages on a connection: sent without copying what is large, and received within bounds.

The frames are Pyro's, as `Pyro5.protocol` describes them. Of what it allows in them
little is taken: calls and answers as JSON, which can only be data, and one
annotation, which carries raw bytes. What else a header says (another serializer,
compressed content, batches of calls, calls without answers) ends the
connection before anything of the content is read.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import Any, NamedTuple

from Pyro5 import config, protocol
from Pyro5.errors import ProtocolError
from Pyro5.serializers import JsonSerializer

__all__ = ["ANNOTATION", "CALL", "NOTHING", "RAISED", "RESULT", "Message", "receive_message", "send_message"]

CALL, RESULT = protocol.MSG_INVOKE, protocol.MSG_RESULT

#: A flag of results: it is an error, in words.
RAISED = protocol.FLAGS_EXCEPTION

#: The identifier of the annotation that holds a batch.
ANNOTATION = "PAPY"

#: What is said beside a batch is short; the longest is a list of jobs that a slave host claims.
MAX_CONTENT_BYTES = 64 << 20

NOTHING = memoryview(b"")

_HEADER = struct.Struct("!4sHBBHHII16sHH")
_CHUNK = struct.Struct("!4sI")
_MAGIC = 0x4DC5
_JSON: int = JsonSerializer.serializer_id

#: From this size on, what is sent is not copied in order to be sent at once.
_LARGE = 1 << 16


class Message(NamedTuple):
    """A message that came: flags, the number of the call, what it says, and the raw bytes beside that."""

    flags: int
    sequence: int
    content: Any
    batch: memoryview


def send_message(
    sock: socket.socket, kind: int, sequence: int, content: Any, batch: bytes | memoryview | None = None, flags: int = 0
) -> None:
    """Send a message.

    Raises:
        OSError: the connection is broken.
        ValueError: it is larger than Pyro's item ``MAX_MESSAGE_SIZE`` allows.
    """
    data = json.dumps(content).encode()
    chunk = _CHUNK.size + len(batch) if batch else 0
    if len(data) + chunk > config.MAX_MESSAGE_SIZE:
        raise ValueError(f"a message of {len(data) + chunk:,} bytes is larger than MAX_MESSAGE_SIZE allows")
    version, sequence = protocol.PROTOCOL_VERSION, sequence & 0xFFFF
    head = _HEADER.pack(b"PYRO", version, kind, _JSON, flags, sequence, len(data), chunk, bytes(16), 0, _MAGIC)
    if not batch:
        sock.sendall(head + data)
        return
    head += _CHUNK.pack(ANNOTATION.encode(), len(batch))
    if len(batch) < _LARGE:
        sock.sendall(b"".join((head, batch, data)))
        return
    sock.sendall(head)
    sock.sendall(batch)
    sock.sendall(data)


def receive_message(sock: socket.socket, kind: int, flags: int = 0) -> Message:
    """Receive a message of a kind, with no flags but those that are allowed.

    Raises:
        OSError: the connection is broken, or was closed.
        ProtocolError: it is no such message.
    """
    tag, version, came, serializer, found, sequence, length, chunk, _, _, magic = _HEADER.unpack(
        _receive(sock, _HEADER.size)
    )
    if (tag, version, magic) != (b"PYRO", protocol.PROTOCOL_VERSION, _MAGIC):
        raise ProtocolError("this is no message of Pyro's")
    if came != kind or serializer != _JSON or found & ~(flags | protocol.FLAGS_CORR_ID):
        raise ProtocolError(f"messages of kind {came} with serializer {serializer} and flags {found:#x} are not taken")
    if length > MAX_CONTENT_BYTES or length + chunk > config.MAX_MESSAGE_SIZE or 0 < chunk < _CHUNK.size:
        raise ProtocolError(f"a message that says {length:,} bytes, and has {chunk:,} beside them, is not taken")
    body = memoryview(_receive(sock, chunk + length))
    batch = NOTHING
    if chunk:
        name, size = _CHUNK.unpack_from(body)
        if name != ANNOTATION.encode() or size != chunk - _CHUNK.size:
            raise ProtocolError("what comes beside a message does not have the size, or the name, that it should")
        batch = body[_CHUNK.size : chunk]
    try:
        content = json.loads(bytes(body[chunk:]))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the content of a message cannot be read: {type(error).__name__}") from None
    return Message(found, sequence, content, batch)


def _receive(sock: socket.socket, size: int) -> bytes | bytearray:
    first = b""
    if size < _LARGE:
        first = sock.recv(size) if size else b""
        if len(first) == size:
            return first
        if not first:
            raise ConnectionError("the connection was closed")
    # Memory is taken as the bytes come, not as somebody says that they will.
    received = bytearray(size)
    received[: len(first)] = first
    view, filled = memoryview(received), len(first)
    flags = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_WAITALL
    while filled < size:
        count = sock.recv_into(view[filled:], 0, flags)
        if not count:
            raise ConnectionError("the connection was closed in the middle of a message")
        filled += count
    return received
