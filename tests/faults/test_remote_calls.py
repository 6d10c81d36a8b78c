"""Faults, row 8: a call's request is lost or late, its reply is lost or late; for each remote call, of all parts."""

from __future__ import annotations

import contextlib
import gc
import threading
import time

import pytest

import papyros
from papyros.distributed.daemon import _OFFER
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.naming import NameServer, ask_status
from papyros.distributed.service import MasterService
from papyros.errors import GroupTakenError, NameServerNotFoundError
from tests.distributed.programs import free_port
from tests.faults import jobs
from tests.support import PATIENCE, security, wait_until

DELAY = 0.3

#: A story takes a second, or some more until silence is noticed; what takes this long never ends.
LIMIT = 10.0

#: More than goes into one message.
SHARED_BYTES = 6_000_000

METHODS = [
    "join",
    "define",
    "add",
    "collect",
    "cancel",
    "assigned",
    "drop",
    "leave",
    "enlist",
    "claim",
    "fetch",
    "tell",
    "definitions",
    "report",
    "retire",
    "share",
    "unshare",
    "value",
    "hold",
    "status",
    "identify",
]


class Fault:
    """Does something to some calls of a method, and counts them all."""

    def __init__(self, method: str, kind: str, which: tuple[int, ...]) -> None:
        self.method = method
        self.kind = kind
        self.which = which
        self.calls = 0
        self._lock = threading.Lock()
        self._call = Line.call

    def hits(self, method: str) -> bool:
        if method != self.method:
            return False
        with self._lock:
            self.calls += 1
            return self.calls in self.which

    def wrapped(self):
        def call(line, method, *arguments, **options):
            if not self.hits(method):
                return self._call(line, method, *arguments, **options)
            if self.kind == "request late":
                time.sleep(DELAY)  # the fault itself
                return self._call(line, method, *arguments, **options)
            if self.kind != "request lost":
                answer = self._call(line, method, *arguments, **options)
                if self.kind == "reply late":
                    time.sleep(DELAY)  # the fault itself
                    return answer
            line.abort()
            raise LineBrokenError(f"the test broke the line: {self.kind}")

        return call


def process(client, added, limit=LIMIT):
    """Add jobs, and return what becomes of them, when all have been popped."""
    for job in added:
        client.addJob(job)
    found = []
    deadline = time.monotonic() + limit
    while client.numPendingJobs():
        job = client.popProcessedJob(max(0.0, deadline - time.monotonic()))
        assert job is not None, f"{client.numPendingJobs()} jobs are pending, and nothing comes"
        found.append(outcome_of(job))
    return sorted(found)


def outcome_of(job):
    try:
        return repr(job.result)
    except Exception as error:
        return repr(error)


def process_plain_jobs(group):
    folder = group.folder
    client = group.client()
    found = process(client, [jobs.first(folder, f"a{n}") for n in range(5)])
    found += process(client, [jobs.second(folder, f"b{n}") for n in range(5)])
    found += process(client, [jobs.third(folder, f"c{n}", 10) for n in range(5)])
    found += process(client, [jobs.fail(folder, "fails"), jobs.fail_again(folder, "again")])
    client.close()
    return found


def cancel_jobs(group, gate):
    folder = group.folder
    client = group.client()
    running = jobs.wait_at(folder, "running", gate.path)
    waiting = [jobs.first(folder, f"waiting{n}") for n in range(4)]
    for job in [running, *waiting]:
        client.addJob(job)
    gate.wait_for_arrivals()
    group.wait_until_known(client, 5)
    cancelled = [client.cancelJob(waiting[0]), client.cancelJob(running)]
    wait_until(lambda: client.numPendingJobs() <= 3, "cancelled jobs are not pending")
    cancelled.append(client.cancelJob(running))
    client.cancelAllJobs()
    found = process(client, [])
    assert len(found) <= 3
    found = process(client, [jobs.second(folder, "after")])
    client.close()
    return [cancelled, found]


def drop_jobs(group, gates):
    folder = group.folder
    client = group.client()
    found = []
    for turn in range(3):
        gate = gates()
        stuck = jobs.wait_at(folder, f"stuck{turn}", gate.path)
        execution = client.execute([jobs.first(folder, f"taken{turn}"), stuck])
        found.append(next(execution).result)
        gate.wait_for_arrivals()
        execution.close()
        gate.open()
    assert client.numPendingJobs() == 0
    client.close()
    return found


def share_values(group, host):
    """Share values, one after the other; each is let go of by the master and by the slave host."""
    client = group.client()
    found = []
    for turn in range(3):
        handle = papyros.shared(memoryview(bytes([turn]) * SHARED_BYTES))
        found.append(process(client, [jobs.look(group.folder, f"shared{turn}", handle)]))
        assert wait_until(lambda: group.values() or host._values._held, "a value that is held")
        del handle
        gc.collect()
        wait_until(lambda: not asked(client) and not group.values(), "a master that holds no values", LIMIT)
        wait_until(lambda: not host._values._held, "a slave host that holds no values", LIMIT)
    client.close()
    return found


def asked(client):
    """How many values the master holds, as far as the client is told; a question that has gone astray is no answer."""
    with contextlib.suppress(ConnectionError):
        return client.status().shared
    return 0


def ask_futures(group, gate):
    """Whether a future runs is asked of the master; an answer that is lost is taken for a no."""
    client = group.client()
    with client.executor() as executor:
        future = executor.submit(jobs.call_at, group.folder, "future", gate.path)
        assert not future.done()
        gate.wait_for_arrivals()
        wait_until(future.running, "a future that runs", LIMIT)
        gate.open()
        found = future.result(LIMIT)
    client.close()
    return found


def ask_for_status(server):
    for _ in range(3):
        with contextlib.suppress(ConnectionError):
            ask_status(server.uri, security())


def register(server):
    """Register a master as soon as a name server answers, as the command line does."""
    for _ in range(10):
        with contextlib.suppress(NameServerNotFoundError):
            server.register()
            return
    raise AssertionError("no name server ever answers")


def tell_the_story(group, gates):
    """Do everything that leads to a remote call, and return what came of it."""
    server = group.master()
    register(server)
    second = group.master()
    for _ in range(3):
        try:
            register(second)
        except GroupTakenError:
            continue
        server = second  # nobody answered it: now the other one gives way
        break
    else:
        second.close()
    host = group.host()
    assert host.wait_ready(PATIENCE)
    found = [
        process_plain_jobs(group),
        cancel_jobs(group, gates()),
        drop_jobs(group, gates),
        share_values(group, host),
        ask_futures(group, gates()),
    ]
    ask_for_status(server)
    host.close()
    wait_until(lambda: not group.leftovers(), f"an empty memory, not {group.leftovers()}")
    return found


PLAIN = [
    *[f"'a{n}'" for n in range(5)],
    *[f"'b{n}'" for n in range(5)],
    *[repr((f"c{n}", b"x" * 10)) for n in range(5)],
    "ValueError('again')",
    "ValueError('fails')",
]
SHARED = [[repr((f"shared{turn}", SHARED_BYTES, turn))] for turn in range(3)]
WANTED = [PLAIN, [[True, True, False], ["'after'"]], ["taken0", "taken1", "taken2"], SHARED, "future"]


def check_starts(group):
    """No job was started more often than its terms allow."""
    counts = jobs.starts(group.folder)
    assert counts.pop("again") == 3
    assert set(counts.values()) == {1}, counts


def test_without_faults_each_remote_call_is_made(group, gates, monkeypatch):
    faults = {method: Fault(method, "none", ()) for method in METHODS}
    call = Line.call

    def counted(line, method, *arguments, **options):
        if method in faults:  # the others are the name server's
            faults[method].hits(method)
        return call(line, method, *arguments, **options)

    monkeypatch.setattr(Line, "call", counted)
    assert tell_the_story(group, gates) == WANTED
    check_starts(group)
    assert [method for method, fault in faults.items() if not fault.calls] == []


def test_no_call_that_a_master_offers_is_left_out():
    offered = {name for name in dir(MasterService) if hasattr(getattr(MasterService, name), _OFFER)}
    assert offered == set(METHODS)


WHICH = {"1st": (1,), "2nd": (2,), "3rd": (3,), "first three": (1, 2, 3)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "which"),
    [(kind, which) for kind in ("request lost", "reply lost", "reply late") for which in WHICH]
    + [("request late", "first three")],
)
@pytest.mark.parametrize("method", METHODS)
def test_row_08_a_fault_in_a_remote_call_changes_nothing(group, gates, monkeypatch, method, kind, which):
    fault = Fault(method, kind, WHICH[which])
    monkeypatch.setattr(Line, "call", fault.wrapped())
    assert tell_the_story(group, gates) == WANTED
    check_starts(group)


# The name server --------------------------------------------------------------------------

#: What is asked of a name server on the way to a master that takes the place of one that was killed.
QUESTIONS = ["lookup", "register", "remove"]


class NameServerFault(Fault):
    """Does something to some questions to the name server, whichever of the two kinds that is."""

    def wrapped(self):
        ask = NameServer._ask

        def asked(names, method, *arguments):
            if not self.hits(method):
                return ask(names, method, *arguments)
            if self.kind == "request late":
                time.sleep(DELAY)  # the fault itself
            if self.kind != "request lost":
                answer = ask(names, method, *arguments)
                if self.kind == "reply late":
                    time.sleep(DELAY)  # the fault itself
                if self.kind.endswith("late"):
                    return answer
            raise NameServerNotFoundError(f"the test lost it: {self.kind}")

        return asked


@pytest.mark.parametrize(
    ("kind", "which"),
    [
        ("reply lost", "first three"),
        *[
            pytest.param(kind, which, marks=pytest.mark.slow)
            for kind in ("request lost", "reply lost", "request late", "reply late")
            for which in WHICH
            if (kind, which) != ("reply lost", "first three")
        ],
    ],
)
@pytest.mark.parametrize("method", QUESTIONS)
def test_row_08_a_fault_in_a_question_to_the_name_server_changes_nothing(
    group, gates, monkeypatch, method, kind, which
):
    names = NameServer(group.names, security())
    names.register(group.name, f"PYRO:papyros.master@127.0.0.1:{free_port()}")  # of one that was killed
    fault = NameServerFault(method, kind, WHICH[which])
    monkeypatch.setattr(NameServer, "_ask", fault.wrapped())
    assert tell_the_story(group, gates) == WANTED
    check_starts(group)
    assert fault.calls
    assert names.lookup(group.name) in [server.uri for server in group._servers]
    group.close()
    assert names.lookup(group.name) is None or method == "remove"
