"""Memory: taken for what is to be received, and, once freed, kept for later or given back to the system.

It is the GNU C library that needs to be told what to keep, and when to give it back; others are left to themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from functools import cache

__all__ = ["FLOOD_JOBS", "give_memory_back", "keep_freed_memory", "unwritten", "use_one_heap"]

#: So many jobs at a time are a flood: they leave traces in the memory of the process.
FLOOD_JOBS = 50_000

#: Blocks of memory of up to this size are used again. Each thread's part of the heap keeps up to twice as much.
KEPT_BYTES = 4 << 20

#: The number of an option, as in malloc.h.
_M_ARENA_MAX = -8


@cache
def keep_freed_memory() -> None:
    """Have the C library use large blocks again that were freed, instead of giving each back to the system.

    A fresh page of the system's takes several times as long as to copy what goes into it. The GNU C library begins to
    keep blocks when the first one of their size is freed (see M_MMAP_THRESHOLD in mallopt(3)): so one is freed here.
    Nothing is written to it, so it never takes any memory.
    """
    if sys.platform == "linux":
        bytes(KEPT_BYTES)


def unwritten(size: int) -> bytearray:
    """Return a bytearray of `size` bytes that nobody has written to, for those who are about to write all of it.

    Where that cannot be had, it is filled with zeros, as ``bytearray(size)`` always is: that takes a tenth of the time
    that it takes to receive what comes there, and all of the memory at once, whoever may have said how much will come.

    Raises:
        MemoryError: there is not so much.
        OverflowError: there never is.
    """
    if not 0 <= size <= sys.maxsize:
        raise OverflowError(f"no bytearray has {size:,} bytes")  # ctypes would take another number for it
    if _resize is None:
        return bytearray(size)
    space = bytearray()
    _resize(space, size)
    return space


#: What comes of looking for a function of the C library where it has none of that name; on Windows, of looking at all.
_NOT_THERE = (AttributeError, OSError, TypeError)


def _find_resize() -> Callable[[bytearray, int], int] | None:
    try:
        prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_ssize_t)
        return prototype(("PyByteArray_Resize", ctypes.pythonapi))
    except AttributeError:  # another Python than CPython
        return None


#: Found beforehand: what stays for good is not to lie behind large blocks, in the heap of the thread that takes the
#: first of them. These could not go back to the system.
_resize = _find_resize()


def give_memory_back() -> None:
    """Have the C library return to the system what it keeps for later."""
    with contextlib.suppress(*_NOT_THERE):
        ctypes.CDLL(None).malloc_trim(0)


def use_one_heap() -> None:
    """Have threads that are started from now on take memory from the heap of the first one.

    Of a heap that a thread has for itself, `give_memory_back` cannot return what lies at its end, and that may be
    much: up to 64 MiB, once a large table of any sort was freed. Threads do not wait for each other there, as all of
    them hold the interpreter's lock meanwhile.
    """
    with contextlib.suppress(*_NOT_THERE):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
