"""What a master keeps of its clients is bounded, whatever they do or leave undone: with small bounds, no network."""

from __future__ import annotations

import dataclasses

import pytest
from Pyro5.callcontext import current_context

from papyros.distributed import desk as desk_module
from papyros.distributed import early as early_module
from papyros.distributed import guests as guests_module
from papyros.distributed import service as service_module
from papyros.distributed.batches import (
    AddedJob,
    HostReport,
    JobOutcome,
    pack_added,
    pack_numbers,
    pack_report,
    unpack_host_jobs,
)
from papyros.distributed.bells import Ticket
from papyros.distributed.messages import ANNOTATION
from papyros.distributed.seals import ticket_of
from papyros.encoded import encode_outcome
from papyros.outcome import Outcome
from papyros.terms import Terms
from tests.contract.jobs_for_tests import double
from tests.unit.test_service import SEAL, Caller

KB = 1000


@pytest.fixture
def caller(monkeypatch):
    monkeypatch.setattr(desk_module, "SESSION_BYTES", 10 * KB)
    monkeypatch.setattr(early_module, "EARLY_BYTES", 10 * KB)
    caller = Caller()
    yield caller
    caller.service.close()


@dataclasses.dataclass
class Client:
    """A client that adds jobs one by one, as long as they are taken."""

    caller: Caller
    name: str
    terms: Terms = dataclasses.field(default_factory=Terms)
    sequence: int = 0
    acknowledged: int = 0

    def __post_init__(self):
        self.caller.call("join", self.name)

    @property
    def session(self):
        return self.caller.desk.clients[self.name].session

    def add(self, size):
        """Try to add one more job; return whether the master took it. What is not taken is said again."""
        job = AddedJob(self.sequence + 1, bytes(16), bytes(size), self.terms, SEAL)
        answer = self.caller.call("add", self.name, self.sequence + 1, 0.0, message=pack_added([job]))
        self.sequence += answer["accepted"]
        return answer["accepted"]

    def add_all(self, size, most=1000):
        """Add jobs until the master takes no more; return how many it took."""
        return next((number for number in range(most) if not self.add(size)), most)

    def collect(self):
        answer = self.caller.call("collect", self.name, self.acknowledged, False, 0.0)
        self.acknowledged = answer["number"]
        return answer["count"]


class Host:
    """A slave host whose slaves take no time."""

    def __init__(self, caller, slaves=1, name="host"):
        self.caller = caller
        self.name = name
        self.answer = caller.call("enlist", name, slaves)
        self.sequence = self.acknowledged = 0

    def fetch(self):
        answer = self.caller.call("fetch", self.name, self.acknowledged, 0, 0.0)
        self.acknowledged = answer["number"]
        return list(unpack_host_jobs(memoryview(self.caller.batch))) if answer["count"] else []

    def report(self, jobs, outcome):
        """Say that all of these jobs, each a session and a number, have this outcome."""
        self.sequence += 1
        done = [JobOutcome(session, number, outcome, 0.01, "lab/1", ticket_of(SEAL), SEAL) for session, number in jobs]
        message = pack_report(HostReport.empty()._replace(outcomes=done))
        uid, stay = self.answer["uid"], self.answer["stay"]
        assert self.caller.call("report", self.name, self.sequence, uid, stay, message=message)["taken"]

    def work_off(self, outcome, rounds=1000):
        """Run jobs until there are no more to be had; return how many."""
        count = 0
        for _ in range(rounds):
            jobs = self.fetch()
            if not jobs:
                return count
            self.report([(job.session, job.number) for job in jobs], outcome)
            count += len(jobs)
        raise AssertionError(f"there is no end to it after {count} jobs")


def test_jobs_without_slaves_wait_at_the_client_when_the_master_has_enough_of_them(caller):
    client = Client(caller, "client")
    assert client.add_all(KB) == 10
    assert client.session.line.size == 10 * KB
    other = Client(caller, "other")
    assert other.add(KB), "what one client has does not keep another one's waiting"


def test_there_is_room_for_another_waiting_job_when_one_was_assigned(caller):
    client = Client(caller, "client")
    client.add_all(KB)
    assert len(Host(caller).fetch()) == 1
    assert client.add_all(KB) == 1


def test_tiny_jobs_are_bounded_by_their_number(caller, monkeypatch):
    monkeypatch.setattr(desk_module, "SESSION_JOBS", 50)
    client = Client(caller, "client")
    assert client.add_all(1) == 50


def test_jobs_that_wait_for_their_next_try_take_room(caller):
    """They have left the line, and so could let in others without end."""
    job = double(1)
    job.retries = 5
    failed = encode_outcome(Outcome.failed(ConnectionError("not now")), job)
    client = Client(caller, "client", Terms(retries=5, backoff=1000.0))
    host = Host(caller)
    count = 0
    while client.add(KB):
        count += host.work_off(failed)
        assert count <= 10
    assert client.session.delayed == 10


@pytest.mark.parametrize("collects", [False, True], ids=["never collects", "never says that it has what it collected"])
def test_results_of_a_client_that_does_not_take_them_keep_its_jobs_from_being_assigned(caller, collects):
    client, other, host = Client(caller, "client"), Client(caller, "other"), Host(caller)
    count = 0
    for _ in range(100):
        client.add(10)
        count += host.work_off(bytes(KB))
        if collects:
            client.collect()
            client.acknowledged = 0
    assert 10 <= count <= 10 + 2, "those that were assigned by then still come"
    assert client.session.processed_bytes == count * KB
    other.add(10)
    assert host.work_off(bytes(KB)) == 1, "another client's are assigned"


def test_jobs_are_assigned_again_when_results_were_collected(caller):
    client, host = Client(caller, "client"), Host(caller)
    client.add_all(10, 100)
    while count := host.work_off(bytes(KB)):
        assert count <= 12
        while client.collect():
            pass
    assert client.session.entries == {}
    assert client.session.processed_bytes == 0


class Parked:
    """A call that waits for its answer."""

    def __init__(self, waiting):
        self._attempt = waiting.attempt
        self.rung = False
        ticket = self._attempt(False)
        assert isinstance(ticket, Ticket)
        ticket.then(self._ring)

    def _ring(self):
        self.rung = True

    def answer(self):
        """Try again, since the bell has rung."""
        assert self.rung
        answer = self._attempt(False)
        assert not isinstance(answer, Ticket)
        return answer


@pytest.mark.parametrize("way", ["collects", "drops"])
def test_a_slave_host_that_waits_is_woken_when_there_is_room_for_results_again(caller, way):
    """A single result had taken all of it; what said that it has come had nothing to be answered, and woke nobody."""
    client, host = Client(caller, "client"), Host(caller)
    for _ in range(3):
        client.add(10)
    host.report([(job.session, job.number) for job in host.fetch()], bytes(20 * KB))
    waiting = Parked(caller.service.fetch("host", host.acknowledged, 0, 10.0))
    if way == "collects":
        assert client.collect() == 1
        assert not waiting.rung, "it may have to come again"
        assert client.collect() == 0
    else:
        caller.call("drop", "client", message=pack_numbers([1]))
    assert waiting.answer()["count"] == 1


@pytest.mark.parametrize("what", ["add", "collect"])
def test_a_client_hears_that_there_is_room_when_jobs_that_wait_are_dropped(caller, what):
    client = Client(caller, "client")
    number = client.add_all(KB)
    if what == "add":
        current_context.annotations = {
            ANNOTATION: pack_added([AddedJob(number + 1, bytes(16), bytes(KB), Terms(), SEAL)])
        }
        waiting = Parked(caller.service.add("client", number + 1, 10.0))
    else:
        waiting = Parked(caller.service.collect("client", 0, True, 10.0))
    caller.call("drop", "client", message=pack_numbers([1, 2]))
    answer = waiting.answer()
    assert answer.get("accepted", True)
    assert answer["left"][:2] == (2, 2 * KB)


def test_a_client_hears_again_of_room_when_the_answer_that_told_it_was_lost(caller):
    client, host = Client(caller, "client"), Host(caller)
    client.add(KB)
    host.fetch()
    assert caller.call("collect", "client", 0, True, 10.0)["left"][:2] == (1, KB)
    Parked(caller.service.collect("client", 0, True, 10.0))
    caller.call("join", "client")  # on another connection
    answer = caller.service.collect("client", 0, True, 10.0).attempt(False)
    assert answer["left"][:2] == (1, KB)


def test_tiny_results_are_bounded_by_their_number(caller, monkeypatch):
    monkeypatch.setattr(desk_module, "SESSION_JOBS", 50)
    client, host = Client(caller, "client"), Host(caller)
    count = 0
    for _ in range(100):
        client.add(1)
        count += host.work_off(b"")
    assert count == 50


def test_outcomes_that_come_before_their_client_are_bounded_and_what_is_dropped_runs_again(caller):
    host = Host(caller)
    for number in range(1, 21):
        host.report([("client", number)], bytes(KB))
    assert caller.desk._early.size == 10 * KB
    host.report([("client", 1)], bytes(KB))  # said again
    assert caller.desk._early.size == 10 * KB
    client = Client(caller, "client")
    assert client.add_all(10, 20) == 20
    assert caller.desk._early.size == 0
    assert len(client.session.processed) == 10
    assert len(client.session.line) == 10


def test_a_job_whose_outcome_was_here_before_it_takes_the_room_of_that_and_none_in_the_line(caller):
    """A client that bounds the bytes of its waiting jobs would count it as one of them for good."""
    Host(caller).report([("client", 1)], bytes(3 * KB))
    client = Client(caller, "client")
    assert client.add(2 * KB)
    assert client.session.processed_bytes == 3 * KB
    jobs, size, _ = caller.call("collect", "client", 0, True, 0.0)["left"]
    assert (jobs, size) == (1, 2 * KB)


def test_what_is_kept_takes_no_more_memory_than_it_is_counted_with(caller):
    """Small payloads that came beside large ones once kept all of the message, long after the others had left."""
    client, other = Client(caller, "client"), Client(caller, "other")
    jobs = [AddedJob(number, bytes(16), bytes(size), Terms(), SEAL) for number, size in ((1, 2 * KB), (2, 90 * KB))]
    assert caller.call("add", "client", 1, 0.0, message=pack_added(jobs))["accepted"]
    small, large = (client.session.entries[number].payload[1] for number in (1, 2))
    assert (type(small), len(small)) == (bytes, 2 * KB)
    assert type(large) is memoryview, "it is most of the message, and is not copied"
    assert other.add(10)
    host = Host(caller, slaves=3)
    done = []
    for job in host.fetch():
        result = b"R" + bytes(90 * KB if job.number == 2 else 2 * KB)
        done.append(JobOutcome(job.session, job.number, result, 0.0, "lab/1", ticket_of(SEAL)))
    report = pack_report(HostReport.empty()._replace(outcomes=done))
    caller.call("report", "host", 1, host.answer["uid"], host.answer["stay"], message=report)
    outcomes = [
        session.entries[n].outcome.outcome
        for session, n in ((client.session, 1), (client.session, 2), (other.session, 1))
    ]
    assert list(map(type, outcomes)) == [bytes, memoryview, bytes]


def test_outcomes_of_clients_that_never_come_are_dropped_after_the_grace_time(caller, monkeypatch):
    host = Host(caller)
    for number in range(20):
        host.report([("client", number)], bytes(KB))
    now = caller.desk.clock()
    monkeypatch.setattr(caller.desk, "clock", lambda: now + caller.desk.grace + 1)
    caller.desk._swept = now + caller.desk.grace  # it did not sleep
    caller.service.sweep()
    assert not caller.desk._early
    assert caller.desk._early.size == 0


def test_slaves_of_a_host_that_never_answers_are_there_all_the_same(caller, monkeypatch):
    now = caller.desk.clock()
    caller.call("enlist", "host", 2)
    caller.desk.ask()
    assert [(slave.ready, slave.silent) for slave in caller.desk.status("").slaves] == [(False, 0.0)] * 2
    monkeypatch.setattr(caller.desk, "clock", lambda: now + 5)
    assert [round(slave.silent) for slave in caller.desk.status("").slaves] == [5, 5]
    caller.call("tell", "host", caller.desk.question, [["mars/17", "", 0, 0.0, 0, True]])
    assert [(slave.name, slave.silent) for slave in caller.desk.status("").slaves] == [("mars/17", 0.0)]


def test_jobs_that_a_host_has_ahead_since_it_has_fewer_slaves_go_to_an_idle_one_that_waits(caller):
    client = Client(caller, "client")
    busy, idle = Host(caller, 4, "busy"), Host(caller, 2, "idle")
    client.add_all(KB, most=4)
    assert len(busy.fetch()) == 4
    waiting = caller.desk.hosts["idle"].work.ticket()
    rung = []
    waiting.then(lambda: rung.append("idle"))
    caller.desk.hosts["busy"].sequence = 1  # it has reported something since
    caller.call("enlist", "busy", 1)
    assert rung == ["idle"]
    assert idle.fetch() == []
    assert caller.desk.hosts["busy"].surplus == 2


def test_slave_hosts_that_are_silent_are_counted_and_those_that_leave_are_not(caller, monkeypatch):
    now = caller.desk.clock()
    caller.call("enlist", "leaves", 1)
    caller.call("enlist", "dies", 1)
    caller.call("retire", "leaves")
    monkeypatch.setattr(caller.desk, "clock", lambda: now + caller.desk.lease + 1)
    caller.desk._swept = now + caller.desk.lease  # it did not sleep
    caller.service.sweep()
    assert caller.desk.hosts == {}
    assert caller.desk.status("").hosts_lost == 1


def test_answers_to_cancellations_are_bounded_by_the_number_of_jobs_in_them(caller, monkeypatch):
    monkeypatch.setattr(guests_module, "MAX_TICKET_JOBS", 100)
    client = Client(caller, "client")
    for ticket in range(1, 31):
        client.add_all(1, 10)
        caller.call("cancel", "client", True, ticket)
    kept = caller.desk.clients["client"].cancelled
    assert list(kept) == list(range(21, 31)), "the newest, which may be asked for again"
    client.add_all(1, 300)
    caller.call("cancel", "client", True, 31)
    assert {ticket: len(numbers) for ticket, numbers in kept.items()} == {31: 300}, "the last one, however large"


def test_prints_of_a_client_that_does_not_collect_are_bounded(caller):
    client, host = Client(caller, "client"), Host(caller)
    client.add(1)
    host.fetch()
    for number in range(30):
        report = HostReport.empty()._replace(prints=[("client", 1, "lab/1", f"{number} ".ljust(100 * KB))])
        host.sequence += 1
        uid, stay = host.answer["uid"], host.answer["stay"]
        caller.call("report", "host", host.sequence, uid, stay, message=pack_report(report))
    desk = caller.desk.clients["client"]
    assert sum(len(text) for *_, text in desk.prints) < desk.printed
    assert 7 * guests_module.PRINT_CHARACTERS // 8 <= desk.printed <= guests_module.PRINT_CHARACTERS
    assert desk.prints[-1][2].startswith("29 ")
    assert service_module.COLLECT_BYTES > guests_module.PRINT_CHARACTERS, "all of it fits into an answer"
