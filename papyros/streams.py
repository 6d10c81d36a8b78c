"""What slaves write to their standard streams, as their crew forwards it; what goes to clients is `papyros.echo`."""

from __future__ import annotations

import os
import selectors
import sys
from collections import deque
from collections.abc import Callable
from typing import IO

__all__ = ["TOLD_CHARACTERS", "SlaveStream"]

#: A line that is longer is forwarded in parts; and of one that is told with a death, so much at the most.
LINE_BYTES = 1 << 16
TOLD_CHARACTERS = 1000


class SlaveStream:
    """A standard stream of a slave, forwarded line by line to the same stream of this process.

    Args:
        pipe: where it comes from.
        show: shows whole lines.
        lines: keeps the last ones, if they are to be told with a death.
    """

    def __init__(self, pipe: IO[bytes], show: Callable[[str], None], lines: deque[str] | None) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._pipe = pipe
        self.fd = pipe.fileno()
        self._show = show
        self._lines = lines
        self._partial = b""

    def forward(self, selector: selectors.BaseSelector | None = None) -> None:
        """Forward what has come; at its end, have the selector watch it no more."""
        try:
            chunk = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return
        if not chunk and selector is not None:
            selector.unregister(self.fd)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if len(self._partial) >= LINE_BYTES:
            lines.append(self._partial)
            self._partial = b""
        self._write(lines)

    def _write(self, lines: list[bytes]) -> None:
        encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"  # that of slaves, which are started as this is
        texts = [line.decode(encoding, errors="replace") for line in lines]
        if self._lines is not None:
            self._lines.extend(text[-TOLD_CHARACTERS:] for text in texts)
        if texts:
            self._show("\n".join(texts) + "\n")

    def close(self) -> None:
        """Forward the rest, and close it."""
        self.forward()
        if self._partial:
            self._write([self._partial])
        self._pipe.close()
