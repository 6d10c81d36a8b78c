"""The ledger against a model of plain dictionaries and lists, in any order of events that hypothesis finds.

The model does not predict which jobs are assigned; it checks that those which
were may have been: their order, the bounds, the turns, and that none was held back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from papyros.ledger import MAX_DEATHS, MAX_LOSSES, Ledger
from papyros.terms import Terms

KEYS = st.sampled_from(["red", "green", "blue"])
HOLDERS = st.sampled_from(["near", "far"])
BOUNDS = st.sampled_from([None, 1, 2, 4])
BYTES = st.sampled_from([None, None, 1, 5])
SIZES = st.integers(0, 3)
LIMITS = st.integers(0, 6)
BACKOFF = 0.5

TERMS = st.one_of(
    st.integers(-1, 1).map(Terms),
    st.tuples(st.integers(-1, 1), st.integers(1, 2)).map(lambda t: Terms(t[0], retries=t[1], backoff=BACKOFF)),
    st.integers(-1, 1).map(lambda priority: Terms(priority, once=True)),
)


@dataclass
class Expected:
    """What the model knows of one job."""

    number: int
    terms: Terms
    size: int = 0  # of the payload; once processed of the outcome
    state: str = "waiting"
    holder: str | None = None
    deaths: int = 0
    losses: int = 0  # how often it was given back although it may have been started
    failures: int = 0
    attempts: int = 0  # how often it ran, as far as was heard
    wakes_at: float | None = None  # it waits for the end of its backoff, not in the line
    assigned_once: bool = False
    left: bool = False


@dataclass
class Stay:
    """What the model knows of one session."""

    session: object
    max_waiting: int | None
    max_processed: int | None
    max_waiting_bytes: int | None = None
    max_processed_bytes: int | None = None
    jobs: dict[int, Expected] = field(default_factory=dict)
    processed: list[int] = field(default_factory=list)
    outcomes: dict[int, object] = field(default_factory=dict)
    delivered: list[int] = field(default_factory=list)
    delivery: int = 0
    popped: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    added: int = 0
    highest: int = 0
    late: int = 0
    lost: int = 0
    retried: int = 0
    left: int = 0
    #: How many turns each other session had since this one had its last, or had anything to assign.
    passed_over: dict[str, int] = field(default_factory=dict)

    def waiting(self):
        """The jobs in the line, in the order in which they are to be assigned."""
        found = [job for job in self.jobs.values() if job.state == "waiting" and job.wakes_at is None]
        return sorted(found, key=lambda job: (-job.terms.priority, job.number))

    def delayed(self):
        return [job for job in self.jobs.values() if job.wakes_at is not None]

    def assigned(self):
        return [job for job in self.jobs.values() if job.state == "assigned"]

    def taken(self):
        return len(self.assigned()) + len(self.processed) + len(self.delivered)

    def processed_bytes(self):
        return sum(self.jobs[number].size for number in (*self.processed, *self.delivered))

    def assignable(self):
        waiting = len(self.waiting())
        if self.max_processed_bytes is not None and self.processed_bytes() >= self.max_processed_bytes:
            return 0
        if self.max_processed is None:
            return waiting
        return max(0, min(waiting, self.max_processed - self.taken()))


@dataclass
class Host:
    """What the model knows of one holder."""

    holder: object
    slaves: int
    delivery: int = 0
    batch: list[tuple[object, int]] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ledger = Ledger(lost=lambda deaths: ("lost", len(deaths)))
        self.stays: dict[str, Stay] = {}
        self.gone: list[Stay] = []
        self.hosts: dict[str, Host] = {}
        self.outcomes = 0
        self.now = 100.0
        self.tickets = 0  # the order in which jobs were delayed
        self.delays: dict[int, tuple[float, int]] = {}  # by the id of what the model knows of them

    def draw_job(self, data, stay, states=("waiting", "assigned", "processed")):
        """A job of the session in one of these states, or None."""
        found = sorted(job.number for job in stay.jobs.values() if job.state in states)
        return stay.jobs[data.draw(st.sampled_from(found), label="job")] if found else None

    def draw_stay(self, data):
        return self.stays[data.draw(st.sampled_from(sorted(self.stays)), label="session")]

    def draw_host(self, data):
        return data.draw(st.sampled_from(sorted(self.hosts)), label="holder")

    # Sessions ---------------------------------------------------------------------------

    @initialize(max_processed=BOUNDS, max_processed_bytes=BYTES)
    def begin(self, max_processed, max_processed_bytes):
        self.open("red", (None, None, None, None))
        self.open("green", (None, max_processed, None, max_processed_bytes))
        self.enlist("near", 2)

    @rule(key=KEYS, bounds=st.tuples(BOUNDS, BOUNDS, BYTES, BYTES))
    def open(self, key, bounds):
        session = self.ledger.open(key, *bounds)
        if key in self.stays:
            assert session is self.stays[key].session
        else:
            self.stays[key] = Stay(session, *bounds)

    @precondition(lambda self: len(self.stays) > 1)
    @rule(data=st.data())
    def drop(self, data):
        key = data.draw(st.sampled_from(sorted(self.stays)))
        stay = self.stays.pop(key)
        self.ledger.drop(key)
        self.ledger.drop(key)  # twice is harmless
        for other in self.stays.values():
            other.passed_over.pop(key, None)
        self.gone.append(stay)

    # Adding and cancelling --------------------------------------------------------------

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), jobs=st.lists(st.tuples(TERMS, SIZES), min_size=1, max_size=4), gap=st.integers(1, 2))
    def add(self, data, jobs, gap):
        stay = self.draw_stay(data)
        for terms, size in jobs:
            stay.highest = number = stay.highest + gap
            assert self.ledger.add(stay.session, number, f"payload {number}", size, terms) is True
            stay.jobs[number] = Expected(number, terms, size)
            stay.added += 1

    @precondition(lambda self: self.stays)
    @rule(data=st.data())
    def add_again(self, data):
        """A client that heard no answer repeats itself, whatever became of the job meanwhile."""
        stay = self.draw_stay(data)
        job = self.draw_job(data, stay)
        if job is not None:
            assert self.ledger.add(stay.session, job.number, "again", 7, Terms(5, retries=9)) is False

    @precondition(lambda self: self.stays)
    @rule(data=st.data())
    def add_settled(self, data):
        stay = self.draw_stay(data)
        stay.highest = number = stay.highest + 1
        self.ledger.settle(stay.session, number, "refused")
        stay.jobs[number] = Expected(number, Terms(), 0, "processed", left=True)
        stay.added += 1
        stay.left += 1
        stay.processed.append(number)
        stay.outcomes[number] = "refused"

    @precondition(lambda self: self.stays)
    @rule(data=st.data())
    def cancel(self, data):
        stay = self.draw_stay(data)
        job = self.draw_job(data, stay)
        if job is None:
            assert self.ledger.cancel(stay.session, 999_999) is False
            return
        assert self.ledger.cancel(stay.session, job.number) is (job.state == "waiting")
        if job.state == "waiting":
            self.forget(stay, job)
            assert self.ledger.cancel(stay.session, job.number) is False

    @precondition(lambda self: self.stays)
    @rule(data=st.data())
    def cancel_waiting(self, data):
        stay = self.draw_stay(data)
        waiting = stay.waiting() + stay.delayed()
        numbers = self.ledger.cancel_waiting(stay.session)
        assert sorted(numbers) == sorted(job.number for job in waiting)
        for job in waiting:
            self.forget(stay, job)

    @precondition(lambda self: self.stays)
    @rule(data=st.data())
    def discard(self, data):
        """Of jobs in any state: their client has gone, or was told that nobody wants them any more."""
        stay = self.draw_stay(data)
        job = self.draw_job(data, stay)
        if job is not None:
            self.ledger.discard(stay.session, [job.number, job.number, 999_999])
            self.forget(stay, job)

    def forget(self, stay, job):
        self.leaves_the_line(stay, job)
        for kept in (stay.processed, stay.delivered):
            if job.number in kept:
                kept.remove(job.number)
        del stay.jobs[job.number]
        stay.cancelled.append(job.number)

    def leaves_the_line(self, stay, job):
        """It was assigned or cancelled; what counts is the first time."""
        stay.left += not job.left
        job.left = True

    # Holders ----------------------------------------------------------------------------

    @rule(key=HOLDERS, slaves=st.integers(1, 3))
    def enlist(self, key, slaves):
        holder = self.ledger.enlist(key, slaves)
        if key in self.hosts:
            assert holder is self.hosts[key].holder
            self.hosts[key].slaves = slaves
        else:
            self.hosts[key] = Host(holder, slaves)

    @rule(key=HOLDERS)
    def dismiss(self, key):
        """A slave host goes; what it held waits again, but for what it may have started and nobody may start twice."""
        held = {(id(stay.session), job.number): (stay, job) for stay, job in self.held_by(key)}
        entries = self.ledger.dismiss(key, "gone")
        self.hosts.pop(key, None)
        assert {(id(entry.session), entry.number) for entry in entries} == set(held)
        for entry in entries:
            self.come_back(*held[id(entry.session), entry.number], started=True)

    def come_back(self, stay, job, started):
        """A job was given back; if it may have been started, and must not be twice, it is lost."""
        if started:
            job.attempts += 1
            job.losses += 1
            if job.terms.once or job.losses == MAX_LOSSES:
                self.process(stay, job, ("lost", job.deaths + job.losses))
                return
        self.wait_again(stay, job)

    def held_by(self, key):
        return [(stay, job) for stay in self.stays.values() for job in stay.assigned() if job.holder == key]

    def wait_again(self, stay, job):
        if not stay.waiting():
            # It goes to the front of the turns, so others may see it once more before it is theirs.
            key = self.key_of(stay)
            for other in self.stays.values():
                if key in other.passed_over:
                    other.passed_over[key] -= 1
        job.state = "waiting"
        job.holder = job.wakes_at = None

    def key_of(self, stay):
        return next(key for key, candidate in self.stays.items() if candidate is stay)

    # Assigning --------------------------------------------------------------------------

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), limit=LIMITS)
    def assign(self, data, limit):
        key = self.draw_host(data)
        batch = self.ledger.assign(self.hosts[key].holder, limit)
        self.take_assignment(key, batch)
        assert len(batch) <= limit
        if len(batch) < limit:
            assert not any(stay.assignable() for stay in self.stays.values()), "jobs were held back"

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def assign_a_share(self, data):
        key = self.draw_host(data)
        host = self.hosts[key]
        held, waiting = len(self.held_by(key)), self.assignable()
        self.take_assignment(key, self.ledger.assign(host.holder))
        self.check_share(host, held, waiting, len(self.held_by(key)))

    def assignable(self):
        return sum(stay.assignable() for stay in self.stays.values())

    def check_share(self, host, held, waiting, now):
        if held < host.slaves:
            assert now >= min(host.slaves, held + waiting), "a slave is idle while jobs wait"
        if now > held:
            assert now - host.slaves <= waiting / 2, "one holder has more ahead than half of what waits"

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), lost=st.booleans())
    def fetch(self, data, lost):
        key = self.draw_host(data)
        host = self.hosts[key]
        held, waiting = len(self.held_by(key)), self.assignable()
        if lost and host.delivery:
            delivery = self.ledger.fetch(host.holder, host.delivery - 1)
            assert delivery.number == host.delivery
            assert [(entry.session, entry.number) for entry in delivery.entries] == host.batch
            return
        delivery = self.ledger.fetch(host.holder, host.delivery)
        if delivery.entries:
            assert delivery.number == host.delivery + 1
        else:
            assert held >= host.slaves or not waiting, "a slave is idle while jobs wait"
        host.delivery = delivery.number
        host.batch = [(entry.session, entry.number) for entry in delivery.entries]
        self.take_assignment(key, list(delivery.entries))

    def take_assignment(self, key, batch):
        """Check that this batch is what may have been assigned, and note it."""
        by_session = {id(stay.session): stay for stay in self.stays.values()}
        for session_id, turn in groupby(batch, key=lambda entry: id(entry.session)):
            stay = by_session[session_id]
            self.take_turn(self.key_of(stay))
            for entry in turn:
                assert stay.assignable() > 0, "the bound on processed jobs was passed"
                job = stay.waiting()[0]
                assert entry.number == job.number, "another job was first in line"
                assert entry.payload == f"payload {entry.number}"
                assert not (job.terms.once and job.attempts), "it was started a second time"
                assert job.failures <= job.terms.retries
                assert job.deaths < MAX_DEATHS
                self.leaves_the_line(stay, job)
                job.state, job.holder, job.assigned_once = "assigned", key, True

    def take_turn(self, key):
        for other_key, other in self.stays.items():
            if other_key != key and other.assignable():
                other.passed_over[key] = other.passed_over.get(key, 0) + 1
                assert other.passed_over[key] <= 1, f"{key} had two turns while {other_key} waited for one"
        self.stays[key].passed_over.clear()

    @precondition(lambda self: self.hosts and self.stays)
    @rule(data=st.data())
    def assign_what_was_started_already(self, data):
        """A slave host tells a new master what it runs."""
        key = self.draw_host(data)
        stay = self.draw_stay(data)
        job = self.draw_job(data, stay)
        if job is None or (job.terms.once and job.attempts and job.state == "waiting"):
            return
        entry = stay.session.entries[job.number]
        assert self.ledger.assign_to(self.hosts[key].holder, entry) is (job.state == "waiting")
        if job.state == "waiting":
            self.leaves_the_line(stay, job)
            job.state, job.holder, job.assigned_once, job.wakes_at = "assigned", key, True, None

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), started=st.booleans())
    def give_back(self, data, started):
        key = self.draw_host(data)
        held = self.held_by(key)
        if held:
            stay, job = data.draw(st.sampled_from(held))
            entry = stay.session.entries[job.number]
            # Twice is harmless.
            self.ledger.give_back(self.hosts[key].holder, [entry, entry], "stopped" if started else None)
            self.come_back(stay, job, started)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def charge(self, data):
        """A slave dies under a job; three times, or once if it may run once, and it has an outcome that says so."""
        key = self.draw_host(data)
        # The most unlucky job again, so that some come to their third death.
        held = sorted(self.held_by(key), key=lambda pair: -pair[1].deaths)[:2]
        if not held:
            return
        stay, job = data.draw(st.sampled_from(held))
        entry = stay.session.entries[job.number]
        job.deaths += 1
        job.attempts += 1
        stay.lost += 1
        lost = self.ledger.charge(self.hosts[key].holder, entry, f"death {job.deaths}")
        assert lost is (job.deaths == MAX_DEATHS or job.terms.once)
        if lost:
            self.process(stay, job, ("lost", job.deaths + job.losses))
        else:
            self.wait_again(stay, job)
        if job.holder is None:
            # Nobody is charged for what it does not hold.
            assert self.ledger.charge(self.hosts[key].holder, entry, "again") is False

    # Outcomes ---------------------------------------------------------------------------

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1e-5, 0.01, 3.0]), size=SIZES, failed=st.booleans())
    def finish(self, data, seconds, size, failed):
        """An outcome comes: in time, a second time, or from somebody who had been given up."""
        stay = self.draw_stay(data)
        number = data.draw(st.integers(1, stay.highest + 1), label="number")
        job = stay.jobs.get(number)
        if job is not None and job.state == "waiting" and not job.assigned_once:
            return  # nobody could have run it
        self.outcomes += 1
        outcome = f"outcome {self.outcomes}"
        delays = []

        def again_at(delay):
            delays.append(delay)
            return self.now + delay

        told_by = data.draw(st.sampled_from([None, *sorted(self.hosts)]), label="told by")
        holder = self.hosts[told_by].holder if told_by else None
        accepted = self.ledger.finish(
            stay.session, number, outcome, seconds, size, again_at if failed else None, holder
        )
        unfinished = job is not None and job.state != "processed"
        again = failed and unfinished and job.failures < job.terms.retries
        if again and (job.state != "assigned" or told_by not in (None, job.holder)):
            assert not accepted, "a failure that is told by somebody else may be told twice"
            stay.late += 1
            return
        assert accepted is unfinished  # a result is welcome, by whomever it comes
        if again:
            assert delays == [BACKOFF * 2**job.failures], "the delay grows, each time to twice as much"
            self.delay(stay, job, self.now + delays[0])
        elif accepted:
            assert not delays
            job.attempts += job.state == "assigned"
            job.size = size
            self.process(stay, job, outcome)
        else:
            stay.late += 1

    def delay(self, stay, job, moment):
        job.attempts += 1
        job.failures += 1
        stay.retried += 1
        job.state, job.holder, job.wakes_at = "waiting", None, moment
        self.tickets += 1
        self.delays[id(job)] = (moment, self.tickets)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0]))
    def wake(self, seconds):
        """Time passes, and the delayed jobs whose moment has come are in the line again."""
        self.now += seconds
        due = [(stay, job) for stay in self.stays.values() for job in stay.delayed() if job.wakes_at <= self.now]
        assert self.ledger.wake(self.now) == len(due)
        for stay, job in sorted(due, key=lambda pair: self.delays[id(pair[1])]):
            self.wait_again(stay, job)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def finish_of_a_session_that_is_gone(self, data):
        stay = data.draw(st.sampled_from(self.gone))
        number = data.draw(st.integers(1, stay.highest + 1))
        assert self.ledger.finish(stay.session, number, "too late", again_at=lambda delay: self.now + delay) is False

    def process(self, stay, job, outcome):
        bound = 1 if job.terms.once else MAX_DEATHS + MAX_LOSSES - 1 + job.terms.retries
        assert job.attempts <= bound, "it ran too often"
        assert job.attempts - job.losses <= MAX_DEATHS + job.terms.retries, "it ran too often"
        if outcome[0] == "lost":
            job.size = 0
        job.state, job.holder, job.wakes_at = "processed", None, None
        stay.processed.append(job.number)
        stay.outcomes[job.number] = outcome

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), limit=st.integers(1, 4))
    def pop(self, data, limit):
        stay = self.draw_stay(data)
        entries = self.ledger.pop(stay.session, limit)
        expected, stay.processed = stay.processed[:limit], stay.processed[limit:]
        assert [entry.number for entry in entries] == expected, "popped in another order than processed"
        assert [entry.outcome for entry in entries] == [stay.outcomes[number] for number in expected]
        self.leave(stay, expected)

    @precondition(lambda self: self.stays)
    @rule(data=st.data())
    def pop_and_be_interrupted(self, data):
        """A client has the job, but not in its hands: it is the next one to be popped, as if nothing had been."""
        stay = self.draw_stay(data)
        for entry in self.ledger.pop(stay.session):
            self.ledger.put_back(entry, entry.outcome)

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), limit=st.integers(1, 4), lost=st.booleans())
    def collect(self, data, limit, lost):
        """Deliver over a wire: where the answer was lost, the same batch comes again."""
        stay = self.draw_stay(data)
        if lost and stay.delivered:
            delivery = self.ledger.collect(stay.session, stay.delivery - 1, limit, 1 << 20)
            assert delivery.number == stay.delivery
            assert [entry.number for entry in delivery.entries] == stay.delivered
            return
        delivery = self.ledger.collect(stay.session, stay.delivery, limit, 1 << 20)
        self.leave(stay, stay.delivered)
        stay.delivered, stay.processed = stay.processed[:limit], stay.processed[limit:]
        assert [entry.number for entry in delivery.entries] == stay.delivered
        assert [entry.outcome for entry in delivery.entries] == [stay.outcomes[n] for n in stay.delivered]
        if stay.delivered:
            assert delivery.number == stay.delivery + 1
        stay.delivery = delivery.number

    def leave(self, stay, numbers):
        for number in numbers:
            assert number not in stay.popped, "popped twice"
            stay.popped.append(number)
            del stay.jobs[number]

    # What holds at any time -------------------------------------------------------------

    @invariant()
    def nothing_is_lost_and_nothing_is_twice(self):
        assert set(self.ledger.sessions) == set(self.stays)
        for stay in self.stays.values():
            session = stay.session
            assert stay.added == len(stay.popped) + len(stay.cancelled) + session.pending
            assert set(session.entries) == set(stay.jobs)
            states = {number: entry.state for number, entry in session.entries.items()}
            assert states == {job.number: job.state for job in stay.jobs.values()}
            assert [entry.number for entry in session.processed] == stay.processed

    @invariant()
    def counts_are_right(self):
        for stay in self.stays.values():
            counts = stay.session.counts
            assert counts.added == stay.added
            assert counts.popped == len(stay.popped)
            assert counts.cancelled == len(stay.cancelled)
            assert counts.late == stay.late
            assert counts.lost == stay.lost
            assert counts.retried == stay.retried
            assert counts.left == stay.left
            assert counts.processed == len(stay.outcomes)
            assert stay.session.assigned == len(stay.assigned())
            assert len(stay.session.line) == len(stay.waiting())

    @invariant()
    def there_is_room_as_long_as_the_bound_says(self):
        for stay in self.stays.values():
            waiting = stay.waiting()
            size = sum(job.size for job in waiting)
            assert stay.session.line.size == size
            assert stay.session.processed_bytes == stay.processed_bytes()
            delayed = stay.delayed()  # they wait too, though not in the line
            size += sum(job.size for job in delayed)
            assert stay.session.has_room() is (
                (stay.max_waiting is None or len(waiting) + len(delayed) < stay.max_waiting)
                and (stay.max_waiting_bytes is None or size < stay.max_waiting_bytes)
            )
            assert stay.session.assignable() == stay.assignable()
            if not stay.assignable():
                stay.passed_over.clear()

    @invariant()
    def nobody_sleeps_through_the_end_of_a_delay(self):
        moments = [job.wakes_at for stay in self.stays.values() for job in stay.delayed()]
        if moments:
            # It may come earlier, for a job that was cancelled meanwhile.
            assert self.ledger.next_wake() <= min(moments)

    @invariant()
    def each_holder_holds_what_was_assigned_to_it(self):
        assert set(self.ledger.holders) == set(self.hosts)
        for key, host in self.hosts.items():
            held = {(id(stay.session), job.number) for stay, job in self.held_by(key)}
            assert {(id(entry.session), entry.number) for entry in host.holder.assigned} == held

    def teardown(self):
        """Whatever happened, all that is left can be processed and popped."""
        if not self.stays:
            return
        holder = self.ledger.enlist("last", 4)
        for stay in self.stays.values():
            for number in [job.number for job in stay.jobs.values() if job.state == "assigned"]:
                self.ledger.finish(stay.session, number, "at last")
        self.ledger.wake(self.now + 1e9)
        assert self.ledger.next_wake() is None
        left = sum(len(stay.session.entries) for stay in self.stays.values())
        for _ in range(2 * left + 2):  # a bound may let only one job through in two rounds
            for stay in self.stays.values():
                acknowledged = stay.session.delivery.number
                self.ledger.collect(stay.session, acknowledged, 100, 1 << 20)
            for entry in self.ledger.assign(holder, 100):
                self.ledger.finish(entry.session, entry.number, "at last")
        assert [stay.session.pending for stay in self.stays.values() if stay.session.pending] == []


LedgerMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=set(Phase) - {Phase.explain},  # explaining a failure takes longer than a test may
)
test_ledger_does_what_the_model_does = LedgerMachine.TestCase


# What the model leaves out, by hand. --------------------------------------------------------


def filled(jobs, **options):
    ledger = Ledger()
    session = ledger.open("client", **options)
    for number in range(1, jobs + 1):
        ledger.add(session, number, f"payload {number}")
    return ledger, session


def test_clients_are_served_in_turns():
    ledger = Ledger()
    sessions = [ledger.open(key) for key in "abc"]
    for number in range(1, 4):
        for session in sessions:
            ledger.add(session, number, None)
    holder = ledger.enlist("host", 1)
    served = [ledger.assign(holder, 1)[0].session.key for _ in range(9)]
    assert served == list("abcabcabc")


def test_a_client_that_does_not_pop_does_not_hold_up_the_others():
    ledger = Ledger()
    stuck, other = ledger.open("stuck", max_processed=1), ledger.open("other")
    for number in range(1, 4):
        ledger.add(stuck, number, None)
        ledger.add(other, number, None)
    batch = ledger.assign(ledger.enlist("host", 8), 8)
    assert [entry.session.key for entry in batch].count("stuck") == 1
    assert [entry.session.key for entry in batch].count("other") == 3


def test_a_job_that_kills_three_slaves_is_lost_and_tells_of_each():
    ledger, session = filled(1)
    holder = ledger.enlist("host", 1)
    for death in ("first", "second", "third"):
        [entry] = ledger.assign(holder, 1)
        assert ledger.charge(holder, entry, death) is (death == "third")
    assert ledger.assign(holder, 1) == []
    [entry] = ledger.pop(session)
    assert entry.outcome == ["first", "second", "third"]


def test_a_job_that_loses_its_holders_time_and_again_is_lost_in_the_end():
    ledger, session = filled(1)
    for number in range(MAX_LOSSES):
        assert session.processed == type(session.processed)()
        assert len(ledger.assign(ledger.enlist(number, 1), 1)) == 1
        ledger.dismiss(number, f"host {number} is gone")
    [entry] = ledger.pop(session)
    assert entry.outcome == [f"host {number} is gone" for number in range(MAX_LOSSES)]


def test_a_job_that_may_be_started_once_is_lost_with_its_holder():
    ledger = Ledger()
    session = ledger.open("client")
    for number in (1, 2):
        ledger.add(session, number, None, 0, Terms(once=True))
    ledger.assign(ledger.enlist("host", 1), 1)
    assert [entry.number for entry in ledger.dismiss("host", "it burned")] == [1]
    [entry] = ledger.pop(session)
    assert (entry.number, entry.outcome) == (1, ["it burned"])
    [other] = ledger.assign(ledger.enlist("other", 1), 5)
    assert other.number == 2, "what was not handed out was not started"
    ledger.give_back(ledger.enlist("other", 1), [other])
    assert ledger.assign(ledger.enlist("other", 1), 5) == [other], "nor what was handed out and not begun"


def test_a_backoff_never_grows_beyond_what_a_number_can_hold():
    """Ten thousand tries without a delay, or with a short one, must not end whoever keeps the books."""
    ledger = Ledger()
    session = ledger.open("client")
    holder = ledger.enlist("host", 1)
    for number, backoff in ((1, 0.0), (2, 1e-9)):
        ledger.add(session, number, None, 0, Terms(retries=2000, backoff=backoff))
        for _ in range(2000):
            [entry] = ledger.assign(holder, 1)
            assert ledger.finish(session, number, "failed", again_at=lambda delay: delay)
            ledger.wake(float("inf"))
        [entry] = ledger.assign(holder, 1)
        assert ledger.finish(session, number, "failed", again_at=lambda delay: delay)
        assert entry.state == "processed"


def test_a_job_that_waits_for_its_next_try_takes_up_room():
    ledger = Ledger()
    session = ledger.open("client", max_waiting=1)
    ledger.add(session, 1, None, 0, Terms(retries=1))
    [entry] = ledger.assign(ledger.enlist("host", 1))
    assert session.has_room()
    ledger.finish(session, entry.number, "failed", again_at=lambda delay: 100 + delay)
    assert not session.has_room()
    ledger.cancel(session, 1)
    assert session.has_room()


def test_a_number_that_was_cancelled_may_come_again_with_another_priority():
    """A message that is repeated late: what was cancelled meanwhile is a new job then, and is assigned, once."""
    ledger = Ledger()
    session = ledger.open("client")
    ledger.add(session, 1, "front", 0, Terms(0))
    ledger.add(session, 2, "cancelled", 0, Terms(0))
    ledger.cancel(session, 2)
    ledger.add(session, 2, "again", 0, Terms(5))
    batch = ledger.assign(ledger.enlist("host", 4), 4)
    assert [entry.payload for entry in batch] == ["again", "front"]


def test_a_job_that_was_only_handed_out_is_never_charged():
    ledger, session = filled(1)
    for number in range(10):
        holder = ledger.enlist(number, 1)
        assert len(ledger.assign(holder, 1)) == 1
        assert len(ledger.dismiss(number)) == 1
    [entry] = ledger.assign(ledger.enlist("last", 1), 1)
    assert not entry.deaths
    assert ledger.finish(session, 1, "done")


def test_an_assignment_holds_no_more_bytes_than_fit():
    ledger = Ledger()
    session = ledger.open("client")
    for number in range(1, 11):
        ledger.add(session, number, b"", size=3 << 20)
    batch = ledger.assign(ledger.enlist("host", 4), 10)
    assert [entry.number for entry in batch] == [1, 2]  # the one that passes the bound is the last


def test_one_large_job_is_assigned_all_the_same():
    ledger = Ledger()
    ledger.add(ledger.open("client"), 1, b"", size=1 << 30)
    assert len(ledger.assign(ledger.enlist("host", 1))) == 1


def test_a_delivery_holds_no_more_bytes_than_fit_but_at_least_one_job():
    ledger, session = filled(4)
    for entry in ledger.assign(ledger.enlist("host", 1), 4):
        ledger.finish(session, entry.number, b"x" * 100, size=100)
    sizes = []
    while entries := ledger.collect(session, session.delivery.number, 10, 150).entries:
        sizes.append(len(entries))
    assert sizes == [2, 2]
    assert session.pending == 0


def test_delivered_jobs_count_towards_the_bound_until_they_are_acknowledged():
    ledger, session = filled(5, max_processed=3)
    holder = ledger.enlist("host", 5)
    for entry in ledger.assign(holder, 5):
        ledger.finish(session, entry.number, "done")
    assert session.delivery.entries == []
    first = ledger.collect(session, 0, 2, 1 << 20).number
    assert ledger.assign(holder, 5) == []
    ledger.collect(session, first, 2, 1 << 20)
    assert [entry.number for entry in ledger.assign(holder, 5)] == [4, 5]


def test_two_clients_share_a_limit_however_many_jobs_they_have():
    ledger = Ledger()
    many, few = ledger.open("many"), ledger.open("few")
    for number in range(1, 1001):
        ledger.add(many, number, None)
    for number in range(1, 11):
        ledger.add(few, number, None)
    batch = ledger.assign(ledger.enlist("host", 20), 20)
    assert sum(entry.session is few for entry in batch) >= 6  # the first one may have the rest


def test_quick_jobs_are_assigned_ahead_and_long_ones_are_not():
    ahead = {}
    for seconds in (1e-5, 10.0):
        ledger, session = filled(100_000)
        holder = ledger.enlist("host", 2)
        [entry] = ledger.assign(holder, 1)
        ledger.finish(session, entry.number, None, seconds)
        ahead[seconds] = len(ledger.assign(holder)) - 2
    assert ahead[10.0] == 0
    assert ahead[1e-5] > 100


def test_jobs_that_left_the_line_are_counted_once_however_often_they_come_back():
    """As `Counts.left` says: those that left the waiting line for the first time."""
    ledger, session = filled(3)
    holder = ledger.enlist("host", 1)
    for _ in range(3):
        [entry] = ledger.assign(holder, 1)
        ledger.give_back(holder, [entry])
    assert session.counts.left == 1
    ledger.charge(holder, *ledger.assign(holder, 1), "death")
    ledger.cancel(session, 1)
    assert session.counts.left == 1
    ledger.cancel_waiting(session)
    assert session.counts.left == 3


@pytest.mark.parametrize("collected", [False, True])
def test_a_processed_job_that_is_discarded_is_never_popped(collected):
    ledger, session = filled(2)
    for entry in ledger.assign(ledger.enlist("host", 1), 2):
        ledger.finish(session, entry.number, "done")
    if collected:
        ledger.collect(session, 0, 1, 1 << 20)
    ledger.discard(session, [1])
    numbers = [entry.number for entry in ledger.pop(session, 5)]
    assert numbers == [2]
    assert session.pending == 0
    ledger.collect(session, session.delivery.number, 5, 1 << 20)
    assert session.counts.popped <= 2


def test_cancelled_jobs_do_not_keep_their_payload():
    """A client that adds and cancels for hours must not fill the memory of its master."""
    import gc
    import weakref

    class Payload:
        pass

    ledger = Ledger()
    session = ledger.open("client")
    ledger.add(session, 1, None)  # the front of the line, so that the others are in its middle
    payload = Payload()
    alive = weakref.ref(payload)
    ledger.add(session, 2, payload)
    del payload
    ledger.cancel(session, 2)
    gc.collect()
    assert alive() is None
