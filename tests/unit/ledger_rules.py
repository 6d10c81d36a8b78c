"""What clients do to a ledger, as rules for hypothesis, beside the model that says what must become of it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from papyros.ledger import MAX_DEATHS, MAX_LOSSES, Ledger
from papyros.terms import Terms
from tests.unit.ledger_model import BOUNDS, BYTES, KEYS, SIZES, TERMS, Expected, Host, Stay


class ClientRules(RuleBasedStateMachine):
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
        self.families = 0
        self.orphaned: set[str] = set()  # families that were dropped with their parents, and not told of yet

    def draw_job(self, data, stay, states=("waiting", "assigned", "processed")):
        """A job of the session in one of these states, or None."""
        found = sorted(job.number for job in stay.jobs.values() if job.state in states)
        return stay.jobs[data.draw(st.sampled_from(found), label="job")] if found else None

    def draw_stay(self, data):
        return self.stays[data.draw(st.sampled_from(sorted(self.stays)), label="session")]

    def draw_host(self, data):
        return data.draw(st.sampled_from(sorted(self.hosts)), label="holder")

    # Sessions ---------------------------------------------------------------------------

    @initialize(
        max_processed=BOUNDS, max_processed_bytes=BYTES, jobs=st.lists(st.tuples(TERMS, SIZES), min_size=4, max_size=12)
    )
    def begin(self, max_processed, max_processed_bytes, jobs):
        self.open("red", (None, None, None, None))
        self.open("green", (None, max_processed, None, max_processed_bytes))
        self.enlist("near", 2)
        # Hypothesis leaves out some rules in each example: without any jobs, most of the others would say nothing.
        self.add_jobs("red", jobs, 1)
        self.add_jobs("green", jobs[::2], 1)

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
        # One with jobs that are to be tried again, if there is one, rather often.
        keys = [key for key in sorted(self.stays) if self.stays[key].delayed()] if data.draw(st.booleans()) else []
        key = data.draw(st.sampled_from(keys or sorted(self.stays)))
        stay = self.stays.pop(key)
        self.ledger.drop(key)
        self.ledger.drop(key)  # twice is harmless
        self.stay_ends(key, stay)

    def stay_ends(self, key, stay):
        for other in self.stays.values():
            other.passed_over.pop(key, None)
        self.gone.append(stay)
        for job in stay.jobs.values():
            self.families_end(job)

    # Families ---------------------------------------------------------------------------

    @precondition(lambda self: self.stays and len(self.stays) < 8)
    @rule(data=st.data(), bounds=st.tuples(BOUNDS, BOUNDS, BYTES, BYTES))
    def open_family(self, data, bounds):
        """A job that runs, or that waits again while it runs somewhere still, adds jobs of its own."""
        stay = self.draw_stay(data)
        if data.draw(st.booleans(), label="go deep"):
            stay = max(self.stays.values(), key=lambda each: (bool(each.jobs), each.depth))
        job = self.draw_job(data, stay, ("assigned",)) or self.draw_job(data, stay, ("waiting",))
        if job is not None:
            self.families += 1
            key = f"family {self.families}"
            session = self.ledger.open(key, *bounds, parent=stay.session.entries[job.number])
            self.stays[key] = Stay(session, *bounds, parent=job, client=stay.payer(), depth=stay.depth + 1)
            assert session.client is stay.payer().session
            assert session.depth == stay.depth + 1

    def families_end(self, job):
        """A job is not with its holder any more: its children go, and theirs."""
        for key in [key for key, stay in self.stays.items() if stay.parent is job]:
            if key in self.stays:
                self.orphaned.add(key)
                self.stay_ends(key, self.stays.pop(key))

    @invariant()
    def orphans_are_told_of_once(self):
        told = self.ledger.take_orphans()
        assert {session.key for session, _ in told} == self.orphaned
        assert all(session.dropped for session, _ in told)
        self.orphaned.clear()

    @rule()
    def mend(self):
        """Books that are right are not changed: all that is known of them stays true."""
        self.ledger.mend()

    # Adding and cancelling --------------------------------------------------------------

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), jobs=st.lists(st.tuples(TERMS, SIZES), min_size=1, max_size=4), gap=st.integers(1, 2))
    def add(self, data, jobs, gap):
        self.add_jobs(data.draw(st.sampled_from(sorted(self.stays)), label="session"), jobs, gap)

    def add_jobs(self, key, jobs, gap):
        stay = self.stays[key]
        for terms, size in jobs:
            stay.highest = number = stay.highest + gap
            assert self.ledger.add(stay.session, number, f"payload {number}", size, terms) is True
            stay.jobs[number] = Expected(number, terms, size)
            stay.added += 1

    @precondition(lambda self: any(stay.jobs for stay in self.stays.values()))
    @rule(data=st.data())
    def add_again(self, data):
        """A client that heard no answer repeats itself, whatever became of the job meanwhile."""
        stay = self.draw_stay(data)
        job = self.draw_job(data, stay)
        if job is not None:
            assert self.ledger.add(stay.session, job.number, "again", 7, Terms(5, retries=9)) is False

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), payload_size=SIZES, size=SIZES)
    def add_settled(self, data, payload_size, size):
        stay = self.draw_stay(data)
        stay.highest = number = stay.highest + 1
        self.ledger.settle(stay.session, number, "refused", size, payload_size=payload_size)
        stay.jobs[number] = Expected(number, Terms(), size, "processed", left=True)
        stay.added += 1
        stay.left += 1
        stay.left_bytes += payload_size
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

    @precondition(lambda self: any(stay.jobs for stay in self.stays.values()))
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
        self.families_end(job)

    def leaves_the_line(self, stay, job):
        """It was assigned or cancelled; what counts is the first time."""
        if not job.left:
            stay.left += 1
            stay.left_bytes += job.size
        job.left = True

    # Outcomes ---------------------------------------------------------------------------

    def process(self, stay, job, outcome):
        bound = 1 if job.terms.once else MAX_DEATHS + MAX_LOSSES - 1 + job.terms.retries
        assert job.attempts <= bound, "it ran too often"
        assert job.attempts - job.losses <= MAX_DEATHS + job.terms.retries, "it ran too often"
        self.families_end(job)
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

    @precondition(lambda self: any(stay.processed for stay in self.stays.values()))
    @rule(data=st.data())
    def pop_and_be_interrupted(self, data):
        """A client has the job, but not in its hands: it is the next one to be popped, as if nothing had been."""
        stay = self.draw_stay(data)
        for entry in self.ledger.pop(stay.session):
            self.ledger.put_back(entry, entry.outcome)

    @precondition(lambda self: self.stays)
    @rule(data=st.data(), limit=st.integers(1, 4), most=st.sampled_from([1, 3, 1 << 20]), lost=st.booleans())
    def collect(self, data, limit, most, lost):
        """Deliver over a wire: where the answer was lost, the same batch comes again."""
        stay = self.draw_stay(data)
        if lost and stay.delivered:
            delivery = self.ledger.collect(stay.session, stay.delivery - 1, limit, most)
            assert delivery.number == stay.delivery
            assert [entry.number for entry in delivery.entries] == stay.delivered
            return
        delivery = self.ledger.collect(stay.session, stay.delivery, limit, most)
        self.leave(stay, stay.delivered)
        sizes = [stay.jobs[number].size for number in stay.processed]
        fitting = next((n for n in range(1, limit) if sum(sizes[: n + 1]) > most), limit)
        stay.delivered, stay.processed = stay.processed[:fitting], stay.processed[fitting:]
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
