"""A line: one connection to a master, on which calls carry raw bytes beside their arguments.

Arguments and answers are few and small, and go as JSON, which costs half of what
serpent does and says as little to strangers; batches go
beside them, as an annotation, which Pyro passes on as it is.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from Pyro5.callcontext import current_context
from Pyro5.client import Proxy
from Pyro5.errors import CommunicationError, PyroError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ANNOTATION", "Line", "LineBrokenError", "keep_alive"]

#: The identifier of the annotation that holds a batch.
ANNOTATION = "PAPY"

#: How long it may take to connect, and how long a network may be silent.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 15

NOTHING = memoryview(b"")


class LineBrokenError(ConnectionError):
    """The other side cannot be reached, or does not answer as it should."""


class Line:
    """One connection to the object at a URI. Threads may share it; calls wait for each other.

    Args:
        uri: where.
        connect_timeout: how long it may take to connect, in seconds.
        silence: a call breaks when nothing has come or gone for so many seconds.

    Raises:
        LineBrokenError: no connection can be made.
    """

    def __init__(self, uri: str, connect_timeout: float = CONNECT_SECONDS, silence: float = SILENCE_SECONDS) -> None:
        self.uri = uri
        self._silence = silence
        self._asked = 0.0  # since when a call waits for its answer; 0 = none does
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._broken = False
        try:
            self._proxy = Proxy(uri)
            self._proxy._pyroSerializer = "json"
            self._proxy._pyroMaxRetries = 0
            self._proxy._pyroTimeout = connect_timeout
            self._proxy._pyroBind()
            # With a timeout, Pyro sends and receives large messages in small pieces.
            self._proxy._pyroTimeout = None
        except (PyroError, OSError) as error:
            raise LineBrokenError(f"no connection to {uri}: {error}") from error
        self._sock: socket.socket = self._proxy._pyroConnection.sock
        keep_alive(self._sock)
        threading.Thread(target=self._watch, name="papyros-line", daemon=True).start()

    def expect(self, silence: float) -> None:
        """Allow calls on this line so many seconds without a sign of life."""
        self._silence = silence

    def call(
        self, method: str, *args: Any, message: bytes | None = None, timeout: float | None = None
    ) -> tuple[Any, memoryview]:
        """Call a method; return its answer, and the batch beside it.

        Raises:
            LineBrokenError: it did not come to an answer. Whether the other side
                heard the question cannot be known.
        """
        with self._lock:
            if self._broken:
                raise LineBrokenError(f"the connection to {self.uri} was closed")
            self._proxy._pyroClaimOwnership()
            if timeout is not None:
                self._proxy._pyroTimeout = timeout
            current_context.annotations = {ANNOTATION: message} if message is not None else {}
            self._asked = time.monotonic()
            try:
                answer = self._proxy._pyroInvoke(method, args, {})
                return answer, current_context.response_annotations.get(ANNOTATION, NOTHING)
            except (CommunicationError, OSError) as error:
                self._broken = True
                raise LineBrokenError(f"the connection to {self.uri} broke: {error}") from error
            except BaseException:
                self._broken = True  # an answer may still be on its way
                raise
            finally:
                self._asked = 0.0
                current_context.annotations = {}
                current_context.response_annotations = {}

    def abort(self) -> None:
        """Break the connection, also under a call of another thread, which then raises."""
        self._broken = True
        self._closed.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _watch(self) -> None:
        """Break the line when the other side does not answer, though its system does; from a thread of its own."""
        while not self._closed.wait(self._silence / 4):
            asked = self._asked
            if asked and time.monotonic() - asked > self._silence and _quiet(self._sock) > self._silence:
                self.abort()

    def close(self) -> None:
        """Close the connection."""
        self.abort()
        with self._lock:
            self._proxy._pyroClaimOwnership()
            self._proxy._pyroRelease()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _quiet(sock: socket.socket) -> float:
    """Return for how many seconds no data has come or gone; for ever, where the system does not tell: Linux does."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (AttributeError, OSError):
        return math.inf
    sent, _, received = struct.unpack_from("=III", info, 44)  # milliseconds since data was sent, acknowledged, received
    return float(min(sent, received)) / 1000


def keep_alive(sock: socket.socket) -> None:
    """Have the system notice when the other side's machine is gone, and send small messages at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": 5,
        "TCP_KEEPINTVL": 3,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": SILENCE_SECONDS * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):  # not all systems have all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
