"""What a master makes of calls that come again, without a network and in one thread."""

from __future__ import annotations

import json
from array import array

import pytest
from Pyro5.callcontext import current_context

from papyros.bundles import cut_off, death
from papyros.bundles import outcomes as tell_outcomes
from papyros.distributed import batches as batches_module
from papyros.distributed import desk as desk_module
from papyros.distributed import service as service_module
from papyros.distributed.batches import (
    AddedJob,
    HostReport,
    JobOutcome,
    pack_added,
    pack_definitions,
    pack_numbers,
    pack_report,
    unpack_definitions,
    unpack_host_jobs,
    unpack_outcomes,
)
from papyros.distributed.bells import Ticket, Waiting
from papyros.distributed.messages import ANNOTATION, joined
from papyros.distributed.outbox import ended_in
from papyros.distributed.seals import SEAL_BYTES, ticket_of
from papyros.distributed.service import MasterService
from papyros.encoded import asks_for_retry, encode_outcome
from papyros.frames import pack_message, unpack_message
from papyros.outcome import Outcome
from papyros.terms import Terms
from tests.contract.jobs_for_tests import double
from tests.support import refuse_threads, wait_until

SEAL = bytes(SEAL_BYTES)


class Caller:
    def __init__(self):
        self.service = MasterService("unit")

    def call(self, method, *arguments, message=b"", line=None):
        """Call a method, on a `line` of which notes are kept, or else on one of its own."""
        current_context.annotations = {ANNOTATION: message}
        current_context.client = line
        current_context.response_annotations = {}
        self.batch = b""
        try:
            answer = getattr(self.service, method)(*arguments)
            answer = answer.attempt(True) if isinstance(answer, Waiting) else answer
            self.batch = joined(current_context.response_annotations.get(ANNOTATION, b""))
            return answer
        finally:
            current_context.client = None
            current_context.annotations = {}
            current_context.response_annotations = {}

    @property
    def desk(self):
        return self.service._desk


@pytest.fixture
def caller():
    caller = Caller()
    yield caller
    caller.service.close()


def test_a_death_is_charged_once_though_its_report_comes_again_after_the_host_was_given_up(caller):
    """The answer to the report was lost, and the host was given the same job again in the meantime."""
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(), SEAL)]))
    first = caller.call("enlist", "host", 1)
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 1
    report = pack_report(HostReport.empty()._replace(deaths=[("client", 1, "slave lab/1 was killed")]))
    assert caller.call("report", "host", 1, first["uid"], first["stay"], message=report)["taken"]
    entry = caller.desk.clients["client"].session.entries[1]
    assert entry.deaths == ["slave lab/1 was killed"]
    with caller.desk.lock:
        caller.desk.dismiss_host("host", "it was silent")
    second = caller.call("enlist", "host", 1)
    assert second["stay"] != first["stay"]
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 1
    assert caller.call("report", "host", 1, first["uid"], first["stay"], message=report)["taken"]
    assert len(entry.deaths) == 1
    assert entry.state == "assigned", "the host has it, and runs it"
    caller.call("report", "host", 2, first["uid"], second["stay"], message=report)
    assert len(entry.deaths) == 2, "of this stay it is another death"


def test_a_failure_counts_once_though_its_report_comes_again_after_the_host_was_given_up(caller):
    """The answer to the report was lost, and the host claims what is in it, since it does not know any better."""
    caller.call("join", "client")
    job = AddedJob(1, bytes(16), b"x", Terms(retries=1), SEAL)
    caller.call("add", "client", 1, 0.0, message=pack_added([job]))
    first = caller.call("enlist", "host", 1)
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 1
    failed = JobOutcome("client", 1, failure(), 0.0, "lab/1", ticket_of(SEAL), SEAL)
    report = pack_report(HostReport.empty()._replace(outcomes=[failed]))
    caller.call("report", "host", 1, first["uid"], first["stay"], message=report)
    with caller.desk.lock:
        caller.desk.dismiss_host("host", "it was silent")
    second = caller.call("enlist", "host", 1)
    caller.call("claim", "host", [], 1, [["client", 1]])
    caller.call("report", "host", 1, second["uid"], first["stay"], message=report)
    entry = caller.desk.clients["client"].session.entries[1]
    assert entry.failures == 1
    assert entry.state == "waiting", "for its second try"


def test_a_claim_that_comes_after_a_later_report_counts_for_nothing(caller):
    """What it claims has ended by then, and its host does not have it any more: it would wait there for ever."""
    host = caller.call("enlist", "host", 1)
    caller.call("claim", "host", [["client", 1]], 1, [])
    failed = JobOutcome("client", 1, failure(), 0.0, "lab/1", ticket_of(SEAL), SEAL)
    report = pack_report(HostReport.empty()._replace(outcomes=[failed]))
    caller.call("report", "host", 2, host["uid"], host["stay"], message=report)
    caller.call("claim", "host", [["client", 1]], 1, [])
    caller.call("join", "client")
    job = AddedJob(1, bytes(16), b"x", Terms(retries=1), SEAL)
    caller.call("add", "client", 1, 0.0, message=pack_added([job]))
    assert caller.desk.clients["client"].session.entries[1].state == "waiting"


def added(*numbers):
    return pack_added([AddedJob(number, bytes(16), b"x", Terms(), SEAL) for number in numbers])


@pytest.fixture
def came_back(caller):
    """A client was given up, and has come back; the lines of both of its stays."""
    former, line = {}, {}
    caller.call("join", "client", line=former)
    for number in (1, 2, 3):
        assert caller.call("add", "client", number, 0.0, message=added(number), line=former)["accepted"]
    with caller.desk.lock:
        caller.desk.drop_client("client")
    caller.call("join", "client", line=line)
    return former, line


def test_what_is_added_on_a_line_of_a_former_stay_comes_too_late(caller, came_back):
    """It has been under way for longer than the grace time, and its client has begun to count anew."""
    former, line = came_back
    assert not caller.call("add", "client", 4, 0.0, message=added(4), line=former)["known"]
    for number in (1, 2):
        assert caller.call("add", "client", number, 0.0, message=added(number), line=line)["accepted"]
    assert list(caller.desk.clients["client"].session.entries) == [1, 2]
    again = {}
    caller.call("join", "client", line=again)
    assert caller.call("add", "client", 2, 0.0, message=added(2), line=again)["known"], "a repetition, on the next line"
    assert caller.call("add", "client", 3, 0.0, message=added(3), line=again)["accepted"]
    assert list(caller.desk.clients["client"].session.entries) == [1, 2, 3]


def test_what_waits_for_room_is_not_added_to_another_stay(caller, monkeypatch):
    monkeypatch.setattr(desk_module, "SESSION_JOBS", 1)
    former = {}
    caller.call("join", "client", line=former)
    caller.call("add", "client", 1, 0.0, message=added(1), line=former)
    current_context.client, current_context.annotations = former, {ANNOTATION: added(2)}
    waiting = caller.service.add("client", 2, 1.0)
    current_context.client, current_context.annotations = None, {}
    assert isinstance(waiting.attempt(False), Ticket)
    with caller.desk.lock:
        caller.desk.drop_client("client")
    caller.call("join", "client", line={})
    assert not waiting.attempt(False)["known"]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("cancel", (True, 1)),
        ("cancel", (False, 1)),
        ("drop", ()),
        ("collect", (100, False, 0.0)),
        ("define", ({},)),
        ("share", ("00" * 32, 1, 0)),
        ("unshare", ()),
        ("assigned", (1,)),
    ],
)
def test_what_was_meant_for_a_former_stay_changes_nothing_in_another(caller, came_back, method, arguments):
    former, line = came_back
    caller.call("add", "client", 1, 0.0, message=added(1, 2), line=line)
    [entry, _] = caller.desk.clients["client"].session.entries.values()
    assert report(caller, 1, b"Rresult")
    assert caller.call("collect", "client", 0, False, 0.0, line=line)["count"] == 1
    message = {"cancel": pack_numbers([1, 2]), "drop": pack_numbers([1, 2]), "define": pack_definitions({})}.get(method)
    assert caller.call(method, "client", *arguments, message=message or b"", line=former) == {"known": False}
    assert list(caller.desk.clients["client"].session.entries) == [1, 2]
    assert entry.state == "processed"


def failure():
    job = double(1)
    job.retries = 1
    failed = encode_outcome(Outcome.failed(ValueError()), job)
    assert asks_for_retry(failed)
    return failed


def outcome(number, size):
    return JobOutcome("client", number, bytes(size), 0.0, "lab/1", ticket_of(SEAL), SEAL)


def test_an_answer_is_no_larger_than_a_message_may_be(caller, monkeypatch):
    """One large outcome fills a message: neither other outcomes nor prints go with it."""
    monkeypatch.setattr(service_module, "COLLECT_BYTES", 1000)
    jobs = [AddedJob(number, bytes(16), b"x", Terms(), SEAL) for number in range(1, 5)]
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added(jobs))
    host = caller.call("enlist", "host", 4)
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 4
    report = HostReport.empty()._replace(
        outcomes=[outcome(1, 400), outcome(2, 500), outcome(3, 5000), outcome(4, 10)],
        prints=[("client", 4, "lab/1", "hello")],
    )
    assert caller.call("report", "host", 1, host["uid"], host["stay"], message=pack_report(report))["taken"]
    answers, number = [], 0
    for _ in range(4):
        answer = caller.call("collect", "client", number, False, 0.0)
        number = answer["number"]
        prints, encoded = unpack_message(memoryview(caller.batch)) if answer["news"] else (b"[]", None)
        outcomes = [len(done.outcome) for done in unpack_outcomes(encoded)] if encoded is not None else []
        answers.append((outcomes, [text for *_, text in json.loads(bytes(prints))]))
    assert answers == [([400, 500], ["hello"]), ([5000], []), ([10], []), ([], [])]


def test_prints_wait_for_an_answer_that_has_room(caller, monkeypatch):
    monkeypatch.setattr(service_module, "COLLECT_BYTES", 1000)
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(), SEAL)]))
    host = caller.call("enlist", "host", 1)
    caller.call("fetch", "host", 0, 0, 0.0)
    report = HostReport.empty()._replace(outcomes=[outcome(1, 5000)], prints=[("client", 1, "lab/1", "hello")])
    caller.call("report", "host", 1, host["uid"], host["stay"], message=pack_report(report))
    first = caller.call("collect", "client", 0, False, 0.0)
    assert first["count"] == 1
    assert json.loads(bytes(unpack_message(memoryview(caller.batch))[0])) == []
    second = caller.call("collect", "client", first["number"], False, 0.0)
    assert second["count"] == 0
    assert second["news"]
    assert "hello" in bytes(unpack_message(memoryview(caller.batch))[0]).decode()


def test_jobs_that_are_fetched_fit_into_a_message(caller):
    sizes = [1 << 20, 2 << 20, 9 << 20, 1 << 20]
    jobs = [AddedJob(number, bytes(16), bytes(size), Terms(), SEAL) for number, size in enumerate(sizes, 1)]
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added(jobs))
    caller.call("enlist", "host", 8)
    fetched, number = [], 0
    for _ in range(3):
        number = caller.call("fetch", "host", number, 0, 0.0)["number"]
        fetched.append([len(job.blob) >> 20 for job in unpack_host_jobs(memoryview(caller.batch))])
    assert fetched == [[1, 2], [9], [1]]


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        ([], [[]]),
        ([3, 3, 3], [[3, 3], [3]]),
        ([1, 20, 5], [[1], [20], [5]]),
        ([20], [[20]]),
        ([8, 20, 8], [[8], [20], [8]]),
    ],
)
def test_a_report_is_split_into_messages_and_nothing_of_it_is_lost(sizes, messages):
    report = HostReport(
        [outcome(number, size) for number, size in enumerate(sizes)],
        [("client", 90, "died")],
        [("client", 91, "")],
        [("client", 92, "lab/1", "hello")],
        [2],
        [True],
    )
    parts, rest = [], report
    while any(rest):
        part, rest = rest.split(8)
        parts.append(part)
    told = [[len(done.outcome) for done in part.outcomes] for part in parts]
    assert [sizes for sizes in told if sizes] == [sizes for sizes in messages if sizes]
    for position in range(len(report)):
        assert [item for part in parts for item in part[position]] == report[position]
    for part in parts:
        if sum(len(done.outcome) for done in part.outcomes) > 8:
            assert len(part.outcomes) == 1
            assert not any(part[1:]), "it may fill a message all by itself"


@pytest.mark.parametrize(("ended", "more"), [(0, 0), (20, 19)])
def test_jobs_that_have_ended_keep_no_others_from_slaves_that_have_nothing_to_do(caller, ended, more):
    """Slaves gather outcomes: to their master, they seem to have all that they have not told of."""
    caller.call("join", "client")
    jobs = [AddedJob(number, bytes(16), b"x", Terms(), SEAL) for number in range(1, 61)]
    caller.call("add", "client", 1, 0.0, message=pack_added(jobs))
    host = caller.call("enlist", "host", 2)
    assert caller.call("enlist", "another", 0)["known"] is False
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 2
    for number, (told, count) in enumerate([(0, 21), (ended, more)], 1):
        done = JobOutcome("client", number, b"R", 0.06, "lab/1", ticket_of(SEAL), SEAL)
        report = pack_report(HostReport.empty()._replace(outcomes=[done]))
        assert caller.call("report", "host", number, host["uid"], host["stay"], told, message=report)["taken"]
        assert caller.call("fetch", "host", number, 0, 0.0)["count"] == count


def test_who_has_nothing_to_do_is_asked_when_it_is_known_what_a_report_says_of_that(caller):
    """What a host gives back is for one that has none, though it had said before that most of its own had ended."""

    def wait(name, acknowledged):
        current_context.annotations = {}
        assert isinstance(caller.service.fetch(name, acknowledged, 0, 1.0).attempt(False), Ticket)

    caller.call("join", "client")
    jobs = [AddedJob(number, bytes(16), b"x", Terms(), SEAL) for number in range(1, 31)]
    caller.call("add", "client", 1, 0.0, message=pack_added(jobs))
    busy = caller.call("enlist", "busy", 2)

    def report(number, ended, **told):
        message = pack_report(HostReport.empty()._replace(**told))
        assert caller.call("report", "busy", number, busy["uid"], busy["stay"], ended, message=message)["taken"]

    def outcomes(*numbers):
        return [JobOutcome("client", number, b"R", 0.001, "lab/1", ticket_of(SEAL), SEAL) for number in numbers]

    caller.call("fetch", "busy", 0, 0, 0.0)
    for number in (1, 2):
        report(number, 20, outcomes=outcomes(number))
        caller.call("fetch", "busy", number, 0, 0.0)
    assert not caller.desk.ledger.anything_waits()
    caller.call("enlist", "idle", 1)
    wait("idle", 0)
    assert caller.call("fetch", "busy", 3, 0, 0.0)["surplus"]  # some of what it has is asked back for the other one
    wait("busy", 3)
    report(3, 0, outcomes=outcomes(*range(3, 23)), returned=[("client", 30, "")])
    assert not caller.desk.hosts["idle"].work.awaited
    assert caller.call("fetch", "idle", 0, 0, 0.0)["count"] == 1


def test_children_of_a_job_that_waits_are_stopped_when_all_that_wait_are_cancelled(caller):
    """It runs on a host that has not claimed it from this master yet, and its children came before."""
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(), SEAL)]))
    assert caller.call("join", "family", ["client", 1])["known"]
    caller.call("cancel", "client", True, 1)
    child = pack_added([AddedJob(1, bytes(16), b"x", Terms(), SEAL)])
    assert not caller.call("add", "family", 1, 0.0, message=child)["known"]
    caller.call("enlist", "host", 1)
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 0
    assert list(caller.desk.clients) == ["client"]


def test_children_of_a_job_that_waits_for_its_next_try_are_stopped_when_that_comes(caller, monkeypatch):
    """A run of it that was given up lives on, and found the master again: its children were let in meanwhile."""
    caller.call("join", "client")
    terms = Terms(retries=1, backoff=1000.0)
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", terms, SEAL)]))
    host = caller.call("enlist", "host", 1)
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 1
    failed = JobOutcome("client", 1, failure(), 0.0, "lab/1", ticket_of(SEAL), SEAL)
    message = pack_report(HostReport.empty()._replace(outcomes=[failed]))
    caller.call("report", "host", 1, host["uid"], host["stay"], message=message)
    assert caller.call("join", "family", ["client", 1])["known"]
    now = caller.desk.clock()
    monkeypatch.setattr(caller.desk, "clock", lambda: now + 1001)
    caller.desk._wake_delayed()
    child = pack_added([AddedJob(1, bytes(16), b"x", Terms(), SEAL)])
    assert not caller.call("add", "family", 1, 0.0, message=child)["known"]
    assert list(caller.desk.clients) == list(caller.desk.ledger.sessions) == ["client"]
    assert caller.call("fetch", "host", 1, 0, 0.0)["count"] == 1


def test_a_job_whose_client_is_not_there_keeps_nobody_from_fetching(caller):
    """Whatever has come of it: the jobs of others were assigned with it, and nobody else would get them."""
    for name in ("client", "other"):
        caller.call("join", name)
        caller.call("add", name, 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(), SEAL)]))
    caller.call("enlist", "host", 2)
    del caller.desk.clients["client"]
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 2


def test_a_job_is_tried_again_though_there_was_no_thread_for_the_alarm_when_it_failed(caller, monkeypatch):
    """If no other one failed, it waited for good."""
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(retries=1), SEAL)]))
    host = caller.call("enlist", "host", 1)
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 1
    failed = JobOutcome("client", 1, failure(), 0.0, "lab/1", ticket_of(SEAL), SEAL)
    message = pack_report(HostReport.empty()._replace(outcomes=[failed]))
    with monkeypatch.context() as patch:
        refuse_threads(patch, "papyros-alarm")
        caller.call("report", "host", 1, host["uid"], host["stay"], message=message)
    assert caller.desk.clients["client"].session.delayed
    caller.service.sweep()
    wait_until(caller.desk.ledger.anything_waits, "its next try")


def report(caller, sequence, *told, ticket=None):
    """Report what was told of the bundle 1 of a client; return whether it was taken."""
    host = caller.call("enlist", "host", 1)
    ticket = ticket_of(SEAL) if ticket is None else ticket
    done = [JobOutcome("client", 1, each, 0.0, "lab/1", ticket, SEAL) for each in told]
    message = pack_report(HostReport.empty()._replace(outcomes=done))
    return caller.call("report", "host", sequence, host["uid"], host["stay"], message=message)["taken"]


@pytest.mark.parametrize("over", [False, True])
def test_what_was_told_of_a_bundle_before_its_client_came_is_passed_on_when_it_comes(caller, over):
    """Of what was cut off of it nobody would hear otherwise, until a job ends that may take for ever."""
    part = tell_outcomes(0, array("d", [0.1]), [b"R"], over=False)
    told = [cut_off(2), part, *([tell_outcomes(1, array("d"), [], over=True)] if over else [])]
    assert report(caller, 1, cut_off(1), part, ticket=b"not its "), "that host was never given it"
    caller.call("claim", "host", [["client", 1]], 1, [])
    assert report(caller, 2, *told)
    caller.call("join", "client")
    bundle = AddedJob(1, bytes(16), b"x", Terms(jobs=3), SEAL)
    caller.call("add", "client", 1, 0.0, message=pack_added([bundle]))
    assert caller.call("collect", "client", 0, False, 0.0)["count"] == len(told)
    assert (len(caller.desk._early), caller.desk._early.size) == (0, 0)
    status = caller.desk.status("master")
    assert (status.assigned, status.processed) == ((0, 3) if over else (3, 0))


def test_jobs_that_were_cut_off_a_bundle_are_not_counted_twice_until_it_goes_to_somebody_else(caller):
    counted = lambda: (status := caller.desk.status("master")) and (status.waiting, status.assigned)  # noqa: E731
    caller.call("join", "client")
    caller.call("enlist", "host", 1)
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(jobs=5), SEAL)]))
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 1
    assert report(caller, 1, tell_outcomes(0, array("d", [0.1]), [b"R"], over=False))
    assert counted() == (0, 5)
    assert report(caller, 2, cut_off(2))
    assert counted() == (0, 2)
    assert report(caller, 3, cut_off(4)), "an older one, which came later"
    assert counted() == (0, 2)
    caller.call("retire", "host")
    assert counted() == (5, 0)


def test_what_was_told_of_bundles_whose_clients_never_come_is_dropped_after_the_grace_time(caller, monkeypatch):
    assert report(caller, 1, cut_off(2), cut_off(2))
    assert caller.desk._early.size == 2 * len(cut_off(2))
    now = caller.desk.clock()
    monkeypatch.setattr(caller.desk, "clock", lambda: now + caller.desk.grace + 1)
    caller.desk._swept = now + caller.desk.grace  # it did not sleep
    caller.service.sweep()
    assert (len(caller.desk._early), caller.desk._early.size) == (0, 0)


def test_of_a_job_that_was_tried_again_before_its_client_came_the_result_is_kept(caller):
    host = caller.call("enlist", "host", 1)
    for sequence, encoded in enumerate([failure(), b"result"], 1):
        done = JobOutcome("client", 1, encoded, 0.0, "lab/1", ticket_of(SEAL), SEAL)
        report = pack_report(HostReport.empty()._replace(outcomes=[done]))
        assert caller.call("report", "host", sequence, host["uid"], host["stay"], message=report)["taken"]
    assert caller.desk._early.size == len(b"result")
    caller.call("join", "client")
    caller.call("add", "client", 1, 0.0, message=pack_added([AddedJob(1, bytes(16), b"x", Terms(retries=1), SEAL)]))
    assert caller.call("fetch", "host", 0, 0, 0.0)["count"] == 0, "it need not run again"
    assert caller.call("collect", "client", 0, False, 0.0)["count"] == 1


def test_a_bundle_of_which_a_part_was_told_is_not_among_what_has_ended_at_a_host():
    """Its slave may have been killed since, and then nobody runs it."""
    told = [
        JobOutcome("client", number, encoded, 0.0, "lab/1")
        for number, encoded in enumerate([cut_off(1), death(0, "killed")])
    ]
    assert ended_in(HostReport.empty()._replace(outcomes=told)) == [("client", 1)]


def test_definitions_come_in_messages_that_are_no_larger_than_they_may_be(caller, monkeypatch):
    monkeypatch.setattr(batches_module, "DEFINITIONS_BYTES", 100)
    known = {bytes([number]) * 16: bytes(size) for number, size in enumerate((60, 40, 1, 500, 99))}
    assert [len(part) for part in batches_module.in_messages(known)] == [2, 1, 1, 1]
    assert list(batches_module.in_messages({})) == []
    caller.call("join", "client")
    labels = dict.fromkeys(map(bytes.hex, known), "a class")
    caller.call("define", "client", labels, message=pack_definitions(known))
    caller.call("enlist", "host", 1)
    heard, rounds = {}, 0
    while missing := known.keys() - heard.keys():
        caller.call("definitions", "host", message=pack_message(list(missing)))
        heard.update(come := unpack_definitions(memoryview(caller.batch)))
        assert come
        assert len(come) == 1 or sum(map(len, come.values())) <= 100
        rounds += 1
    assert {bytes(digest): bytes(definition) for digest, definition in heard.items()} == known
    assert rounds > 2


def test_jobs_that_a_client_cancels_are_forgotten_all_at_once(caller, monkeypatch):
    """Each time, all that is processed and not collected is looked through, while nobody else is served."""
    caller.call("join", "client")
    jobs = [AddedJob(number, bytes(16), b"x", Terms(), SEAL) for number in range(1, 101)]
    caller.call("add", "client", 1, 0.0, message=pack_added(jobs))
    really, discarded = caller.desk.ledger.discard, []

    def discard(session, numbers):
        discarded.append(list(numbers))
        really(session, discarded[-1])

    monkeypatch.setattr(caller.desk.ledger, "discard", discard)
    with caller.desk.lock:
        stopped = caller.desk.stop(caller.desk.clients["client"], range(1, 101))
    assert discarded == [stopped] == [list(range(1, 101))]
    assert not caller.desk.clients["client"].session.entries
