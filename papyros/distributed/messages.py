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
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from Pyro5 import protocol
from Pyro5.callcontext import current_context
from Pyro5.errors import ProtocolError
from Pyro5.serializers import JsonSerializer

from papyros.frames import Buffer, gathered, send_all, send_some, space_for, take_off

__all__ = [
    "ANNOTATION",
    "CALL",
    "NOTHING",
    "RAISED",
    "RESULT",
    "Message",
    "MessageStream",
    "answer_batch",
    "called_batch",
    "joined",
    "receive_message",
    "send_message",
]

CALL, RESULT = protocol.MSG_INVOKE, protocol.MSG_RESULT

#: A flag of results: it is an error, in words.
RAISED = protocol.FLAGS_EXCEPTION

#: The identifier of the annotation that holds a batch.
ANNOTATION = "PAPY"

#: What is said beside a batch is short; the longest is a list of jobs that a slave host claims.
MAX_CONTENT_BYTES = 64 << 20

#: No message is larger: Pyro's own bound, whatever a program makes of its item ``MAX_MESSAGE_SIZE`` for what it uses
#: Pyro for itself. Payloads of any size that masters and clients allow are to go through all the same.
MAX_MESSAGE_BYTES = 1 << 30

NOTHING = memoryview(b"")

_HEADER = struct.Struct("!4sHBBHHII16sHH")
_CHUNK = struct.Struct("!4sI")
_MAGIC = 0x4DC5
_JSON: int = JsonSerializer.serializer_id

_NAME = ANNOTATION.encode()

#: From this size on, what comes is received into its place.
_LARGE = 1 << 16

_decode = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(separators=(",", ":")).encode

#: So much is sent or received at a time where nothing may wait.
_PIECE = 1 << 18

#: ... and so much where the rest is waited for.
_PIECE_OF_ANSWER = 1 << 14

#: What sockets raise that would have to wait.
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


#: Raw bytes beside what a call says: in one piece, or in parts.
Batch = Buffer | list[Buffer]


def joined(batch: Batch) -> Buffer:
    """Return a batch in one piece, as it arrives."""
    return b"".join(batch) if isinstance(batch, list) else batch


def called_batch() -> memoryview:
    """Return the batch that came with the call that is being answered; an empty one, if none did."""
    return memoryview(current_context.annotations.get(ANNOTATION, b""))


def called_on() -> dict[str, str]:
    """Return what is noted of the connection on which the call came that is being answered; to note more there."""
    notes: dict[str, str] | None = current_context.client
    return {} if notes is None else notes


def answer_batch(batch: Batch) -> None:
    """Send a batch along with the answer to the call that is being answered."""
    current_context.response_annotations = {ANNOTATION: batch}


class Message(NamedTuple):
    """A message that came: flags, the number of the call, what it says, and the raw bytes beside that."""

    flags: int
    sequence: int
    content: Any
    batch: memoryview


def send_message(
    sock: socket.socket, kind: int, sequence: int, content: Any, batch: Batch | None = None, flags: int = 0
) -> None:
    """Send a message; of a batch in parts, what is large is not copied.

    Raises:
        OSError: the connection is broken.
        ValueError: it is larger than any message may be.
    """
    buffers = _pack(kind, sequence, content, batch, flags)
    if isinstance(sock, ssl.SSLSocket):
        for buffer in buffers:
            sock.sendall(buffer)
    else:
        send_all(sock, buffers)


def _pack(kind: int, sequence: int, content: Any, batch: Batch | None, flags: int) -> list[Buffer]:
    """Return a message as a list of buffers: what is large as it is."""
    data = _encode(content).encode()
    parts = batch if isinstance(batch, list) else [batch] if batch else []
    length = sum(map(len, parts))
    chunk = _CHUNK.size + length if batch else 0
    if len(data) + chunk > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(data) + chunk:,} bytes is larger than any may be")
    version, sequence = protocol.PROTOCOL_VERSION, sequence & 0xFFFF
    head = _HEADER.pack(b"PYRO", version, kind, _JSON, flags, sequence, len(data), chunk, bytes(16), 0, _MAGIC)
    if not batch:
        return [head + data]
    head += _CHUNK.pack(_NAME, length)
    return gathered([head, *parts, data]) if length >= _LARGE else [b"".join((head, *parts, data))]


def receive_message(sock: socket.socket, kind: int, flags: int = 0) -> Message:
    """Receive a message of a kind, with no flags but those that are allowed.

    Raises:
        OSError: the connection is broken, or was closed.
        ProtocolError: it is no such message.
    """
    # Most come in one piece; and each call of the system costs, and lets other threads in between.
    came = sock.recv(_PIECE_OF_ANSWER)
    while len(came) < _HEADER.size:
        if not (more := sock.recv(_PIECE_OF_ANSWER)):
            raise ConnectionError("the connection was closed")
        came += more
    head = _Head(came[: _HEADER.size], kind, flags)
    body = memoryview(came)[_HEADER.size :]
    if len(body) > head.size:
        raise ProtocolError("something comes after a message that nobody has asked for")
    return head.message(body if len(body) == head.size else _receive_rest(sock, body, head.size))


class _Head:
    """The header of a message that came, once it has been found good."""

    def __init__(self, header: Buffer, kind: int, flags: int) -> None:
        tag, version, came, serializer, found, sequence, length, chunk, _, _, magic = _HEADER.unpack(header)
        if (tag, version, magic) != (b"PYRO", protocol.PROTOCOL_VERSION, _MAGIC):
            raise ProtocolError("this is no message of Pyro's")
        if came != kind or serializer != _JSON or found & ~(flags | protocol.FLAGS_CORR_ID):
            raise ProtocolError(
                f"messages of kind {came} with serializer {serializer} and flags {found:#x} are not taken"
            )
        if length > MAX_CONTENT_BYTES or length + chunk > MAX_MESSAGE_BYTES or 0 < chunk < _CHUNK.size:
            raise ProtocolError(f"a message that says {length:,} bytes, and has {chunk:,} beside them, is not taken")
        self.flags, self.sequence, self.chunk = found, sequence, chunk
        #: How many bytes follow.
        self.size = chunk + length

    def message(self, body: memoryview) -> Message:
        """Return the message that has this header."""
        batch = NOTHING
        if self.chunk:
            name, size = _CHUNK.unpack_from(body)
            if name != _NAME or size != self.chunk - _CHUNK.size:
                raise ProtocolError("what comes beside a message does not have the size, or the name, that it should")
            batch = body[_CHUNK.size : self.chunk]
        return Message(self.flags, self.sequence, _read(body[self.chunk :]), batch)


def _read(data: memoryview) -> Any:
    """Return what a message says: one JSON value, and nothing before or after it, as we write them."""
    try:
        text = str(data, "utf-8")
        content, end = _decode(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the content of a message cannot be read: {type(error).__name__}") from None
    if end != len(text):
        raise ProtocolError("the content of a message goes on after its end")
    return content


class MessageStream:
    """Messages on a connection that never keeps its thread waiting.

    Args:
        sock: the connection, encrypted or not; it does not block.
        kind: of what kind the messages are that come.
        flags: what flags they may have.
    """

    def __init__(self, sock: socket.socket, kind: int, flags: int = 0) -> None:
        self._sock = sock
        self._kind = kind
        self._flags = flags
        self._received = b""
        self._start = 0  # where in it begins what was not cut yet
        self._head: _Head | None = None
        self._body: memoryview | None = None  # a large one is received into its place
        self._filled = 0
        self._sending: deque[memoryview] = deque()

    @property
    def pending(self) -> bool:
        """Whether something is still to be sent, as soon as the connection takes it."""
        return bool(self._sending)

    def send(self, kind: int, sequence: int, content: Any, batch: Batch | None = None, flags: int = 0) -> None:
        """Send a message, as far as that goes without waiting; `flush` sends the rest.

        Raises:
            OSError: the connection is broken.
            ValueError: it is larger than any message may be.
        """
        buffers = _pack(kind, sequence, content, batch, flags)
        self._sending.extend(memoryview(buffer) for buffer in buffers if len(buffer))
        self.flush()

    def flush(self) -> None:
        """Send what is left, as far as that goes without waiting.

        Raises:
            OSError: the connection is broken.
        """
        while self._sending:
            try:
                if isinstance(self._sock, ssl.SSLSocket):
                    # What TLS did not take has to be offered again as it was, so it is offered in pieces.
                    take_off(self._sending, self._sock.send(self._sending[0][:_PIECE]))
                else:
                    send_some(self._sock, self._sending)
            except _NOT_NOW:
                return

    def receive(self) -> Iterator[Message]:
        """Yield the messages that have come.

        Raises:
            OSError: the connection is broken, or was closed.
            ProtocolError: what came is no message.
        """
        while True:
            try:
                more = self._receive_once()
            except _NOT_NOW:
                return
            while (message := self._cut()) is not None:
                yield message
            if not more:
                return

    def _receive_once(self) -> bool:
        """Receive what is there; return whether there may be more."""
        if self._body is not None:
            count = self._sock.recv_into(self._body[self._filled :])
            self._filled += count
        else:
            received = self._sock.recv(_PIECE)
            count = len(received)
            self._received = self._received[self._start :] + received if self._start < len(self._received) else received
            self._start = 0
        if not count:
            raise ConnectionError("the connection was closed")
        # TLS may have decrypted more than it was asked for, of which the system knows nothing.
        return count == _PIECE or self._body is not None or isinstance(self._sock, ssl.SSLSocket)

    def _cut(self) -> Message | None:
        if self._body is not None:
            if self._filled < len(self._body):
                return None
            assert self._head is not None
            body, head, self._body, self._head = self._body, self._head, None, None
            return head.message(body)
        received, start = self._received, self._start + _HEADER.size
        if self._head is None:
            if len(received) < start:
                return None
            self._head = _Head(received[self._start : start], self._kind, self._flags)
        head, end = self._head, start + self._head.size
        if len(received) >= end:
            body = memoryview(received)[start:]
            if self._start or len(received) > end:
                body = memoryview(received[start:end])  # so that it does not keep what came with it
            self._drop(end)
            self._head = None
            return head.message(body)
        if head.size >= _LARGE:
            # Memory is taken as the bytes come, not as somebody says that they will.
            self._body = space_for(head.size)
            self._filled = len(received) - start
            self._body[: self._filled] = received[start:]
            self._drop(len(received))
        return None

    def _drop(self, end: int) -> None:
        """Let go of what has come, up to there."""
        self._received, self._start = (self._received, end) if end < len(self._received) else (b"", 0)


def _receive_rest(sock: socket.socket, first: memoryview, size: int) -> memoryview:
    """Return the body of a message, of which the first part has come."""
    # Memory is taken as the bytes come, not as somebody says that they will.
    body = space_for(size)
    filled = len(first)
    body[:filled] = first
    flags = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_WAITALL
    while filled < size:
        count = sock.recv_into(body[filled:], 0, flags)
        if not count:
            raise ConnectionError("the connection was closed in the middle of a message")
        filled += count
    return body
