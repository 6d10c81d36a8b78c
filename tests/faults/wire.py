"""A wire to a master that can be cut, silenced, half closed, reset and held up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

#: To linger for no time is to reset.
RESET = struct.pack("ii", 1, 0)


class Wire:
    """A TCP proxy: two threads for each connection, one for each direction.

    Args:
        host: where the connections lead to.
        port: the same.

    Attributes:
        cut_after: connections are closed after so many bytes towards the master, if that is not None.
        delay: what comes is passed on so many seconds later, in both directions.
        made: how many connections there were.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.cut_after: int | None = None
        self.delay = 0.0
        self.made = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._deaf: set[socket.socket] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, name="test-wire")]
        self._threads[0].start()

    def pause(self) -> None:
        """Hold everything up."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def half_open(self) -> None:
        """Swallow from now on what comes over the connections that there are, and say nothing."""
        for pair in self._pairs:
            self._deaf.update(pair)

    def half_close(self) -> None:
        """Tell the clients that no more answers come, and go on taking what they say."""
        for near, _ in self._pairs:
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset all connections there are, on both sides."""
        for pair in self._pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.shutdown(socket.SHUT_RD)  # wakes the thread, which closes it

    def close(self) -> None:
        self._flowing.set()
        self._server.shutdown(socket.SHUT_RDWR)
        for pair in self._pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self.made += 1
            pair = near, far
            self._pairs.append(pair)
            ends = threading.Barrier(2)
            for arguments in ((near, far, self.cut_after, ends), (far, near, None, ends)):
                thread = threading.Thread(target=self._forward, args=arguments, name="test-wire")
                self._threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, target: socket.socket, left: int | None, ends: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                if self.delay:
                    time.sleep(self.delay)  # the fault itself
                if source in self._deaf:
                    continue
                if left is not None:
                    data, left = data[:left], max(0, left - len(data))
                target.sendall(data)
                if left == 0:
                    break
        for sock in (source, target):
            with contextlib.suppress(OSError):
                if sock not in self._deaf:
                    sock.shutdown(socket.SHUT_RDWR)
        ends.wait()  # the other direction may be using them
        with contextlib.suppress(OSError):
            source.close()
