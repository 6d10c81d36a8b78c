"""A line: one connection to a master, on which calls carry raw bytes beside their arguments.

Arguments and answers are few and small, and go as JSON; batches go beside them, as
they are. Both sides have proved themselves before the first call
(`papyros.distributed.security`).
"""

from __future__ import annotations

import itertools
import math
import re
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from Pyro5.errors import PyroError

from papyros.distributed.messages import CALL, RAISED, RESULT, Batch, receive_message, send_message
from papyros.distributed.security import Role, Security, hang_up
from papyros.errors import KeyRefusedError, VersionMismatchError
from papyros.logs import logger_of

if TYPE_CHECKING:
    from typing import Self

__all__ = ["CallFailedError", "Line", "LineBrokenError", "LineRefusedError", "check_known", "keep_alive", "split_uri"]

log = logger_of(__name__)

#: How long it may take to connect, and how long a network may be silent.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 15

_URI = re.compile(r"PYRO:([\w.]+)@(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^\s:\[\]/@]+)):(\d{1,5})", re.ASCII)


def split_uri(uri: str) -> tuple[str, int]:
    """Return the host and the port in a URI.

    Raises:
        ValueError: it is none.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(f"{uri[:200]!r} is no address of a master or a name server")
    return match[2] or match[3], int(match[4])


class LineBrokenError(ConnectionError):
    """The other side cannot be reached, or does not answer as it should."""


class LineRefusedError(LineBrokenError):
    """The other side is there, and has another key, or another version; `__cause__` is the error for people."""


class CallFailedError(LineBrokenError):
    """A call raised an error at the other side, or could not be made, since no message holds what it says.

    To whoever goes on over the next line when one breaks, it is the same: to be tried again, not the end of a thread.

    Attributes:
        kind: the name of the error's class.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Line:
    """One connection to the object at a URI. Threads may share it; calls wait for each other.

    Args:
        uri: where.
        security: what this side proves itself with, and checks the other one by.
        role: what this side is.
        other: what the other side has to be.
        connect_timeout: how long it may take to connect, in seconds.
        silence: a call breaks when nothing has come or gone for so many seconds; infinite where each call is
            given a `timeout`.

    Raises:
        LineBrokenError: no connection can be made.
        LineRefusedError: because one side does not trust the other, or their versions do not go together.
    """

    def __init__(
        self,
        uri: str,
        security: Security,
        role: Role,
        other: Role = Role.MASTER,
        *,
        connect_timeout: float = CONNECT_SECONDS,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self.uri = uri
        self._silence = silence
        self._asked = 0.0  # since when a call waits for its answer; 0 = none does
        self._changed = threading.Event()  # it is closed, or expects more of the other side
        self._lock = threading.Lock()
        self._broken = False
        self._numbers = itertools.count(1)
        try:
            self._sock = security.connect(*split_uri(uri), role, other, connect_timeout)
        except ValueError as error:
            raise LineBrokenError(str(error)) from None
        except (KeyRefusedError, VersionMismatchError) as error:
            raise LineRefusedError(str(error)) from error
        except (OSError, OverflowError) as error:
            raise LineBrokenError(f"no connection to {uri}: {error}") from error
        try:
            keep_alive(self._sock)
        except OSError as error:
            self._sock.close()
            raise LineBrokenError(f"the connection to {uri} broke: {error}") from error
        if silence == math.inf:
            return
        try:
            threading.Thread(target=self._watch, name="papyros-line", daemon=True).start()
        except RuntimeError:
            # From Python 3.12 on, no thread is started any more when the program ends, and what it has submitted is
            # still to be done. Then nobody watches, but the socket itself bounds a silence.
            self._sock.settimeout(silence)

    @property
    def broken(self) -> bool:
        """Whether nothing more can be asked on this line."""
        return self._broken

    def expect(self, silence: float) -> None:
        """Allow calls on this line so many seconds without a sign of life."""
        if silence < self._silence:
            self._changed.set()
        self._silence = silence

    def call(
        self, method: str, *args: Any, message: Batch | None = None, timeout: float | None = None
    ) -> tuple[Any, memoryview]:
        """Call a method; return its answer, and the batch beside it.

        Raises:
            LineBrokenError: it did not come to an answer. Whether the other side
                heard the question cannot be known.
            CallFailedError: it raised an error; or it was not asked, since the question is larger than any may be.
        """
        with self._lock:
            if self._broken:
                raise LineBrokenError(f"the connection to {self.uri} was closed")
            number = next(self._numbers) & 0xFFFF
            try:
                if timeout is not None:
                    self._sock.settimeout(timeout)
                self._asked = time.monotonic()
                send_message(self._sock, CALL, number, {"method": method, "params": args}, message)
                answer = receive_message(self._sock, RESULT, RAISED)
                if answer.sequence != number:
                    raise ConnectionError("an answer came to another call")
            except (PyroError, OSError) as error:
                self._broken = True
                raise LineBrokenError(f"the connection to {self.uri} broke: {error}") from error
            except ValueError as error:  # it is larger than any message may be, and nothing of it was sent
                raise CallFailedError(type(error).__name__, str(error)) from error
            except MemoryError as error:
                self._broken = True  # most of the answer is still on its way
                text = f"there is no memory for what {self.uri} answers, or is to be sent: it is asked again"
                log.warning("%s", text)
                raise LineBrokenError(text) from error
            except BaseException:
                self._broken = True  # an answer may still be on its way
                raise
            finally:
                self._asked = 0.0
        if answer.flags & RAISED:
            raise CallFailedError(*map(str, answer.content))
        return answer.content, answer.batch

    def abort(self) -> None:
        """Break the connection, also under a call of another thread, which then raises."""
        self._broken = True
        self._changed.set()
        hang_up(self._sock)

    def _watch(self) -> None:
        """Break the line when the other side does not answer, though its system does; from a thread of its own."""
        wait = self._silence
        while not self._broken:
            if self._changed.wait(wait):
                self._changed.clear()
            # Who looks when the call that waits now may be too late misses none, and is seldom awake.
            asked = self._asked
            wait = asked + self._silence - time.monotonic() if asked else self._silence
            if wait > 0:
                continue
            wait = self._silence / 4
            if _quiet(self._sock) > self._silence:
                self.abort()

    def close(self) -> None:
        """Close the connection."""
        self.abort()
        with self._lock:
            self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_known(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer to a client, unless it says that the master does not know this one any more.

    Raises:
        LineBrokenError: it does not.
    """
    if not answer["known"]:
        raise LineBrokenError("the master does not know this client any more")
    return answer


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
