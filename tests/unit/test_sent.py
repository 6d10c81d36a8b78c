"""What a client knows of the jobs that its master has: the books of bundles, by themselves."""

from __future__ import annotations

from array import array

import pytest

from papyros.bundles import cut_off, death, outcomes
from papyros.distributed.bundling import Bundle
from papyros.distributed.sent import SentJobs
from papyros.encoded import encode_lost
from papyros.entries import Entry, Session

pytestmark = pytest.mark.compiled


def entry(number):
    return Entry(Session("client"), number, (bytes(16), b"blob"), 4)


def told(start, *encoded, over=False):
    return outcomes(start, array("d", [0.5] * len(encoded)), encoded, over)


def numbers(entries):
    return [entry.number for entry in entries]


@pytest.fixture
def sent():
    """Job 1 was sent by itself, jobs 2 to 5 as bundle 10."""
    sent = SentJobs()
    sent.add(entry(1))
    sent.add_bundle(Bundle(10, [entry(number) for number in range(2, 6)], b"bundle", b"seal"))
    return sent


def hear(sent, what):
    ended, again, _ = sent.hear(sent.bundles[10], what)
    return [(entry.number, bytes(outcome)) for entry, outcome, _ in ended], numbers(again)


def test_parts_and_the_end_of_a_bundle_end_its_jobs_one_after_the_other(sent):
    assert hear(sent, told(0, b"a", b"b")) == ([(2, b"a"), (3, b"b")], [])
    assert hear(sent, told(2, b"c", b"d", over=True)) == ([(4, b"c"), (5, b"d")], [])
    assert (sent.bundles, sent.bundle_of, len(sent)) == ({}, {}, 1)


def test_jobs_behind_a_cut_are_to_be_sent_again_and_only_these(sent):
    assert hear(sent, cut_off(2)) == ([], [4, 5])
    assert hear(sent, cut_off(3)) == ([], []), "said by another host, which was given the bundle, too"
    assert hear(sent, told(0, b"a", b"b", over=True)) == ([(2, b"a"), (3, b"b")], [])


@pytest.mark.parametrize("end", [death(1, "killed"), encode_lost("it was held by too many"), told(0, over=True)])
def test_when_a_bundle_ends_its_jobs_without_an_outcome_are_to_be_sent_again(sent, end):
    hear(sent, told(0, b"a"))
    assert hear(sent, end) == ([], [3, 4, 5])
    assert not sent.bundles


@pytest.mark.parametrize(("position", "number"), [(1, 3), (0, None)])
def test_the_job_that_ran_when_its_slave_died_is_charged_unless_its_outcome_has_come(sent, position, number):
    hear(sent, told(0, b"a"))
    charged = sent.hear(sent.bundles[10], death(position, "killed")).charged
    assert (charged and charged.number) == number


def test_an_outcome_counts_once_though_two_hosts_run_the_bundle(sent):
    assert hear(sent, told(0, b"a", b"b")) == ([(2, b"a"), (3, b"b")], [])
    assert hear(sent, told(0, b"A", b"B", b"C")) == ([(4, b"C")], [])


def test_outcomes_of_jobs_that_were_cut_off_are_dropped_where_another_host_runs_all_of_the_bundle(sent):
    """The host that cut it was closed: then the master gives all of the bundle to another one."""
    assert hear(sent, cut_off(2)) == ([], [4, 5])
    assert hear(sent, told(0, b"a", b"b", b"c", b"d", over=True)) == ([(2, b"a"), (3, b"b")], [])


def test_of_a_cancelled_bundle_jobs_that_were_not_meant_are_to_be_sent_again(sent):
    gone, again = sent.cancelled([1, 10], {1, 3})
    assert (gone, numbers(again)) == ([1, 3], [2, 4, 5])
    assert not len(sent)


def test_of_a_cancelled_bundle_jobs_behind_a_cut_are_not_gone(sent):
    """They wait here again by the time that the answer comes."""
    hear(sent, cut_off(1))
    gone, again = sent.cancelled([10], {3})
    assert (gone, numbers(again)) == ([], [2])


def test_what_was_cancelled_in_vain_is_to_be_sent_again_but_for_what_has_come_meanwhile(sent):
    hear(sent, told(0, b"a"))
    assert numbers(sent.cancelled_in_vain([10, 1, 99])) == [3, 4, 5, 1]
    assert not len(sent)
    assert sent.cancelled_in_vain([10, 1]) == []


def test_jobs_that_stand_in_no_book_are_found(sent):
    assigned = [*sent.single.values(), *sent.bundles[10].entries]
    assert sent.take_strays(assigned) == []
    sent.single.clear()
    assert numbers(sent.take_strays(assigned)) == [1]
    sent.bundles.clear()
    assert numbers(sent.take_strays(assigned)) == [1, 2, 3, 4, 5]
    assert not sent.bundle_of


def test_another_master_gets_the_bundles_of_which_something_is_still_to_come(sent):
    hear(sent, told(0, b"a"))
    sent.add_bundle(Bundle(11, [entry(6), entry(7)], b"bundle", b"seal"))
    sent.hear(sent.bundles[11], told(0, b"a", b"b"))
    sent.move()
    assert [bundle.number for bundle in sent.take_unsent(10)] == [10]
    assert list(sent.bundles) == [10], "nothing would ever be told of the other one there"


def test_jobs_of_a_bundle_that_another_master_is_still_to_get_are_on_their_way(sent):
    assert not sent.is_leaving(None)
    sent.move()
    assert sent.is_leaving(None)
    assert sent.is_leaving([1, 3])
    assert not sent.is_leaving([1])
    sent.take_unsent(10)
    assert not sent.is_leaving([3])


def test_what_is_leaving_has_the_numbers_under_which_it_is_sent(sent):
    assert sent.leaving_as(None) == set()
    sent.move()
    sent.add_bundle(Bundle(11, [entry(6), entry(7)], b"bundle", b"seal"))
    sent.add(entry(8))
    sent.leaving = {6, 7, 8}
    assert sent.leaving_as(None) == {8, 10, 11}
    assert sent.leaving_as([3, 7]) == {10, 11}
    assert sent.leaving_as([1]) == set()


def test_what_is_taken_out_of_a_message_is_not_leaving_and_does_not_wait_at_the_master(sent):
    sent.add_bundle(Bundle(11, [entry(6), entry(7)], b"bundle", b"seal"))
    sent.add(entry(8))
    sent.leaving = {6, 7, 8}
    assert sent.waiting == (2, 8)
    gone, again = sent.take_out({8, 11}, {6, 8})
    assert (sorted(gone), numbers(again)) == ([6, 8], [7])
    assert sent.waiting == (1, 4)
    assert not sent.is_leaving([6, 7, 8])
    assert list(sent.bundles) == [10]
