"""The values of a slave host: what its jobs need is here before they start, in whatever order things happen."""

from __future__ import annotations

import contextlib
import errno
import threading

import pytest

from papyros.distributed import hostvalues
from papyros.distributed.hostvalues import HostValues
from papyros.distributed.line import LineBrokenError
from papyros.store import JOB_NEEDS, Held, with_needs
from tests.support import wait_until

VALUE = b"what many jobs share"
KEY = "host"
DEFINITION = b"the digest of a definition"


class FakeHost:
    """A slave host and its master: a queue of jobs, and a value that the master has or has not."""

    uri = "a master"

    def __init__(self):
        self.values = HostValues(self, KEY, lambda: 0.01)
        held = Held.of([VALUE])
        self.digest = held.digest
        self.there = False
        self.failures = []
        self.lack = None  # why the value cannot be held here
        self.asked = 0  # how often the master was asked for it
        self.refusals = []
        self.broken = ""
        self.lock = threading.Lock()
        self.queue = []
        self.given_back = []
        self.after_refusal = lambda: None
        self.moves = False
        self.told = []  # in which stays the master was told what is held here

    def come(self, job):
        """A job comes that needs the value."""
        with self.lock:
            self.values.need({DEFINITION: with_needs(JOB_NEEDS, [self.digest], b"a class")})
            self.queue.append(job)

    def come_in_vain(self, job):
        """A job comes, and is given back."""
        self.come(job)
        wait_until(lambda: job in self.given_back, "the job to be given back")

    def take(self):
        """Take the jobs that may be started."""
        with self.lock:
            if DEFINITION in self.values.awaited:
                return []
            taken, self.queue = self.queue, []
            return taken

    # What values ask of their host

    def value_line(self):
        if self.failures:
            raise self.failures.pop()
        return contextlib.nullcontext(self)

    stay = "with the first master"

    def is_current(self, line):
        return True

    def broke(self, reason):
        self.broken = reason

    def values_came(self):
        pass

    def values_gone(self, digests):
        pass

    def values_refused(self, digest, refusal):
        with self.lock:
            self.refusals.append(refusal)
            if self.values.give_up(digest):
                self.given_back += self.queue
                self.queue.clear()
        self.after_refusal()

    # What they ask of a line

    def call(self, method, *args, message=b""):
        if method == "hold":
            gone = [self.digest.hex()] if self.stay == "with another one" else []
            self.told.append(self.stay)
            if self.moves:
                self.stay = "with another one"  # which has nothing yet, and is where the first one was
            return {"known": True, "gone": gone}, b""
        self.asked += 1
        if self.lack is not None:
            raise self.lack  # as it would come when memory is taken for what was received
        return ({"known": True, "size": len(VALUE)}, VALUE) if self.there else ({"known": True, "size": -1}, b"")


@pytest.fixture
def host():
    host = FakeHost()
    yield host
    host.values.close()


def test_a_job_waits_for_the_value_that_it_needs(host):
    host.there = True
    host.come("job")
    assert wait_until(host.take) == ["job"]
    assert bytes(host.values.held(host.digest).view()) == VALUE


def test_a_job_that_comes_while_others_are_given_back_is_not_started_without_its_value(host):
    refused = threading.Event()

    def another_comes():
        if not refused.is_set():
            host.come("another")  # whose client has just shared the value
            host.there = True
            refused.set()

    host.after_refusal = another_comes
    host.come("job")
    assert refused.wait(10)
    assert host.given_back == ["job"]
    assert wait_until(host.take) == ["another"]
    assert host.values.held(host.digest) is not None


@pytest.mark.parametrize("lack", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_what_the_system_has_not_to_spare_now_is_asked_for_again(host, lack):
    host.failures.append(lack)
    host.there = True
    host.come("job")
    assert wait_until(host.take) == ["job"]
    assert not host.broken


LACKS = [OSError(errno.EFBIG, "File too large"), MemoryError()]


@pytest.mark.parametrize("lack", LACKS)
def test_jobs_that_need_what_cannot_be_held_here_are_given_back_with_the_reason(host, lack, monkeypatch, caplog):
    """They stayed here for ever, beside idle hosts, and it was tried, and told, five times a second."""
    monkeypatch.setattr(hostvalues, "HOLD_SECONDS", 0.0)
    host.lack = lack
    for number in range(7):
        host.come_in_vain(number)
    reason = str(lack) or "there is no memory for it"
    assert {refusal.reason for refusal in host.refusals} == {f"{hostvalues.LACKING}: {reason}"}
    assert [refusal.pause for refusal in host.refusals] == [1, 2, 4, 8, 16, 30, 30], "longer each time"
    assert caplog.text.count("cannot be held here now") == 1
    host.lack, host.there = None, True
    host.come("another")
    assert wait_until(host.take) == ["another"]


def test_what_cannot_be_held_here_is_tried_again_less_and_less_often_before_jobs_are_given_back(host):
    host.lack, host.there = OSError(errno.ENOSPC, "No space left on device"), True
    host.come("job")
    wait_until(lambda: host.asked == 3, "three tries")
    assert host.values._lacks[host.digest].next_try() - host.values._lacks[host.digest].last > hostvalues.RETRY_SECONDS
    host.lack = None
    assert wait_until(host.take) == ["job"]
    assert not host.given_back


def test_a_job_that_must_not_be_started_twice_is_not_lost_for_what_passes_elsewhere(host, monkeypatch):
    monkeypatch.setattr(hostvalues, "HOLD_SECONDS", 0.0)
    host.lack = LACKS[0]
    for number in range(hostvalues.LASTING_REFUSALS):
        host.come_in_vain(number)
    assert [refusal.lasting for refusal in host.refusals] == [*[False] * (hostvalues.LASTING_REFUSALS - 1), True]


def test_jobs_whose_values_no_connection_can_be_made_for_are_given_back(host, monkeypatch):
    """Slaves may have taken the last file descriptor."""
    monkeypatch.setattr(hostvalues, "HOLD_SECONDS", 0.0)
    host.failures += [LineBrokenError("no connection: Too many open files")] * 100
    host.come("job")
    wait_until(lambda: host.given_back == ["job"], "the job to be given back")
    assert host.refusals[0].reason == f"{hostvalues.LACKING}: no connection: Too many open files"


def refuse(thread):
    raise RuntimeError("can't start new thread")


def test_values_are_fetched_as_soon_as_the_system_has_a_thread_to_spare(host, monkeypatch, caplog):
    host.there = True
    with monkeypatch.context() as lacking:
        lacking.setattr(threading.Thread, "start", refuse)
        host.come("job")
        host.values.go_on()
    assert host.take() == []
    assert "can't start new thread" in caplog.text
    host.values.go_on()
    assert wait_until(host.take) == ["job"]
    assert not host.broken


def test_values_that_no_thread_could_be_started_for_can_be_closed(host, monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", refuse)
    host.come("job")
    host.values.close()
    host.values.go_on()
    assert host.take() == []


def test_a_bug_is_told_to_the_host(host):
    host.failures.append(AssertionError("a bug"))
    host.come("job")
    assert "a bug" in wait_until(lambda: host.broken)


def test_a_master_that_was_started_anew_in_the_same_place_may_be_told_of_values_yet(host):
    """What it does not know it is to be told by its clients: to let go of it here would be to fetch it anew."""
    host.there = True
    host.come("job")
    wait_until(host.take)
    wait_until(lambda: host.told, "the master to be told what is held here")
    host.moves = True
    wait_until(lambda: host.told.count("with another one") > 3, "the other master to be told")
    assert host.values.held(host.digest) is not None
