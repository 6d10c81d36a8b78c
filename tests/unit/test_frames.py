"""Frames: however a stream is split, the same frames come out; and lengths that lie are noticed."""

from __future__ import annotations

import contextlib
import math
import socket
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papyros import frames
from papyros.frames import (
    LONGEST_SECONDS,
    FrameReader,
    Outbox,
    Parts,
    gathered,
    join_column,
    pack_frame,
    pack_message,
    seconds_column,
    send_all,
    split_column,
    to_keep,
    unpack_message,
)
from tests.support import Background

pytestmark = pytest.mark.compiled

BLOBS = st.lists(st.binary(max_size=40), max_size=6)
FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), BLOBS), max_size=5)


class Stream:
    """Be a socket from which a stream comes in given pieces."""

    def __init__(self, stream, sizes):
        self._stream = stream
        self._sizes = list(sizes)

    def recv(self, size):
        size = min(size, self._sizes.pop(0) if self._sizes else 1 << 30)
        piece, self._stream = self._stream[:size], self._stream[size:]
        return piece

    def recv_into(self, view):
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)


def read_all(stream, sizes):
    reader = FrameReader(Stream(stream, sizes))
    found = []
    with contextlib.suppress(EOFError):
        while True:
            found += [(frame.kind, frame.number, bytes(frame.body)) for frame in reader.read()]
    return found


@settings(deadline=None)
@given(FRAMES, st.lists(st.integers(1, 30), max_size=200), st.sampled_from([1, 16, 1 << 18]))
def test_any_split_of_a_stream_gives_the_same_frames(sent, sizes, chunk):
    """Large bodies too, which are received into their place."""
    stream = b"".join(b"".join(pack_frame(kind, number, blobs)) for kind, number, blobs in sent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "CHUNK", chunk)
        found = read_all(stream, sizes)
    assert found == [(kind, number, b"".join(blobs)) for kind, number, blobs in sent]


GARBAGE = [b"\xff" * 16, bytes(20), b"what some job has written"]


@pytest.mark.parametrize("garbage", GARBAGE)
@given(FRAMES, st.lists(st.integers(1, 50), max_size=20))
def test_frames_that_come_with_garbage_behind_them_are_whole(garbage, sent, sizes):
    kinds = {kind for kind, *_ in sent} - {0, 0xFFFFFFFF}
    sent = [each for each in sent if each[0] in kinds]
    stream = b"".join(b"".join(pack_frame(kind, number, blobs)) for kind, number, blobs in sent)
    reader = FrameReader(Stream(stream + garbage, sizes), kinds)
    found = []
    with pytest.raises(ValueError, match="no frame"):  # noqa: PT012 - whichever of these it is
        while True:
            found += [(frame.kind, frame.number, bytes(frame.body)) for frame in reader.read()]
    assert found == [(kind, number, b"".join(blobs)) for kind, number, blobs in sent]


@settings(deadline=None)
@given(FRAMES, st.integers(0, 500))
def test_a_stream_that_breaks_off_gives_the_frames_before_and_says_so(sent, length):
    stream = b"".join(b"".join(pack_frame(kind, number, blobs)) for kind, number, blobs in sent)
    found = read_all(stream[:length], [7] * 100)
    assert found == [(kind, number, b"".join(blobs)) for kind, number, blobs in sent][: len(found)]
    assert len(found) < len(sent) or length >= len(stream) or not sent


@given(st.lists(st.integers(0, 100_000), max_size=5))
def test_large_buffers_are_packed_as_they_are_and_small_ones_joined(sizes):
    buffers = [bytes([number]) * size for number, size in enumerate(sizes)]
    packed = pack_frame(3, 4, buffers)
    large = [buffer for buffer in buffers if len(buffer) >= frames.LARGE]
    assert all(any(part is buffer for part in packed) for buffer in large), "it was copied"
    assert read_all(b"".join(packed), [1000] * 10) == [(3, 4, b"".join(buffers))]


@given(BLOBS, st.binary(max_size=20))
def test_a_column_comes_apart_as_it_was_joined(blobs, before):
    joined = memoryview(before + b"".join(join_column(blobs)))
    assert split_column(joined, len(blobs), len(before)) == blobs


@given(BLOBS)
def test_a_message_comes_apart_as_it_was_packed(blobs):
    assert unpack_message(memoryview(pack_message(blobs))) == blobs


@given(BLOBS)
def test_what_is_to_be_kept_of_a_message_is_the_same(blobs):
    message = pack_message(blobs)
    assert to_keep(unpack_message(message), len(message)) == blobs


def test_of_what_is_kept_of_a_message_only_a_good_part_of_it_keeps_all_of_it():
    message = pack_message([bytes(size) for size in (2000, 10_000, 100, 80_000)])
    kept = to_keep(unpack_message(message), len(message))
    assert [type(blob) for blob in kept] == [bytes, bytes, bytes, memoryview]


@given(BLOBS, st.integers(0, 12), st.binary(max_size=30))
def test_lengths_that_do_not_add_up_are_refused(blobs, count, tail):
    joined = memoryview(b"".join(join_column(blobs)) + tail)
    try:
        parts = split_column(joined, count)
    except ValueError:
        return
    assert 8 * count + sum(map(len, parts)) == len(joined)
    assert len(parts) == count


@given(st.binary(max_size=60))
def test_what_is_no_message_is_refused(noise):
    try:
        parts = unpack_message(memoryview(noise))
    except ValueError:
        return
    assert pack_message(parts) == noise


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 11, 12, 20])
def test_a_message_that_was_cut_short_is_refused(cut):
    message = pack_message([b"one", b"three"])
    with pytest.raises(ValueError):
        unpack_message(memoryview(message[:cut]))
    with pytest.raises(ValueError):
        unpack_message(memoryview(message + b"x"))


def test_parts_count_as_one_string():
    blobs = [b"one", Parts([b"tw", b"", memoryview(b"o")]), b""]
    assert unpack_message(memoryview(pack_message(blobs))) == [b"one", b"two", b""]


def test_what_is_gathered_is_the_same_and_nothing_of_it_is_empty():
    large = bytes(frames.LARGE)
    buffers = [b"", large, b"", large, b"a", b"", b"b", large, b""]
    together = gathered(buffers)
    assert b"".join(together) == b"".join(buffers)
    assert [len(buffer) for buffer in together] == [0, len(large), len(large), 2, len(large)]
    assert all(buffer is large for buffer in together if len(buffer) > 2)


def test_all_of_many_buffers_is_sent_whatever_the_socket_takes_at_a_time():
    ours, theirs = socket.socketpair()
    buffers = [bytes([number % 256]) * (number * 97 % 30_000) for number in range(200)]
    wanted = b"".join(buffers)
    with ours, theirs:
        sending = Background(lambda: send_all(ours, buffers))
        received = theirs.recv(len(wanted), socket.MSG_WAITALL)
        sending.result()
    assert received == wanted


def test_an_outbox_keeps_what_does_not_fit_and_sends_it_later():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        outbox = Outbox(ours)
        sent = [bytes([number]) * 300_000 for number in range(5)]
        outbox.put([b"", *sent, b""])
        assert len(outbox)
        received = b""
        while len(received) < 1_500_000:
            received += theirs.recv(1 << 20)
            outbox.flush()
        assert received == b"".join(sent)
        assert len(outbox) == 0


def test_an_outbox_whose_other_side_is_gone_forgets_what_is_left():
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        theirs.close()
        outbox = Outbox(ours)
        outbox.put([b"x" * 1000])
        assert len(outbox) == 0


def test_durations_that_cannot_be_count_as_none_and_the_others_as_they_are():
    """A job may have put another clock in place of the real one: a sum of such is shown to users."""
    honest = [0.0, 0.25, 3e6]
    absurd = [math.nan, math.inf, -math.inf, -1.0, LONGEST_SECONDS, 1e308]
    for one in absurd:
        column = array("d", [*honest, one]).tobytes()
        assert list(seconds_column(column)) == [*honest, 0.0]
    assert list(seconds_column(array("d", [*absurd, *honest]).tobytes())) == [0.0] * len(absurd) + honest
    assert list(seconds_column(array("d", honest).tobytes())) == honest
    assert list(seconds_column(b"")) == []
