"""Signals that ask a part to end: heard whatever else the process has, and once only where that is meant."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import threading

import pytest

from papyros.distributed.signals import StopSignals
from tests.support import PATIENCE

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread"
)


@pytest.fixture
def many_descriptors():
    """Have the process be allowed more descriptors than a set of the system's `select` holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("the system allows fewer descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_signal_is_heard_however_many_descriptors_the_process_has(many_descriptors, monkeypatch):
    pipe = os.pipe
    high = []

    def pipe_far_up():
        low = pipe()
        high[:] = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1100) for fd in low]
        for fd in low:
            os.close(fd)
        return tuple(high)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe_far_up)
        stop = StopSignals()
    try:
        with stop:
            assert not stop.wait(0.0)
            assert not stop.wait(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(PATIENCE)
        assert stop.number == signal.SIGTERM
    finally:
        for fd in high:
            os.close(fd)


def test_that_the_terminal_goes_as_well_is_no_order_to_end_at_once():
    stop = StopSignals()
    try:
        with stop:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
                assert stop.wait(PATIENCE)
        assert stop.number == signal.SIGHUP
    finally:
        os.close(stop._in)
        os.close(stop._out)
