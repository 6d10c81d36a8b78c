"""The end of a process is an event also where the kernel, or a sandbox, gives no file descriptors of processes."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import sys
import threading

import pytest

from papyros.deaths import DeathWatch, abandon, cause_of, reap
from papyros.jobs import result_of
from papyros.sweeper import Sweeper
from tests.contract.jobs_for_tests import Square
from tests.support import PATIENCE, none_to_spare, wait_until
from tests.unit.crews import FakeSource, crew_of


@pytest.fixture
def process():
    popen = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield popen
    popen.stdin.close()
    popen.kill()
    popen.wait()


def refusing(number):
    def refuse(pid, flags=0):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture(params=["here", "not in this Python", errno.ENOSYS, errno.EPERM])
def pidfds(request, monkeypatch):
    """Have the system, or Python, give file descriptors of processes, or none."""
    if request.param == "not in this Python":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif request.param != "here":
        monkeypatch.setattr(os, "pidfd_open", refusing(request.param), raising=False)


@pytest.mark.usefixtures("pidfds")
def test_the_end_of_a_process_is_heard_of_and_it_is_left_to_be_reaped(process):
    watch = DeathWatch(process)
    assert not watch.wait(0.0)
    process.kill()
    with selectors.DefaultSelector() as selector:
        selector.register(watch.fd, selectors.EVENT_READ)
        assert selector.select(PATIENCE)
    assert watch.wait(0.0)
    assert reap(process)[0] == -signal.SIGKILL
    watch.close()


@pytest.mark.usefixtures("pidfds")
def test_the_end_of_a_process_that_somebody_else_has_reaped_is_heard_of(process):
    watch = DeathWatch(process)
    process.kill()
    process.wait()
    assert watch.wait(PATIENCE)
    watch.close()


@pytest.mark.usefixtures("pidfds")
def test_who_watches_a_process_that_goes_on_can_let_go_of_it_without_waiting(process):
    watch = DeathWatch(process)
    watch.close()
    assert process.poll() is None
    abandon(process)


def test_a_process_that_cannot_be_watched_for_another_reason_is_not_watched_by_a_thread(process, monkeypatch):
    """No file descriptor is left, say: a pipe would not be had either."""
    monkeypatch.setattr(os, "pidfd_open", refusing(errno.EMFILE), raising=False)
    with pytest.raises(OSError, match="open files"):
        DeathWatch(process)


def test_where_there_is_no_thread_either_that_is_an_error_of_the_system_and_nothing_is_left_open(process, monkeypatch):
    monkeypatch.setattr(os, "pidfd_open", refusing(errno.ENOSYS), raising=False)
    monkeypatch.setattr(threading.Thread, "start", none_to_spare)
    with pytest.raises(OSError, match="new thread") as caught:
        DeathWatch(process)
    assert caught.value.errno == errno.EAGAIN


def test_nobody_waits_for_a_process_that_does_not_end(process):
    """Not even the kernel ends one that waits for a disk that is gone."""
    assert reap(process) == (None, 0)
    assert "cannot be ended by the system" in cause_of(None)
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="there are sweepers on Linux only")
def test_a_sweeper_that_is_killed_is_started_again_also_without_file_descriptors_of_processes(monkeypatch):
    monkeypatch.setattr(os, "pidfd_open", refusing(errno.ENOSYS))
    sweeper = Sweeper()
    with selectors.DefaultSelector() as selector:
        sweeper.start(selector)
        first = sweeper.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        [(key, _)] = selector.select(PATIENCE)
        key.data()
        assert sweeper.pid not in (None, first)
        sweeper.close()


@pytest.mark.pure
def test_a_crew_works_and_replaces_slaves_without_file_descriptors_of_processes(monkeypatch):
    monkeypatch.setattr(os, "pidfd_open", refusing(errno.ENOSYS), raising=False)
    source = FakeSource()
    with crew_of(source, 1) as crew:
        source.add(1, Square(2))
        source.wait_for_outcomes(1)
        [view] = crew.views()
        os.kill(view.pid, signal.SIGKILL)
        wait_until(lambda: [other.pid for other in crew.views() if other.ready] not in ([], [view.pid]), "another one")
        source.add(2, Square(3))
        source.wait_for_outcomes(2)
    assert result_of(source.outcomes[2]) == 9
    assert not source.reasons
