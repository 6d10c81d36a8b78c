"""A TCP proxy that does to connections what networks do: silence, slowness, cuts and resets."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator

from papyros.distributed.naming import NameServer, parse_address
from tests.support import security

CHUNK = 1 << 16
RESET = struct.pack("ii", 1, 0)  # to linger for no time at all is to reset


class _Pipe:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting = b""
        self.ended = False
        self.other: _Pipe


class Wire:
    """Forwards connections to an address, as long as it is not told to misbehave.

    Args:
        target: where to, as ``HOST:PORT``.

    Attributes:
        accepted: how many connections there have been.
        carried: how many bytes went through, in both directions.
        cut_after: connections are reset after so many bytes, if that is not None.
        rate: so many bytes a second go through, all connections and both directions together; None = all.
    """

    def __init__(self, target: str) -> None:
        self._target = parse_address(target)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.accepted = 0
        self.carried = 0
        self.cut_after: int | None = None
        self.rate: float | None = None
        self._selector = selectors.DefaultSelector()
        self._silent = False
        self._refuses = False
        self._closing = False
        self._lock = threading.Lock()
        self._pipes: list[_Pipe] = []
        self._forgotten: list[_Pipe] = []
        self._counts: dict[socket.socket, int] = {}
        self._credit = 0.0
        self._refilled = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="test-wire", daemon=True)
        self._thread.start()

    def silence(self) -> None:
        """Let nothing through any more; connections stay open, and new ones are not answered."""
        self._silent = True

    def resume(self) -> None:
        """Let everything through again, also what was held back."""
        self._silent = self._refuses = False
        self.rate = self.cut_after = None

    def refuse(self) -> None:
        """Reset all connections, and each new one."""
        self._refuses = True
        self.reset()

    def reset(self) -> None:
        """Reset all connections."""
        with self._lock:
            for pipe in list(self._pipes):
                self._reset(pipe)

    def forget(self) -> None:
        """Never forward anything again on the connections that there are; they stay open."""
        with self._lock:
            self._forgotten += self._pipes
            for pipe in self._pipes:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(pipe.source)
            self._pipes.clear()

    def half_close(self) -> None:
        """Say to both sides of each connection that nothing more comes, and go on taking what they say."""
        with self._lock:
            for pipe in self._pipes:
                with contextlib.suppress(OSError):
                    pipe.target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._listener.close()
        for pipe in self._pipes + self._forgotten:
            pipe.source.close()

    # Inside -----------------------------------------------------------------------------

    def _serve(self) -> None:
        with self._selector as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._closing:
                events = selector.select(0.005)
                if self._silent:
                    threading.Event().wait(0.005)
                    continue
                with self._lock:
                    for key, _ in events:
                        if key.fileobj is self._listener:
                            self._accept()
                    for pipe in list(self._pipes):
                        if pipe in self._pipes:
                            self._forward(pipe)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        self.accepted += 1
        if self._refuses:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            near.close()
            return
        try:
            far = socket.create_connection(self._target, 5)
        except OSError:
            near.close()
            return
        there, back = _Pipe(near, far), _Pipe(far, near)
        there.other, back.other = back, there
        for pipe in (there, back):
            pipe.source.setblocking(False)
            pipe.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(pipe.source, selectors.EVENT_READ)
            self._pipes.append(pipe)

    def _forward(self, pipe: _Pipe) -> None:
        try:
            if not pipe.waiting and not pipe.ended:
                with contextlib.suppress(BlockingIOError):
                    pipe.waiting = pipe.source.recv(CHUNK)
                    if not pipe.waiting:
                        pipe.ended = True
                        self._selector.unregister(pipe.source)
                        pipe.target.shutdown(socket.SHUT_WR)
                        if pipe.other.ended:
                            self._forget(pipe)
                            pipe.source.close()
                            pipe.target.close()
                            return
            self._send(pipe)
        except OSError:
            self._reset(pipe)

    def _send(self, pipe: _Pipe) -> None:
        allowed = self._allowed(len(pipe.waiting))
        if not pipe.waiting or not allowed:
            return
        with contextlib.suppress(BlockingIOError):
            sent = pipe.target.send(pipe.waiting[:allowed])
            pipe.waiting = pipe.waiting[sent:]
            self.carried += sent
            if self.rate is not None:
                self._credit -= sent
            if self.cut_after is not None:
                key = min(pipe.source, pipe.target, key=lambda sock: sock.fileno())
                self._counts[key] = self._counts.get(key, 0) + sent
                if self._counts[key] >= self.cut_after:
                    self._reset(pipe)

    def _allowed(self, wanted: int) -> int:
        if self.rate is None:
            return wanted
        now = time.monotonic()
        self._credit = min(self._credit + (now - self._refilled) * self.rate, CHUNK)
        self._refilled = now
        return max(0, min(wanted, int(self._credit), 4096))  # small pieces, so that connections take turns

    def _reset(self, pipe: _Pipe) -> None:
        for sock in (pipe.source, pipe.target):
            self._counts.pop(sock, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(sock)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
        self._forget(pipe)

    def _forget(self, pipe: _Pipe) -> None:
        for one in (pipe, pipe.other):
            if one in self._pipes:
                self._pipes.remove(one)


@contextlib.contextmanager
def wire_to_master(names: str, other_names: str, group: str) -> Iterator[Wire]:
    """Yield a wire to the master of a group, of which those learn who ask the other name server."""
    uri = NameServer(parse_address(names), security()).lookup(group)
    assert uri is not None
    master, _, address = uri.partition("@")
    wire = Wire(address)
    try:
        NameServer(parse_address(other_names), security()).register(group, f"{master}@{wire.address}")
        yield wire
    finally:
        wire.close()
