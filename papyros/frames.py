"""Frames: how batches of byte strings cross a socket or fit into one message.

A batch is a *column* of lengths and the strings themselves; a frame on a stream
has a header before it. Nothing in here knows what the strings mean.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from array import array
from builtins import memoryview  # noqa: A004 - a NamedTuple that is compiled looks for it here
from collections import deque
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate, islice, pairwise
from typing import Final, NamedTuple, cast

from papyros.memory import keep_freed_memory, unwritten

__all__ = [
    "Frame",
    "FrameReader",
    "Outbox",
    "Parts",
    "Stream",
    "buffers_of",
    "cut",
    "gathered",
    "join_column",
    "message_parts",
    "nested_parts",
    "pack_frame",
    "pack_message",
    "seconds_column",
    "send_all",
    "send_some",
    "space_for",
    "split_column",
    "take_off",
    "to_keep",
    "unpack_message",
]

Buffer = bytes | bytearray | memoryview

#: kind, number, length of the body
HEADER: Final = struct.Struct("<IIQ")

#: Buffers from this size on are sent as they are, not copied into a common one.
LARGE: Final = 1 << 16

CHUNK = 1 << 18

#: Blobs of less than this size are copied out of the batch that they came with.
SHORT: Final = 1 << 10

#: What is kept of a message for longer than the rest takes no more than so many times its size. Of messages of several
#: payloads, which have 8 MiB at the most, those of a MiB are not copied: there, to carry them is all the work.
KEEPING: Final = 8

#: Nothing takes longer.
LONGEST_SECONDS: Final = 1e9

#: So many buffers are sent at a time; systems have a bound on that, which is a thousand or so.
MOST_BUFFERS: Final = 64


class Parts:
    """Bytes that lie in several buffers and count as one string: what is large in them need not be copied."""

    __slots__ = ("_length", "buffers")

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = buffers
        self._length = sum(map(len, buffers))

    def __len__(self) -> int:
        return self._length


def buffers_of(blobs: Sequence[Buffer | Parts]) -> list[Buffer]:
    """Return the buffers in which blobs lie, one after the other."""
    if Parts not in set(map(type, blobs)):
        return list(cast("Sequence[Buffer]", blobs))  # nearly always
    buffers: list[Buffer] = []
    for blob in blobs:
        if isinstance(blob, Parts):
            buffers += blob.buffers
        else:
            buffers.append(blob)
    return buffers


class Frame(NamedTuple):
    """What was received: its kind, a number that belongs to it, and a body."""

    kind: int
    number: int
    body: memoryview


def join_column(blobs: Sequence[Buffer | Parts]) -> list[Buffer]:
    """Return buffers that hold the blobs and their lengths, for `split_column`."""
    if len(blobs) == 1 and not isinstance(blob := blobs[0], Parts):  # who waits for a job by itself waits for this
        return [len(blob).to_bytes(8, sys.byteorder), blob]
    return [array("Q", map(len, blobs)).tobytes(), *buffers_of(blobs)]


def split_column(view: memoryview, count: int, offset: int = 0) -> list[Buffer]:
    """Return the `count` blobs of a column: small ones as bytes, large ones without copying them.

    Raises:
        ValueError: the lengths do not fit what is there.
    """
    start = offset + 8 * count
    if count == 1:
        if int.from_bytes(view[offset:start], sys.byteorder) != len(view) - start:
            raise ValueError("the length of a batch of one is not that of what is there")
        return [view[start:] if len(view) - start >= SHORT and len(view) >= LARGE else bytes(view[start:])]
    lengths = array("Q")
    lengths.frombytes(view[offset:start])
    ends = list(accumulate(lengths, initial=start))
    if ends[-1] != len(view):
        raise ValueError("the lengths of a batch do not add up to its size")
    # A copy of what is small costs less than to keep all that came with it, for the collector to look through.
    if len(view) < LARGE or max(lengths, default=0) < SHORT:
        whole = bytes(view)  # slices of bytes cost a third of those of views
        return [whole[start:end] for start, end in pairwise(ends)]
    blobs = [view[start:end] for start, end in pairwise(ends)]
    return [blob if len(blob) >= SHORT else bytes(blob) for blob in blobs]


def to_keep(blobs: Sequence[Buffer], size: int) -> list[Buffer]:
    """Return blobs of a message of so many bytes for one who keeps some of them for longer than others.

    What is not copied keeps the whole message: only blobs that are a good part of it are not.
    """
    least = size // KEEPING
    return [blob if len(blob) >= least or isinstance(blob, bytes) else bytes(blob) for blob in blobs]


def cut(column: Buffer, size: int) -> list[bytes]:
    """Return the parts of a column that are all of one size."""
    whole = bytes(column)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def pack_message(buffers: Sequence[Buffer]) -> bytes:
    """Return one byte string that holds the buffers, for `unpack_message`."""
    return b"".join(message_parts(buffers))


def message_parts(buffers: Sequence[Buffer | Parts]) -> list[Buffer]:
    """Return the parts that make a message when they are joined."""
    return [len(buffers).to_bytes(4, "little"), *join_column(buffers)]


def nested_parts(first: Buffer, inner: Sequence[Buffer]) -> list[Buffer]:
    """Return the parts of a message of two buffers, of which the second is a message itself, given in its parts."""
    lengths = array("Q", (len(first), sum(map(len, inner))))
    return [(2).to_bytes(4, "little"), lengths.tobytes(), first, *inner]


def gathered(buffers: Iterable[Buffer]) -> list[Buffer]:
    """Return the same bytes in few buffers: small ones joined, large ones as they are, so that these are not copied.

    The first one is never a large one; it alone may be empty.
    """
    packed: list[Buffer] = []
    small: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) >= LARGE:
            if small or not packed:
                packed.append(b"".join(small))
                small = []
            packed.append(buffer)
        elif len(buffer):
            small.append(buffer)
    if small or not packed:
        packed.append(b"".join(small))
    return packed


def unpack_message(message: Buffer) -> list[Buffer]:
    """Return the buffers of a message: small ones as bytes, large ones without copying them.

    Raises:
        ValueError: it is no message.
    """
    count = int.from_bytes(message[:4], "little")
    if 4 + 8 * count > len(message):
        raise ValueError("a message is shorter than it says")
    return split_column(memoryview(message), count, 4)


def seconds_column(view: Buffer) -> array[float]:
    """Return a column of durations.

    What is none, or more than any job takes, counts as 0: a job may have put another clock in place of the real one.
    """
    seconds = array("d")
    seconds.frombytes(view)
    if seconds and not (min(seconds) >= 0.0 and sum(seconds) < LONGEST_SECONDS):
        return array("d", [each if 0.0 <= each < LONGEST_SECONDS else 0.0 for each in seconds])
    return seconds


def pack_frame(kind: int, number: int, buffers: Iterable[Buffer]) -> list[Buffer]:
    """Return a frame as a list of buffers: small ones joined, large ones as they are."""
    head, *rest = gathered(buffers)
    length = len(head) + sum(map(len, rest))
    return [HEADER.pack(kind, number, length) + head, *rest]


def send_all(sock: socket.socket, buffers: Sequence[Buffer]) -> None:
    """Send buffers over a socket that blocks, with as few calls, and wakings of who receives, as may be."""
    if len(buffers) == 1:
        sock.sendall(buffers[0])
        return
    left = deque(memoryview(buffer) for buffer in buffers if len(buffer))
    while left:
        send_some(sock, left)


def send_some(sock: socket.socket, left: deque[memoryview]) -> None:
    """Send what the socket takes of what is left to be sent, and take that off."""
    sent = sock.send(left[0]) if len(left) == 1 else sock.sendmsg(list(islice(left, MOST_BUFFERS)))
    take_off(left, sent)


def take_off(left: deque[memoryview], sent: int) -> None:
    """Take so many bytes, which were sent, off the front of what is to be sent."""
    while sent:
        buffer = left.popleft()
        if sent < len(buffer):
            left.appendleft(buffer[sent:])
            return
        sent -= len(buffer)


def space_for(size: int) -> memoryview:
    """Return memory for something large that is to be received; what is in it before is anything."""
    keep_freed_memory()
    return memoryview(unwritten(size))


class FrameReader:
    """Cuts a stream into frames, whether the socket blocks or not.

    Args:
        sock: where it comes from.
        kinds: the kinds of frames that may come; None = any.
        most: no frame has more bytes than this.

    Attributes:
        drained: whether the last `read` took all that was there.
    """

    def __init__(self, sock: socket.socket, kinds: Container[int] | None = None, most: float = math.inf) -> None:
        self._sock = sock
        self._kinds = kinds
        self._most = most
        self._garbled: Exception | None = None  # what follows is no frame
        # One buffer for good: to make one for each read costs more than most reads do.
        self._space = memoryview(bytearray(max(CHUNK, HEADER.size)))
        self._start = self._end = 0  # what is in it and was not cut yet
        self._header: tuple[int, int] | None = None
        self._large: memoryview | None = None  # a large body is received into its place
        self._filled = 0
        self.drained = False

    @property
    def garbled(self) -> bool:
        """Whether something has come that is no frame, as the next `read` will say."""
        return self._garbled is not None

    def read(self) -> list[Frame]:
        """Receive once, and return the frames that are complete by that; maybe none.

        Raises:
            EOFError: the other side closed the connection.
            BlockingIOError: the socket does not block and nothing is there.
            ValueError, OverflowError, MemoryError: what came is no frame. Those before it were returned; there will
                be no more.
        """
        if self._garbled is not None:
            raise self._garbled
        if self._large is not None:
            return self._read_large(self._large)
        received = self._sock.recv_into(self._space[self._end :])
        if not received:
            raise EOFError("the connection was closed")
        self._end += received
        self.drained = self._end < len(self._space)
        frames = []
        try:
            while (frame := self._cut()) is not None:
                frames.append(frame)
        except (ValueError, OverflowError, MemoryError) as error:
            if not frames:
                raise
            self._garbled = error
            self.drained = False
        self._make_room()
        return frames

    def _read_large(self, body: memoryview) -> list[Frame]:
        received = self._sock.recv_into(body[self._filled :])
        if not received:
            raise EOFError("the connection was closed in the middle of a frame")
        self._filled += received
        self.drained = False
        if self._filled < len(body):
            return []
        assert self._header is not None
        frame = Frame(*self._header, body)
        self._header = self._large = None
        return [frame]

    def _cut(self) -> Frame | None:
        start = self._start + HEADER.size
        if start > self._end:
            return None
        kind, number, length = HEADER.unpack_from(self._space, self._start)
        if self._kinds is not None and kind not in self._kinds:
            raise ValueError(f"there is no frame of the kind {kind}")
        if length > self._most:
            raise ValueError(f"no frame has {length:,} bytes")
        end = start + length
        if end <= self._end:
            self._start = end
            return Frame(kind, number, memoryview(bytes(self._space[start:end])))
        if HEADER.size + length > len(self._space):
            self._header = kind, number
            self._large = space_for(length)
            self._filled = self._end - start
            self._large[: self._filled] = self._space[start : self._end]
            self._start = self._end
        return None

    def _make_room(self) -> None:
        """Move what is left to the front of the buffer."""
        left = self._end - self._start
        if self._start:
            self._space[:left] = self._space[self._start : self._end]
            self._start, self._end = 0, left


class Stream:
    """Sends over a socket that blocks, though a handler of a signal may raise in the midst of it, or send something.

    What is left of a frame then goes before the next one. So nothing is done in here by halves: each change is a single
    call of something that is not written in Python, before or after which such a handler is run.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: deque[tuple[list[memoryview], list[int]]] = deque()  # their buffers, and what was sent of them
        self._sending = False

    def send(self, buffers: Iterable[Buffer]) -> None:
        """Send a frame, after what is left of those before it. To be called by one thread at a time."""
        self._frames.append(([memoryview(buffer) for buffer in buffers if len(buffer)], []))
        if self._sending:
            return  # who calls this has interrupted the sending of another frame: that goes on, with this one after it
        self._sending = True
        try:
            while self._frames:
                self._send_some()
        finally:
            self._sending = False

    def _send_some(self) -> None:
        """Send what the socket takes of the first frame; forget it once all of that was sent."""
        views, sent = self._frames[0]
        sent[:] = [sum(sent)]
        left = deque(views)
        take_off(left, sent[0])
        if not left:
            self._frames.popleft()
        # How much was sent is noted by `extend` itself. Between a call and what is done with the number that it
        # returns, a handler may raise.
        elif len(left) == 1:
            sent.extend(map(self._sock.send, left))
        else:
            sent.extend(map(self._sock.sendmsg, [list(islice(left, MOST_BUFFERS))]))

    def let_go_in_fork(self) -> None:
        """In a forked process: the thread that was sending is not here."""
        self._sending = False


class Outbox:
    """What is still to be sent over a socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffers: deque[memoryview] = deque()

    def __len__(self) -> int:
        return len(self._buffers)

    def size(self) -> int:
        """Return how many bytes that are."""
        return sum(map(len, self._buffers))

    def put(self, buffers: Iterable[Buffer]) -> None:
        """Send the buffers, as far as that goes without waiting; keep the rest."""
        self._buffers.extend(memoryview(buffer) for buffer in buffers if len(buffer))
        self.flush()

    def flush(self) -> None:
        """Send what is left, as far as that goes without waiting."""
        while self._buffers:
            try:
                send_some(self._sock, self._buffers)
            except BlockingIOError:
                return
            except OSError:  # the other side is gone, which its owner learns elsewhere
                self._buffers.clear()
                return
