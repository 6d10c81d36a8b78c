"""Where shared values are held: once a machine, in memory that slaves map, under a digest of what is held.

A *held* value is bytes in a file that has no name (a memfd on Linux; elsewhere a temporary file), so nothing
is left of it when nobody has it open. Other processes of this machine are told its *place*, open it there for
reading, and map it. Nothing in here knows what the bytes mean.

Jobs *need* values. What they need is said in front of the definition of their class, by `with_needs`. So it is covered
by the digest of the definition, is sent once, and costs jobs that need nothing no byte.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from papyros.digests import blake2b

if TYPE_CHECKING:
    from papyros.frames import Buffer
    from papyros.sharing import Shared

__all__ = ["DIGEST_BYTES", "Held", "Kept", "needs_of", "with_needs", "without_needs"]

DIGEST_BYTES = 32

#: What is said in front of a definition: what the class itself needs, and what its jobs need besides.
CLASS_NEEDS, JOB_NEEDS = b"C", b"J"

_COUNT_BYTES = 4

#: So much is written at a time.
_PIECE = 1 << 24


# What jobs need ---------------------------------------------------------------------------


def with_needs(kind: bytes, digests: Iterable[bytes], definition: Buffer) -> bytes:
    """Return a definition that says which values are needed."""
    wanted = list(digests)
    return b"".join([kind, len(wanted).to_bytes(_COUNT_BYTES, "little"), *wanted, definition])


def without_needs(kind: bytes, definition: bytes) -> bytes:
    """Return the definition that `with_needs` was given; the same, where that said nothing of this kind."""
    return bytes(memoryview(definition)[_end_of_needs(definition) :]) if definition[:1] == kind else definition


def needs_of(definition: Buffer) -> list[bytes]:
    """Return the digests of all values that jobs of a definition need.

    Raises:
        ValueError: it is shorter than it says.
    """
    found: list[bytes] = []
    rest = memoryview(definition)
    while bytes(rest[:1]) in (CLASS_NEEDS, JOB_NEEDS):
        end = _end_of_needs(rest)
        if end > len(rest):
            raise ValueError("a definition is shorter than it says")
        found += [bytes(rest[i : i + DIGEST_BYTES]) for i in range(1 + _COUNT_BYTES, end, DIGEST_BYTES)]
        rest = rest[end:]
    return list(dict.fromkeys(found))


def _end_of_needs(definition: Buffer) -> int:
    start = 1 + _COUNT_BYTES
    return start + DIGEST_BYTES * int.from_bytes(definition[1:start], "little")


# What is held -----------------------------------------------------------------------------


class Held:
    """A shared value, as bytes in a file without a name. Closed when nobody refers to it any more.

    Args:
        size: how many bytes it has when it is complete.

    Attributes:
        size: the same.
        filled: how many of these are there.
    """

    def __init__(self, size: int) -> None:
        self._start(*_make(), size)
        self._hash = blake2b(digest_size=DIGEST_BYTES)

    @classmethod
    def of(cls, parts: Iterable[Buffer]) -> Held:
        """Return what holds the parts, one after the other."""
        views = [memoryview(part).cast("B") for part in parts]
        held = cls(sum(map(len, views)))
        for view in views:
            held.write(view)
        return held

    @classmethod
    def at(cls, digest: bytes, place: Iterable[Any]) -> Held:
        """Return what another process of this machine holds at a place.

        Raises:
            OSError: it is not there any more.
        """
        path, inode, size = place
        # It may be anything by now, and nobody is to wait for that.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        held = cls.__new__(cls)
        held._start(fd, "", size)
        held._digest, held.filled = digest, size
        held._path = "" if path.startswith("/proc/") else path
        found = os.fstat(fd)
        if (found.st_ino, found.st_size) != (inode, size) or not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(f"what is at {path} is another file by now")
        return held

    def _start(self, fd: int, path: str, size: int) -> None:
        self.size = size
        self.filled = 0
        self._fd = fd
        self._path = path
        self._digest = b""
        self._view: memoryview | None = None
        # When the program ends, the system closes it by itself; a file that has a name is to be removed.
        weakref.finalize(self, _let_go, fd, path, os.getpid()).atexit = bool(path)

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self.filled == self.size

    @property
    def digest(self) -> bytes:
        """The digest of what is there, by which it is known when it is complete."""
        return self._digest or self._hash.digest()

    @property
    def place(self) -> list[Any]:
        """Where other processes of this machine find it, for as long as it is held here."""
        return [self._path or f"/proc/{os.getpid()}/fd/{self._fd}", os.fstat(self._fd).st_ino, self.size]

    def write(self, buffer: Buffer) -> None:
        """Add the next bytes.

        Raises:
            ValueError: there are more of them than it is to have.
            OSError: there is no room for them.
        """
        view = memoryview(buffer).cast("B")
        if self.filled + len(view) > self.size:
            raise ValueError("more bytes have come than a shared value is to have")
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            while piece:
                written = os.pwrite(self._fd, piece, self.filled)
                self._hash.update(piece[:written])  # no more: where there is no room for the rest, that may come again
                self.filled += written
                piece = piece[written:]
        if self.complete:
            self._digest = self._hash.digest()
            with contextlib.suppress(ImportError, OSError, AttributeError):  # nobody is to change it, where that can be
                import fcntl

                fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)

    def read(self, offset: int, count: int) -> bytes:
        """Return some of the bytes; fewer at the end of what is there."""
        return os.pread(self._fd, max(0, min(count, self.filled - offset)), offset)

    def view(self) -> memoryview:
        """Map it, and return all of it. It cannot be written to."""
        if self._view is None:
            self._view = memoryview(mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ))
        return self._view


def _make() -> tuple[int, str]:
    """Return a new file, and its path if it has one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("papyros-shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), ""
    import tempfile  # slaves import this module, and it takes a while

    return tempfile.mkstemp(prefix="papyros-shared-")


def _let_go(fd: int, path: str, pid: int) -> None:
    os.close(fd)
    if path and os.getpid() == pid:  # others are forks, which do not own it
        with contextlib.suppress(FileNotFoundError):  # somebody has cleaned up
            os.unlink(path)


class Kept:
    """The values of the handles of one program, each for as long as there is a handle of it. Threads may share it."""

    def __init__(self) -> None:
        #: Held while what is kept is looked at or changed, by those who keep something for each value, too.
        self.lock = threading.Lock()
        self._held: dict[bytes, Held] = {}
        self._handles: dict[bytes, int] = {}
        self._known: weakref.WeakSet[Shared[Any]] = weakref.WeakSet()
        self._dropped: deque[bytes] = deque()

    @property
    def stale(self) -> bool:
        """Whether a handle is gone, so that `take_dropped` may find something."""
        return bool(self._dropped)

    def note(self, handle: Shared[Any], held: Held) -> None:
        """Keep the value of a handle. Called with the lock held."""
        if handle in self._known:
            return
        self._known.add(handle)
        self._held.setdefault(held.digest, held)
        self._handles[held.digest] = self._handles.get(held.digest, 0) + 1
        # The last reference may go in any thread, whatever that holds: so it is only noted, without a lock.
        weakref.finalize(handle, self._dropped.append, held.digest).atexit = False

    def take_dropped(self) -> list[bytes]:
        """Forget the values of which there is no handle any more; return their digests. Called with the lock held."""
        gone = []
        while self._dropped:
            digest = self._dropped.popleft()
            left = self._handles[digest] = self._handles.get(digest, 1) - 1
            if not left:
                del self._handles[digest]
                self._held.pop(digest, None)
                gone.append(digest)
        return gone

    def clear(self) -> None:
        """Forget all values, for good. Called with the lock held."""
        self._held.clear()
        self._handles.clear()
        self._dropped = deque(maxlen=0)

    def get(self, digest: bytes) -> Held | None:
        """Return what is held under a digest."""
        return self._held.get(digest)

    def sizes(self) -> dict[bytes, int]:
        """Return how many bytes each value has, by its digest."""
        return {digest: held.size for digest, held in list(self._held.items())}
