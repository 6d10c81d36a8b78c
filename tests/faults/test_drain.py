"""Faults, row 22: a slave host that drains waits for the outcomes on their way to the master, and for nothing else."""

from __future__ import annotations

import threading

import pytest

from papyros.distributed.batches import unpack_report
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.messages import joined
from tests.faults import jobs
from tests.support import PATIENCE, Background, at_most, wait_until


class SilentMaster:
    """Takes no report, until it is allowed to; a line that is broken meanwhile is noticed, as on a network.

    Attributes:
        holding: what the report is about that is on its way: the numbers of its outcomes.
    """

    def __init__(self) -> None:
        self.silent = threading.Event()
        self.holding: list[int] | None = None
        self._answers = threading.Event()
        self._call = Line.call

    def call(self, line, method, *arguments, **options):
        if method == "report" and self.silent.is_set():
            self.holding = [done.number for done in unpack_report(memoryview(joined(options["message"]))).outcomes]
            if "timeout" in options and not self._answers.wait(options["timeout"]):
                raise LineBrokenError("it did not answer in time")
            wait_until(lambda: self._answers.is_set() or line.broken, "an answer, or an end to the line")
            self.holding = None
            if line.broken:
                raise LineBrokenError("it was broken while it waited")
        return self._call(line, method, *arguments, **options)

    def answer(self) -> None:
        """Answer, from now on."""
        self._answers.set()


@pytest.fixture
def silent_master(monkeypatch):
    master = SilentMaster()
    monkeypatch.setattr(Line, "call", lambda line, *a, **k: master.call(line, *a, **k))
    yield master
    master.answer()


def report_nothing(host, silent_master):
    """Have a host report nothing, as it does when the master does not answer for long, and that be on its way."""
    with host._lock:
        host._outbox.wake()
    wait_until(lambda: silent_master.holding == [], "a report of nothing on its way")


@pytest.fixture
def host(group):
    group.master().register()
    host = group.host()
    assert host.wait_ready(PATIENCE)
    return host


def test_row_22_drain_does_not_wait_for_a_sign_of_life_that_a_silent_master_never_takes(host, silent_master):
    silent_master.silent.set()
    report_nothing(host, silent_master)
    with at_most(5):
        assert host.drain(PATIENCE), "nothing was to be handed in"
        host.close()


def test_row_22_drain_does_not_wait_for_a_word_of_lent_places_that_a_silent_master_never_takes(host, silent_master):
    silent_master.silent.set()
    report_nothing(host, silent_master)
    host._crew._source.lent(0)
    with at_most(5):
        assert host.drain(PATIENCE), "nothing was to be handed in"
        host.close()


def test_row_22_drain_waits_for_an_outcome_that_is_on_its_way(group, host, gates, silent_master):
    gate = gates()
    client = group.client()
    client.addJob(jobs.wait_at(group.folder, "running", gate.path))
    gate.wait_for_arrivals()
    silent_master.silent.set()
    report_nothing(host, silent_master)
    gate.open()
    draining = Background(host.drain, PATIENCE)
    wait_until(lambda: not any(view.tag for view in host._crew.views()), "an end to the job")
    assert draining.running, "its outcome is not in the master's hands"
    silent_master.answer()
    assert draining.result()
    host.close()
    assert client.popProcessedJob(PATIENCE).result == "running"


def test_row_22_drain_gives_up_an_outcome_that_a_silent_master_does_not_take_in_time(group, host, gates, silent_master):
    gate = gates()
    client = group.client()
    client.addJob(jobs.wait_at(group.folder, "running", gate.path))
    gate.wait_for_arrivals()
    silent_master.silent.set()
    gate.open()
    wait_until(lambda: silent_master.holding, "an outcome on its way")
    assert not host.drain(0.1)
    with at_most(5):
        host.close()
