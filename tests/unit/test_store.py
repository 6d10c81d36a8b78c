"""What is held of shared values, what jobs need of them, and for how long."""

from __future__ import annotations

import errno
import gc
import os
import sys
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papyros import PayloadError, store
from papyros.pickling import hold_value, load_value
from papyros.sharing import Shared
from papyros.store import CLASS_NEEDS, JOB_NEEDS, Held, Kept, needs_of, with_needs, without_needs

digests = st.lists(st.binary(min_size=32, max_size=32), max_size=5, unique=True)


@given(digests, digests, st.binary(max_size=50).map(lambda rest: b"\x80" + rest))
def test_needs_are_said_in_front_of_a_definition_and_taken_off_again(of_class, of_job, definition):
    known = with_needs(CLASS_NEEDS, of_class, definition)
    full = with_needs(JOB_NEEDS, of_job, known)
    assert needs_of(definition) == []
    assert needs_of(known) == of_class
    assert needs_of(full) == list(dict.fromkeys(of_job + of_class))
    assert without_needs(JOB_NEEDS, full) == known
    assert without_needs(CLASS_NEEDS, known) == definition
    assert without_needs(JOB_NEEDS, known) is known


@given(st.binary(max_size=80))
def test_needs_that_make_no_sense_are_an_error_or_nothing(garbage):
    try:
        found = needs_of(garbage)
    except ValueError:
        return
    assert all(len(digest) == 32 for digest in found)


def test_what_is_held_is_read_mapped_and_opened_elsewhere():
    content = os.urandom(100_000)
    held = Held.of([content[:7], content[7:]])
    assert held.complete
    assert held.digest == blake2b(content, digest_size=32).digest()
    assert held.read(5, 10) == content[5:15]
    assert held.read(99_999, 10) == content[-1:]
    assert held.read(200_000, 10) == b""
    view = held.view()
    assert bytes(view) == content
    assert view.readonly
    other = Held.at(held.digest, held.place)
    assert bytes(other.view()) == content
    with pytest.raises(ValueError, match="more bytes"):
        held.write(b"!")


def test_pieces_are_held_until_all_have_come():
    held = Held(10)
    held.write(b"12345")
    assert (held.filled, held.complete) == (5, False)
    assert held.read(0, 100) == b"12345"
    held.write(b"67890")
    assert held.complete


def test_what_there_was_no_room_for_may_come_again(monkeypatch):
    """The digest is that of what is there: not of bytes that could not be written."""
    content = os.urandom(1000)
    really, rooms = os.pwrite, iter([300, 0])

    def pwrite(fd, piece, offset):
        room = next(rooms, len(piece))
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(fd, piece[:room], offset)

    held = Held(len(content))
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space"):
        held.write(content)
    assert (held.filled, held.complete) == (300, False)
    held.write(content[held.filled :])
    assert held.complete
    assert held.read(0, len(content)) == content
    assert held.digest == blake2b(content, digest_size=32).digest()


def test_a_file_is_removed_by_the_process_that_made_it_only(monkeypatch, tmp_path):
    """A fork that ends has it, too, and others still read it."""
    files = iter(tmp_path / name for name in ("kept", "removed", "gone"))

    def make():
        path = next(files)
        return os.open(path, os.O_RDWR | os.O_CREAT), str(path)

    monkeypatch.setattr(store, "_make", make)
    held = Held(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # as in a fork
        del held
        gc.collect()
    assert (tmp_path / "kept").exists()
    held = Held(1)
    del held
    gc.collect()
    assert not (tmp_path / "removed").exists()
    held = Held(1)
    (tmp_path / "gone").unlink()  # somebody has cleaned up: nobody is told of that in the midst of something else
    del held
    gc.collect()


@pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
def test_nobody_can_change_what_is_held():
    held = Held.of([b"content"])
    with pytest.raises(PermissionError):
        os.pwrite(held._fd, b"C", 0)


def test_a_place_at_which_something_else_is_by_now_is_not_taken():
    first, second = Held.of([b"one"]), Held.of([b"two"])
    path, _, size = first.place
    with pytest.raises(FileNotFoundError):
        Held.at(first.digest, [path, second.place[1], size])
    place = first.place
    del first
    gc.collect()
    with pytest.raises(OSError):
        Held.at(b"", [place[0], place[1] + 1, size])


def test_a_value_is_kept_until_its_last_handle_is_gone():
    kept = Kept()
    handles = [Shared([1, 2, 3]), Shared([1, 2, 3])]
    for handle in (*handles, handles[0]):
        with kept.lock:
            kept.note(handle, handle.hold(hold_value))
    digest = handles[0].hold(hold_value).digest
    assert kept.sizes() == {digest: handles[0].hold(hold_value).size}
    del handle
    handles.pop()
    gc.collect()
    with kept.lock:
        assert kept.take_dropped() == []
    assert kept.get(digest) is not None
    handles.pop()
    gc.collect()
    assert kept.stale
    with kept.lock:
        assert kept.take_dropped() == [digest]
    assert kept.get(digest) is None
    assert not kept.stale


def test_a_handle_that_outlives_those_who_kept_it_harms_nobody():
    kept = Kept()
    handle = Shared("value")
    with kept.lock:
        kept.note(handle, handle.hold(hold_value))
        kept.clear()
    del handle
    gc.collect()
    with kept.lock:
        assert kept.take_dropped() == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        b"",
        b"bytes" * 1000,
        bytearray(b"array" * 1000),
        {"nested": [memoryview(b"view" * 100), b"x"]},
        memoryview(b""),
        memoryview(bytes(range(100)))[::2],
        memoryview(bytes(80)).cast("d"),
    ],
    ids=["None", "text", "nothing", "bytes", "bytearray", "nested", "no view", "part of a view", "a view of numbers"],
)
def test_values_come_back_as_they_were(value):
    found = load_value(hold_value(value).view())
    assert type(found) is type(value)
    assert found == value


@pytest.mark.parametrize("form", [">d", ">i4"])
def test_views_that_could_not_be_made_again_are_refused_where_they_are_shared(form):
    """Python knows the form, and makes no view of it."""
    with pytest.raises(PayloadError, match=r"cannot be pickled, .*: ValueError: memoryview"):
        hold_value(memoryview(np.zeros(4, form)))
