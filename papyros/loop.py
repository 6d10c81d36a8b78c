"""The thread of a crew: begun once, however often its start is interrupted, woken by others, and awaited in the end.

With it come the selector in which it waits, and a pipe by which it is woken. What it does is the affair of the crew.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections.abc import Callable

__all__ = ["Loop"]


class Loop:
    """A thread that waits for many things at a time.

    Args:
        name: what the thread is called.
        run: what it does; it closes the selector in the end.
        on_poke: called in it when it was woken.

    Attributes:
        selector: in which it waits; there is one once it was started.
    """

    selector: selectors.BaseSelector

    def __init__(self, name: str, run: Callable[[], None], on_poke: Callable[[], None]) -> None:
        self._name = name
        self._run = run
        self._poked = on_poke
        self._wake_out = self._wake_in = -1  # as long as there is no thread to be woken
        self._is_open = False
        self._lock = threading.RLock()  # a handler of a signal may close what is just being started
        self._begun = threading.Event()
        self._runner: threading.Thread | None = None  # as soon as it runs

    @property
    def begun(self) -> bool:
        """Whether the thread runs, or has run."""
        return self._runner is not None

    def start(self) -> None:
        """Start the thread; returns when it runs. It may be called again when a signal has interrupted it.

        Raises:
            OSError, RuntimeError: the system has no file descriptor, or no thread, to spare now, which may pass.
        """
        if self._begun.is_set():
            return
        if not self._is_open:
            self._open()
        try:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        except (RuntimeError, MemoryError):
            if self._let_go():  # else one runs that was started before, by a call that was interrupted
                raise
        self._begun.wait()

    def _open(self) -> None:
        try:
            self._wake_out, self._wake_in = os.pipe()
            os.set_blocking(self._wake_out, False)
            os.set_blocking(self._wake_in, False)
            self.selector = selectors.DefaultSelector()
            self.selector.register(self._wake_out, selectors.EVENT_READ, self._on_poke)
            self._is_open = True
        except BaseException:
            self._close_pipe()
            raise

    def _let_go(self) -> bool:
        """Let go of what was opened, unless the thread runs; return whether that is so."""
        with self._lock:
            if self._runner is None and self._is_open:
                self._close_pipe()
                self.selector.close()
            return self._runner is None

    def _serve(self) -> None:
        with self._lock:
            if self._runner is not None or not self._is_open:
                return  # it was started twice, since the first call was interrupted; or closed before it began
            self._runner = threading.current_thread()
            self._begun.set()
        self._run()

    def poke(self) -> None:
        """Wake the thread. Any thread may call this; it never waits."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_in, b"!")

    def _on_poke(self) -> None:
        self._poked()
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_out, 4096)

    def close(self) -> bool:
        """Let the thread begin no more; return whether it has not. If it has, it is to be told, and to be awaited."""
        if gone := self._let_go():
            self._begun.set()  # nobody is to wait for that
        return gone

    def await_end(self) -> None:
        """Wait for the end of the thread, unless it is this one, and let go of the pipe."""
        if self._runner is not None and self._runner is not threading.current_thread():
            self._runner.join()
        self._close_pipe()

    def _close_pipe(self) -> None:
        # First of all, nobody is to write to what may be a file of somebody else's in the next moment.
        fds = self._wake_in, self._wake_out
        self._wake_in = self._wake_out = -1
        self._is_open = False
        for fd in fds:
            if fd >= 0:
                os.close(fd)
