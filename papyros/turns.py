"""Whose turn it is: clients one after the other, and of each client the deepest jobs first.

A session that a job has opened for its children belongs to the client whose job
that is: it takes that client's turns. The deepest one is served first, so that what is
begun is ended before more is begun: where every job waits for its children, no more jobs
wait than there are slaves, times how deep they go. Only the ledger uses this; nothing in
here changes a job's state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from papyros.entries import Session

__all__ = ["Turns"]

_depth = attrgetter("depth")


class Turns:
    """Sessions that have jobs in their waiting lines."""

    __slots__ = ("_clients",)

    def __init__(self) -> None:
        self._clients: deque[Session] = deque()  # the next one first

    def __len__(self) -> int:
        """How many clients there are to take turns."""
        return len(self._clients)

    def __iter__(self) -> Iterator[Session]:
        for client in self._clients:
            if client.line:
                yield client
            yield from client.kin

    def begin(self, session: Session, first: bool = False) -> None:
        """Let a session take turns, the line of which is about to be empty no more; `first` if it is its turn."""
        client = session.client
        present = bool(client.line or client.kin)
        if session is not client:
            client.kin.append(session)
        if not present:
            if first:
                self._clients.appendleft(client)
            else:
                self._clients.append(client)

    def end(self, session: Session) -> None:
        """Take a session out, the line of which is empty; harmless where it has none of the turns."""
        client = session.client
        if session in client.kin:
            client.kin.remove(session)
        if not client.line and not client.kin and client in self._clients:
            self._clients.remove(client)

    def refill(self, sessions: Iterable[Session]) -> None:
        """Let those sessions take turns that have jobs in their lines, and no others; who is first stays so."""
        sessions = list(sessions)
        for session in sessions:
            session.client.kin.clear()
        for session in sessions:
            if session.parent is not None and session.line:
                session.client.kin.append(session)
        ready = dict.fromkeys(session.client for session in sessions if session.line)
        clients = [client for client in dict.fromkeys(self._clients) if client in ready]
        self._clients = deque(dict.fromkeys([*clients, *ready]))

    def next(self) -> Session:
        """Return the session whose turn it is; the next client is next."""
        client = self._clients[0]
        self._clients.rotate(-1)
        if not client.kin:
            return client
        ready = [session for session in client.kin if session.assignable()]
        return max(ready, key=_depth, default=client)

    def repeat(self) -> None:
        """Let the client that had the last turn have the next one, too; nothing may have happened since."""
        self._clients.rotate(1)
