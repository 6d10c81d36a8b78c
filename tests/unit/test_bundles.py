"""Bundles without a cluster: their bytes, which jobs are sent in one, and what a client knows of those it has sent."""

from __future__ import annotations

import itertools
import struct
from array import array

import pytest

from papyros import bundles
from papyros.bundles import MOST_JOBS, Told
from papyros.distributed import exchange as exchange_module
from papyros.distributed.batches import HostJob
from papyros.distributed.bundling import BUNDLE_SECONDS, MOST_CLASSES, SMALL_BYTES, Bundle, Bundling
from papyros.distributed.exchange import SEND_JOBS, Exchange
from papyros.distributed.intake import Intake
from papyros.distributed.seals import Seals
from papyros.distributed.sent import SentJobs
from papyros.entries import Entry, Session
from papyros.ledger import Ledger
from papyros.terms import DEFAULT_TERMS
from papyros.wire import definition_digest
from tests.support import security

pytestmark = pytest.mark.compiled

QUICK, OTHER = b"q" * 16, b"o" * 16
SECONDS = array("d", [0.1, 0.2])


# The bytes ----------------------------------------------------------------------------------


def test_a_bundle_has_the_blobs_that_were_packed():
    blobs = [b"", b"one", b"x" * 100_000]
    bundle = bundles.pack_bundle(blobs)
    assert [bytes(blob) for blob in bundles.blobs_of(bundle)] == blobs
    assert bundles.count_jobs(bundle) == 3


@pytest.mark.parametrize("over", [False, True])
def test_outcomes_are_read_as_they_were_told(over):
    told = bundles.outcomes(3, SECONDS, [b"Rone", b"Rtwo"], over)
    bundles.check(told, 5, over)
    assert bundles.is_of_bundle(told)
    assert bundles.is_more_to_come(told) is not over
    assert bundles.read(told, 5) == Told(3, [b"Rone", b"Rtwo"], SECONDS, 0 if over else 5)


def test_the_end_may_tell_of_no_outcome():
    told = bundles.outcomes(5, array("d"), [], over=True)
    bundles.check(told, 5, over=True)
    assert bundles.read(told, 5) == Told(5, [], (), 0)


def test_a_cut_tells_how_many_jobs_are_kept_and_a_death_that_none_is():
    assert bundles.read(bundles.cut_off(3), 5) == Told(3, [], (), 3)
    assert bundles.is_more_to_come(bundles.cut_off(3))
    killed = bundles.death(2, "killed")
    assert bundles.read(killed, 5) == Told(2, [], (), 0)
    assert bundles.is_death(killed)
    assert bundles.story_of(killed) == "killed"
    assert bundles.story_of(bundles.cut_off(3)) == ""
    assert not bundles.is_more_to_come(killed)


HEAD = struct.Struct("<II")

NONSENSE = {
    "nothing": b"",
    "too short": b"+123",
    "an outcome of one job": b"Rsomething",
    "beyond the last job": b"=" + HEAD.pack(4, 2) + bytes(32) + b"RR",
    "half of the seconds": b"+" + HEAD.pack(0, 1) + bytes(7),
    "no lengths": b"+" + HEAD.pack(0, 1) + bytes(8),
    "a length beyond its end": b"+" + HEAD.pack(0, 1) + bytes(8) + b"\xff" * 8 + b"R",
    "more than its length": b"+" + HEAD.pack(0, 1) + bytes(8) + b"\x01" + bytes(7) + b"RRR",
}


@pytest.mark.parametrize("told", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_by_whoever_reads_it_and_by_whoever_passes_it_on(told):
    with pytest.raises(ValueError):
        bundles.read(told, 5)
    for over in (False, True):
        with pytest.raises(ValueError):
            bundles.check(memoryview(told), 5, over)


def test_what_a_slave_does_not_tell_is_not_passed_on():
    part, end = (bundles.outcomes(0, SECONDS, [b"R", b"R"], over) for over in (False, True))
    for told, jobs, over in [
        (part, 5, True),
        (end, 5, False),
        (part, 1, False),  # it runs no bundle
        (bundles.cut_off(2), 5, False),
        (bundles.death(2, "killed"), 5, True),
    ]:
        with pytest.raises(ValueError):
            bundles.check(told, jobs, over)


# Which jobs ---------------------------------------------------------------------------------


def entries(*sizes, definition=QUICK, session=None, **terms):
    session = session or Session("client")
    return [
        Entry(session, number, (definition, bytes(size)), size, DEFAULT_TERMS._replace(**terms))
        for number, size in enumerate(sizes, 1)
    ]


def lengths(bundling, jobs):
    return [len(each) for each in bundling.parted(jobs)]


@pytest.fixture
def bundling():
    """Knows jobs of which ten go into a bundle."""
    bundling = Bundling()
    bundling.learn(QUICK, BUNDLE_SECONDS / 10.5, 10)
    return bundling


def test_jobs_of_which_nothing_is_known_travel_by_themselves():
    assert lengths(Bundling(), entries(*[1] * 5)) == [1] * 5


def test_quick_jobs_travel_in_bundles_in_their_order(bundling):
    jobs = entries(*[1] * 25)
    parted = list(bundling.parted(jobs))
    assert [len(each) for each in parted] == [10, 10, 5]
    assert [job for each in parted for job in each] == jobs


def test_there_are_never_too_many_in_a_bundle_however_quick_they_are():
    bundling = Bundling()
    bundling.learn(QUICK, 0.0, 0)
    assert lengths(bundling, entries(*[1] * (MOST_JOBS + 1))) == [MOST_JOBS, 1]


def test_there_may_be_fewer_in_a_bundle_but_never_more_than_are_quick(bundling):
    jobs = entries(*[1] * 25)
    assert [len(each) for each in bundling.parted(jobs, 7)] == [7, 7, 7, 4]
    assert [len(each) for each in bundling.parted(jobs, 11)] == [10, 10, 5]


@pytest.mark.parametrize(
    ("slaves", "first"), [(0, [10, 10, 5]), (2, [10, 10, 5]), (4, [7, 7, 7, 4]), (100, [4, 4, 4, 4, 4, 4, 1])]
)
def test_none_of_the_slaves_has_to_wait_until_another_one_has_done_the_first_bundle(bundling, slaves, first):
    ledger = Ledger()
    session, holder = ledger.open("client"), ledger.enlist("cluster", 1)
    seals = Seals(security().key, "client")
    exchange = Exchange(ledger, holder, itertools.count(1000), seals, bundling, lambda: None)
    for bundled in (first, [10, 9]):
        for _ in range(sum(bundled)):
            ledger.add(session, len(session.entries) + 1, (QUICK, b"x"), 1, DEFAULT_TERMS)
        assert [job.terms.jobs for job in exchange.next_batch(lambda: SEND_JOBS, slaves)] == bundled


def test_a_message_ends_when_there_are_enough_bytes_in_it_and_one_job_may_be_larger(monkeypatch):
    monkeypatch.setattr(exchange_module, "ASSIGNMENT_BYTES", 100)
    ledger = Ledger()
    session, holder = ledger.open("client"), ledger.enlist("cluster", 1)
    seals = Seals(security().key, "client")
    exchange = Exchange(ledger, holder, itertools.count(1000), seals, Bundling(most=1), lambda: None)
    for number, size in enumerate((40, 40, 40, 300, 1, 99, 1), 1):
        ledger.add(session, number, (QUICK, bytes(size)), size, DEFAULT_TERMS)
    batches = [[job.number for job in exchange.next_batch(lambda: SEND_JOBS, 1)] for _ in range(6)]
    assert batches == [[1, 2], [3], [4], [5, 6], [7], []]


def test_a_message_of_many_pieces_is_bounded_all_the_same(monkeypatch):
    """Jobs are taken in pieces: what the first ones have taken is not there for the next ones."""
    monkeypatch.setattr(exchange_module, "ASSIGNMENT_BYTES", 100)
    monkeypatch.setattr(exchange_module, "SEND_JOBS", 2)
    ledger = Ledger()
    session, holder = ledger.open("client"), ledger.enlist("cluster", 1)
    bundling = Bundling()
    bundling.learn(QUICK, 0.0, 0)
    exchange = Exchange(ledger, holder, itertools.count(1000), Seals(security().key, "c"), bundling, lambda: None)
    for number in range(1, 21):
        ledger.add(session, number, (QUICK, bytes(30)), 30, DEFAULT_TERMS)
    exchange.next_batch(lambda: 2, 0)
    assert len(holder.assigned) == 3, "and not four, of 120 bytes"


def test_a_client_may_want_no_bundles():
    bundling = Bundling(most=1)
    bundling.learn(QUICK, 0.0, 0)
    assert lengths(bundling, entries(*[1] * 3)) == [1] * 3


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0, 1e300])
def test_times_that_no_job_takes_break_nothing(bundling, seconds):
    bundling.learn(QUICK, seconds, 10)
    assert sum(lengths(bundling, entries(*[1] * 5))) == 5


def test_large_arguments_and_jobs_that_were_sent_before_travel_by_themselves(bundling):
    jobs = entries(1, 1, SMALL_BYTES + 1, 1, 1, 1)
    jobs[4].payload += (b"its seal",)
    assert lengths(bundling, jobs) == [2, 1, 1, 1, 1]


def test_large_results_and_long_jobs_keep_a_class_out_of_bundles(bundling):
    bundling.learn(QUICK, 0.0, 100 * SMALL_BYTES)
    assert bundling.jobs(QUICK) == 1
    bundling.learn(OTHER, 1.0, 1)
    assert bundling.jobs(OTHER) == 1


@pytest.mark.parametrize("terms", [{"timeout": 1.0}, {"retries": 1}, {"once": True}, {"echo": True}])
def test_jobs_that_want_more_than_to_be_run_travel_by_themselves(bundling, terms):
    assert lengths(bundling, entries(1, 1, 1, **terms)) == [1] * 3


def test_classes_and_priorities_are_not_mixed(bundling):
    bundling.learn(OTHER, 0.0, 1)
    jobs = [*entries(1, 1), *entries(1, 1, definition=OTHER), *entries(1, 1, priority=2), *entries(1, 1)]
    assert lengths(bundling, jobs) == [2, 2, 2, 2]


def test_of_too_many_classes_all_is_forgotten(bundling):
    for number in range(MOST_CLASSES):
        bundling.learn(number.to_bytes(16, "little"), 0.0, 1)
    assert bundling.jobs(QUICK) == 1


# What was sent ------------------------------------------------------------------------------


@pytest.fixture
def bundle():
    return Bundle(100, entries(1, 1, 1), b"blob", b"seal")


@pytest.fixture
def sent(bundle):
    sent = SentJobs()
    sent.add_bundle(bundle)
    return sent


def test_jobs_of_a_bundle_are_known_under_its_number(sent):
    assert [sent.sent_as(number) for number in (1, 2, 3, 4)] == [100, 100, 100, 4]
    assert sent.seal_of(100) == b"seal"
    assert sent.seal_of(1) is None
    assert len(sent) == 3


def test_a_job_is_taken_out_of_a_bundle_once(sent, bundle):
    first = bundle.entries[0]
    assert sent.take(bundle, [first]) == [first]
    assert sent.take(bundle, [first]) == []
    assert bundle.left == 2
    assert sent.dissolve(bundle) == list(bundle.entries[1:])
    assert sent.dissolve(bundle) == []
    assert (len(sent), sent.bundles, bundle.left) == (0, {}, 0)


def test_the_master_drops_a_bundle_only_when_nobody_wants_any_of_it(sent):
    assert list(sent.drop([1, 3])) == []
    assert list(sent.drop([1, 7])) == []
    assert list(sent.drop([2])) == [100]
    assert sent.bundles == {}


def test_another_master_is_sent_those_bundles_of_which_something_is_left(sent, bundle):
    done = Bundle(200, entries(1, 1), b"blob", b"seal")
    sent.add_bundle(done)
    sent.take(done, done.entries)
    sent.add(Entry(Session("client"), 9, (QUICK, b"", b"seal"), 0))
    sent.move()
    assert sent.single == {}
    assert sent.bundles == {100: bundle}
    assert sent.take_unsent(10) == [bundle]
    assert sent.take_unsent(10) == []


def test_of_many_bundles_only_so_many_are_sent_again_at_a_time(sent):
    more = [Bundle(number, entries(1, 1), b"blob", b"seal") for number in range(200, 205)]
    for each in more:
        sent.add_bundle(each)
    sent.move()
    assert [len(sent.take_unsent(4)), len(sent.take_unsent(4)), len(sent.take_unsent(4))] == [4, 2, 0]


# What comes to a slave host -----------------------------------------------------------------


DEFINITION = b"a definition"
DIGEST = definition_digest(DEFINITION)


@pytest.fixture
def intake():
    intake = Intake(security().key)
    intake.define({DIGEST: DEFINITION})
    return intake


def host_job(jobs, seal_as, blob=None, told=None):
    """Return a bundle of so many jobs on its way to a slave host, which was `told` by a master how many they are."""
    seals = Seals(security().key, "client")
    blob = bundles.pack_bundle([b"one"] * jobs) if blob is None else blob
    seal = getattr(seals, seal_as)(7, DIGEST, blob)
    return HostJob("client", 7, DIGEST, blob, DEFAULT_TERMS._replace(jobs=jobs if told is None else told), seal)


def test_a_bundle_is_let_in_as_it_was_sealed(intake):
    tasks, altered = intake.check([host_job(3, "seal_bundle"), host_job(1, "seal_job")])
    assert [task.terms.jobs for task in tasks] == [3, 1]
    assert not altered


@pytest.mark.parametrize(
    ("jobs", "seal_as", "told"),
    [
        (3, "seal_job", None),
        (1, "seal_bundle", None),
        (3, "seal_bundle", 1),
        *((1, "seal_job", told) for told in (3, 0, -1, 1.0, "1", [1])),
        *((3, "seal_bundle", told) for told in (2, 4, 3.0, 1 << 70, "3", [3])),
        (MOST_JOBS + 1, "seal_bundle", None),
    ],
)
def test_what_does_not_fit_its_seal_or_its_blob_is_not_let_in(intake, jobs, seal_as, told):
    tasks, altered = intake.check([host_job(jobs, seal_as, told=told)])
    assert not tasks
    assert [(session, number) for session, number, _ in altered] == [("client", 7)]


def test_a_bundle_of_nothing_is_not_let_in(intake):
    assert not intake.check([host_job(3, "seal_bundle", blob=b"")])[0]
