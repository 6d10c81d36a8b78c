"""`execute`: from an iterable of jobs to an iterator of processed jobs."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque

import pytest

import papyros
from tests.contract.jobs_for_tests import EqualJob, Square, fail_visibly, nap, wait_at
from tests.support import PATIENCE, Background, at_most, wait_until

#: More jobs than any master may keep in flight in an execute.
TOO_MANY = 3000


class Counted:
    """Endless jobs; knows how many were taken."""

    def __init__(self, make=Square):
        self.taken = []
        self._make = make

    def __iter__(self):
        for number in itertools.count():
            job = self._make(number)
            self.taken.append(job)
            yield job


def check_usable(master):
    job = Square(11)
    master.addJob(job)
    assert master.popProcessedJob(PATIENCE) is job
    assert master.popProcessedJob(PATIENCE) is None
    assert master.numPendingJobs() == 0


@pytest.mark.parametrize("ordered", [False, True])
def test_all_jobs_of_an_iterable_come_back(make_master, ordered):
    jobs = [Square(number) for number in range(200)]
    found = list(make_master().execute(iter(jobs), ordered=ordered))
    assert len(found) == 200
    assert set(found) == set(jobs)
    assert all(job.result == number * number for number, job in enumerate(jobs))


def test_ordered_jobs_come_in_the_order_of_the_iterable(make_master):
    # The first ones take longest, so that without ordering they would come last.
    jobs = [nap(0.02 * (8 - number), number) for number in range(8)]
    found = list(make_master().execute(jobs, ordered=True))
    assert found == jobs


def test_unordered_jobs_come_as_they_are_processed(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    slow, quick = wait_at(gate.path, "slow"), Square(2)
    found = []
    for job in master.execute([slow, quick]):
        found.append(job)
        gate.open()
    assert found == [quick, slow]


def test_an_empty_iterable_gives_nothing(make_master):
    assert list(make_master().execute([])) == []
    assert list(make_master().execute(iter(()), ordered=True, timeout=0)) == []


@pytest.mark.parametrize("ordered", [False, True])
def test_an_endless_iterable_is_taken_lazily(make_master, ordered):
    master = make_master()
    source = Counted()
    stream = master.execute(source, ordered=ordered)
    found = list(itertools.islice(stream, 50))
    stream.close()
    assert len(found) == 50
    assert set(found) <= set(source.taken)
    assert len(source.taken) < 50 + TOO_MANY
    assert master.numPendingJobs() == 0
    if ordered:
        assert found == source.taken[:50]
    check_usable(master)


def test_nothing_is_taken_before_the_first_job_is_asked_for(make_master):
    source = Counted()
    stream = make_master().execute(source)
    assert source.taken == []
    stream.close()


def test_a_slow_job_does_not_let_ordered_ones_pile_up_without_bound(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    source = Counted(lambda number: wait_at(gate.path, 0) if number == 0 else Square(number))

    def opening(jobs):
        for number, job in enumerate(jobs):
            if number == TOO_MANY:
                raise AssertionError("jobs are taken without bound while the first one runs")
            yield job

    stream = master.execute(opening(source), ordered=True, timeout=1.0)
    with pytest.raises(TimeoutError):
        next(stream)


def test_processed_jobs_come_while_the_iterable_is_slow(make_concurrent_master):
    """The iterable goes on only after its first job was yielded."""
    master = make_concurrent_master()
    found = []

    def source():
        yield Square(2)
        deadline = time.monotonic() + PATIENCE
        while not found and time.monotonic() < deadline:
            yield nap(0.001)

    with at_most(PATIENCE):
        for job in master.execute(source()):
            found.append(job)
    assert found


@pytest.mark.parametrize("ordered", [False, True])
def test_an_exception_of_the_iterable_propagates(make_master, ordered):
    def source():
        for number in range(5):
            yield Square(number)
        raise ZeroDivisionError("the source is dry")

    master = make_master()
    with pytest.raises(ZeroDivisionError, match="the source is dry"):
        list(master.execute(source(), ordered=ordered))
    check_usable(master)


def test_what_is_no_job_in_the_iterable_propagates(make_master):
    master = make_master()
    with pytest.raises(papyros.NotAJobError):
        list(master.execute([Square(1), 2, Square(3)]))
    check_usable(master)


def test_the_same_job_twice_in_the_iterable_is_refused_or_done_twice(make_concurrent_master):
    """Twice in flight it cannot be; after it was yielded it may come again."""
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    job = wait_at(gate.path)
    with pytest.raises(papyros.PendingJobError):
        list(master.execute([job, job]))
    gate.open()
    again = Square(4)

    def source():
        yield again
        yield Square(0)

    assert again in list(master.execute(source()))
    assert again in list(master.execute(source()))


def test_jobs_that_raise_are_yielded_like_others(make_master):
    jobs = [fail_visibly(number) if number % 2 else Square(number) for number in range(10)]
    found = list(make_master().execute(jobs, ordered=True))
    assert found == jobs
    assert [job.exception is not None for job in jobs] == [False, True] * 5


def test_jobs_of_execute_do_not_mix_with_added_ones(make_master):
    master = make_master()
    added = [Square(number) for number in range(5)]
    executed = [Square(number) for number in range(100, 110)]
    for job in added:
        master.addJob(job)
    assert set(master.execute(executed)) == set(executed)
    assert set(master.processedJobs(PATIENCE)) == set(added)


def test_two_executes_at_a_time_do_not_mix(make_master):
    master = make_master()
    left = [Square(number) for number in range(30)]
    right = [Square(number) for number in range(30)]
    pairs = list(zip(master.execute(left, ordered=True), master.execute(right, ordered=True), strict=True))
    assert pairs == list(zip(left, right, strict=True))


def test_added_jobs_can_be_popped_in_the_loop_of_an_execute(make_master):
    master = make_master()
    added = {Square(number) for number in range(10)}
    waiting = iter(added)
    popped = set()
    for _ in master.execute([Square(number) for number in range(10)]):
        master.addJob(next(waiting))
        popped.add(master.popProcessedJob(PATIENCE))
    assert popped == added


def test_leaving_the_loop_early_drops_the_rest(make_concurrent_master):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    jobs = [Square(1), *(wait_at(gate.path) for _ in range(6))]
    stream = master.execute(iter(jobs))
    assert next(stream) is jobs[0]
    stream.close()
    assert master.numPendingJobs() == 0
    assert master.popProcessedJob(0) is None
    gate.open()
    for job in jobs[1:]:
        with pytest.raises(papyros.UnprocessedJobError):
            job.result
        master.addJob(job)  # it is pending nowhere any more
    assert set(master.processedJobs(PATIENCE)) == set(jobs[1:])


@pytest.mark.parametrize("ordered", [False, True])
def test_when_the_time_is_up_it_says_so(make_concurrent_master, ordered):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    jobs = [Square(1), wait_at(gate.path), Square(2)]
    found = []
    with at_most(PATIENCE / 3), pytest.raises(TimeoutError):
        found.extend(master.execute(jobs, ordered=ordered, timeout=0.3))
    gate.open()
    check_usable(master)


def test_the_time_is_up_for_an_endless_iterable_of_quick_jobs_too(make_master):
    master = make_master()
    limit = time.monotonic() + PATIENCE / 3
    endless = itertools.takewhile(lambda _: time.monotonic() < limit, itertools.count())
    with pytest.raises(TimeoutError):
        deque(master.execute(map(Square, endless), timeout=0.3))
    check_usable(master)


def test_without_a_hurry_there_is_no_timeout(make_master):
    jobs = [Square(number) for number in range(10)]
    assert set(make_master().execute(jobs, timeout=PATIENCE)) == set(jobs)


def test_a_full_queue_does_not_stop_it(make_master):
    master = make_master(max_waiting=2, max_processed=2)
    jobs = [Square(number) for number in range(60)]
    assert list(master.execute(jobs, ordered=True)) == jobs
    assert set(master.execute(jobs)) == set(jobs)


@pytest.mark.parametrize("ordered", [False, True])
def test_cancelled_jobs_do_not_hang_it(make_concurrent_master, ordered):
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    cancelled = []
    jobs = [wait_at(gate.path, number) for number in range(20)]

    def source():
        yield from jobs
        gate.wait_for_arrivals(make_concurrent_master.slaves)
        cancelled.extend(job for job in jobs if master.cancelJob(job))
        gate.open()
        yield from more

    more = [Square(number) for number in range(50, 55)]
    found = list(master.execute(source(), ordered=ordered, timeout=PATIENCE))
    assert cancelled
    assert set(found) == {*jobs, *more} - set(cancelled)
    if ordered:
        assert found == [job for job in (*jobs, *more) if job in set(found)]
    check_usable(master)


def test_cancelling_everything_ends_it(make_concurrent_master):
    master = make_concurrent_master()
    make_concurrent_master.busy(master)
    jobs = [Square(number) for number in range(10)]

    def source():
        yield from jobs
        master.cancelAllJobs()
        make_concurrent_master.gates.open_all()

    found = list(master.execute(source(), timeout=PATIENCE))
    assert set(found) < set(jobs)


def test_jobs_that_are_equal_are_told_apart(make_concurrent_master):
    """They are equal and cannot be hashed; the second one is processed while the first one runs."""
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    jobs = [EqualJob(gate.path, "first"), EqualJob(None, "second")]
    results = []
    for job in master.execute(jobs, timeout=PATIENCE):
        results.append(job.result)
        gate.open()
    assert results == ["second", "first"]


def test_jobs_that_are_equal_are_kept_in_order(make_concurrent_master):
    master = make_concurrent_master(slaves=2)
    gate = make_concurrent_master.gates()
    jobs = [EqualJob(gate.path, 0), *(EqualJob(None, number) for number in range(1, 50))]

    def source():
        yield from jobs
        gate.open()  # by now several of the others have been processed

    stream = master.execute(source(), ordered=True, timeout=PATIENCE)
    assert [job.result for job in stream] == list(range(50))


def test_a_progress_bar_is_shown(make_master, capsys):
    jobs = [Square(number) for number in range(12)]
    assert set(make_master().execute(jobs, progress=True)) == set(jobs)
    assert "12/12" in capsys.readouterr().err


def test_a_progress_bar_of_an_iterator_has_no_total(make_master, capsys):
    assert len(list(make_master().execute(map(Square, range(12)), progress=True))) == 12
    assert "12job" in capsys.readouterr().err.replace(" ", "")


def test_closing_the_master_in_the_loop_is_not_taken_for_the_end(make_master):
    """Whoever loops over the results must not believe that these were all."""
    master = make_master()
    stream = master.execute(map(Square, itertools.count()))
    next(stream)
    master.close()
    with pytest.raises(papyros.MasterClosedError):
        for _ in itertools.islice(stream, 2 * TOO_MANY):
            pass


def test_closing_the_master_from_elsewhere_is_not_taken_for_the_end(make_concurrent_master, monkeypatch):
    from tests.support import Background

    monkeypatch.setattr("papyros.multithreaded.CLOSE_SECONDS", 0.2)
    master = make_concurrent_master()
    gate = make_concurrent_master.gates()
    loop = Background(lambda: list(master.execute([wait_at(gate.path)])))
    gate.wait_for_arrivals()
    master.close()
    with pytest.raises(papyros.MasterClosedError):
        loop.result()


def test_a_loop_that_is_left_in_the_midst_of_a_change_of_the_books_is_dropped_after_it(make_master):
    """As the garbage collector may do, in whatever thread it runs."""
    master = make_master()
    loop = master.execute(Square(number) for number in range(50))
    assert next(loop).result is not None
    with master._lock:
        before = set(master._ledger.sessions)
        loop.close()
        assert set(master._ledger.sessions) == before
    wait_until(lambda: master.numPendingJobs() == 0, "its jobs to be dropped")
    assert [job.result for job in master.execute([Square(3)])] == [9]


def test_a_loop_that_is_left_with_a_lock_that_others_wait_for_is_dropped_when_they_have_it(make_concurrent_master):
    """As the garbage collector may do, in whatever thread it runs, whatever lock that has: so it is not waited for."""
    master = make_concurrent_master()
    loop = master.execute(Square(number) for number in range(20))
    next(loop)
    lock, keeps_the_books = threading.Lock(), threading.Event()

    def change_books():
        with master._lock:
            keeps_the_books.set()
            with lock:
                pass

    def leave():
        with lock:
            other = Background(change_books)
            assert keeps_the_books.wait(PATIENCE)
            loop.close()
        other.result()

    Background(leave).result()
    wait_until(lambda: master.numPendingJobs() == 0, "the jobs are dropped")
