"""What comes of jobs before their client: kept within bounds, for a while."""

from __future__ import annotations

import pytest

from papyros.bundles import cut_off
from papyros.distributed import early as early_module
from papyros.distributed.batches import JobOutcome
from papyros.distributed.early import Early
from papyros.encoded import asks_for_retry, encode_outcome
from papyros.outcome import Outcome
from tests.contract.jobs_for_tests import Square

JOB = ("client", 1)


@pytest.fixture
def early():
    return Early()


def told(encoded, number=1):
    return JobOutcome("client", number, encoded, 0.0, "lab/1")


def failure():
    job = Square(1)
    job.retries = 1
    encoded = encode_outcome(Outcome.failed(ValueError("again")), job)
    assert asks_for_retry(encoded)
    return encoded


def test_parts_are_handed_out_in_their_order_with_the_first_outcome(early):
    for encoded in (cut_off(3), b"Rfirst", cut_off(2), b"Rsecond"):
        early.keep(told(encoded), 0.0)
    assert early.size == 2 * len(cut_off(0)) + len(b"Rfirst")
    news = early.take(JOB)
    assert [part.outcome for part in news.parts] == [cut_off(3), cut_off(2)]
    assert news.outcome.outcome == b"Rfirst"
    assert (len(early), early.size) == (0, 0)
    assert early.take(JOB).outcome is None


def test_a_failure_that_was_tried_again_makes_room_for_what_came_of_that(early):
    early.keep(told(failure()), 0.0)
    early.keep(told(b"Rresult"), 0.0)
    assert early.size == len(b"Rresult")
    assert early.take(JOB).outcome.outcome == b"Rresult"


def test_what_is_beyond_the_bound_is_not_kept(early, monkeypatch):
    monkeypatch.setattr(early_module, "EARLY_BYTES", 20)
    for number in (1, 2, 3):
        early.keep(told(b"R" * 10, number), 0.0)
    assert (len(early), early.size) == (2, 20)
    assert early.take(("client", 3)).outcome is None


def test_what_nobody_comes_for_is_forgotten_a_while_after_the_last_of_it(early):
    early.keep(told(cut_off(1)), 1.0)
    early.keep(told(b"R", 2), 1.0)
    early.keep(told(b"R"), 2.0)
    early.forget(before=1.5)
    assert early.take(("client", 2)).outcome is None
    early.forget(before=2.5)
    assert (len(early), early.size) == (0, 0)
