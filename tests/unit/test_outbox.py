"""What a slave host has to tell: gathered, told of one stay, and known until it has arrived."""

from __future__ import annotations

import threading

import pytest

from papyros.bundles import cut_off
from papyros.deadlines import AT_ONCE
from papyros.distributed import outbox as outbox_module
from papyros.distributed.batches import JobOutcome
from papyros.distributed.outbox import Outbox
from papyros.prints import keep_end, room_for
from tests.support import PATIENCE

JOB = ("client", 1)


@pytest.fixture
def outbox():
    with (lock := threading.Lock()):
        yield Outbox(lock)


def outcome(number, encoded=b"result"):
    return JobOutcome("client", number, encoded, 0.0, "lab/1")


def test_what_has_ended_is_known_until_the_report_has_arrived(outbox):
    outbox.finished([outcome(1), outcome(2, cut_off(1))])
    assert outbox.ended() == [JOB], "more is to come of the other one"
    report, _ = outbox.take()
    assert (len(report.outcomes), outbox.sequence, outbox.flying, outbox.ended()) == (2, 1, [JOB], [])
    assert outbox.is_owed()
    assert not outbox.is_any_left()
    outbox.arrived()
    assert (outbox.flying, outbox.is_owed()) == ([], False)


def test_nobody_waits_for_a_report_of_nothing_or_of_lent_places(outbox):
    assert not any(outbox.take()[0])
    outbox.lent(1)
    assert outbox.take()[0].lent == [1]
    assert not outbox.is_owed()
    assert not outbox.await_told(AT_ONCE)


def test_only_the_last_number_of_lent_places_is_told(outbox):
    for places in range(3):
        outbox.lent(places)
    outbox.begin_stay("another")
    assert outbox.take()[0].lent == [2]


def test_in_another_stay_outcomes_are_told_and_nothing_that_was_held_before(outbox):
    outbox.lent(2)
    outbox.finished([outcome(1)])
    outbox.died([(*JOB, "killed")])
    outbox.returned([JOB], "stopped")
    outbox.begin_stay("another")
    report, stay = outbox.take()
    assert stay == "another"
    assert (len(report.outcomes), report.deaths, report.returned, report.lent[-1]) == (1, [], [], 2)


def test_outcomes_that_do_not_fit_into_a_message_are_told_by_the_next_one(outbox, monkeypatch):
    monkeypatch.setattr(outbox_module, "REPORT_BYTES", 10)
    outbox.finished([outcome(1), outcome(2)])
    assert [done.number for done in outbox.take()[0].outcomes] == [1]
    assert outbox.is_any_left()
    assert [done.number for done in outbox.take()[0].outcomes] == [2]
    assert not outbox.is_any_left()


def test_of_what_jobs_print_the_oldest_goes_when_it_is_too_much(outbox, monkeypatch):
    monkeypatch.setattr(outbox_module, "PRINT_CHARACTERS", 160)
    long = "a line that is " + "very " * 50 + "long"
    for text in ("first", "second", long):
        outbox.printed(JOB, "lab/1", text)
    [kept] = [text for *_, text in outbox.take()[0].prints]
    assert long.endswith(kept)
    assert 140 <= room_for(kept) <= 160
    fits = "x" * (160 - room_for(""))
    outbox.printed(JOB, "lab/1", fits)
    assert [text for *_, text in outbox.take()[0].prints] == [fits]


def test_a_line_end_costs_a_long_print_before_it_only_its_beginning(outbox, monkeypatch):
    long = "a " + "very " * 50 + "long one"
    bound = room_for(long) + room_for("\n") - 2
    monkeypatch.setattr(outbox_module, "PRINT_CHARACTERS", bound)
    outbox.printed(JOB, "lab/1", long)
    outbox.printed(JOB, "lab/1", "\n")
    kept, end = [text for *_, text in outbox.take()[0].prints]
    assert (long.endswith(kept), end) == (True, "\n")
    assert 7 * bound // 8 <= room_for(kept) + room_for(end) <= bound


def test_a_long_print_is_rarely_cut_for_short_ones_that_follow_it():
    """To cut it copies it, and whoever does so has the lock of the desk, or slaves to look after."""
    texts, bound = [("x" * (1 << 20),)], 1 << 20
    lengths, taken = set(), room_for(texts[0][-1])
    for _ in range(8000):
        texts.append(("a line\n",))
        taken = keep_end(texts, taken + room_for("a line\n"), bound)
        lengths.add(len(texts[0][-1]))
        assert 7 * bound // 8 <= taken <= bound
    assert len(lengths) < 10
    assert sum(room_for(text) for (text,) in texts) == taken


def test_very_many_short_prints_do_not_fill_a_message(outbox):
    for _ in range(100_000):
        outbox.printed(JOB, "lab/1", "\n")
    assert len(outbox.take()[0].prints) < 100_000 // 5


def test_nothing_is_told_only_when_the_master_has_not_been_heard_for_long(outbox):
    left = iter([0.01, 0.01, 0.0])  # it answers something else meanwhile, once
    assert not any(outbox.take(lambda: next(left))[0])
    assert not list(left)


def test_a_report_of_nothing_can_be_had_at_once():
    lock = threading.RLock()
    outbox = Outbox(lock)

    def wake():
        with lock:
            outbox.wake()

    with lock:
        threading.Timer(0.0, wake).start()  # it waits for the lock, which is given back by whoever waits for news
        assert not any(outbox.take(lambda: PATIENCE)[0])


def test_a_stay_that_begins_twice_forgets_nothing(outbox):
    """The master may have heard of jobs that were claimed, though no answer said so: how they died is to be told."""
    outbox.begin_stay("first")
    outbox.died([(*JOB, "killed")])
    outbox.begin_stay("first")
    assert outbox.take()[0].deaths == [(*JOB, "killed")]
    outbox.died([(*JOB, "killed")])
    outbox.begin_stay("second")
    assert outbox.take()[0].deaths == []
