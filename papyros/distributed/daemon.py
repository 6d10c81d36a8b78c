"""A Pyro daemon that many connections do not bring down, and that can be closed.

A stock daemon serves 80 connections, refuses the next ones in the thread that
accepts, where a silent one stops it, and goes on serving those it has when it is
shut down. This one gives each connection a thread of its own, and knows them all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from Pyro5 import config
from Pyro5.errors import CommunicationError
from Pyro5.server import Daemon as PyroDaemon
from Pyro5.socketutil import SocketConnection

from papyros.distributed.line import keep_alive
from papyros.errors import ConfigError

__all__ = ["Daemon"]

#: More connections than this are closed at once.
MAX_CONNECTIONS = 4096

#: A new connection has to say what it wants within this time.
HANDSHAKE_SECONDS = 10.0


class Daemon(PyroDaemon):  # type: ignore[misc] # Pyro has no types
    """Serves Pyro objects on one address, from a thread of its own.

    Args:
        host: the address to bind.
        port: the port to bind; 0 = any free one.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        if config.SERVERTYPE != "thread":
            raise ConfigError(
                f"Pyro's SERVERTYPE is {config.SERVERTYPE!r}; a master needs 'thread', since its calls wait for work"
            )
        super().__init__(host, port)
        self._connections = _Connections()
        pool = self.transportServer.pool
        self.transportServer.pool = self._connections
        for worker in pool.idle:
            worker.process(None)
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="papyros-accept", daemon=True)

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.sock.getsockname()[1])

    def start(self) -> None:
        """Serve, from a thread of its own."""
        self._thread.start()

    def close_all(self) -> None:
        """Stop serving: no new connections, and an end to those there are."""
        self._closing = True  # a shutdown that comes before the loop does is forgotten by Pyro
        self.shutdown()
        if self._thread.is_alive():
            self._thread.join()

    def _accept(self) -> None:
        self.requestLoop(lambda: not self._closing)

    def _handshake(self, conn: SocketConnection, denied_reason: str | None = None) -> bool:
        """Greet a connection, in its own thread and within a time."""
        if denied_reason is not None:
            return False
        keep_alive(conn.sock)
        conn.timeout = HANDSHAKE_SECONDS
        greeted = bool(super()._handshake(conn))
        conn.timeout = None
        return greeted


class _Connections:
    """A thread for each connection; stands in for Pyro's pool of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[threading.Thread, SocketConnection] = {}
        self._closed = False

    def process(self, job: Any) -> None:
        """Serve a connection."""
        thread = threading.Thread(target=self._serve, args=(job,), name="papyros-connection", daemon=True)
        with self._lock:
            if self._closed or len(self._threads) >= MAX_CONNECTIONS:
                job.csock.close()
                return
            self._threads[thread] = job.csock
        thread.start()

    def _serve(self, job: Any) -> None:
        try:
            with contextlib.suppress(OSError, CommunicationError):
                job()
        finally:
            job.csock.close()
            with self._lock:
                self._threads.pop(threading.current_thread(), None)

    def num_workers(self) -> int:
        """How many connections there are."""
        return len(self._threads)

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed = True
            threads = dict(self._threads)
        for connection in threads.values():
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(1.0)
