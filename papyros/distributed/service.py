"""The one object that a master exposes: narrow; bytes in, bytes out.

Clients and slave hosts call it. No call keeps its thread waiting: one that may have no
answer yet returns an attempt to come to one, which is made again when there is something
new (`papyros.distributed.bells`). What the calls mean is the `Desk`'s affair: this module takes
messages apart and puts answers together.

An answer on its way can be lost. So what is handed out is numbered and kept until
the next call acknowledges it, and what comes in twice is taken once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import uuid
from functools import partial
from typing import Any

from papyros.distributed.batches import (
    AddedJob,
    HostJob,
    JobOutcome,
    host_jobs_parts,
    in_messages,
    outcomes_parts,
    pack_definitions,
    pack_numbers,
    unpack_added,
    unpack_definitions,
    unpack_numbers,
    unpack_report,
)
from papyros.distributed.bells import Ticket, Waiting
from papyros.distributed.daemon import offer
from papyros.distributed.desk import GRACE_SECONDS, LEASE_SECONDS, Desk
from papyros.distributed.guests import ClientDesk
from papyros.distributed.messages import answer_batch, called_batch, called_on
from papyros.distributed.security import Role
from papyros.distributed.values import ValueService
from papyros.entries import ASSIGNED, Entry
from papyros.frames import unpack_message
from papyros.status import SlaveStatus

__all__ = ["HOSTED", "MasterService"]

#: How many outcomes, and bytes of them, go into one answer.
COLLECT_JOBS = 500
COLLECT_BYTES = 8 << 20

#: How long a client's call waits for outcomes, at most, before it asks again and so shows that it lives.
PATIENCE_SECONDS = 10.0

#: How long slave hosts may take to say what their slaves do.
STATUS_SECONDS = 1.0

LABEL_LENGTH = 80

#: What is said of a master that is not a program of its own.
HOSTED = "hosted by a client, with which it ends"

UNKNOWN = {"known": False}

EVERYBODY = (Role.CLIENT, Role.SLAVE_HOST, Role.WATCHER)


class MasterService(ValueService):
    """What clients and slave hosts can ask of a master.

    Args:
        group: the group that the master serves.
        lease: after how many seconds of silence a slave host is given up.
        grace: after how many seconds of silence a client is given up.
        hosted: whether a client hosts it, with which it ends.
    """

    def __init__(
        self, group: str, lease: float = LEASE_SECONDS, grace: float = GRACE_SECONDS, hosted: bool = False
    ) -> None:
        self._group = group
        self._hosted = hosted
        self._uid = uuid.uuid4().hex
        self._desk = Desk(lease, grace)

    @offer(*EVERYBODY)
    def identify(self) -> dict[str, Any]:
        """Say who this is."""
        place = {"host": socket.gethostname(), "pid": os.getpid(), "hosted": self._hosted}
        return {"group": self._group, "uid": self._uid, **place}

    @offer(*EVERYBODY)
    def status(self) -> Waiting:
        """Return a snapshot, for which slave hosts are asked what their slaves do."""
        desk = self._desk
        with desk.lock:
            question = desk.ask()
        return Waiting(partial(self._status, question), STATUS_SECONDS)

    def _status(self, question: int, over: bool) -> dict[str, Any] | Ticket:
        desk = self._desk
        with desk.lock:
            if not over and not desk.closing and any(host.answered < question for host in desk.hosts.values()):
                return desk.answers.ticket()
            master = f"master of the group {self._group!r}, process {os.getpid()} on {socket.gethostname()}"
            if self._hosted:
                master += f", {HOSTED}"
            return dataclasses.asdict(desk.status(master))

    # Clients ----------------------------------------------------------------------------

    @offer(Role.CLIENT)
    def join(self, key: str, parent: list[Any] | None = None) -> dict[str, Any]:
        """Open the session of a client, or find it again.

        One that adds the children of a job names that by its session and its number. Where the job is not
        here, nothing is opened, and the answer tells whether that is for good.
        """
        with self._desk.lock:
            job = (str(parent[0]), int(parent[1])) if parent is not None else None
            client = self._desk.welcome(key, job)
            if client is None:
                return {"known": False, "over": job is not None and self._desk.is_over(job)}
            stay = called_on()[key] = client.stay
            lease, grace = self._desk.lease, self._desk.grace
            return {"known": True, "stay": stay, "patience": min(PATIENCE_SECONDS, grace / 3, lease), "lease": lease}

    @offer(Role.CLIENT)
    def define(self, key: str, labels: dict[str, str]) -> dict[str, Any]:
        """Keep definitions of job classes, and what to call them, for a client's jobs."""
        definitions = unpack_definitions(called_batch())
        with self._desk.lock:
            client = self._desk.client(key, called_on())
            if client is None:
                return UNKNOWN
            client.definitions.update(definitions)
            client.labels.update((bytes.fromhex(digest), _printable(label)) for digest, label in labels.items())
            return {"known": True}

    @offer(Role.CLIENT)
    def add(self, key: str, sequence: int, patience: float) -> Waiting:
        """Let jobs wait, as soon as there is room; a sequence number that came before is a repetition."""
        return Waiting(partial(self._add, key, called_on(), sequence, unpack_added(called_batch())), patience)

    def _add(
        self, key: str, stays: dict[str, str], sequence: int, jobs: list[AddedJob], over: bool
    ) -> dict[str, Any] | Ticket:
        desk = self._desk
        with desk.lock:
            client = desk.client(key, stays)
            if client is None or desk.closing:
                return UNKNOWN
            if sequence > client.sequence:
                if not client.session.has_room():
                    if over:
                        return {"known": True, "accepted": False, "left": _left(client)}
                    return client.room.ticket()
                desk.add(client, jobs)
                client.sequence = sequence  # only now: else, if that fails, what is missing would never be added
            return {"known": True, "accepted": True, "left": _left(client)}

    @offer(Role.CLIENT)
    def collect(self, key: str, acknowledged: int, bounded: bool, patience: float, room: bool = True) -> Waiting:
        """Return outcomes and prints, and wait for them if there are none yet.

        The answer tells how many jobs have left the waiting line; a client that
        bounds their number hears of that at once. One that has no `room` for outcomes, and
        only shows that it lives, gets none but those that it has not acknowledged.
        """
        limit = COLLECT_JOBS if room else 0
        return Waiting(partial(self._collect, key, called_on(), acknowledged, bounded, limit), patience)

    def _collect(
        self, key: str, stays: dict[str, str], acknowledged: int, bounded: bool, limit: int, over: bool
    ) -> dict[str, Any] | Ticket:
        desk = self._desk
        with desk.lock:
            client = desk.client(key, stays)
            if client is None or desk.closing:
                return UNKNOWN
            delivery = desk.collect(client, acknowledged, limit, COLLECT_BYTES)
            client.counts_room = bounded
            left = _left(client)
            if not (delivery.entries or client.prints or (bounded and left[:2] != client.left_told) or over):
                return client.news.ticket()
            client.left_told = left[:2]
            number, entries = delivery.number, list(delivery.entries)
            alone = len(entries) == 1 and entries[0].size > COLLECT_BYTES  # it may fill a message all by itself
            prints = [] if alone else client.take_prints()
            slaves = sum(host.holder.slaves for host in desk.hosts.values())
        if entries or prints:
            answer_batch(outcomes_parts([_outcome_of(e) for e in entries], json.dumps(prints).encode()))
        return {
            "known": True,
            "number": number,
            "count": len(entries),
            "news": bool(entries or prints),
            "left": left,
            "slaves": slaves,
        }

    @offer(Role.CLIENT)
    def cancel(self, key: str, everything: bool, ticket: int, waiting: bool = False) -> dict[str, Any]:
        """Forget all waiting jobs; or those whose numbers come along, which are stopped if they run.

        Of the latter, those that run are left alone if only `waiting` ones are meant.

        The numbers of those that were forgotten go along with the answer. A
        ticket that came before is a repetition, and gets the same answer.
        """
        with self._desk.lock:
            client = self._desk.client(key, called_on())
            if client is None:
                return UNKNOWN
            cancelled = client.cancelled.get(ticket)
            if cancelled is None:
                if everything:
                    cancelled = self._desk.cancel_waiting(client)
                else:
                    cancelled = self._desk.stop(client, unpack_numbers(called_batch()), waiting)
                client.remember_cancelled(ticket, cancelled)
            left = _left(client)
        answer_batch(pack_numbers(cancelled))
        return {"known": True, "left": left}

    @offer(Role.CLIENT)
    def assigned(self, key: str, number: int) -> dict[str, Any]:
        """Tell whether a slave host was given a job, and has not processed it."""
        with self._desk.lock:
            client = self._desk.client(key, called_on())
            if client is None:
                return UNKNOWN
            entry = client.session.entries.get(number)
            return {"known": True, "assigned": entry is not None and entry.state is ASSIGNED}

    @offer(Role.CLIENT)
    def drop(self, key: str) -> dict[str, Any]:
        """Forget jobs whose numbers come along, whatever their state; those that run go on, for nobody."""
        with self._desk.lock:
            client = self._desk.client(key, called_on())
            if client is None:
                return UNKNOWN
            self._desk.discard(client, unpack_numbers(called_batch()))
            return {"known": True}

    @offer(Role.CLIENT)
    def leave(self, key: str) -> dict[str, Any]:
        """Close the session of a client; its jobs are dropped."""
        with self._desk.lock:
            self._desk.drop_client(key)
            return {"known": True}

    # Slave hosts ------------------------------------------------------------------------

    @offer(Role.SLAVE_HOST)
    def enlist(self, key: str, slaves: int) -> dict[str, Any]:
        """Welcome a slave host; says whether it was known, so that its jobs are still its own."""
        with self._desk.lock:
            known = self._desk.enlist(key, slaves)
            host = self._desk.hosts[key]
            lease = self._desk.lease
            return {"known": known, "stay": host.stay, "uid": self._uid, "patience": lease / 3, "lease": lease}

    @offer(Role.SLAVE_HOST)
    def claim(self, key: str, jobs: list[list[Any]], sequence: int, flying: list[list[Any]]) -> dict[str, Any]:
        """Hear which jobs a slave host runs, or has outcomes of, that another master assigned to it.

        The outcomes of those that are `flying` are in the report of that number, which may have arrived before. A claim
        that comes after a later report was late: it has been made again, and what it tells of may have ended.
        """
        with self._desk.lock:
            host = self._desk.host(key)
            if host is None:
                return UNKNOWN
            if sequence < host.sequence:
                return {"known": True}
            # What became of a job that failed may be that it waits for its next try: then it is not there any more.
            claimed = jobs if sequence <= host.sequence else [*jobs, *flying]
            self._desk.claim(host, [(session, number) for session, number in claimed])
            return {"known": True}

    @offer(Role.SLAVE_HOST)
    def fetch(self, key: str, acknowledged: int, heard: int, patience: float) -> Waiting:
        """Assign jobs to a slave host, or tell it which to stop; wait if there is nothing to tell."""
        return Waiting(partial(self._fetch, key, acknowledged, heard), patience)

    def _fetch(self, key: str, acknowledged: int, heard: int, over: bool) -> dict[str, Any] | Ticket:
        desk = self._desk
        with desk.lock:
            host = desk.host(key)
            if host is None or desk.closing:
                return UNKNOWN
            delivery = desk.ledger.fetch(host.holder, acknowledged)
            heard, orders = host.hear_orders(heard)
            if not delivery.entries:
                desk.level(host)
            if not (delivery.entries or orders or host.surplus or host.asked > host.answered or over):
                return host.work.ticket()
            surplus, host.surplus = host.surplus, 0
            number, entries = delivery.number, [e for e in delivery.entries if e.payload is not None]
            for session in {entry.session for entry in entries}:
                if (client := desk.clients.get(str(session.key))) is not None:
                    client.tell_room()
        if entries:
            answer_batch(
                host_jobs_parts(
                    [
                        HostJob(str(e.session.key), e.number, e.payload[0], e.payload[1], e.terms, e.payload[2])
                        for e in entries
                    ]
                )
            )
        return {
            "known": True,
            "number": number,
            "count": len(entries),
            "orders": orders,
            "heard": heard,
            "question": host.asked,
            "surplus": surplus,
        }

    @offer(Role.SLAVE_HOST)
    def tell(self, key: str, question: int, slaves: list[list[Any]]) -> dict[str, Any]:
        """Hear what the slaves of a host do."""
        desk = self._desk
        with desk.lock:
            host = desk.host(key)
            if host is None:
                return UNKNOWN
            host.answered = question
            host.slaves = tuple(
                SlaveStatus(_printable(name), desk.job_label(session, number) if session else "", seconds, ahead, ready)
                for name, session, number, seconds, ahead, ready in slaves
            )
            desk.answers.ring()
            return {"known": True}

    @offer(Role.SLAVE_HOST)
    def definitions(self, key: str) -> dict[str, Any]:
        """Return the definitions whose digests come along: as many of them as fit into a message, one at least."""
        wanted = [bytes(digest) for digest in unpack_message(called_batch())]
        found: dict[bytes, bytes] = {}
        with self._desk.lock:
            if self._desk.host(key) is None:
                return UNKNOWN
            for client in self._desk.clients.values():
                found.update((d, client.definitions[d]) for d in wanted if d in client.definitions)
        answer_batch(pack_definitions(next(in_messages(found), {})))
        return {"known": True}

    @offer(Role.SLAVE_HOST)
    def report(self, key: str, sequence: int, uid: str, stay: str, ended: int = 0) -> dict[str, Any]:
        """Take outcomes and bad news of a slave host; outcomes also of one that had been given up.

        So many jobs have `ended` there of which later reports will tell.

        A report that was meant for another master, or comes when this one is
        about to end, is not taken: it is to go to the one that the host is enlisted with. Of one about a stay that is
        over, nothing but its outcomes counts: it may have been taken before the host was given up, and what the host
        held then has been given to others since, or to the host itself.
        """
        report = unpack_report(called_batch())
        desk = self._desk
        with desk.lock:
            if desk.closing or uid != self._uid:
                return {"known": False, "taken": False}
            host = desk.host(key)
            if host is not None and sequence <= host.sequence:
                return {"known": True, "taken": True}  # and the answer was lost
            desk.take_outcomes(report.outcomes, key)
            if host is None:
                return {"known": False, "taken": True}
            host.sequence = sequence
            if stay == host.stay:
                host.holder.ended = ended  # before it is asked who has nothing to do
                desk.take_news(host, report)
            if desk.ledger.anything_waits():
                host.work.ring()
            else:
                desk.level(host)
            return {"known": True, "taken": True}

    @offer(Role.SLAVE_HOST)
    def retire(self, key: str) -> dict[str, Any]:
        """Say goodbye to a slave host; what it holds waits again."""
        with self._desk.lock:
            self._desk.dismiss_host(key, "its slave host was closed")
            return {"known": True}

    # For the process that the service lives in ------------------------------------------

    def hear(self, role: Role, arguments: list[Any]) -> None:
        """Hear that who has made a call with these arguments is not silent: something large comes from there, or goes.

        Until all of it is there, which may take longer than anybody may be silent, that side makes no other call.
        """
        key = arguments[0] if arguments else None
        with self._desk.lock:
            if role is Role.CLIENT:
                self._desk.client(str(key), {})  # of whichever stay: it lives
            elif role is Role.SLAVE_HOST:
                self._desk.host(str(key))

    def sweep(self) -> bool:
        """Give up those who have been silent for too long; return whether a flood of jobs has run off since."""
        with self._desk.lock:
            return self._desk.sweep()

    def close(self) -> None:
        """Send everybody who waits for an answer away."""
        with self._desk.lock:
            self._desk.close()
        self._desk.close_alarm()


def _left(client: ClientDesk) -> tuple[int, int, int]:
    """How many jobs have left the waiting line of a client for good, as far as is known, and their bytes.

    With it goes a number that grows: answers may overtake each other, and an older one is not to count.
    """
    client.left_number += 1
    # Those that wait for their next try are not in the line, but take up room all the same.
    session = client.session
    counts = session.counts
    return counts.left - session.delayed, counts.left_bytes - session.delayed_bytes, client.left_number


def _printable(text: object) -> str:
    """Return a text of somebody else's so that it is safe to print."""
    shown = str(text)[:LABEL_LENGTH]
    return shown if shown.isprintable() else ascii(shown)


def _outcome_of(entry: Entry) -> JobOutcome:
    if isinstance(entry.outcome, JobOutcome):
        return entry.outcome
    return JobOutcome(str(entry.session.key), entry.number, entry.outcome, 0.0, "")
