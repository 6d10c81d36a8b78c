"""A crew that nobody has started has nothing open, and one that is closed touches nothing that is of others by then."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

import papyros
from papyros.crew import Crew
from papyros.tasks import CrewOptions
from papyros.wire import MAX_PAYLOAD_BYTES
from tests.contract.jobs_for_tests import Square
from tests.support import processed, refuse_threads
from tests.unit.crews import FakeSource

pytestmark = pytest.mark.pure


def open_descriptors():
    return {link.name for link in Path("/dev/fd").glob("*") if link.exists()}


@pytest.fixture
def crew():
    return Crew(1, FakeSource(), CrewOptions(MAX_PAYLOAD_BYTES, sys.path))


def test_a_master_has_nothing_open_before_its_first_job():
    before = open_descriptors()
    masters = [papyros.MultiProcessMaster(2) for _ in range(20)]
    assert open_descriptors() <= before
    for master in masters:
        master.close()


def test_who_pokes_a_crew_that_was_not_started_does_no_harm(crew):
    crew.poke()
    crew.close()
    crew.poke()


def test_who_pokes_a_crew_that_is_closed_writes_to_no_file_of_others(crew):
    crew.start()
    ends = crew._loop._wake_out, crew._loop._wake_in
    crew.close()
    others = [os.pipe() for _ in range(10)]  # of which one has the numbers of that which was closed
    try:
        assert set(ends) <= {fd for pipe in others for fd in pipe}
        for out, _ in others:
            os.set_blocking(out, False)
        crew.poke()
        crew.close()
        for out, end in others:
            with pytest.raises(BlockingIOError):
                os.read(out, 1)
            os.fstat(end)
    finally:
        for fd in (fd for pipe in others for fd in pipe):
            os.close(fd)


@pytest.mark.parametrize("lack", ["pipe", "thread"])
def test_a_crew_that_cannot_be_started_leaves_nothing_open_and_the_master_starts_it_later(monkeypatch, lack):
    def refuse():
        raise OSError(errno.EMFILE, "Too many open files")

    with papyros.MultiProcessMaster(1) as master:
        before = open_descriptors()
        with monkeypatch.context() as patch:
            if lack == "pipe":
                patch.setattr(os, "pipe", refuse)
            else:
                refuse_threads(patch, "papyros-crew")
            with pytest.raises((OSError, RuntimeError)):
                master.addJob(Square(2))
            assert open_descriptors() <= before
        assert master.numPendingJobs() == 0
        assert processed(master, Square(3)).result == 9
