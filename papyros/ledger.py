"""The ledger: the only place where a job changes state.

::

      add             assign              finish             collect
    ───────▶ waiting ───────▶ assigned ───────▶ processed ───────▶ (popped: forgotten)
                ▲                │  │
                └── give_back ───┘  │ charge: its slave died while it ran
                └───────────────────┘ (back to waiting, or processed: lost)

    finish, of a job that failed and has retries left: back to waiting, after a delay
    finish, of a job that waits again, or runs elsewhere: processed, since the first outcome wins
    settle: processed at once, because it has its outcome when it is added

    cancel: waiting ───────▶ (forgotten)
    discard, drop: whatever its state ───────▶ (forgotten)

A ledger is a plain data structure. It has no lock, thread, socket, file or
clock of its own, and never looks into a payload or an outcome: the same ledger
keeps job objects in a master of threads, and opaque bytes in a distributed
one. Whoever owns it guards it with a lock and acts on what it returns.

Jobs belong to *sessions* (one client's stay) and are identified by their number
within the session. They are assigned to *holders*: whoever runs jobs, be it a
thread, the crew of this process or a slave host far away.

A job that runs may open sessions for jobs of its own, its *children*. Such a family
shares the turns of the client whose job that is, and is dropped as soon as the parent is
not with its holder any more, for whatever reason: if that runs again, it adds them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final

from papyros.delays import Delays
from papyros.entries import ASSIGNED, FORGOTTEN, PROCESSED, WAITING, Counts, Delivery, Entry, Holder, Session
from papyros.mending import mend
from papyros.shares import LONG_SECONDS, bearable, idle_share, share
from papyros.terms import DEFAULT_TERMS, Terms
from papyros.turns import Turns

__all__ = ["MAX_DEATHS", "MAX_LOSSES", "Ledger"]

#: After so many deaths of a slave under it, a job is not tried again.
MAX_DEATHS: Final = 3

#: After so many losses of whoever held it, running or not, a job is not tried again either.
MAX_LOSSES: Final = 20

#: A delay is doubled so often at the most: beyond, numbers end.
MAX_DOUBLINGS: Final = 1000

#: Never more bytes than this in one assignment of several jobs, so that it fits into a message.
ASSIGNMENT_BYTES = 4 << 20

#: The weight of the newest measurement in the moving average of durations.
FRESHNESS: Final = 0.25


class Ledger:
    """Which job is in which state, and who may have the next one.

    Args:
        lost: makes the outcome of a job that lost its slave too often, of the list of deaths.
    """

    def __init__(self, lost: Callable[[list[Any]], Any] = list) -> None:
        self._lost = lost
        self.sessions: dict[Hashable, Session] = {}
        self.holders: dict[Hashable, Holder] = {}
        #: What has become of the jobs of sessions that were dropped.
        self.past = Counts()
        self._turns = Turns()
        self._orphans: list[tuple[Session, list[Entry]]] = []
        self._delays = Delays()

    # Sessions and their jobs ------------------------------------------------------------

    def open(
        self,
        key: Hashable,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        *,
        parent: Entry | None = None,
    ) -> Session:
        """Return the session `key`, which is made if there is none: for the children of `parent`, if it has one."""
        session = self.sessions.get(key)
        if session is None:
            bounds = (max_waiting, max_processed, max_waiting_bytes, max_processed_bytes)
            session = self.sessions[key] = Session(key, *bounds)
            if parent is not None:
                session.parent = parent
                session.depth = parent.session.depth + 1
                parent.families = [*(parent.families or []), session]
        return session

    def drop(self, key: Hashable) -> None:
        """Forget a session with all its jobs; outcomes that come for them are late."""
        session = self.sessions.pop(key, None)
        if session is None:
            return
        session.dropped = True
        if session.parent is not None and session.parent.families is not None:
            session.parent.families.remove(session)
        self.past.add_up(session.counts)
        for entry in session.entries.values():
            if entry.holder is not None:
                _take(entry.holder.assigned, entry)
            if entry.families:
                self._drop_families(entry)
            self._undelay(entry)  # or it would wait again when its delay is over, for nobody
            entry.state = FORGOTTEN
            entry.payload = entry.outcome = None
        session.entries.clear()
        session.processed.clear()
        session.delivery.entries = []
        session.line.clear()
        self._turns.end(session)

    def _drop_families(self, entry: Entry) -> None:
        families, entry.families = entry.families, None
        for session in families or []:
            self._orphans.append((session, list(session.entries.values())))
            self.drop(session.key)

    def take_orphans(self) -> list[tuple[Session, list[Entry]]]:
        """Return the families that lost their parents since this was last asked, with all that was in them.

        They have been dropped, but those entries that have a holder are still with it: it is to be told.
        """
        if not self._orphans:
            return []
        orphans, self._orphans = self._orphans, []
        return orphans

    def add(self, session: Session, number: int, payload: Any, size: int = 0, terms: Terms = DEFAULT_TERMS) -> bool:
        """Let a job wait; return False if a job of that number is in the ledger already."""
        if number in session.entries:
            return False
        self.enter(Entry(session, number, payload, size, terms))
        return True

    def enter(self, entry: Entry) -> None:
        """Let a job wait whose entry is not in the ledger yet; if it has its outcome already, it is processed."""
        session = entry.session
        session.entries[entry.number] = entry
        session.counts.added += 1
        if entry.outcome is not None:
            session.counts.left += 1
            self._process(entry, entry.outcome)
            return
        line = session.line
        if not line.length:
            self._turns.begin(session)
        line.append(entry)

    def settle(
        self,
        session: Session,
        number: int,
        outcome: Any,
        size: int = 0,
        terms: Terms = DEFAULT_TERMS,
        payload_size: int = 0,
    ) -> None:
        """Add a job that has its outcome already, of so many bytes: nobody needs its payload, of so many, any more."""
        session.counts.left_bytes += payload_size
        entry = Entry(session, number, None, size, terms)
        entry.outcome = outcome
        self.enter(entry)

    def cancel(self, session: Session, number: int) -> bool:
        """Forget a job if it is waiting; return whether it was."""
        entry = session.entries.get(number)
        if entry is None or entry.state is not WAITING:
            return False
        if not entry.delayed:
            session.line.remove(entry)
        self._forget_waiting(session, [entry])
        return True

    def discard(self, session: Session, numbers: Iterable[int]) -> None:
        """Forget jobs whatever their state; outcomes that come for them are late."""
        for number in numbers:
            entry = session.entries.get(number)
            if entry is None or self.cancel(session, number):
                continue
            self._unassign(entry)
            if entry.state is PROCESSED:
                session.processed_bytes -= entry.size
            self._forget(entry)
            session.counts.cancelled += 1
        for kept in (session.processed, session.delivery.entries):
            if any(entry.state is FORGOTTEN for entry in kept):
                remaining = [entry for entry in kept if entry.state is not FORGOTTEN]
                kept.clear()
                kept.extend(remaining)

    def cancel_waiting(self, session: Session) -> list[int]:
        """Forget all waiting jobs of a session; return their numbers."""
        entries = session.line.clear()
        entries += [entry for entry in self._delays if entry.session is session]
        self._forget_waiting(session, entries)
        return [entry.number for entry in entries]

    def _forget_waiting(self, session: Session, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._forget(entry)
            session.counts.cancelled += 1
            self._note_left(entry)
        if not session.line:
            self._turns.end(session)

    def _forget(self, entry: Entry) -> None:
        self._undelay(entry)
        if entry.families:
            self._drop_families(entry)
        entry.state = FORGOTTEN
        entry.payload = entry.outcome = None  # the line may hold the entry for a while yet
        _take(entry.session.entries, entry.number)

    def mend(self) -> None:
        """Put the books right after a change of them was interrupted; see `papyros.mending`."""
        mend(self.sessions.values(), self.holders.values(), self._turns, set(self._delays))

    # Holders and what they run ----------------------------------------------------------

    def enlist(self, key: Hashable, slaves: int) -> Holder:
        """Return the holder `key`, which is made if there is none."""
        holder = self.holders.get(key)
        if holder is None:
            holder = self.holders[key] = Holder(key, slaves)
        holder.slaves = slaves
        return holder

    def dismiss(self, key: Hashable, reason: Any = "its holder is gone") -> list[Entry]:
        """Forget a holder; all it held waits again, and none of it is charged. Returns what it held.

        Jobs that must not be started twice may have been started: they are lost, for that reason.
        """
        holder = self.holders.pop(key, None)
        if holder is None:
            return []
        held = list(holder.assigned)
        self.give_back(holder, held, reason)
        return held

    def anything_waits(self) -> bool:
        """Return whether there are jobs in the line of any session."""
        return len(self._turns) > 0

    def assign(self, holder: Holder, limit: int | None = None, max_bytes: float = ASSIGNMENT_BYTES) -> list[Entry]:
        """Assign the next jobs to `holder`: sessions in turns, up to `limit` or its fair share of them.

        Several jobs together take no more than `max_bytes`.
        """
        if limit is None:
            limit = share(holder, self.holders.values(), self._turns)
        batch: list[Entry] = []
        size = 0
        exhausted = 0
        turns = self._turns
        turn = max(1, limit // max(1, len(turns)))  # in one piece each, since each piece costs messages
        while limit > 0 and exhausted < len(turns) and size < max_bytes:
            session = turns.next()
            quantum = min(session.assignable(), turn, limit)
            if quantum == 0:
                exhausted += 1  # its client does not pop what is processed
                continue
            exhausted = 0
            for taken in range(quantum):
                entry = session.line.popleft()
                size += entry.size
                if size > max_bytes and batch:
                    session.line.put_back(entry)
                    if not taken:
                        turns.repeat()  # so that the next one begins with it, and it is not passed over for ever
                    break
                self._hand(holder, entry)
                batch.append(entry)
                limit -= 1
            if not session.line:
                turns.end(session)
        return batch

    def bearable(self, holder: Holder, wanted: int) -> int:
        """Return how many of so many more jobs `holder` should be assigned, since results may be bounded in bytes."""
        return bearable(holder, wanted, self._turns) if self._turns else wanted

    def assign_next(self, holder: Holder, session: Session) -> Entry | None:
        """Assign the next job of one session, whoever's turn it is; None when it has none to assign."""
        if not session.assignable():
            return None
        entry = session.line.popleft()
        if not session.line:
            self._turns.end(session)
        self._hand(holder, entry)
        return entry

    def _hand(self, holder: Holder, entry: Entry) -> None:
        entry.state = ASSIGNED
        entry.holder = holder
        holder.assigned[entry] = None
        entry.session.assigned += 1
        self._note_left(entry)

    def lend(self, holder: Holder, places: int) -> None:
        """Take note that so many of the slaves of a holder lend their places to others, while their jobs wait."""
        holder.lent = places

    def assign_to(self, holder: Holder, entry: Entry) -> bool:
        """Assign a waiting job to a holder that has started it already; return False if it does not wait."""
        if entry.state is not WAITING:
            return False
        self._take_from_line(entry)
        self._undelay(entry)
        self._hand(holder, entry)
        return True

    def _note_left(self, entry: Entry) -> None:
        if not entry.left:
            entry.left = True
            entry.session.counts.left += 1
            entry.session.counts.left_bytes += entry.size

    def give_back(self, holder: Holder, entries: Iterable[Entry], started: Any = None) -> None:
        """Let jobs wait again that `holder` does not process after all; nobody is charged.

        Where they may have been `started`, for a reason that tells why they
        did not end, those that must not be started twice are lost.
        """
        for entry in entries:
            if entry.holder is not holder or entry.state is not ASSIGNED:
                continue
            if started is not None:
                entry.losses = [*(entry.losses or []), started]
            if entry.losses is not None and (entry.terms.once or len(entry.losses) >= MAX_LOSSES):
                self._lose(entry)
            else:
                self._wait_again(entry)

    def note_cut(self, entry: Entry, kept: int) -> None:
        """Take note that of a bundle no more than the first so many jobs are run there, by the one who has it."""
        entry.jobs = max(1, min(entry.jobs, kept))

    def note_slow(self, sessions: Iterable[Session]) -> None:
        """Give nobody jobs of these ahead of need, until outcomes show that they are quick."""
        for session in sessions:
            if session.seconds is not None:
                session.seconds = max(session.seconds, LONG_SECONDS)

    def charge(self, holder: Holder, entry: Entry, death: Any) -> bool:
        """Charge a job for the death of the slave that ran it.

        It waits again, unless it was its last chance: then its outcome says
        so. Returns whether it was.
        """
        if entry.holder is not holder or entry.state is not ASSIGNED:
            return False
        entry.session.counts.lost += 1
        entry.deaths = [*(entry.deaths or []), death]
        if len(entry.deaths) + entry.terms.deaths < MAX_DEATHS and not entry.terms.once:
            self._wait_again(entry)
            return False
        self._lose(entry)
        return True

    def _lose(self, entry: Entry) -> None:
        self._unassign(entry)
        entry.size = 0
        self._process(entry, self._lost([*(entry.deaths or []), *(entry.losses or [])]))

    def _wait_again(self, entry: Entry) -> None:
        self._unassign(entry)
        entry.state = WAITING
        entry.jobs = entry.terms.jobs
        self._undelay(entry)
        session = entry.session
        if not session.line:
            self._turns.begin(session, first=True)
        session.line.put_back(entry)

    def _unassign(self, entry: Entry) -> None:
        if entry.families:
            self._drop_families(entry)
        holder = entry.holder
        if holder is not None:
            _take(holder.assigned, entry)
            entry.holder = None
            entry.session.assigned -= 1

    def finish(
        self,
        session: Session,
        number: int,
        outcome: Any,
        seconds: float = 0.0,
        size: int = 0,
        again_at: Callable[[float], float] | None = None,
        holder: Holder | None = None,
    ) -> bool:
        """Take the outcome of a job, which ran for so long and takes so many bytes; False if it comes late.

        Where the job failed and wants to be tried again, `again_at` tells the
        moment at which a delay from now is over; while it has retries left, it
        waits again then. Such a failure counts only if it comes from the `holder` that has the job: it may be told
        twice, and meanwhile the job may be tried elsewhere.

        The first outcome wins, wherever it comes from: also from a holder that
        had been given up, of a job that waits again or runs elsewhere by now.
        """
        entry = session.entries.get(number)
        if entry is None or entry.state is PROCESSED:
            session.counts.late += 1
            return False
        elsewhere = entry.state is not ASSIGNED or (holder is not None and entry.holder is not holder)
        if again_at is not None and entry.terms.retries and elsewhere:
            session.counts.late += 1
            return False
        if again_at is not None and entry.failures < entry.terms.retries:
            self._delay(entry, again_at(entry.terms.backoff * 2.0 ** min(entry.failures, MAX_DOUBLINGS)))
            return True
        if entry.state is not ASSIGNED:
            self._take_from_line(entry)
            self._undelay(entry)
        self._unassign(entry)
        known = session.seconds
        session.seconds = seconds if known is None else known + FRESHNESS * (seconds - known)
        session.result_bytes += (size - session.result_bytes) * (FRESHNESS if known is not None else 1.0)
        entry.size = size
        self._process(entry, outcome)
        return True

    def _take_from_line(self, entry: Entry) -> None:
        self._note_left(entry)  # whoever counts jobs that left the line is not to miss this one
        if entry.state is WAITING and not entry.delayed:
            entry.session.line.remove(entry)
            if not entry.session.line:
                self._turns.end(entry.session)

    def _undelay(self, entry: Entry) -> None:
        if entry.delayed:
            self._delays.give_up(entry)
            entry.session.delayed -= 1
            entry.session.delayed_bytes -= entry.size

    def _delay(self, entry: Entry, moment: float) -> None:
        self._unassign(entry)
        entry.state = WAITING
        entry.delayed = self._delays.add(moment, entry)
        entry.session.delayed += 1
        entry.session.delayed_bytes += entry.size
        entry.failures += 1
        entry.session.counts.retried += 1

    def _process(self, entry: Entry, outcome: Any) -> None:
        entry.session.processed_bytes += entry.size
        entry.state = PROCESSED
        entry.outcome = outcome
        entry.payload = None
        entry.session.processed.append(entry)
        entry.session.counts.processed += 1

    # Retries, and when they are due -----------------------------------------------------

    def next_wake(self) -> float | None:
        """Return the moment at which the next delayed job may wait in the line again."""
        return self._delays.next()

    def wake(self, now: float) -> int:
        """Let delayed jobs whose moment has come wait in the line; return how many."""
        woken = 0
        for entry in self._delays.take(now):
            self._wait_again(entry)
            woken += 1
        return woken

    # Processed jobs leave ---------------------------------------------------------------

    def pop_one(self, session: Session) -> Entry | None:
        """Take the job out of the ledger that was processed first; None if none is."""
        if not session.processed:
            return None
        entry = session.processed[0]
        try:
            session.processed.popleft()
            entry.state = FORGOTTEN
            session.processed_bytes -= entry.size
            session.counts.popped += 1
            _take(session.entries, entry.number)
        except BaseException:  # Ctrl-C: nobody has it in their hands
            entry.state = PROCESSED
            session.entries[entry.number] = entry
            self.mend()
            raise
        return entry

    def pop(self, session: Session, limit: int = 1) -> list[Entry]:
        """Take processed jobs out of the ledger, those that were processed first first."""
        popped: list[Entry] = []
        while len(popped) < limit and (entry := self.pop_one(session)) is not None:
            popped.append(entry)
        return popped

    def put_back(self, entry: Entry, outcome: Any) -> None:
        """Undo a `pop`, of a client that was interrupted before it had the job in its hands."""
        session = entry.session
        if session.key in self.sessions:
            entry.state = PROCESSED
            session.entries[entry.number] = entry
            session.processed.appendleft(entry)
            session.processed_bytes += entry.size
            session.counts.popped -= 1
            entry.outcome = outcome

    # Deliveries over a wire on which answers can be lost --------------------------------

    def collect(self, session: Session, acknowledged: int, limit: int, max_bytes: int) -> Delivery:
        """Return processed jobs for delivery over a wire on which answers can be lost.

        A batch is kept, and returned again, until a later call acknowledges
        its number; only then its jobs leave the ledger. It takes no more than
        `max_bytes`, unless it is a single job.
        """
        delivery = session.delivery
        if acknowledged >= delivery.number and delivery.entries:
            session.counts.popped += len(delivery.entries)
            for entry in delivery.entries:
                session.processed_bytes -= entry.size
                self._forget(entry)
            delivery.entries = []
        if not delivery.entries and session.processed:
            delivery.number += 1
            size = 0
            while session.processed and len(delivery.entries) < limit:
                size += session.processed[0].size
                if size > max_bytes and delivery.entries:
                    break  # one that is larger goes alone
                delivery.entries.append(session.processed.popleft())
        return delivery

    def fetch(self, holder: Holder, acknowledged: int) -> Delivery:
        """Assign jobs for delivery over a wire on which answers can be lost.

        As in `collect`, a batch that is not acknowledged is returned again.
        """
        delivery = holder.delivery
        if acknowledged >= delivery.number:
            delivery.entries = self.assign(holder, idle_share(holder, self.holders.values(), self._turns))
            if delivery.entries:
                delivery.number += 1
        return delivery


def _take(books: dict[Any, Any], key: Hashable) -> None:
    """Take a key out, if it is there; what is empty lets go of the room for as many as there ever were."""
    books.pop(key, None)
    if not books:
        books.clear()
