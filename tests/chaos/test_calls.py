"""Row 8: each remote call, whose request or reply is lost, or which is late, with the same final state."""

from __future__ import annotations

import threading

import pytest

from papyros.distributed import line as lines
from papyros.distributed.client import DistributedMaster
from papyros.distributed.host import SlaveHost
from papyros.distributed.line import LineBrokenError
from papyros.distributed.naming import parse_address
from tests.chaos.conftest import LEASE
from tests.chaos.jobs import note, wait_for_host
from tests.contract.jobs_for_tests import double
from tests.distributed.jobs import starts
from tests.support import security, wait_until

#: The calls that a client and a slave host make. The first of each fails; what they say once at the end may be lost.
CALLS = [
    "join",
    "define",
    "add",
    "collect",
    "cancel",
    "drop",
    "enlist",
    "claim",
    "fetch",
    "definitions",
    "report",
    "tell",
]
GOODBYES = ["leave", "retire"]


class Fault:
    """Makes the first so many calls of a method fail."""

    def __init__(self, method: str, how: str, times: int) -> None:
        self.method = method
        self.how = how
        self.left = times
        self.happened = threading.Event()
        self._call = lines.Line.call

    def __call__(self, line, method, *args, **options):
        if method != self.method or self.left <= 0:
            return self._call(line, method, *args, **options)
        self.left -= 1
        self.happened.set()
        if self.how == "request lost":
            line.abort()
            raise LineBrokenError("the request was lost, as the test wants it")
        answer = self._call(line, method, *args, **options)
        if self.how == "reply lost":
            line.abort()
            raise LineBrokenError("the reply was lost, as the test wants it")
        threading.Event().wait(0.3)
        return answer


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("request lost", marks=pytest.mark.slow),
        "reply lost",
        pytest.param("late", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("method", [*CALLS, *GOODBYES])
def test_row_08_a_call_that_fails_changes_nothing(launch, names, group, tmp_path, monkeypatch, method, how):
    launch.master(group, names, f"--lease={LEASE}")
    fault = Fault(method, how, 2)
    if method != "join":  # a client that cannot join in the first place is told so, or goes on trying
        monkeypatch.setattr(lines.Line, "call", lambda line, *a, **k: fault(line, *a, **k))
    client = DistributedMaster(group, names, host_master=False)
    host = SlaveHost(group, parse_address(names), security(), 2)
    try:
        if method == "join":
            monkeypatch.setattr(lines.Line, "call", lambda line, *a, **k: fault(line, *a, **k))
            client._sender.line.abort()
        cancelled = [note(str(tmp_path), "cancelled") for _ in range(2)]
        for job in cancelled:
            client.addJob(job)
        for job in cancelled:
            assert client.cancelJob(job)
        host.start()
        for number in range(20):
            client.addJob(note(str(tmp_path), str(number)))
        assert sorted(job.result for job in client.processedJobs(20)) == sorted(map(str, range(20)))
        # Leaving the loop drops the rest of its jobs, one of which runs for as long as its slave lives.
        for job in client.execute([wait_for_host(str(tmp_path), "dropped"), *map(double, range(50))]):
            assert job.result is not None
            wait_until(lambda: starts(tmp_path, "dropped"), "what will be dropped to run")
            break
        if method == "tell":
            client.status()
            client.status()
        client.addJob(wait_for_host(str(tmp_path), "stopped"))
        wait_until(lambda: starts(tmp_path, "stopped"), "a job that runs")
        assert client.numPendingJobs() == 1
        assert client.cancelJob(client._jobs[max(client._jobs)])
        assert client.popProcessedJob(1) is None
        assert starts(tmp_path, "cancelled") == []
        assert all(len(starts(tmp_path, str(number))) == 1 for number in range(20))
        if method not in GOODBYES:
            assert fault.happened.is_set(), "the call was never made"
    finally:
        client.close()
        host.close()
    assert fault.happened.is_set() or method == "join"
