"""What a slave host makes of the answers of its master, without a network and without slaves."""

from __future__ import annotations

import pytest

from papyros.distributed.host import SlaveHost
from papyros.distributed.line import LineBrokenError
from papyros.distributed.naming import parse_address
from tests.support import security


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
        host._take_jobs(FakeLine(answer), 0.0, draining=False)
    assert done == [("cancels", {("client", 1)}, True), "accepts"]
