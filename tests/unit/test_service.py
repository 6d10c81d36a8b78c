"""What a master makes of calls that come again, without a network and in one thread."""

from __future__ import annotations

import pytest
from Pyro5.callcontext import current_context

from papyros.distributed.batches import AddedJob, HostReport, pack_added, pack_report
from papyros.distributed.bells import Waiting
from papyros.distributed.messages import ANNOTATION
from papyros.distributed.service import MasterService
from papyros.terms import Terms

SEAL = bytes(16)


class Caller:
    def __init__(self):
        self.service = MasterService("unit")

    def call(self, method, *arguments, message=b""):
        current_context.annotations = {ANNOTATION: message}
        current_context.response_annotations = {}
        try:
            answer = getattr(self.service, method)(*arguments)
            return answer.attempt(True) if isinstance(answer, Waiting) else answer
        finally:
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
