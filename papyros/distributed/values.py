"""Shared values on a cluster: up to the master once, down to each slave host once, in pieces that hold nobody up.

::

    client ── share, unshare ──▶ master ◀── value, hold ── slave host ──▶ memory that its slaves map

A value is known by its digest. The master holds it, opaque, for as long as the session of a client lives that has
shared it, and says nothing else. What a slave host does is in `papyros.distributed.hostvalues`; the calls of
both ends are made by what is in here, so that either can be read beside the other. What came of a value is kept when
a connection breaks: nothing crosses twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from papyros.distributed.daemon import offer
from papyros.distributed.line import CallFailedError, Line, LineBrokenError
from papyros.distributed.messages import answer_batch, called_batch, called_on
from papyros.distributed.security import Role
from papyros.status import SharedStatus
from papyros.store import DIGEST_BYTES, Held, needs_of
from papyros.wire import MAX_PAYLOAD_BYTES, Packer

if TYPE_CHECKING:
    from papyros.distributed.desk import Desk

__all__ = ["SentValues", "ValueService", "fetch_value", "tell_held"]

#: So many bytes of a value go into one message: a few milliseconds' work for either side.
PIECE_BYTES = 4 << 20


# The master -------------------------------------------------------------------------------


class ValueService:
    """What clients and slave hosts can ask a master about shared values. None of it waits."""

    _desk: Desk

    @offer(Role.CLIENT)
    def share(self, key: str, name: str, size: int, offset: int) -> dict[str, Any]:
        """Take a piece of a value, if it is the next one; tell how much of the value is here, -1 if it was altered."""
        digest = bytes.fromhex(name)
        piece = called_batch()
        with self._desk.lock:
            client = self._desk.client(key, called_on())
            if client is None:
                return {"known": False}
            held = client.values.get(digest) or self._found(digest)
            if held is None:
                if not 0 < size <= MAX_PAYLOAD_BYTES or len(digest) != DIGEST_BYTES:
                    raise ValueError("this is no shared value")
                held = Held(size)
            client.values[digest] = held
            if len(piece) and offset == held.filled and not held.complete:
                held.write(piece)
                if held.complete and held.digest != digest:
                    for other in self._desk.clients.values():
                        other.values.pop(digest, None)
                    return {"known": True, "filled": -1}
            return {"known": True, "filled": held.filled}

    @offer(Role.CLIENT)
    def unshare(self, key: str) -> dict[str, Any]:
        """Forget values for a client that needs them no more, and the definitions of jobs that would."""
        gone = set(_digests())
        with self._desk.lock:
            client = self._desk.client(key, called_on())
            if client is None:
                return {"known": False}
            for digest in gone:
                client.values.pop(digest, None)
            for known, definition in list(client.definitions.items()):
                if not gone.isdisjoint(needs_of(definition)):
                    del client.definitions[known]
                    client.labels.pop(known, None)
            return {"known": True}

    @offer(Role.SLAVE_HOST)
    def value(self, key: str, name: str, offset: int) -> dict[str, Any]:
        """Return a piece of a value from an offset on, and how many bytes the value has; -1 = it is not here."""
        with self._desk.lock:
            if self._desk.host(key) is None:
                return {"known": False}
            held = self._found(bytes.fromhex(name))
        if held is None or not held.complete:
            return {"known": True, "size": -1}
        answer_batch(held.read(max(0, offset), PIECE_BYTES))
        return {"known": True, "size": held.size}

    @offer(Role.SLAVE_HOST)
    def hold(self, key: str, name: str) -> dict[str, Any]:
        """Hear which values a slave host holds, and tell it those of them that nobody needs any more."""
        sizes = {bytes.fromhex(digest): size for digest, size in json.loads(bytes(called_batch())).items()}
        with self._desk.lock:
            host = self._desk.host(key)
            if host is None:
                return {"known": False}
            host.values = SharedStatus(str(name)[:80], len(sizes), sum(sizes.values()))
            return {"known": True, "gone": [digest.hex() for digest in sizes if self._found(digest) is None]}

    def _found(self, digest: bytes) -> Held | None:
        return next((held for client in self._desk.clients.values() if (held := client.values.get(digest))), None)


def _digests() -> list[bytes]:
    message = bytes(called_batch())
    return [message[i : i + DIGEST_BYTES] for i in range(0, len(message), DIGEST_BYTES)]


def _check(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer["known"]:
        raise LineBrokenError("the master does not know this side any more")
    return answer


# The slave host ---------------------------------------------------------------------------


def fetch_value(line: Line, key: str, digest: bytes, partial: dict[bytes, Held]) -> Held | None:
    """Fetch a value, or what is missing of it in `partial`; None where the master does not have it.

    Raises:
        LineBrokenError: the line broke, or the master does not know this host any more.
    """
    while (held := partial.get(digest)) is None or not held.complete:
        offset = held.filled if held is not None else 0
        answer, piece = line.call("value", key, digest.hex(), offset)
        _check(answer)
        size = answer["size"]
        if not 0 < size <= MAX_PAYLOAD_BYTES or (held is not None and size != held.size):
            partial.pop(digest, None)
            return None
        if held is None:
            held = partial[digest] = Held(size)
        if not 0 < len(piece) <= size - offset:
            raise LineBrokenError("what came of a shared value is not what was asked for")
        held.write(piece)
    return partial.pop(digest)


def tell_held(line: Line, key: str, name: str, sizes: Mapping[bytes, int]) -> list[bytes]:
    """Tell the master which values a slave host holds; return those of them that it does not know.

    Raises:
        LineBrokenError: the line broke, or the master does not know this host any more.
    """
    message = json.dumps({digest.hex(): size for digest, size in sizes.items()}).encode()
    answer, _ = line.call("hold", key, name, message=message)
    return [bytes.fromhex(digest) for digest in _check(answer)["gone"]]


# The client -------------------------------------------------------------------------------


class SentValues:
    """What a client has shared with its master. For the thread that sends.

    Args:
        key: the session.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._sent: set[bytes] = set()
        self._owed: set[bytes] = set()  # what the master is still to be told that it is needed no more
        #: What was on its way when something failed.
        self.leaving: bytes | None = None

    @property
    def owed(self) -> bool:
        """Whether the master is still to be told of something that is needed no more."""
        return bool(self._owed)

    def clear(self) -> None:
        """Take note that another master has nothing of it."""
        self._sent.clear()
        self._owed.clear()
        self.leaving = None

    def has_sent(self, digest: bytes) -> bool:
        """Return whether the master has a value."""
        return digest in self._sent

    def give_up(self, digest: bytes) -> None:
        """Have the master let go of what it has of a value that it could not take."""
        self._owed.add(digest)

    def forget(self, packer: Packer, defined: set[bytes]) -> None:
        """Note which values need not be held any more; take the definitions that need them out of what was defined."""
        gone, definitions = packer.forget_dropped()
        self._owed.update(self._sent.intersection(gone))
        defined.difference_update(definitions)

    def settle(self, line: Line) -> None:
        """Tell the master what is needed no more.

        Raises:
            LineBrokenError: the line broke, or the master does not know the session any more.
        """
        if self._owed:
            _check(line.call("unshare", self._key, message=b"".join(self._owed))[0])
            self._sent -= self._owed
            self._owed.clear()

    def send(self, line: Line, packer: Packer, definitions: Iterable[bytes]) -> None:
        """Send what jobs of these definitions need, as far as the master does not have it.

        Raises:
            LineBrokenError: the same.
            CallFailedError: the master cannot take the value that is `leaving`.
        """
        self.leaving = None
        self.settle(line)
        for digest in {need for known in definitions for need in needs_of(packer.definitions.get(known, b""))}:
            held = packer.kept.get(digest)
            if digest not in self._sent and held is not None:  # else nobody waits for the job any more
                self.leaving = digest
                self._send(line, digest, held)
                self._sent.add(digest)
        self.leaving = None

    def _send(self, line: Line, digest: bytes, held: Held) -> None:
        piece = b""  # at first, it is asked for: somebody else may have shared the same
        filled = 0
        while True:
            answer = _check(line.call("share", self._key, digest.hex(), held.size, filled, message=piece)[0])
            filled = answer["filled"]
            if filled == held.size:
                return
            if filled < 0:
                raise CallFailedError("ValueError", "it was changed on its way to the master")
            piece = held.read(filled, PIECE_BYTES)
