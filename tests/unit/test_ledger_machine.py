"""The ledger against a model of plain dictionaries and lists, in any order of events that hypothesis finds.

The model does not predict which jobs are assigned; it checks that those which
were may have been: their order, the bounds, the turns, and that none was held back.
"""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from papyros.ledger import MAX_DEATHS, MAX_LOSSES
from papyros.shares import ALONE_SECONDS, LEAST_SECONDS
from tests.unit.ledger_model import BACKOFF, HOLDERS, LIMITS, SIZES, Host
from tests.unit.ledger_rules import ClientRules

pytestmark = pytest.mark.compiled


class LedgerMachine(ClientRules):
    # Holders ----------------------------------------------------------------------------

    @rule(key=HOLDERS, slaves=st.integers(1, 3))
    def enlist(self, key, slaves):
        holder = self.ledger.enlist(key, slaves)
        if key in self.hosts:
            assert holder is self.hosts[key].holder
            self.hosts[key].slaves = slaves
        else:
            self.hosts[key] = Host(holder, slaves)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), places=st.integers(0, 3))
    def lend(self, data, places):
        """Jobs of a holder wait for their children: so many of its slaves can have others beside them."""
        host = self.hosts[self.draw_host(data)]
        host.lent = places
        self.ledger.lend(host.holder, places)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def dismiss(self, data):
        """A slave host goes; what it held waits again, but for what it may have started and nobody may start twice."""
        key = self.draw_host(data)
        held = {(id(stay.session), job.number): (stay, job) for stay, job in self.held_by(key)}
        entries = self.ledger.dismiss(key, "gone")
        assert self.ledger.dismiss(key, "gone") == [], "twice is harmless"
        del self.hosts[key]
        assert {(id(entry.session), entry.number) for entry in entries} == set(held)
        for entry in entries:
            stay, job = held[id(entry.session), entry.number]
            if stay not in self.gone:  # else it was a child of one of those before
                self.come_back(stay, job, started=True)

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
        self.families_end(job)
        if not any(kin.waiting() for kin in self.kin_of(stay)):
            # It goes to the front of the turns, so others may see it once more before it is theirs.
            key = self.key_of(stay.payer())
            for other in self.stays.values():
                if key in other.passed_over:
                    other.passed_over[key] -= 1
        job.state = "waiting"
        job.holder = job.wakes_at = None

    def kin_of(self, stay):
        """All sessions that take the same turns."""
        return [other for other in self.stays.values() if other.payer() is stay.payer()]

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
        held, waiting, moment = len(self.held_by(key)), self.assignable(), self.done_in_a_moment(host)
        self.take_assignment(key, self.ledger.assign(host.holder))
        self.check_share(host, held, waiting, moment, len(self.held_by(key)))

    def assignable(self):
        return sum(stay.assignable() for stay in self.stays.values())

    def done_in_a_moment(self, host):
        """How many jobs a holder's slaves do in so short a time that it is not worth while to part them."""
        stays = [stay.session for stay in self.stays.values() if stay.session.line]
        known = [session.seconds for session in stays if session.seconds is not None]
        alone = not any(other.slaves or other.lent for other in self.hosts.values() if other is not host)
        seconds = ALONE_SECONDS if alone else LEAST_SECONDS
        return host.slaves * seconds / max(1e-6, sum(known) / len(known)) if known else 0

    def check_share(self, host, held, waiting, moment, now):
        places = host.slaves + host.lent
        if held < places:
            assert now >= min(places, held + waiting), "a slave is idle while jobs wait"
        if now > held:
            most = max(waiting / 2, moment)
            assert now - places <= most, "one holder has more ahead than half of what waits, and than it does at once"

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
            assert held >= host.slaves + host.lent or not waiting, "a slave is idle while jobs wait"
        host.delivery = delivery.number
        host.batch = [(entry.session, entry.number) for entry in delivery.entries]
        self.take_assignment(key, list(delivery.entries))

    def take_assignment(self, key, batch):
        """Check that this batch is what may have been assigned, and note it."""
        by_session = {id(stay.session): stay for stay in self.stays.values()}
        for session_id, turn in groupby(batch, key=lambda entry: id(entry.session)):
            stay = by_session[session_id]
            deeper = [kin for kin in self.kin_of(stay) if kin.depth > stay.depth and kin.assignable()]
            assert not deeper, "the children of a job had to wait for those that are above them"
            self.take_turn(self.key_of(stay.payer()))
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
            if other_key != key and other.client is None and any(kin.assignable() for kin in self.kin_of(other)):
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

    @precondition(lambda self: any(stay.assigned() for stay in self.stays.values()))
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

    @precondition(lambda self: any(stay.assigned() for stay in self.stays.values()))
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
        running = [(stay, job) for stay in self.stays.values() for job in stay.assigned()]
        if running and data.draw(st.sampled_from([True, True, True, False]), label="of one that runs"):
            stay, job = data.draw(st.sampled_from(running))
            number = job.number
        else:
            stay = self.draw_stay(data)
            number = data.draw(st.integers(1, stay.highest + 1), label="number")
            job = stay.jobs.get(number)
        if job is not None and job.state == "waiting" and not job.assigned_once:
            return  # nobody could have run it
        told_by = data.draw(st.sampled_from([None, job and job.holder, *sorted(self.hosts)]), label="told by")
        self.take_outcome(stay, number, seconds, size, failed, told_by)

    @precondition(lambda self: self.hosts and self.stays)
    @rule(data=st.data(), limit=st.integers(1, 4), failed=st.lists(st.booleans(), min_size=4, max_size=4))
    def work(self, data, limit, failed):
        """A holder runs what it gets: the way of most jobs, which single rules seldom go to its end."""
        key = self.draw_host(data)
        self.take_assignment(key, self.ledger.assign(self.hosts[key].holder, limit))
        for (stay, job), fails in zip(self.held_by(key)[-limit:], failed, strict=False):
            if job.state == "assigned" and stay not in self.gone:  # else it was a child of one of those before
                self.take_outcome(stay, job.number, 0.01, 2, fails, key)

    def take_outcome(self, stay, number, seconds, size, failed, told_by):
        job = stay.jobs.get(number)
        self.outcomes += 1
        outcome = f"outcome {self.outcomes}"
        delays = []

        def again_at(delay):
            delays.append(delay)
            return self.now + delay

        holder = self.hosts[told_by].holder if told_by else None
        accepted = self.ledger.finish(
            stay.session, number, outcome, seconds, size, again_at if failed else None, holder
        )
        unfinished = job is not None and job.state != "processed"
        again = failed and unfinished and job.failures < job.terms.retries
        elsewhere = unfinished and (job.state != "assigned" or told_by not in (None, job.holder))
        if failed and elsewhere and job.terms.retries:
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
        self.families_end(job)
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
        woken = self.ledger.wake(self.now)
        for stay, job in sorted(due, key=lambda pair: self.delays[id(pair[1])]):
            if stay not in self.gone:  # else it was a child of one of those before, and went with it
                woken -= 1
                self.wait_again(stay, job)
        assert woken == 0

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def finish_of_a_session_that_is_gone(self, data):
        stay = data.draw(st.sampled_from(self.gone))
        number = data.draw(st.integers(1, stay.highest + 1))
        assert self.ledger.finish(stay.session, number, "too late", again_at=lambda delay: self.now + delay) is False

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
            assert (counts.left, counts.left_bytes) == (stay.left, stay.left_bytes)
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
            if not any(kin.assignable() for kin in self.kin_of(stay)):
                stay.passed_over.clear()

    @invariant()
    def nobody_sleeps_through_the_end_of_a_delay(self):
        moments = [job.wakes_at for stay in self.stays.values() for job in stay.delayed()]
        if moments:
            # It may come earlier, for a job that was cancelled meanwhile.
            assert self.ledger.next_wake() <= min(moments)

    @invariant()
    def nothing_is_delayed_but_what_somebody_waits_for(self):
        delayed = {(stay.session.key, job.number) for stay in self.stays.values() for job in stay.delayed()}
        assert {(entry.session.key, entry.number) for entry in self.ledger._delays} == delayed

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
