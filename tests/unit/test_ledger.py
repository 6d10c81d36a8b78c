"""What the model of the ledger leaves out, by hand."""

from __future__ import annotations

import pytest

from papyros.ledger import MAX_LOSSES, Ledger
from papyros.shares import LONG_SECONDS, share
from papyros.terms import Terms

pytestmark = pytest.mark.compiled


def filled(jobs, **options):
    ledger = Ledger()
    session = ledger.open("client", **options)
    for number in range(1, jobs + 1):
        ledger.add(session, number, f"payload {number}")
    return ledger, session


def test_clients_are_served_in_turns():
    ledger = Ledger()
    sessions = [ledger.open(key) for key in "abc"]
    for number in range(1, 4):
        for session in sessions:
            ledger.add(session, number, None)
    holder = ledger.enlist("host", 1)
    served = [ledger.assign(holder, 1)[0].session.key for _ in range(9)]
    assert served == list("abcabcabc")


def test_each_client_has_its_turn_in_one_piece():
    ledger = Ledger()
    sessions = [ledger.open(key) for key in "abc"]
    for session in sessions:
        for number in range(1, 101):
            ledger.add(session, number, None)
    batch = ledger.assign(ledger.enlist("host", 1), 31)
    assert "".join(entry.session.key for entry in batch) == 10 * "a" + 10 * "b" + 10 * "c" + "a"


def test_a_client_that_does_not_pop_does_not_hold_up_the_others():
    ledger = Ledger()
    stuck, other = ledger.open("stuck", max_processed=1), ledger.open("other")
    for number in range(1, 4):
        ledger.add(stuck, number, None)
        ledger.add(other, number, None)
    batch = ledger.assign(ledger.enlist("host", 8), 8)
    assert [entry.session.key for entry in batch].count("stuck") == 1
    assert [entry.session.key for entry in batch].count("other") == 3


def test_a_job_that_kills_three_slaves_is_lost_and_tells_of_each():
    ledger, session = filled(1)
    holder = ledger.enlist("host", 1)
    for death in ("first", "second", "third"):
        [entry] = ledger.assign(holder, 1)
        assert ledger.charge(holder, entry, death) is (death == "third")
    assert ledger.assign(holder, 1) == []
    [entry] = ledger.pop(session)
    assert entry.outcome == ["first", "second", "third"]


def test_a_job_that_loses_its_holders_time_and_again_is_lost_in_the_end():
    ledger, session = filled(1)
    for number in range(MAX_LOSSES):
        assert session.processed == type(session.processed)()
        assert len(ledger.assign(ledger.enlist(number, 1), 1)) == 1
        ledger.dismiss(number, f"host {number} is gone")
    [entry] = ledger.pop(session)
    assert entry.outcome == [f"host {number} is gone" for number in range(MAX_LOSSES)]


def test_a_job_that_may_be_started_once_is_lost_with_its_holder():
    ledger = Ledger()
    session = ledger.open("client")
    for number in (1, 2):
        ledger.add(session, number, None, 0, Terms(once=True))
    ledger.assign(ledger.enlist("host", 1), 1)
    assert [entry.number for entry in ledger.dismiss("host", "it burned")] == [1]
    [entry] = ledger.pop(session)
    assert (entry.number, entry.outcome) == (1, ["it burned"])
    [other] = ledger.assign(ledger.enlist("other", 1), 5)
    assert other.number == 2, "what was not handed out was not started"
    ledger.give_back(ledger.enlist("other", 1), [other])
    assert ledger.assign(ledger.enlist("other", 1), 5) == [other], "nor what was handed out and not begun"


def test_a_backoff_never_grows_beyond_what_a_number_can_hold():
    """Ten thousand tries without a delay, or with a short one, must not end whoever keeps the books."""
    ledger = Ledger()
    session = ledger.open("client")
    holder = ledger.enlist("host", 1)
    for number, backoff in ((1, 0.0), (2, 1e-9)):
        ledger.add(session, number, None, 0, Terms(retries=2000, backoff=backoff))
        for _ in range(2000):
            [entry] = ledger.assign(holder, 1)
            assert ledger.finish(session, number, "failed", again_at=lambda delay: delay)
            ledger.wake(float("inf"))
        [entry] = ledger.assign(holder, 1)
        assert ledger.finish(session, number, "failed", again_at=lambda delay: delay)
        assert entry.state == "processed"


def test_a_job_that_waits_for_its_next_try_takes_up_room():
    ledger = Ledger()
    session = ledger.open("client", max_waiting=1)
    ledger.add(session, 1, None, 0, Terms(retries=1))
    [entry] = ledger.assign(ledger.enlist("host", 1))
    assert session.has_room()
    ledger.finish(session, entry.number, "failed", again_at=lambda delay: 100 + delay)
    assert not session.has_room()
    ledger.cancel(session, 1)
    assert session.has_room()


@pytest.mark.parametrize("how", ["its client leaves", "its parent has an outcome"])
def test_what_was_to_be_tried_again_does_not_come_back_once_it_is_dropped(how):
    """It would be assigned to a holder that cannot run it, and take up a place there for ever."""
    ledger = Ledger()
    client = ledger.open("client")
    holder = ledger.enlist("host", 2)
    ledger.add(client, 1, "parent")
    [parent] = ledger.assign(holder, 1)
    family = ledger.open("family", parent=parent)
    ledger.add(family, 1, "child", 0, Terms(retries=1, backoff=1.0))
    [child] = ledger.assign(holder, 1)
    ledger.finish(family, 1, "failed", again_at=lambda delay: 100 + delay)
    assert child.delayed
    if how == "its client leaves":
        ledger.drop("client")
    else:
        ledger.finish(client, 1, "done")
    assert ledger.wake(1000.0) == 0
    assert ledger.assign(holder, 5) == []
    assert not holder.assigned


@pytest.mark.parametrize("how", ["cancel", "cancel_waiting", "discard", "drop", "finish"])
def test_the_books_let_go_of_jobs_that_wait_for_no_next_try_any_more(how):
    """Their moment may be a day away, and until then each kept its client's session."""
    ledger = Ledger()
    holder = ledger.enlist("host", 1000)
    for key in range(10):
        session = ledger.open(key)
        for number in range(100):
            ledger.add(session, number, "payload", 0, Terms(retries=1))
            ledger.assign_to(holder, session.entries[number])
            ledger.finish(session, number, "failed", again_at=lambda delay: 100_000 + delay)
        assert len(ledger._delays._heap) >= 100
        if how == "cancel_waiting":
            assert len(ledger.cancel_waiting(session)) == 100
        elif how == "drop":
            ledger.drop(key)
        elif how == "discard":
            ledger.discard(session, range(100))
        else:
            for number in range(100):
                ledger.cancel(session, number) if how == "cancel" else ledger.finish(session, number, "done elsewhere")
    assert len(ledger._delays._heap) <= 100
    session = ledger.open("last")
    ledger.add(session, 1, "payload", 0, Terms(retries=1))
    ledger.assign_to(holder, session.entries[1])
    ledger.finish(session, 1, "failed", again_at=lambda delay: 50_000 + delay)
    assert ledger.wake(60_000.0) == 1
    assert ledger.wake(200_000.0) == 0


def test_many_delays_that_are_over_keep_the_others_waiting():
    ledger = Ledger()
    session, holder = ledger.open("client"), ledger.enlist("host", 1000)
    for number in range(1000):
        ledger.add(session, number, "payload", 0, Terms(retries=1))
        ledger.assign_to(holder, session.entries[number])
        ledger.finish(session, number, "failed", again_at=lambda _, moment=number % 10: float(moment))
    assert [ledger.wake(float(now)) for now in range(11)] == [*[100] * 10, 0]
    assert not ledger._delays._heap
    assert (session.delayed, len(session.line)) == (0, 1000)


def test_a_number_that_was_cancelled_may_come_again_with_another_priority():
    """A message that is repeated late: what was cancelled meanwhile is a new job then, and is assigned, once."""
    ledger = Ledger()
    session = ledger.open("client")
    ledger.add(session, 1, "front", 0, Terms(0))
    ledger.add(session, 2, "cancelled", 0, Terms(0))
    ledger.cancel(session, 2)
    ledger.add(session, 2, "again", 0, Terms(5))
    batch = ledger.assign(ledger.enlist("host", 4), 4)
    assert [entry.payload for entry in batch] == ["again", "front"]


def test_a_job_that_was_only_handed_out_is_never_charged():
    ledger, session = filled(1)
    for number in range(10):
        holder = ledger.enlist(number, 1)
        assert len(ledger.assign(holder, 1)) == 1
        assert len(ledger.dismiss(number)) == 1
    [entry] = ledger.assign(ledger.enlist("last", 1), 1)
    assert not entry.deaths
    assert ledger.finish(session, 1, "done")


def test_an_assignment_holds_no_more_bytes_than_fit():
    ledger = Ledger()
    session = ledger.open("client")
    for number in range(1, 11):
        ledger.add(session, number, b"", size=3 << 20)
    batch = ledger.assign(ledger.enlist("host", 4), 10)
    assert [entry.number for entry in batch] == [1]  # with the next one it would be more than the bound
    ledger.add(session, 11, b"", size=1 << 20)
    assert [entry.number for entry in ledger.assign(ledger.enlist("host", 4), 10)] == [2]


def test_a_large_job_goes_alone_and_small_ones_beside_it_do_not():
    ledger = Ledger()
    session = ledger.open("client")
    for number, size in enumerate((10, 20, 1 << 30, 30, 40), 1):
        ledger.add(session, number, b"", size=size)
    holder = ledger.enlist("host", 4)
    batches = iter(lambda: [entry.number for entry in ledger.assign(holder, 10)], [])
    assert list(batches) == [[1, 2], [3], [4, 5]]
    assert not ledger.anything_waits()
    assert session.line.size == 0


def test_a_client_whose_jobs_are_large_is_not_passed_over_for_ever():
    ledger = Ledger()
    small, large = ledger.open("small"), ledger.open("large")
    for number in range(1, 101):
        ledger.add(small, number, b"", size=10)
    for number in range(1, 4):
        ledger.add(large, number, b"", size=5 << 20)
    holder = ledger.enlist("host", 4)
    turns = []
    while batch := ledger.assign(holder, 10):
        turns.append(batch[0].session.key)
    assert turns[:6] == ["small", "large"] * 3


def test_one_large_job_is_assigned_all_the_same():
    ledger = Ledger()
    ledger.add(ledger.open("client"), 1, b"", size=1 << 30)
    assert len(ledger.assign(ledger.enlist("host", 1))) == 1


def test_a_delivery_holds_no_more_bytes_than_fit_but_at_least_one_job():
    ledger, session = filled(4)
    for entry in ledger.assign(ledger.enlist("host", 1), 4):
        ledger.finish(session, entry.number, b"x" * 100, size=100)
    sizes = []
    while entries := ledger.collect(session, session.delivery.number, 10, 150).entries:
        sizes.append(len(entries))
    assert sizes == [1, 1, 1, 1]
    assert session.pending == 0


def test_a_large_outcome_is_delivered_alone():
    ledger, session = filled(5)
    for entry, size in zip(ledger.assign(ledger.enlist("host", 1), 5), (10, 20, 1 << 30, 100, 50), strict=True):
        ledger.finish(session, entry.number, b"", size=size)
    deliveries = []
    while entries := ledger.collect(session, session.delivery.number, 10, 150).entries:
        deliveries.append([entry.size for entry in entries])
    assert deliveries == [[10, 20], [1 << 30], [100, 50]]


def test_delivered_jobs_count_towards_the_bound_until_they_are_acknowledged():
    ledger, session = filled(5, max_processed=3)
    holder = ledger.enlist("host", 5)
    for entry in ledger.assign(holder, 5):
        ledger.finish(session, entry.number, "done")
    assert session.delivery.entries == []
    first = ledger.collect(session, 0, 2, 1 << 20).number
    assert ledger.assign(holder, 5) == []
    ledger.collect(session, first, 2, 1 << 20)
    assert [entry.number for entry in ledger.assign(holder, 5)] == [4, 5]


def test_two_clients_share_a_limit_however_many_jobs_they_have():
    ledger = Ledger()
    many, few = ledger.open("many"), ledger.open("few")
    for number in range(1, 1001):
        ledger.add(many, number, None)
    for number in range(1, 11):
        ledger.add(few, number, None)
    batch = ledger.assign(ledger.enlist("host", 20), 20)
    assert sum(entry.session is few for entry in batch) >= 6  # the first one may have the rest


def test_quick_jobs_are_assigned_ahead_and_long_ones_are_not():
    ahead = {}
    for seconds in (1e-5, 10.0):
        ledger, session = filled(10_000)
        holder = ledger.enlist("host", 2)
        [entry] = ledger.assign(holder, 1)
        ledger.finish(session, entry.number, None, seconds)
        ahead[seconds] = len(ledger.assign(holder)) - 2
    assert ahead[10.0] == 0
    assert ahead[1e-5] > 100


@pytest.mark.parametrize(("others", "waiting", "assigned"), [(0, 6, 6), (1, 6, 2 + 6 // 4), (0, 100, 2 + 100 // 2)])
def test_who_is_alone_is_assigned_the_last_jobs_and_who_is_not_leaves_some_to_others(others, waiting, assigned):
    ledger, session = filled(waiting + 1)
    holder = ledger.enlist("host", 2)
    for number in range(others):
        ledger.enlist(f"other {number}", 2)
    [entry] = ledger.assign(holder, 1)
    ledger.finish(session, entry.number, None, 0.01)
    assert len(ledger.assign(holder)) == assigned


def test_jobs_that_left_the_line_are_counted_once_however_often_they_come_back():
    """As `Counts.left` says: those that left the waiting line for the first time."""
    ledger, session = filled(3)
    holder = ledger.enlist("host", 1)
    for _ in range(3):
        [entry] = ledger.assign(holder, 1)
        ledger.give_back(holder, [entry])
    assert session.counts.left == 1
    ledger.charge(holder, *ledger.assign(holder, 1), "death")
    ledger.cancel(session, 1)
    assert session.counts.left == 1
    ledger.cancel_waiting(session)
    assert session.counts.left == 3


@pytest.mark.parametrize("collected", [False, True])
def test_a_processed_job_that_is_discarded_is_never_popped(collected):
    ledger, session = filled(2)
    for entry in ledger.assign(ledger.enlist("host", 1), 2):
        ledger.finish(session, entry.number, "done")
    if collected:
        ledger.collect(session, 0, 1, 1 << 20)
    ledger.discard(session, [1])
    numbers = [entry.number for entry in ledger.pop(session, 5)]
    assert numbers == [2]
    assert session.pending == 0
    ledger.collect(session, session.delivery.number, 5, 1 << 20)
    assert session.counts.popped <= 2


def test_cancelled_jobs_do_not_keep_their_payload():
    """A client that adds and cancels for hours must not fill the memory of its master."""
    import gc
    import weakref

    class Payload:
        pass

    ledger = Ledger()
    session = ledger.open("client")
    ledger.add(session, 1, None)  # the front of the line, so that the others are in its middle
    payload = Payload()
    alive = weakref.ref(payload)
    ledger.add(session, 2, payload)
    del payload
    ledger.cancel(session, 2)
    gc.collect()
    assert alive() is None


def test_jobs_that_hold_up_others_are_given_ahead_again_once_outcomes_are_quick():
    ledger, session = filled(100)
    holder = ledger.enlist("host", 1)
    for entry in ledger.assign(holder, 30):
        ledger.finish(session, entry.number, b"", 0.001)
    assert share(holder, [holder], [session]) > 1
    ledger.note_slow([session])
    assert session.seconds == LONG_SECONDS
    assert share(holder, [holder], [session]) == 1
    for entry in ledger.assign(holder, 20):
        ledger.finish(session, entry.number, b"", 0.001)
    assert share(holder, [holder], [session]) > 1


def test_a_client_whose_results_have_no_room_keeps_nobody_else_from_having_jobs_ahead():
    """Those that it does not collect are more than it may have, and were once taken off the room of all others."""
    ledger = Ledger()
    holder, other = ledger.enlist("holder", 4), ledger.enlist("other", 4)
    quick, full = (ledger.open(key, max_processed_bytes=1_000_000) for key in ("quick", "full"))
    for session in (quick, full):
        for number in range(300):
            ledger.add(session, number, "payload")
    quick.seconds, quick.result_bytes = 0.001, 100_000.0
    assert ledger.bearable(holder, 8) == 8
    for entry in [ledger.assign_next(other, full) for _ in range(20)]:
        ledger.finish(full, entry.number, "done", 0.001, 100_000)
    assert full.is_full
    assert ledger.bearable(holder, 8) == 8
