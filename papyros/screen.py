"""What jobs print, on its way to standard streams that may be gone, or that nobody reads for a while.

Those who show it (the thread of a crew, the receiver of a client) have slaves to look after, and time limits
to keep: they may not wait for a reader. So what does not fit now is kept, up to a bound, for a thread that waits
in their place. No jobs, masters or slaves in here.
"""

from __future__ import annotations

import contextlib
import select
import sys
import threading
import time
from collections import deque
from typing import IO

from papyros.logs import takes_more
from papyros.prints import keep_end, room_for

__all__ = ["Screen", "spelt"]

#: What nobody reads has so much room; the oldest goes first.
KEPT_CHARACTERS = 1 << 20

#: So many characters are written at a time: no more bytes than a pipe has room for when it says that it has some.
PIECE_CHARACTERS = select.PIPE_BUF // 4 if hasattr(select, "PIPE_BUF") else 128

#: How often the thread that waits for a reader looks whether it is still wanted, in seconds.
LOOK_SECONDS = 0.1

#: How long `close` waits for a reader, in seconds.
CLOSE_SECONDS = 0.5


class Screen:
    """Shows texts without waiting for anybody; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[IO[str], str]] = deque()
        self._taken = 0  # how much room it takes
        self._thread: threading.Thread | None = None
        self._closed_at: float | None = None

    def show(self, stream: IO[str] | None, text: str) -> None:
        """Write a text to a stream, which may be gone, or None; what does not fit now is kept for later."""
        if stream is None:
            return
        with self._lock:
            rest = text if self._kept else _write(stream, text)
            if rest:
                self._keep(stream, rest)

    def show_print(self, job: str, slave: str, text: str) -> None:
        """Show what a job printed, each line with the job and its slave before it; of a long text, the end."""
        before = f"[{job} on {slave}] "
        most = max(1, KEPT_CHARACTERS // len(before))  # a print may be nothing but line ends
        lines = text[-KEPT_CHARACTERS:].splitlines()[-most:]
        self.show(sys.stdout, "".join(f"{before}{line}\n" for line in lines))

    def close(self) -> None:
        """Give up what nobody reads, after half a second."""
        with self._lock:
            self._closed_at = time.monotonic() + CLOSE_SECONDS
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _keep(self, stream: IO[str], text: str) -> None:
        self._kept.append((stream, text))
        self._taken = keep_end(self._kept, self._taken + room_for(text), KEPT_CHARACTERS)
        if self._thread is None and self._closed_at is None:
            thread = threading.Thread(target=self._wait_for_readers, name="papyros-screen", daemon=True)
            with contextlib.suppress(RuntimeError):  # the system has none to spare: when there is more to keep, then
                thread.start()
                self._thread = thread

    def _wait_for_readers(self) -> None:
        while True:
            with self._lock:
                while self._kept:
                    stream, text = self._kept.popleft()
                    self._taken -= room_for(text)
                    if rest := _write(stream, text):
                        self._kept.appendleft((stream, rest))
                        self._taken += room_for(rest)
                        break
                if not self._kept or (self._closed_at is not None and time.monotonic() > self._closed_at):
                    self._kept.clear()
                    self._taken = 0
                    self._thread = None
                    return
                waits_for = self._kept[0][0]
            _await_room(waits_for)


def _write(stream: IO[str], text: str) -> str:
    """Write as much of a text as a stream takes without making anybody wait; return the rest."""
    with contextlib.suppress(Exception):  # the stream may be anybody's: a window that was closed, say
        for begin in range(0, len(text), PIECE_CHARACTERS):
            if not takes_more(stream):
                return text[begin:]
            stream.write(spelt(stream, text[begin : begin + PIECE_CHARACTERS]))
            stream.flush()
    return ""


def spelt(stream: IO[str], text: str) -> str:
    """Return a text with escapes, if the stream has no characters for some of it, and would refuse all of it for that.

    What a stream does about such characters is its own affair, as long as it does not raise.
    """
    encoding = getattr(stream, "encoding", None)
    if not encoding:
        return text
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
    except UnicodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _await_room(stream: IO[str]) -> None:
    """Wait for a while, if need be, for whoever reads a stream."""
    with contextlib.suppress(Exception):  # it may be no file any more
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        if poll.poll(LOOK_SECONDS * 1000) and not takes_more(stream):
            time.sleep(LOOK_SECONDS)  # there is some room, and nothing says when there is enough
