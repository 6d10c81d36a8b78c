"""A daemon that nobody brings down: it serves one object, to those who have proved that they may call it.

A stock Pyro daemon greets strangers with whatever deserializer they ask for, serves
80 connections, and does what it says to the 81st in the thread that accepts. This
one gives each stranger a thread of its own, in which the other side has to prove
itself in a few small frames and within a time. Strangers have few places; when
those are taken, the one who has been silent for longest goes. After that, calls are
Pyro messages (`papyros.distributed.messages`) on a `papyros.distributed.switchboard`, and a
method is called if it is offered to the role that was proved.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from Pyro5 import config
from Pyro5.errors import PyroError

from papyros.distributed.line import keep_alive
from papyros.distributed.security import HANDSHAKE_SECONDS, Peer, Role, Security, hang_up, is_loopback
from papyros.distributed.switchboard import Switchboard
from papyros.errors import ConfigError, KeyRefusedError, VersionMismatchError
from papyros.logs import logger_of
from papyros.threads import worker

__all__ = ["Daemon", "offer"]

log = logger_of(__name__)

#: More connections than this are closed at once.
MAX_CONNECTIONS = 4096

#: So many of them may be strangers, who have not proved anything yet.
MAX_STRANGERS = 200

#: Connections that the system keeps until they are accepted.
BACKLOG = 1024

#: How long to wait when the system has no more descriptors or threads.
SHORTAGE_SECONDS = 0.05

#: The same is told of the same address once in so many seconds.
TELL_SECONDS = 60.0

_OFFER = "_papyros_offered_to"

_Method = TypeVar("_Method", bound=Callable[..., Any])


def offer(*roles: Role) -> Callable[[_Method], _Method]:
    """Offer a method to those who have proved one of these roles."""

    def mark(method: _Method) -> _Method:
        setattr(method, _OFFER, frozenset(roles))
        return method

    return mark


class Daemon:
    """Serves an object on one address, from threads of its own.

    Args:
        host: the address to bind; beyond the loopback address, all connections are encrypted.
        port: the port to bind; 0 = any free one.
        security: what it proves itself with, and checks others by.
        role: what it is.
        served: the object; what of it may be called is marked by `offer`.
        broke: told in words, from another thread, that a bug has ended one: nobody is served any more.
        heard: told, while a large message comes or goes, that whoever it is from, or for, is not silent: the role of
            that side, and the arguments of the last call that it has made.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        security: Security,
        role: Role,
        served: Any,
        broke: Callable[[str], None] = lambda _: None,
        heard: Callable[[Role, list[Any]], None] = lambda *_: None,
    ) -> None:
        if config.SERVERTYPE != "thread":
            raise ConfigError(
                f"Pyro's SERVERTYPE is {config.SERVERTYPE!r}, which has no effect here, since a master serves in a way "
                "of its own: leave it out"
            )
        self._security = security
        self._role = role
        self._methods = _offered(served)
        self._heard = heard
        self._sock = _listen(host, port)
        self.address: str = self._sock.getsockname()[0]
        #: The port that was bound.
        self.port: int = self._sock.getsockname()[1]
        self._demand_tls = not is_loopback(self.address)
        self._refusals = _Refusals()
        self._lock = threading.Lock()
        self._switchboard = Switchboard(self._call, self._gone, broke, self._hear)
        self._connections: dict[socket.socket, None] = {}  # of those who have proved themselves
        self._greeters: dict[threading.Thread, _Connection] = {}
        self._strangers: dict[_Connection, None] = {}  # in the order in which they came
        self._closing = False
        self._wake, self._woken = socket.socketpair()
        self._thread = worker("papyros-accept", self._accept, broke)

    def start(self) -> None:
        """Serve, from a thread of its own."""
        try:
            self._switchboard.start()
            self._thread.start()
        except BaseException:  # the system has no thread to spare, or Ctrl-C came
            self.close()
            raise

    def close(self) -> None:
        """Stop serving: no new connections, and an end to those there are. To close twice is harmless."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        # A forked process may have copies of all of these: to close ours would end nothing then.
        hang_up(self._wake)
        self._wake.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._woken.close()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        with self._lock:
            greeters = dict(self._greeters)
        for connection in greeters.values():
            hang_up(connection.sock)
        for thread in greeters:
            thread.join(1.0)
        self._switchboard.close()

    def close_in_child(self) -> None:
        """Close the descriptors that a forked process has of all this; the one that serves is not to notice."""
        strangers = [connection.sock for connection in self._strangers]
        for sock in (self._sock, self._wake, self._woken, *strangers, *self._connections):
            sock.close()
        self._switchboard.close_in_child()

    # Connections come ---------------------------------------------------------------------

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing:
                selector.select()
                try:
                    sock, _ = self._sock.accept()
                except (BlockingIOError, ConnectionError):
                    continue  # who had come is gone, or it is time to close
                except OSError as error:
                    self._refusals.tell("", f"a connection cannot be accepted: {error}")
                    self._make_room()
                    time.sleep(SHORTAGE_SECONDS)
                    continue
                self._admit(_Connection(sock))

    def _admit(self, connection: _Connection) -> None:
        thread = threading.Thread(target=self._greet, args=(connection,), name="papyros-greeter", daemon=True)
        with self._lock:
            full = len(self._connections) + len(self._greeters) >= MAX_CONNECTIONS
            crowded = len(self._strangers) >= MAX_STRANGERS
            if not full and not self._closing:
                self._greeters[thread] = connection
                self._strangers[connection] = None
        if full or self._closing:
            connection.sock.close()
            return
        if crowded:
            self._make_room()
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("a connection cannot be served: %s", error)
            self._forget(thread, connection)
            time.sleep(SHORTAGE_SECONDS)

    def _make_room(self) -> None:
        """Hang up on the stranger who has been here for longest."""
        with self._lock:
            oldest = next(iter(self._strangers), None)
            if oldest is not None:
                del self._strangers[oldest]
        if oldest is not None:
            hang_up(oldest.sock)

    def _forget(self, thread: threading.Thread, connection: _Connection) -> None:
        with self._lock:
            self._strangers.pop(connection, None)
            self._greeters.pop(thread, None)
        connection.sock.close()

    # ... prove who they are ---------------------------------------------------------------

    def _greet(self, connection: _Connection) -> None:
        """Have the other side prove itself, and connect it with the switchboard if it does."""
        thread = threading.current_thread()
        peer = None
        try:
            peer = self._proved(connection)
        except (OSError, PyroError) as error:
            log.debug("a connection ended: %s", error)
        except MemoryError:
            self._refusals.tell("", "there is no memory to greet one more connection")
        except Exception:
            log.exception("a connection cannot be greeted")
        finally:
            if peer is None:  # whatever the reason: a place that is not given back is lost for good
                self._forget(thread, connection)
        if peer is not None:
            self._connect(thread, connection, peer)

    def _connect(self, thread: threading.Thread, connection: _Connection, peer: Peer) -> None:
        with self._lock:
            self._greeters.pop(thread, None)
            # Who was a stranger until the last moment may have been hung up on in it.
            welcome = connection in self._strangers and not self._closing
            self._strangers.pop(connection, None)
            if welcome:
                self._connections[connection.sock] = None
        if welcome:
            self._switchboard.connect(connection.sock, peer)
        else:
            connection.sock.close()

    def _proved(self, connection: _Connection) -> Peer | None:
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        try:
            address = connection.sock.getpeername()[0]
            keep_alive(connection.sock)
            connection.sock, peer = self._security.accept(
                connection.sock, self._role, self._demand_tls, deadline, partial(self._wrapped, connection)
            )
        except (KeyRefusedError, VersionMismatchError) as error:
            self._refusals.tell(address, f"a connection was refused: {error}")
            return None
        return peer

    def _wrapped(self, connection: _Connection, sock: socket.socket) -> None:
        """Take note of the socket by which a connection can be ended from now on, before its handshake."""
        with self._lock:
            connection.sock = sock
            if self._closing or connection not in self._strangers:
                # By the socket that was there before, which was nobody's any more.
                raise ConnectionAbortedError("it was hung up on while its encryption began")

    # ... and are served -------------------------------------------------------------------

    def _gone(self, sock: socket.socket) -> None:
        with self._lock:
            self._connections.pop(sock, None)

    def _call(self, content: Any, peer: Peer) -> Any:
        method, arguments = self._method(content, peer)
        return method(*arguments)

    def _hear(self, content: Any, peer: Peer) -> None:
        with contextlib.suppress(ValueError, PermissionError):  # that call was refused
            _, arguments = self._method(content, peer)
            self._heard(peer.role, arguments)

    def _method(self, content: Any, peer: Peer) -> tuple[Callable[..., Any], list[Any]]:
        if not isinstance(content, dict):
            raise ValueError("this is no call")
        name, arguments = content.get("method"), content.get("params")
        if not isinstance(name, str) or not isinstance(arguments, list):
            raise ValueError("this is no call")
        method, roles = self._methods.get(name, (None, ()))
        if method is None or peer.role not in roles:
            raise PermissionError(f"a {peer.role.words} may not call {name[:80]!r} of a {self._role.words}")
        return method, arguments


class _Connection:
    """The connection of a stranger; the socket is another one once it is encrypted."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


class _Refusals:
    """Tells of those who were refused, and not of each attempt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def tell(self, address: str, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            self._told = {known: moment for known, moment in self._told.items() if now - moment < TELL_SECONDS}
            if address in self._told or len(self._told) >= MAX_STRANGERS:
                return
            self._told[address] = now
        log.warning("%s", text)


def _offered(served: Any) -> dict[str, tuple[Callable[..., Any], frozenset[Role]]]:
    found = {}
    for name in dir(type(served)):
        roles = getattr(getattr(type(served), name), _OFFER, None)
        if roles is not None:
            found[name] = (getattr(served, name), roles)
    return found


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on exactly the address that was asked for."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
