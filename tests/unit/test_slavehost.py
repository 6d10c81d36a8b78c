"""What a slave host makes of the answers of its master, without a network and without slaves."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from papyros.distributed import host as host_module
from papyros.distributed import outbox as outbox_module
from papyros.distributed import reporting as reporting_module
from papyros.distributed.batches import HostJob, JobOutcome, pack_definitions, pack_host_jobs
from papyros.distributed.host import SlaveHost
from papyros.distributed.hostvalues import Refusal
from papyros.distributed.line import CallFailedError, LineBrokenError
from papyros.distributed.naming import parse_address
from papyros.distributed.seals import Seals
from papyros.frames import unpack_message
from papyros.relay import pack_words, unpack_words
from papyros.streams import TOLD_CHARACTERS
from papyros.tasks import Task
from papyros.terms import DEFAULT_TERMS
from papyros.wire import definition_digest
from tests.support import PATIENCE, Bug, security


class FakeLine:
    """A line on which these answers come, until it breaks."""

    def __init__(self, *answers):
        self._answers = list(answers)

    def expect(self, silence):
        pass

    def call(self, method, *arguments):
        if not self._answers:
            raise LineBrokenError("that was all")
        return self._answers.pop(0), memoryview(b"")


@pytest.fixture
def host():
    host = SlaveHost("group", parse_address("127.0.0.1:1"), security(), 1)
    yield host
    host._crew.close()


@pytest.mark.pure
def test_a_job_that_comes_again_with_the_order_to_stop_it_is_not_stopped(host, monkeypatch):
    """Its client was given up, came back and added it again: what is to be stopped is what had been before."""
    done = []
    monkeypatch.setattr(host._crew, "cancel", lambda tags, wait: done.append(("cancels", tags, wait)))
    monkeypatch.setattr(host, "_accept", lambda line, message: done.append("accepts"))
    answer = {
        "known": True,
        "number": 1,
        "count": 1,
        "orders": [["client", 1]],
        "heard": 1,
        "surplus": 0,
        "question": 0,
    }
    with pytest.raises(LineBrokenError):
        host._take_jobs(FakeLine(answer), 0.0, enlisted=1)
    assert done == [("cancels", {("client", 1)}, True), "accepts"]


JOB = ("client", 1)


class Reporting:
    """A line over which a host reports; whatever is called on it is noted."""

    uri = ""  # that of the master of a host that has found none yet

    def __init__(self, report=lambda: ({"taken": True}, b"")):
        self.calls = []
        self.aborted = threading.Event()
        self.reported = threading.Event()
        self._report = report

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def close(self):
        pass

    def abort(self):
        self.aborted.set()

    def call(self, method, *arguments, message=b"", timeout=None):
        self.calls.append((method, *arguments[1:2]))
        if method == "report":
            self.reported.set()
            return self._report()
        return {}, b""


def push_an_outcome(host):
    """Have a job end at a host that has a master, and return the thread that reports it."""
    with host._lock:
        host._outbox.finished([JobOutcome(*JOB, b"result", 0.0, "lab/1")])
    host._connected.set()
    pushing = host._threads[1]
    pushing.start()
    return pushing


def test_what_is_recalled_of_the_stay_before_is_not_given_back_in_the_next_one(host, monkeypatch):
    """The master may have given the same job to this host again by then: it would be run twice."""
    monkeypatch.setattr(host._crew, "recall", lambda: host._crew._source.returned([JOB], "") or [])
    with host._lock:
        host._outbox.begin_stay("first")
    host._move(Reporting(), "second")
    with host._lock:
        report, stay = host._outbox.take()
    assert (stay, report.returned) == ("second", [])


def test_what_slaves_have_begun_or_ended_is_claimed_from_another_master(host, monkeypatch):
    """Also where they have not told of it yet: else it would be run twice."""
    line = Reporting()
    monkeypatch.setattr(host._crew, "recall", lambda: [("client", 2), ("client", 3)])
    with host._lock:
        host._outbox.finished([JobOutcome(*JOB, b"result", 0.0, "lab/1")])
    host._move(line, "second")
    assert line.calls == [("claim", [("client", 2), ("client", 3), JOB])]


def test_a_report_that_is_on_its_way_when_a_host_is_closed_arrives(host, monkeypatch):
    """It may tell of a job that must not be started twice, which would be lost, though it has ended."""

    def wait():
        assert slow.aborted.wait(PATIENCE)
        raise LineBrokenError("aborted")

    slow, last = Reporting(wait), Reporting()
    lines = iter([slow, last])
    monkeypatch.setattr(host._seeker, "line", lambda *args, **kwds: next(lines))
    pushing = push_an_outcome(host)
    assert slow.reported.wait(PATIENCE)
    host._uri = "PYRO:papyros.master@127.0.0.1:1"
    host.close()
    assert not pushing.is_alive()
    assert last.calls == [("report", 1), ("retire",)]


def test_a_host_whose_reports_are_refused_for_long_ends_with_words(host, monkeypatch, caplog):
    monkeypatch.setattr(reporting_module, "REFUSED_SECONDS", 0.0)

    def refuse():
        raise CallFailedError("ValueError", "it makes no sense")

    monkeypatch.setattr(host._seeker, "line", lambda *args, **kwds: Reporting(refuse))
    pushing = push_an_outcome(host)
    pushing.join(5)
    over = not pushing.is_alive()
    host._stop.set()
    pushing.join()
    assert over
    assert "could not take what was reported" in host.broken
    assert "it makes no sense" in host.broken
    assert sum("cannot take what this slave host reports" in message for message in caplog.messages) == 1


def test_two_masters_each_of_which_refuses_a_report_once_end_no_host(host, monkeypatch):
    monkeypatch.setattr(reporting_module, "REFUSED_SECONDS", 0.0)
    masters = iter(["the first", "the second"])

    def refuse_once():
        if (master := next(masters, None)) is None:
            host._stop.set()
            return {"taken": True}, b""
        host._uid = master  # it is gone, or closes, by the time that it would be asked again
        raise CallFailedError("MemoryError", "there is none")

    monkeypatch.setattr(host._seeker, "line", lambda *args, **kwds: Reporting(refuse_once))
    pushing = push_an_outcome(host)
    pushing.join(PATIENCE)
    assert not pushing.is_alive()
    assert not host.broken


def fail_once(function):
    """Return a function that finds no memory when it is called first."""
    errors = [MemoryError()]

    def call(*arguments):
        if errors:
            raise errors.pop()
        return function(*arguments)

    return call


@pytest.mark.parametrize(
    ("room", "function"), [(reporting_module, "report_parts"), pytest.param(outbox_module, "ended_in", id="take")]
)
def test_a_report_for_which_there_is_no_memory_is_told_later(host, monkeypatch, room, function):
    def take():
        host._stop.set()
        return {"taken": True}, b""

    monkeypatch.setattr(room, function, fail_once(getattr(room, function)))
    line = Reporting(take)
    monkeypatch.setattr(host._seeker, "line", lambda *args, **kwds: line)
    pushing = push_an_outcome(host)
    pushing.join(PATIENCE)
    assert not pushing.is_alive()
    assert not host.broken
    assert line.calls == [("report", 1)]
    assert not host._outbox.is_owed()


def test_jobs_for_which_there_is_no_memory_are_fetched_again(host, monkeypatch):
    answer = {"known": True, "number": 1, "count": 1, "orders": [], "heard": 1, "surplus": 0, "question": 0}
    monkeypatch.setattr(host_module, "unpack_host_jobs", fail_once(list))
    monkeypatch.setattr(host._crew, "feed", lambda: None)
    with pytest.raises(LineBrokenError, match="no memory for the jobs that came"):
        host._take_jobs(FakeLine(answer), 0.0, enlisted=1)
    assert host._acknowledged == 0
    with pytest.raises(LineBrokenError, match="that was all"):
        host._take_jobs(FakeLine(answer), 0.0, enlisted=1)
    assert host._acknowledged == 1


class Asked(FakeLine):
    """A line that notes what is called on it, and has something happen before each answer."""

    def __init__(self, *answers):
        super().__init__(*answers)
        self.calls = []
        self.before = iter(())

    def call(self, method, *arguments):
        next(self.before, lambda: None)()
        self.calls.append((method, *arguments[1:]))
        return super().call(method, *arguments)


def test_the_master_is_told_how_many_slaves_there_are_whenever_that_changes(host):
    """A host that could start four of 24 slaves was given jobs for 24, which waited there beside idle hosts."""
    said = []
    host._tell, host._count, host._crew = said.append, 24, SimpleNamespace(expected=24, close=host._crew.close)
    nothing = {"known": True, "number": 0, "count": 0, "orders": [], "heard": 0, "surplus": 0, "question": 0}
    enlisted = {"stay": host._stay}
    line = Asked(nothing, enlisted, nothing, enlisted, nothing)
    line.uri = "PYRO:papyros.master@mars:1"

    def count(slaves):
        return lambda: setattr(host._crew, "expected", slaves)

    line.before = iter([count(4), count(4), count(24), count(24), host._draining.set])
    with pytest.raises(LineBrokenError):
        host._take_jobs(line, 3.0, enlisted=24)
    assert [call for call in line.calls if call[0] == "enlist"] == [
        ("enlist", 4),
        ("enlist", 24),
        ("enlist", 0),
    ]
    assert [call[-1] for call in line.calls if call[0] == "fetch"] == [3.0, 1.0, 3.0], "it is looked soon for more"
    assert said == [
        "4 of 24 slaves serve the group 'group', whose master is at mars:1",
        "24 slaves serve the group 'group', whose master is at mars:1",
    ]


def test_what_cannot_be_started_for_want_of_a_value_is_given_back_when_the_master_gives_no_more(host):
    """It would be given the same again, at once, beside idle hosts."""
    tasks = [Task(("client", number), b"needs", b"", DEFAULT_TERMS._replace(once=number == 2)) for number in (1, 2)]
    nothing = {"known": True, "number": 0, "count": 0, "orders": [], "heard": 0, "surplus": 0, "question": 0}
    enlisted = {"stay": host._stay}
    host._values.awaited[b"needs"] = {b"value"}
    host._queue.extend(tasks)
    line, returned = Asked(nothing, enlisted, nothing, nothing), []

    def refuse():
        host.values_refused(b"value", Refusal("it is too large", pause=60.0, lasting=False))
        returned.append(list(host._outbox._report.returned))

    def note():
        returned.append(list(host._outbox._report.returned))

    line.before = iter([refuse, note, note, lambda: setattr(host, "_pause_until", 0.0)])
    with pytest.raises(LineBrokenError):
        host._take_jobs(line, 3.0, enlisted=1)
    fetch, none, some = "fetch", ("enlist", 0), ("enlist", 1)
    assert [call[:2] if call[0] == "enlist" else call[0] for call in line.calls] == [fetch, none, fetch, fetch, some]
    assert returned == [[], [], [("client", 1, "it is too large"), ("client", 2, "")]]


def test_a_value_that_the_master_does_not_have_keeps_a_host_from_no_other_jobs(host):
    host._values.awaited[b"needs"] = {b"value"}
    host._queue.append(Task(JOB, b"needs", b"", DEFAULT_TERMS))
    host.values_refused(b"value", Refusal("it is not there"))
    assert host._for_work() == 1
    assert host._outbox._report.returned == [(*JOB, "it is not there")]


@pytest.mark.parametrize(
    ("count", "wanted", "words"),
    [
        (1, 1, "1 slave serves"),
        (2, 2, "2 slaves serve"),
        (1, 2, "1 of 2 slaves serves"),
        (0, 1, "0 of 1 slave serve"),
    ],
)
def test_how_many_slaves_serve_is_said_in_words(count, wanted, words):
    assert host_module.count_slaves(count, wanted) == words


def test_a_host_looks_again_and_again_whether_a_thread_can_be_started_for_values(host, monkeypatch):
    tries = []
    answer = {"known": True, "number": 0, "count": 0, "orders": [], "heard": 0, "surplus": 0, "question": 0}
    monkeypatch.setattr(host._values, "go_on", lambda: tries.append("once more"))
    with pytest.raises(LineBrokenError):
        host._take_jobs(FakeLine(answer, answer), 0.0, enlisted=1)
    assert len(tries) == 2


def test_a_host_whose_last_report_is_refused_says_goodbye_all_the_same(host, monkeypatch):
    """Else the master would wait for it, and for its jobs, until it gives up who is silent."""

    def refuse():
        raise CallFailedError("ValueError", "it makes no sense")

    line = Reporting(refuse)
    monkeypatch.setattr(host._seeker, "line", lambda *args, **kwds: line)
    with host._lock:
        host._outbox.finished([JobOutcome(*JOB, b"result", 0.0, "lab/1")])
    host._uri = "PYRO:papyros.master@127.0.0.1:1"
    host.close()
    assert line.calls == [("report", 1), ("retire",)]


def test_a_host_that_cannot_report_says_goodbye_all_the_same(host, monkeypatch):
    """Whatever the reason: else a job that has brought it about would do the same to the next host."""

    def fail():
        raise AssertionError(Bug.TEXT)

    line = Reporting(fail)
    monkeypatch.setattr(host._seeker, "line", lambda *args, **kwds: line)
    with host._lock:
        host._outbox.finished([JobOutcome(*JOB, b"result", 0.0, "lab/1")])
    host._uri = "PYRO:papyros.master@127.0.0.1:1"
    with pytest.raises(AssertionError, match=Bug.TEXT):
        host.close()
    assert line.calls == [("report", 1), ("retire",)]


def test_of_a_long_reason_why_a_job_is_to_be_stopped_the_beginning_is_told(host):
    """It comes from the job, and what is larger than any message can be told to no master."""
    host._crew._source.heard(JOB, memoryview(pack_words(["stop", "why " + "x" * (1 << 20)])))
    with host._lock:
        [(*job, reason)] = host._outbox.take()[0].returned
    assert (tuple(job), len(reason)) == (JOB, TOLD_CHARACTERS)
    with pytest.raises(ValueError, match="no job asks 'x") as error:
        host._crew._source.heard(JOB, memoryview(pack_words(["x" * (1 << 20)])))
    assert len(str(error.value)) == TOLD_CHARACTERS


def test_a_job_that_asks_who_it_is_is_told_what_it_has_asked(host, monkeypatch):
    told = []
    monkeypatch.setattr(host._crew, "tell", lambda tag, message: told.append((tag, unpack_words(message)[0])))
    host._uri = "here"
    host._crew._source.heard(JOB, memoryview(pack_words(["who", 4])))
    assert told == [(JOB, [4, *JOB, "here"])]
    with pytest.raises(ValueError, match="by a number"):
        host._crew._source.heard(JOB, memoryview(pack_words(["who", "x" * (1 << 20)])))


def test_nobody_waits_for_something_to_report_once_a_host_is_closed(host):
    host._answered = float("inf")
    assert host._reporter._patience() > 0
    host._stop.set()
    assert host._reporter._patience() == 0


def test_what_is_answered_to_a_report_shows_that_the_master_has_heard_of_the_host(host):
    """Else it would be told over and over, as long as a large answer is on its way to the thread that fetches."""
    host._answered = time.monotonic() - 1000 * host._beat
    assert host._reporter._patience() < 0
    assert host._reporter._tell(Reporting())
    assert host._reporter._patience() > 0


class Counting:
    """Pauses of no time; after three of them, nobody is to go on."""

    def __init__(self, stop):
        self._stop = stop
        self.count = 0

    def next(self):
        self.count += 1
        if self.count == 3:
            self._stop.set()
        return 0.0


@pytest.mark.parametrize("thread", ["papyros-fetch", "papyros-report"])
def test_what_breaks_again_and_again_is_tried_again_after_pauses_that_grow(host, monkeypatch, thread):
    pauses = Counting(host._stop)
    tries = iter(range(20))

    def breaks(*args, **kwds):
        if next(tries, None) is None:
            host._stop.set()
        raise LineBrokenError("there is no memory")

    for module in (host_module, reporting_module):
        monkeypatch.setattr(module, "Pauses", lambda: pauses)
    monkeypatch.setattr(host._seeker, "seek", Reporting)
    monkeypatch.setattr(host._seeker, "line", breaks)
    monkeypatch.setattr(host, "_serve", breaks)
    host._connected.set()
    {"papyros-fetch": host._fetch, "papyros-report": host._reporter.run}[thread]()
    assert pauses.count == 3


class Defining:
    """A line to a master that tells a few of the definitions that it is asked for, and says that it knows who asks."""

    def __init__(self, *told, known=True):
        self._told = list(told)
        self._known = known
        self.asked = []

    def call(self, method, key, message):
        assert method == "definitions"
        self.asked.append(set(map(bytes, unpack_message(message))))
        return {"known": self._known}, memoryview(pack_definitions(self._told.pop(0)))


def jobs_of(host, *definitions):
    """Jobs of these definitions, as they come from a client."""
    digests = {definition_digest(definition): definition for definition in definitions}
    seals = Seals(security().key, "client")
    jobs = [
        HostJob("client", number, digest, b"blob", DEFAULT_TERMS, seals.seal_job(number, digest, b"blob"))
        for number, digest in enumerate(digests, 1)
    ]
    return digests, memoryview(pack_host_jobs(jobs))


def test_definitions_that_come_in_several_messages_are_asked_for_until_all_are_there(host, monkeypatch):
    monkeypatch.setattr(host._crew, "feed", lambda: None)
    digests, message = jobs_of(host, b"one", b"another", b"a third")
    (one, another, third) = digests
    line = Defining({another: b"another"}, {one: b"one", third: b"a third"})
    host._accept(line, message)
    assert line.asked == [{one, another, third}, {one, third}]
    assert [task.tag for task in host._queue] == [("client", number) for number in (1, 2, 3)]


def test_jobs_whose_definitions_are_gone_with_their_client_are_left_out(host, monkeypatch):
    monkeypatch.setattr(host._crew, "feed", lambda: None)
    digests, message = jobs_of(host, b"one", b"another")
    (one, another) = digests
    line = Defining({one: b"one"}, {})
    host._accept(line, message)
    assert line.asked == [{one, another}, {another}]
    assert [task.tag for task in host._queue] == [("client", 1)]


def test_a_host_that_was_given_up_while_it_asks_for_definitions_enlists_again(host):
    _, message = jobs_of(host, b"one")
    with pytest.raises(LineBrokenError, match="gave this slave host up"):
        host._accept(Defining({}, known=False), message)
    assert not host._queue
