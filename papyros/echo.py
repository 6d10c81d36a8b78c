"""What stands in for the standard streams of a slave, so that its jobs print to their clients."""

from __future__ import annotations

import codecs
import io
import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Echo"]

#: A line that is longer is sent in parts.
LINE_CHARACTERS = 1 << 16


class Echo(io.TextIOBase):
    """Stands in for a standard stream: what jobs print goes to their clients, line by line, if those want it.

    Args:
        stream: where it goes otherwise.
        send: sends text to the client of the job that runs; returns False if nobody there wants it.
    """

    def __init__(self, stream: Any, send: Callable[[str], bool]) -> None:
        self._stream = stream
        self._send_on = send
        self._pieces: list[str] = []  # of a line that has no end yet
        self._kept = 0
        self._sent_part = False  # whether the last that was sent is a line without its end
        self._decoder = codecs.getincrementaldecoder(self.encoding)(errors="replace")
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # jobs have threads; and handlers of signals, which may print as well

    def write(self, text: str) -> int:
        """Send what are whole lines by now, and keep the rest.

        Raises:
            TypeError: it is no text.
        """
        if not isinstance(text, str):  # else it would be in the way of all that others print after it
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            self._add(text)
        return len(text)

    def _add(self, text: str) -> None:
        if text and self._sent_part:
            self._sent_part = False
            text = text.removeprefix("\n")  # each part is shown as a line
        self._pieces.append(text)
        self._kept += len(text)
        if "\n" in text:
            lines, newline, rest = "".join(self._pieces).rpartition("\n")
            self._pieces, self._kept = [rest], len(rest)
            self._show(lines + newline)
        elif self._kept >= LINE_CHARACTERS:
            self._show_kept()

    def write_bytes(self, data: bytes) -> None:
        """Write what is text in the encoding of the stream; a character may come in pieces."""
        with self._lock:
            self.write(self._decoder.decode(data))

    def end_job(self) -> None:
        """Send what is kept, also of a character of which the rest did not come: it is nobody else's."""
        with self._lock:
            self.write(self._decoder.decode(b"", final=True))
            self.flush()
            self._sent_part = False

    def flush(self) -> None:
        """Send what is kept."""
        with self._lock:
            self._show_kept()
            self._stream.flush()

    def close(self) -> None:
        """Send what is kept, and stay open: the next job prints here, too."""
        self.flush()

    def _show_kept(self) -> None:
        text = "".join(self._pieces)
        self._pieces, self._kept = [], 0
        if text:
            self._sent_part = self._show(text)

    def _show(self, text: str) -> bool:
        """Return whether it is the client that shows it."""
        if sent := self._send(text):
            return sent
        self._stream.write(text)
        return False

    def _send(self, text: str) -> bool:
        try:
            return self._send_on(text)
        except TimeoutError:  # the crew never keeps anybody waiting for that long: it is an alarm of the job's own
            raise
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
        return _Bytes(self)  # a new one for each who asks, who may close it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes(io.RawIOBase):
    """The binary side of an `Echo`."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._echo.write_bytes(bytes(data))
        return len(data)

    def flush(self) -> None:
        if not self.closed:
            self._echo.flush()

    def __del__(self) -> None:
        """Flush nothing in the end, as others do: who calls ``sys.stdout.buffer.write`` drops one with each piece."""
