"""Mending a ledger: what an interrupt in the midst of a change has left undone is put right.

Ctrl-C raises wherever the main thread of a program happens to be, also between two lines that belong
together. Guarding each job that is added or popped against that would cost time for all of them, so nothing is guarded:
whoever is interrupted with the lock held has the books mended before it lets go. What each
entry says of itself is taken for true, and what follows from it is made anew: lines, turns, counts, what
holders have. Only the ledger uses this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from papyros.entries import ASSIGNED, FORGOTTEN, PROCESSED, WAITING, Entry, Holder, Session
from papyros.turns import Turns

__all__ = ["mend"]


def mend(sessions: Iterable[Session], holders: Iterable[Holder], turns: Turns, delayed: Collection[Entry]) -> None:
    """Make the books consistent again; `delayed` are the entries that wait for the moment of their next try."""
    for holder in holders:
        holder.assigned.clear()
    sessions = list(sessions)
    for session in sessions:
        _mend_entries(session, delayed)
        _mend_counts(session)
    turns.refill(sessions)


def _mend_entries(session: Session, delayed: Collection[Entry]) -> None:
    for entry in list(session.entries.values()):
        if entry.state is FORGOTTEN:
            del session.entries[entry.number]
        if entry.state is ASSIGNED and entry.holder is None:
            entry.state = WAITING  # it was taken from its holder, and what was to become of it is not known
        elif entry.state is ASSIGNED and entry.holder is not None:
            entry.holder.assigned[entry] = None
        if entry.delayed and entry not in delayed:
            entry.delayed = 0


def _mend_counts(session: Session) -> None:
    entries = session.entries.values()
    waiting = [entry for entry in entries if entry.state is WAITING]
    session.line.refill(entry for entry in waiting if not entry.delayed)
    session.delayed = sum(1 for entry in waiting if entry.delayed)
    session.delayed_bytes = sum(entry.size for entry in waiting if entry.delayed)
    session.assigned = sum(1 for entry in entries if entry.state is ASSIGNED)
    processed = [entry for entry in entries if entry.state is PROCESSED]
    session.processed_bytes = sum(entry.size for entry in processed)
    known = dict.fromkeys([*session.delivery.entries, *session.processed])
    missed = [entry for entry in processed if entry not in known]  # it was about to be popped, or put there
    kept = [entry for entry in session.processed if entry.state is PROCESSED]
    session.processed = deque([*missed, *kept])
