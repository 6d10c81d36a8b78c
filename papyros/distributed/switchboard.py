"""The switchboard: one thread that answers the calls of all who have proved themselves.

A call that has to wait takes no thread: it is put aside with a ticket of what it waits for
(`papyros.distributed.bells`), and tried again when that is rung or its time is up. So between a
job that comes and the slave host that waits for it there is no change of threads.
What the calls mean is not known here; how strangers prove themselves is the daemon's affair.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from Pyro5.callcontext import current_context
from Pyro5.errors import PyroError

from papyros.distributed.bells import Ticket, Waiting
from papyros.distributed.messages import ANNOTATION, CALL, RAISED, RESULT, Message, MessageStream
from papyros.distributed.security import Peer, hang_up
from papyros.frames import Buffer
from papyros.logs import logger_of
from papyros.threads import worker

__all__ = ["Switchboard"]

log = logger_of(__name__)

#: No wait is longer than this, since systems have a longest one; then it is begun anew.
LONGEST_WAIT = 86_400.0

#: It is said no more often than this that parts of a message come or go, which may be many thousands of them.
HEARD_SECONDS = 0.1

#: Calls that fail in the same way are told of no more often than this.
TELL_SECONDS = 60.0

#: So many ways are known at a time.
WAYS = 100

#: How long `close` waits for the thread.
CLOSE_SECONDS = 1.0


class Switchboard:
    """Answers calls, from a thread of its own.

    Args:
        call: makes a call, given its content and who calls; returns the answer, or a `Waiting`.
        on_end: told of each socket whose connection has ended, just before it is closed.
        broke: told in words what has ended the thread, if that is a bug.
        heard: told, while a large message comes or goes, that its caller is not silent: the content of the last call
            that was made, and who calls.
    """

    def __init__(
        self,
        call: Callable[[Any, Peer], Any],
        on_end: Callable[[socket.socket], None],
        broke: Callable[[str], None] = lambda _: None,
        heard: Callable[[Any, Peer], None] = lambda *_: None,
    ) -> None:
        self._call = call
        self._on_end = on_end
        self._heard = heard
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._on_wake)
        self._newcomers: deque[tuple[socket.socket, Peer]] = deque()
        self._callers: set[_Caller] = set()
        self._due: deque[_Parked] = deque()
        self._times: list[tuple[float, int, _Caller]] = []  # when to look after whom: one for each, or few
        self._numbers = itertools.count()
        self._failures: dict[str, tuple[float, int]] = {}  # when calls that fail were told of, and how many since then
        self._alone = False  # nobody else has called in the same moment
        self._closing = False
        self._ended = False
        self._lock = threading.Lock()  # so that nobody comes when it has ended
        self._thread = worker("papyros-switchboard", self._serve, broke)

    def start(self) -> None:
        """Answer calls, from now on."""
        self._thread.start()

    def connect(self, sock: socket.socket, peer: Peer) -> None:
        """Serve a connection whose other side is known; hang up, if it is too late. Any thread may call this."""
        with self._lock:
            if not self._ended:
                self._newcomers.append((sock, peer))
                self._wake_up()
                return
        self._on_end(sock)
        sock.close()

    def close(self) -> None:
        """Give the answers that are due, and hang up on everybody."""
        self._closing = True
        self._wake_up()
        if self._thread is threading.current_thread():
            return
        if self._thread.ident is None:
            self._end()  # it was never started
        else:
            self._thread.join(CLOSE_SECONDS)

    def close_in_child(self) -> None:
        """Close the descriptors that a forked process has of this; those of connections are the affair of others."""
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _wake_up(self) -> None:
        if threading.current_thread() is self._thread:
            return
        with contextlib.suppress(OSError):  # it is awake already, or has ended
            self._wake.send(b"!")

    # The thread -------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closing:
                ready = self._selector.select(self._patience())
                self._alone = len(ready) == 1
                for key, events in ready:
                    key.data(events)
                self._admit()
                self._go_on()
            self._go_on()
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        for caller in list(self._callers):
            self._drop(caller)
        for sock, _ in self._newcomers:
            self._on_end(sock)
            sock.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _patience(self) -> float | None:
        if self._due or self._newcomers:
            return 0.0
        return min(LONGEST_WAIT, max(0.0, self._times[0][0] - time.monotonic())) if self._times else None

    def _on_wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _admit(self) -> None:
        while self._newcomers:
            caller = _Caller(*self._newcomers.popleft())
            self._callers.add(caller)
            self._serve_one(caller, self._welcome, caller)

    def _welcome(self, caller: _Caller) -> None:
        caller.sock.setblocking(False)
        try:
            self._selector.register(caller.sock, selectors.EVENT_READ, partial(self._on_socket, caller))
        except OSError as error:  # systems watch so many connections and no more
            log.warning("a %s cannot be served: %s", caller.peer.role.words, error)
            raise
        self._exchange(caller, selectors.EVENT_READ)  # what has come may be in the hands of TLS already

    def _on_socket(self, caller: _Caller, events: int) -> None:
        self._serve_one(caller, self._exchange, caller, events)

    def _exchange(self, caller: _Caller, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            caller.stream.flush()
            self._watch(caller)
        is_part = True  # of a message, and no more than that
        if events & selectors.EVENT_READ:
            for message in caller.stream.receive():
                is_part = False
                self._answer(caller, message)
        if is_part and caller.asked is not None and (now := time.monotonic()) - caller.heard >= HEARD_SECONDS:
            caller.heard = now
            self._heard(caller.asked, caller.peer)

    def _serve_one(self, caller: _Caller, serve: Callable[..., None], *args: Any) -> None:
        """Hang up on a caller when something goes wrong; all others are served on, whatever it was."""
        try:
            serve(*args)
        except (OSError, PyroError) as error:
            log.debug("a connection ended: %s", error)
            self._drop(caller)
        except MemoryError:
            log.warning("there is no memory for what a %s says, or is to be told", caller.peer.role.words)
            self._drop(caller)
        except Exception:
            log.exception("a %s cannot be served on", caller.peer.role.words)  # an answer that is too large, say
            self._drop(caller)

    def _drop(self, caller: _Caller) -> None:
        if caller not in self._callers:
            return
        self._callers.discard(caller)
        if caller.parked is not None:
            caller.parked.end()
        with contextlib.suppress(KeyError):  # the system may have refused to watch it
            self._selector.unregister(caller.sock)
        self._on_end(caller.sock)
        hang_up(caller.sock)  # also where a forked process has a copy
        caller.sock.close()

    def _watch(self, caller: _Caller) -> None:
        if caller.stream.pending != caller.slow:
            caller.slow = caller.stream.pending
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if caller.slow else 0)
            self._selector.modify(caller.sock, events, self._selector.get_key(caller.sock).data)

    # Calls ------------------------------------------------------------------------------

    def _answer(self, caller: _Caller, message: Message) -> None:
        """Make a call that came; send the answer, or put the call aside until there may be one."""
        if caller.parked is not None:
            raise ConnectionError("a call came before the one before it was answered")
        caller.asked = message.content
        current_context.annotations = {ANNOTATION: message.batch}
        current_context.client = caller.notes
        reply = self._made(caller, partial(self._call, message.content, caller.peer))
        current_context.client = None
        current_context.annotations = {}
        if isinstance(reply.answer, Waiting):
            waiting = reply.answer
            parked = _Parked(caller, message.sequence, waiting.attempt, time.monotonic() + waiting.seconds)
            reply = self._made(caller, partial(waiting.attempt, waiting.seconds <= 0))
            if isinstance(reply.answer, Ticket):
                self._park(parked, reply.answer)
                return
        if self._alone:
            # Who waits for what has just come, a job or an outcome, waits longer than who has only to hear that it did.
            self._try_due()
        self._send(caller, message.sequence, reply)

    def _made(self, caller: _Caller, call: Callable[[], Any]) -> _Reply:
        """Make a call; return its answer, or its error in words."""
        current_context.response_annotations = {}
        try:
            answer = call()
            return _Reply(answer, current_context.response_annotations.get(ANNOTATION), 0)
        except Exception as error:
            if not isinstance(error, (PermissionError, ValueError, PyroError)):  # those are the other side's affair
                before = self._failed_before(caller, error)
                if before is not None:
                    others = f", as did {before} before it in the same way that were not told of" if before else ""
                    log.exception("a call of a %s failed%s", caller.peer.role.words, others)
            return _Reply([type(error).__name__, str(error)[:1000]], None, RAISED)
        finally:
            current_context.response_annotations = {}

    def _failed_before(self, caller: _Caller, error: Exception) -> int | None:
        """Return how many calls have failed in the same way since that was told last; None if that was just now."""
        asked = caller.asked
        method = asked.get("method") if isinstance(asked, dict) else None
        way = f"{method}: {type(error).__name__}: {error}"[:200]
        since, count = self._failures.get(way, (-math.inf, 0))
        now = time.monotonic()
        if now - since < TELL_SECONDS:
            self._failures[way] = since, count + 1
            return None
        if len(self._failures) >= WAYS:
            self._failures.clear()
        self._failures[way] = now, 0
        return count

    def _send(self, caller: _Caller, sequence: int, reply: _Reply) -> None:
        caller.stream.send(RESULT, sequence, reply.answer, reply.batch, reply.flags)
        self._watch(caller)

    # ... that wait ----------------------------------------------------------------------

    def _attempt(self, parked: _Parked, over: bool) -> None:
        reply = self._made(parked.caller, partial(parked.attempt, over))
        if isinstance(reply.answer, Ticket):
            self._park(parked, reply.answer)
        else:
            parked.end()
            self._send(parked.caller, parked.sequence, reply)

    def _park(self, parked: _Parked, ticket: Ticket) -> None:
        caller = parked.caller
        caller.parked = parked
        if parked.until < caller.look_at:
            self._look_at(caller, parked.until)
        parked.ticket = ticket
        ticket.then(partial(self._ring, parked))

    def _look_at(self, caller: _Caller, moment: float) -> None:
        caller.look_at = moment
        heapq.heappush(self._times, (moment, next(self._numbers), caller))

    def _ring(self, parked: _Parked) -> None:
        """Have a call tried again. Called in any thread, with whatever lock the bell has."""
        self._due.append(parked)
        self._wake_up()

    def _go_on(self) -> None:
        """Try those calls again for which there is something new, or whose time is up."""
        self._try_due()
        now = time.monotonic()
        while self._times and self._times[0][0] <= now:
            caller = heapq.heappop(self._times)[2]
            caller.look_at = math.inf
            if caller.parked is None:
                continue  # that call was answered; the next one that waits is looked after anew
            if caller.parked.until <= now:
                self._retry(caller.parked, over=True)
            else:
                self._look_at(caller, caller.parked.until)

    def _try_due(self) -> None:
        while self._due:
            parked = self._due.popleft()
            if parked.ticket is not None:  # else it was tried already
                self._retry(parked, over=False)

    def _retry(self, parked: _Parked, over: bool) -> None:
        parked.give_back()
        self._serve_one(parked.caller, self._attempt, parked, over)


class _Caller:
    """A connection, and who is at its other end."""

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        self.sock = sock
        self.peer = peer
        self.stream = MessageStream(sock, CALL)
        self.notes: dict[str, str] = {}  # what those have noted of it whom it has called
        self.parked: _Parked | None = None
        self.asked: Any = None  # the content of its last call
        self.heard = 0.0  # when it was last said that parts of a message come or go
        self.slow = False  # it has not taken all of an answer yet
        self.look_at = math.inf  # when it is looked whether it waits for too long


class _Reply(NamedTuple):
    """What is sent to a caller: the answer, the batch beside it, and the flags that say whether it is an error."""

    answer: Any
    batch: Buffer | None
    flags: int


class _Parked:
    """A call that waits for its answer."""

    def __init__(self, caller: _Caller, sequence: int, attempt: Callable[[bool], Any], until: float) -> None:
        self.caller = caller
        self.sequence = sequence
        self.attempt = attempt
        self.until = until
        self.ticket: Ticket | None = None

    def give_back(self) -> None:
        """Wait for nothing any more."""
        if self.ticket is not None:
            self.ticket.give_back()
            self.ticket = None

    def end(self) -> None:
        """Take note that it was answered, or that nobody waits for the answer."""
        self.give_back()
        self.caller.parked = None
