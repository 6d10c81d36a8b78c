"""The desk of a master: what clients and slave hosts bring, ask for and leave there, and what that does to its ledger.

Nothing in here knows of connections or bytes on a wire: `papyros.distributed.service`
translates. All of it is used with the desk's lock held. Payloads and outcomes are
opaque, nothing is ever unpickled, and no module of a user's imported.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable

from papyros.bookkeeping import snapshot
from papyros.bundles import is_death, is_more_to_come, kept_of
from papyros.deadlines import Alarm
from papyros.distributed.batches import AddedJob, HostReport, JobOutcome
from papyros.distributed.bells import Bell
from papyros.distributed.early import Early
from papyros.distributed.guests import ClientDesk, HostDesk
from papyros.distributed.seals import ticket_of
from papyros.encoded import asks_for_retry
from papyros.entries import PROCESSED, WAITING, Delivery, Entry, Holder, Session
from papyros.logs import logger_of
from papyros.memory import FLOOD_JOBS
from papyros.packing import ledger_of_payloads
from papyros.status import SlaveStatus, Status
from papyros.terms import DEFAULT_TERMS

__all__ = ["GRACE_SECONDS", "LEASE_SECONDS", "Desk"]

log = logger_of(__name__)

#: A slave host that is silent for so long is given up, and its jobs wait again.
LEASE_SECONDS = 10.0

#: A client that is silent for so long is given up, and its jobs are dropped.
GRACE_SECONDS = 60.0

#: A client's jobs wait at the client while so many bytes of its jobs wait here, and its jobs are
#: not assigned while so many bytes of its results wait to be collected.
SESSION_BYTES = 256 << 20

#: The same for their number, since the books of a job take half a kilobyte, however little is in it.
SESSION_JOBS = 500_000

#: A slave host that does not answer a question, and was not heard of for so long, is said to be silent.
SILENT_SECONDS = 0.5

#: What is told of a bundle that is not over goes to its client under numbers from here on, which no job has.
PARTS = 1 << 63

#: It is not counted as a job.
PART_TERMS = DEFAULT_TERMS._replace(jobs=0)

#: Payloads of so many bytes leave traces in the memory of the process, as a flood of jobs does.
FLOOD_BYTES = 16 << 20


class Desk:
    """The state of a master.

    Args:
        lease: after how many seconds of silence a slave host is given up.
        grace: after how many seconds of silence a client is given up.
        clock: tells the time, in seconds, and never goes back.
        alarm: calls back at moments of that clock.
    """

    def __init__(
        self,
        lease: float = LEASE_SECONDS,
        grace: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        alarm: Alarm | None = None,
    ) -> None:
        self.lease = lease
        self.grace = grace
        self.clock = clock
        self.lock = threading.Lock()
        self.ledger = ledger_of_payloads()
        self.clients: dict[str, ClientDesk] = {}
        self.hosts: dict[str, HostDesk] = {}
        self.hosts_lost = 0
        self.closing = False
        self.question = 0
        #: Rung when a slave host has said what its slaves do.
        self.answers = Bell()
        self._early = Early()
        self._claims: dict[tuple[str, int], tuple[float, str]] = {}  # jobs that hosts run: since when, and which host
        #: Of hosts that are gone: since when, and the number of their last report, which may come again.
        self._reports: dict[str, tuple[float, int]] = {}
        self._alarm = alarm or Alarm()
        self._parts = 0  # how many parts of what is told of bundles were passed on
        self._swept = clock()
        self._flood = 0  # how many jobs there were at a time, when it was looked, since there were none
        self._carried = 0  # how many bytes of payloads came since then

    # Clients ----------------------------------------------------------------------------

    def welcome(self, key: str, parent: tuple[str, int] | None = None) -> ClientDesk | None:
        """Return the client `key`, new or known; None where it comes for a `parent` that is not here.

        That is a job, the children of which it is to add.
        """
        client = self.clients.get(key)
        if client is None:
            entry = self._entry(*parent) if parent is not None else None
            if parent is not None and (entry is None or entry.state is PROCESSED):
                return None
            bounds = (SESSION_JOBS, SESSION_JOBS, SESSION_BYTES, SESSION_BYTES)
            session = self.ledger.open(key, *bounds, parent=entry)
            client = self.clients[key] = ClientDesk(session, self.clock())
        client.seen = self.clock()
        client.left_told = (0, 0)  # the answer that told it last may have been lost with the connection before
        return client

    def is_over(self, parent: tuple[str, int]) -> bool:
        """Return whether a job that is not here will not come any more: its client has been here for a while."""
        client = self.clients.get(parent[0])
        return client is not None and (parent[1] in client.session.entries or self.clock() - client.joined > self.lease)

    def client(self, key: str, stays: dict[str, str]) -> ClientDesk | None:
        """Return a client of whom a call has come; None if it is not known, or that was meant for a former stay of it.

        The line on which it came is of the stay in which it was first used, which is noted in its `stays`. What comes
        on one of a former stay is late: its client was given up, and has begun to count anew on another line.
        """
        client = self.clients.get(key)
        if client is None or stays.setdefault(key, client.stay) != client.stay:
            return None
        client.seen = self.clock()
        return client

    def add(self, client: ClientDesk, jobs: Iterable[AddedJob]) -> None:
        """Let jobs wait; those whose outcomes were here before them are processed at once."""
        added = 0
        is_any_early, is_any_claimed = len(self._early) > 0, len(self._claims) > 0
        for job in jobs:
            client.session.bundled = client.session.bundled or job.terms.jobs > 1
            outcome = self._take_early(client, job) if is_any_early else None
            if outcome is not None:
                self.ledger.settle(
                    client.session, job.number, outcome, len(outcome.outcome), job.terms, payload_size=len(job.blob)
                )
                client.ring()
                continue
            payload = (job.definition, job.blob, job.seal)
            self.ledger.add(client.session, job.number, payload, len(job.blob), job.terms)
            self._carried += len(job.blob)
            added += 1
            if is_any_claimed:
                self._grant_claimed(str(client.session.key), job.number)
        self.wake_hosts(added)

    def _take_early(self, client: ClientDesk, job: AddedJob) -> JobOutcome | None:
        """Pass on what was told of a job before its client added it; return its outcome, if it need not run."""
        news = self._early.take((str(client.session.key), job.number))
        ticket = ticket_of(job.seal)
        for told in news.parts:
            if told.ticket == ticket:
                self._settle_part(client, told)
                client.ring()
        outcome = news.outcome
        if outcome is not None and outcome.ticket != ticket:
            client.session.counts.late += 1  # of a host that was never given the job
            return None
        if outcome is not None and job.terms.retries and asks_for_retry(outcome.outcome):
            return None
        return outcome

    def stop(self, client: ClientDesk, numbers: Iterable[int], waiting: bool = False) -> list[int]:
        """Forget jobs that are not processed, or only `waiting` ones; have those that run stopped; return which."""
        stopped = []
        for number in dict.fromkeys(numbers):
            entry = client.session.entries.get(number)
            if entry is None or entry.state is PROCESSED or (waiting and entry.state is not WAITING):
                continue
            self._order_stop(client.session, [entry])
            stopped.append(number)
        self.ledger.discard(client.session, stopped)  # all at once: each time, all that is processed is looked through
        self._stop_orphans()
        return stopped

    def cancel_waiting(self, client: ClientDesk) -> list[int]:
        """Forget all jobs that wait; return which."""
        cancelled = self.ledger.cancel_waiting(client.session)
        self._stop_orphans()  # one of them may run on a host that has not claimed it from this master yet
        return cancelled

    def discard(self, client: ClientDesk, numbers: Iterable[int]) -> None:
        """Forget jobs, whatever their state; those that run go on, for nobody, but without their children."""
        held = not client.session.assignable()
        self.ledger.discard(client.session, numbers)
        self._stop_orphans()
        client.tell_room()  # those that waited took some, and no answer tells of it
        if held:
            self.wake_hosts(client.session.assignable())

    def collect(self, client: ClientDesk, acknowledged: int, limit: int, max_bytes: int) -> Delivery:
        """Hand out processed jobs to their client; those that it has, by what it acknowledges, make room for others."""
        held = not client.session.assignable()
        delivery = self.ledger.collect(client.session, acknowledged, limit, max_bytes)
        if held or delivery.entries:
            self.wake_hosts(client.session.assignable())
        return delivery

    def _order_stop(self, session: Session, entries: Iterable[Entry]) -> None:
        """Have those who hold these jobs stop them."""
        for entry in entries:
            host = self.hosts.get(str(entry.holder.key)) if entry.holder is not None else None
            if host is not None:
                host.orders.append((str(session.key), entry.number))
                host.work.ring()

    def _stop_orphans(self) -> None:
        """Stop what is left of families that lost their parents."""
        for session, entries in self.ledger.take_orphans():
            self._order_stop(session, entries)
            client = self.clients.pop(str(session.key), None)
            if client is not None:
                client.ring()

    def drop_client(self, key: str) -> None:
        """Forget a client, with all its jobs."""
        client = self.clients.pop(key, None)
        if client is None:
            return
        self._order_stop(client.session, client.session.entries.values())
        self.ledger.drop(key)
        self._stop_orphans()
        client.ring()

    # Slave hosts ------------------------------------------------------------------------

    def enlist(self, key: str, slaves: int) -> bool:
        """Welcome a slave host; return whether it was known, so that its jobs are still its own."""
        host = self.hosts.get(key)
        known = host is not None
        if host is None:
            host = self.hosts[key] = HostDesk(self.ledger.enlist(key, slaves), self.clock())
            host.sequence = self._reports.pop(key, (0.0, 0))[1]
        fewer = slaves < host.holder.slaves
        host.holder.slaves = slaves
        host.seen = self.clock()
        if fewer:
            self.wake_hosts(host.holder.ahead)  # of what it has ahead now, they ask for some
        return known

    def claim(self, host: HostDesk, jobs: Iterable[tuple[str, int]]) -> None:
        """Leave jobs with a host that has started them already, under a master before this one.

        Those that their clients have not added again yet are left with it when they do.
        """
        self._forget_claims(str(host.holder.key))
        for key in jobs:
            if self._entry(*key) is not None:
                self._grant(key, str(host.holder.key))
            else:
                self._claims[key] = (self.clock(), str(host.holder.key))

    def _forget_claims(self, host_key: str) -> None:
        for key in [key for key, (_, claimant) in self._claims.items() if claimant == host_key]:
            del self._claims[key]

    def _grant_claimed(self, session_key: str, number: int) -> None:
        _, host_key = self._claims.pop((session_key, number), (0.0, ""))
        self._grant((session_key, number), host_key)

    def _grant(self, key: tuple[str, int], host_key: str) -> None:
        entry, host = self._entry(*key), self.hosts.get(host_key)
        if entry is not None and host is not None:
            self.ledger.assign_to(host.holder, entry)

    def ask(self) -> int:
        """Ask all slave hosts what their slaves do; return the number of the question."""
        self.question += 1
        for host in self.hosts.values():
            host.asked = self.question
            host.work.ring()
        return self.question

    def host(self, key: str) -> HostDesk | None:
        """Return a slave host of whom a call has come."""
        host = self.hosts.get(key)
        if host is not None:
            host.seen = self.clock()
        return host

    def dismiss_host(self, key: str, reason: str) -> None:
        """Forget a slave host; what it held waits again."""
        host = self.hosts.pop(key, None)
        if host is None:
            return
        self._reports[key] = (self.clock(), host.sequence)
        self._forget_claims(key)
        held = self.ledger.dismiss(key, reason)
        self._stop_orphans()
        self._tell_clients(held)
        self.wake_hosts(len(held))
        host.work.ring()

    def take_outcomes(self, outcomes: Iterable[JobOutcome], key: str) -> None:
        """Take outcomes, of whoever has them: the first one of a job counts."""
        host = self.hosts.get(key)
        holder = host.holder if host is not None else Holder(key, 0)
        touched: dict[str, ClientDesk] = {}
        for done in outcomes:
            if is_more_to_come(done.outcome):
                self._pass_on(done, touched)
                continue
            self._claims.pop((done.session, done.number), None)
            self._carried += len(done.outcome)
            client = touched.get(done.session) or self.clients.get(done.session)
            if client is None or done.number not in client.session.entries:
                self._keep_early(done)
                continue
            touched[done.session] = client
            again = (lambda delay: self.clock() + delay) if asks_for_retry(done.outcome) else None
            entry = client.session.entries[done.number]
            if entry.payload is not None and done.ticket != ticket_of(entry.payload[2]):
                client.session.counts.late += 1
                log.warning("slave host %s hands in an outcome of a job that it was not given; it is dropped", key)
                continue
            if is_death(done.outcome):
                client.session.counts.lost += 1
            self.ledger.finish(client.session, done.number, done, done.seconds, len(done.outcome), again, holder)
            if entry.delayed:
                self._set_alarm()
        self._stop_orphans()
        for client in touched.values():
            client.ring()

    def _pass_on(self, told: JobOutcome, touched: dict[str, ClientDesk]) -> None:
        """Pass on what is told of a bundle that is not over; whatever of that is lost, its end makes up for."""
        entry = self._entry(told.session, told.number)
        if entry is None:
            self._keep_early(told)
            return
        if entry.payload is None or told.ticket != ticket_of(entry.payload[2]):
            return
        client = touched[told.session] = self.clients[told.session]
        if (kept := kept_of(told.outcome)) is not None:
            self.ledger.note_cut(entry, kept)
        self._settle_part(client, told)

    def _settle_part(self, client: ClientDesk, told: JobOutcome) -> None:
        self._parts += 1
        client.session.bundled = True
        self.ledger.settle(client.session, PARTS + self._parts, told, len(told.outcome), PART_TERMS)

    def take_news(self, host: HostDesk, report: HostReport) -> None:
        """Take the bad news, and the prints, of a slave host."""
        for session_key, number, _ in (*report.deaths, *report.returned):
            self._claims.pop((session_key, number), None)
        for session_key, number, death in report.deaths:
            if (entry := self._entry(session_key, number)) is not None:
                self.ledger.charge(host.holder, entry, death)
                self._tell_clients([entry])
        unstarted = self._take_back(host, report.returned)
        if report.held_up:
            self.ledger.note_slow(unstarted)
        for session_key, number, slave, text in report.prints:
            if (client := self.clients.get(session_key)) is not None:
                client.print(number, slave, text)
                client.ring()
        self._stop_orphans()
        if report.lent:
            self.ledger.lend(host.holder, report.lent[-1])
        self.wake_hosts(len(report.deaths) + len(report.returned))

    def _take_back(self, host: HostDesk, returned: list[tuple[str, int, str]]) -> set[Session]:
        """Have jobs wait again that a slave host gives back; return the sessions of those that it has not started."""
        unstarted = set()
        for session_key, number, reason in returned:
            if (entry := self._entry(session_key, number)) is not None:
                self.ledger.give_back(host.holder, [entry], reason or None)
                self._tell_clients([entry])
                if not reason:
                    unstarted.add(entry.session)
        return unstarted

    def wake_hosts(self, jobs: int) -> None:
        """Wake as many waiting slave hosts as there is work for: idle ones first, then those that get some ahead."""
        for most in (1, 2):
            for host in self.hosts.values():
                if jobs <= 0:
                    return
                if host.work.awaited and host.holder.held < most * host.holder.places:
                    host.work.ring()
                    jobs -= host.holder.slaves

    def level(self, idle: HostDesk) -> None:
        """Have jobs that wait behind others at another host given back, if this one has nothing to do.

        The host with the most of them gives half of them; it is asked again only after its next report.
        """
        free = idle.holder.places - idle.holder.held
        if free <= 0 or not idle.holder.slaves or len(self.hosts) < 2:
            return
        rich = max(self.hosts.values(), key=lambda host: host.holder.ahead)
        ahead = rich.holder.ahead
        if ahead and rich.surplus_sequence < rich.sequence:
            rich.surplus, rich.surplus_sequence = max(min(free, ahead), ahead // 2), rich.sequence
            rich.work.ring()

    # Time passes ------------------------------------------------------------------------

    def sweep(self) -> bool:
        """Give up those who have been silent for too long; return whether a flood of jobs has run off since."""
        now = self.clock()
        slept = now - self._swept - self.lease / 2
        self._swept = now
        if slept > 0:
            # It was this process that slept: the others could not make themselves heard.
            everybody: list[HostDesk | ClientDesk] = [*self.hosts.values(), *self.clients.values()]
            for one in everybody:
                one.seen += slept + self.lease / 2
        for key in [key for key, host in self.hosts.items() if now - host.seen > self.lease]:
            self.hosts_lost += 1
            self.dismiss_host(key, f"its slave host was silent for more than {self.lease:g} s, so it was given up")
        for key in [key for key, client in self.clients.items() if now - client.seen > self.grace]:
            self.drop_client(key)  # and, it may be, others of these with it
        for claim in [claim for claim, (came, _) in self._claims.items() if now - came > self.grace]:
            del self._claims[claim]
        for gone in [gone for gone, (since, _) in self._reports.items() if now - since > self.grace]:
            del self._reports[gone]
        self._early.forget(before=now - self.grace)
        self._alarm.look()
        jobs = sum(len(client.session.entries) for client in self.clients.values())
        self._flood = max(self._flood, jobs)
        if jobs or (self._flood < FLOOD_JOBS and self._carried < FLOOD_BYTES):
            return False
        self._flood = self._carried = 0
        return True

    def close(self) -> None:
        """Send everybody who waits away."""
        self.closing = True
        for client in self.clients.values():
            client.ring()
        for host in self.hosts.values():
            host.work.ring()
        self.answers.ring()

    def close_alarm(self) -> None:
        """End the thread that looks after retries. Called without the lock."""
        self._alarm.close()

    def status(self, master: str) -> Status:
        """Return a snapshot."""
        slaves = tuple(slave for host in self.hosts.values() for slave in self._slaves_of(host))
        clients = sum(client.session.parent is None for client in self.clients.values())
        values = {digest: held.filled for client in self.clients.values() for digest, held in client.values.items()}
        holding = tuple(host.values for host in self.hosts.values() if host.values.values)
        return dataclasses.replace(
            snapshot(master, self.ledger, slaves, clients),
            shared=len(values),
            shared_bytes=sum(values.values()),
            shared_on=holding,
            hosts_lost=self.hosts_lost,
        )

    def job_label(self, session_key: str, number: int) -> str:
        """Return a job in words, as far as a master knows them."""
        client, entry = self.clients.get(session_key), self._entry(session_key, number)
        if client is None or entry is None or entry.payload is None:
            return "a job that nobody wants any more"
        which = f"#{number}" if entry.terms.jobs == 1 else f"(one of {entry.terms.jobs})"
        return f"{client.labels.get(entry.payload[0], 'job')} {which}"

    # Inside -----------------------------------------------------------------------------

    def _slaves_of(self, host: HostDesk) -> tuple[SlaveStatus, ...]:
        """Return what the slaves of a host do; or did, where that does not answer."""
        slaves = host.slaves
        if not host.answered:
            slaves = (SlaveStatus("a slave of a host that has not answered yet", ready=False),) * host.holder.slaves
        silent = self.clock() - host.seen
        if host.answered == host.asked or silent < SILENT_SECONDS:
            return slaves
        return tuple(dataclasses.replace(slave, silent=silent) for slave in slaves)

    def _entry(self, session_key: str, number: int) -> Entry | None:
        client = self.clients.get(session_key)
        return client.session.entries.get(number) if client is not None else None

    def _tell_clients(self, entries: Iterable[Entry]) -> None:
        for key in {str(entry.session.key) for entry in entries}:
            if key in self.clients:
                self.clients[key].ring()

    def _keep_early(self, told: JobOutcome) -> None:
        """Keep what is told for a client that may add its job again, having lost its master; else count it as late."""
        client = self.clients.get(told.session)
        if client is None or self.clock() - client.joined <= self.lease:
            self._early.keep(told, self.clock())
        elif not is_more_to_come(told.outcome):
            client.session.counts.late += 1

    def _set_alarm(self) -> None:
        if (moment := self.ledger.next_wake()) is not None:
            self._alarm.set_earliest(moment, self._wake_delayed)

    def _wake_delayed(self) -> None:
        with self.lock:
            woken = self.ledger.wake(self.clock())
            self._stop_orphans()  # children of a run before, which were let in while their parent waited
            self.wake_hosts(woken)
            self._set_alarm()
