"""What stands in for the standard streams of a slave, so that its jobs print to their clients."""

from __future__ import annotations

import codecs
import io
import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Echo"]


class Echo(io.TextIOBase):
    """Stands in for a standard stream: what jobs print goes to their clients, line by line, if those want it.

    Args:
        stream: where it goes otherwise.
        send: sends text to the client of the job that runs; returns False if nobody there wants it.
    """

    def __init__(self, stream: Any, send: Callable[[str], bool]) -> None:
        self._stream = stream
        self._send_on = send
        self._partial = ""
        self._bytes = _Bytes(self)
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # jobs have threads; and handlers of signals, which may print as well

    def write(self, text: str) -> int:
        """Send what are whole lines by now, and keep the rest."""
        with self._lock:
            lines, newline, self._partial = (self._partial + text).rpartition("\n")
            if newline and not self._send(lines + newline):
                self._stream.write(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Send what is kept."""
        with self._lock:
            text, self._partial = self._partial, ""
            if text and not self._send(text):
                self._stream.write(text)
            self._stream.flush()

    def _send(self, text: str) -> bool:
        try:
            return self._send_on(text)
        except OSError:  # the crew is gone
            return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor of the stream itself."""
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream itself."""
        return str(self._stream.encoding)

    @property
    def buffer(self) -> _Bytes:
        """What takes bytes."""
        return self._bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes(io.RawIOBase):
    """The binary side of an `Echo`."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo
        self._decoder = codecs.getincrementaldecoder(echo.encoding)(errors="replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with self._echo._lock:
            self._echo.write(self._decoder.decode(bytes(data)))  # of what comes in pieces, a character may be in two
        return len(data)

    def flush(self) -> None:
        if not self.closed:
            self._echo.flush()
