"""Rows 11, 16, 17, 21 and 23: much, large, strange and all at once; and clients that die or fork."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
from pathlib import Path

import pytest

from papyros import PayloadError, RemoteError
from papyros.distributed.naming import ask_status
from papyros.errors import PayloadTooLargeError
from tests.chaos.conftest import LEASE, SLACK, start_host
from tests.chaos.jobs import blob, pause, size_of
from tests.contract import jobs_for_tests as strange
from tests.contract.jobs_for_tests import double
from tests.distributed.jobs import starts
from tests.distributed.programs import slaves_of, uri_of, wait_until_gone
from tests.support import Background, fork, security, wait_until

MB = 1 << 20


def memory(pid: int | str, what: str = "VmRSS") -> int:
    """Return how much memory a process has, or had at most (``VmHWM``), in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{what} of {pid} cannot be read")


@pytest.fixture(params=["multiprocess", "distributed"])
def kind(request):
    return request.param


# Row 11 ---------------------------------------------------------------------------------

DOOMED = """
    import sys, threading
    from papyros import DistributedMaster
    from tests.chaos.jobs import size_of

    master = DistributedMaster(*sys.argv[1:], host_master=False)
    for number in range(20):
        master.addJob(size_of(bytes(4 << 20)))
    print("added", flush=True)
    threading.Event().wait()
"""


def test_row_11_jobs_of_a_client_that_is_killed_go_after_a_grace_time_and_the_memory_too(launch, names, group):
    master = launch.master(group, names, f"--lease={LEASE}", "--grace=2")
    before = memory(master.pid)
    client = launch.script(DOOMED, group, names, name="client")
    uri = uri_of(names, group)
    wait_until(lambda: ask_status(uri, security()).waiting == 20, "20 jobs at the master")
    assert memory(master.pid) > before + 60 * MB
    client.end(signal.SIGKILL)
    gone = time.monotonic()
    wait_until(lambda: ask_status(uri, security()).clients == 0, "the client given up")
    assert time.monotonic() - gone <= 2 + 1 + SLACK
    assert ask_status(uri, security()).waiting == 0
    wait_until(lambda: memory(master.pid) < before + 20 * MB, "the memory back", 5)


RUNNING = """
    import sys, threading
    from papyros import DistributedMaster
    from tests.distributed.jobs import trace

    group, names, folder, gate = sys.argv[1:]
    master = DistributedMaster(group, names, host_master=False)
    for number in range(20):
        master.addJob(trace(folder, str(number), gate))
    threading.Event().wait()
"""


def test_row_11_what_runs_for_a_client_that_is_killed_is_stopped_after_a_grace_time(
    launch, names, group, gates, tmp_path
):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}", "--grace=1")
    host = start_host(launch, group, names, 2)
    client = launch.script(RUNNING, group, names, str(tmp_path), gate.path, name="client")
    gate.wait_for_arrivals(2)
    uri = uri_of(names, group)
    status = wait_until(
        lambda: (s := ask_status(uri, security())).waiting == 18 and all(slave.pid for slave in s.slaves) and s,
        "20 jobs at the master",
    )
    assert status.assigned == 2
    busy = [slave.pid for slave in status.slaves]
    client.end(signal.SIGKILL)
    gone = time.monotonic()
    wait_until_gone(busy, 1 + 1 + SLACK)
    assert time.monotonic() - gone <= 1 + 1 + SLACK
    status = wait_until(lambda: (s := ask_status(uri, security())).clients == 0 and s, "the client given up")
    assert (status.waiting, status.assigned, status.processed) == (0, 0, 0)
    wait_until(lambda: len(slaves_of(host.pid)) == 2, "other slaves in their places")
    assert gate.arrivals() == 2, "those that waited are not started"


ASLEEP = """
    import sys
    from papyros import DistributedMaster
    from tests.distributed.jobs import trace

    group, names, folder, gate = sys.argv[1:]
    with DistributedMaster(group, names, host_master=False) as master:
        for number in range(20):
            master.addJob(trace(folder, str(number), gate))
        print("popped", sorted(int(job.result) for job in iter(master.popProcessedJob, None)))
"""


def test_row_11_jobs_of_a_client_that_slept_for_longer_than_the_grace_time_all_have_outcomes(
    launch, names, group, gates, tmp_path
):
    gate = gates()
    launch.master(group, names, f"--lease={LEASE}", "--grace=1")
    start_host(launch, group, names, 2)
    client = launch.script(ASLEEP, group, names, str(tmp_path), gate.path, name="client")
    gate.wait_for_arrivals(2)
    uri = uri_of(names, group)
    wait_until(lambda: ask_status(uri, security()).waiting == 18, "20 jobs at the master")
    client.send(signal.SIGSTOP)
    wait_until(lambda: ask_status(uri, security()).clients == 0, "the client given up")
    client.send(signal.SIGCONT)
    gate.wait_for_arrivals(4)  # the two that ran, and were stopped, are among those that run again
    gate.open()
    assert client.ended() == 0
    assert f"popped {list(range(20))}" in client.text
    assert max(len(starts(tmp_path, str(number))) for number in range(20)) == 2


@pytest.mark.slow
def test_row_11_a_client_that_only_waits_is_not_given_up_however_short_the_grace_time(launch, names, group, tmp_path):
    launch.master(group, names, f"--lease={LEASE}", "--grace=2")
    start_host(launch, group, names, 1)
    from papyros import DistributedMaster

    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(pause(str(tmp_path), "long", 6))
        job = client.popProcessedJob(15)
        assert job is not None, "the client was given up while it waited, and its job was stopped"
        assert len(list(Path(tmp_path).glob("long.*.start"))) == 1


# Row 16 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [200 * MB, pytest.param(1000 * MB, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["argument", "result"])
def test_row_16_something_large_takes_no_more_than_two_and_a_half_times_its_memory(workshop, size, what):
    """In each process but that of the test, which holds what it compares with."""
    workshop.client.addJob(double(1))
    assert workshop.client.popProcessedJob(20).result == 2
    pids = {"slave": workshop.wait_for_slaves(2)}
    if workshop.master is not None:
        pids |= {"master": [workshop.master.pid], "host": [workshop.host]}
    base = max(memory(pid) for each in pids.values() for pid in each)
    workshop.client.addJob(size_of(bytes(size)) if what == "argument" else blob(size))
    job = workshop.client.popProcessedJob(100)
    assert (job.result if what == "argument" else len(job.result)) == size
    peaks = {name: max(memory(pid, "VmHWM") for pid in each) for name, each in pids.items()}
    too_much = {name: round((peak - base) / size, 2) for name, peak in peaks.items() if peak > 2.5 * size + base}
    assert not too_much, f"times its size: {too_much}"


PROGRAM = """
    import sys
    import papyros
    from tests.chaos.jobs import blob, size_of
    from tests.chaos.test_bounds import memory
    from tests.contract.jobs_for_tests import double

    kind, what, size, group, names = sys.argv[1:]
    size = int(size)
    with papyros.MultiProcessMaster(1) if kind == "multiprocess" else papyros.DistributedMaster(
        group, names, host_master=False
    ) as master:
        master.addJob(double(1))
        master.popProcessedJob()
        base = memory("self", "VmHWM")
        master.addJob(size_of(bytes([1]) * size) if what == "argument" else blob(size))
        job = master.popProcessedJob(100)
        assert (job.result if what == "argument" else len(job.result)) == size
        print("times its size:", (memory("self", "VmHWM") - base) / size)
"""


@pytest.mark.parametrize("size", [200 * MB, pytest.param(1000 * MB, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["argument", "result"])
def test_row_16_something_large_takes_a_program_no_more_than_two_and_a_half_times_its_memory(
    launch, names, group, kind, size, what
):
    """What the program itself has of it is among that."""
    if kind == "distributed":
        launch.master(group, names)
        start_host(launch, group, names, 1)
    program = launch.script(PROGRAM, kind, what, str(size), group, names, name="program")
    assert program.ended(120) == 0
    assert 1 <= float(program.find(r"times its size: (\S+)")[1]) <= 2.5, program.text


@pytest.mark.parametrize("kind", ["multiprocess", "distributed"])
def test_row_16_an_argument_beyond_a_set_limit_is_a_clear_error_for_that_job_alone(make_workshop, kind):
    client = make_workshop(kind, max_bytes=MB).client
    large, small = size_of(bytes(2 * MB)), size_of(bytes(1000))
    client.addJob(large)
    client.addJob(small)
    assert len(client.processedJobs(20)) == 2
    assert small.result == 1000
    assert isinstance(large.exception, PayloadTooLargeError)
    assert "the bound is 1,048,576 bytes" in str(large.exception)


def test_row_16_a_result_beyond_a_set_limit_is_a_clear_error_for_that_job_alone(launch, names, group):
    from papyros import DistributedMaster

    launch.master(group, names)
    start_host(launch, group, names, 1, f"--max-bytes={MB}")
    with DistributedMaster(group, names, host_master=False) as client:
        large, small = blob(2 * MB), double(1)
        client.addJob(large)
        client.addJob(small)
        assert len(client.processedJobs(20)) == 2
        assert small.result == 2
        assert isinstance(large.exception, PayloadTooLargeError)


# Row 17 ---------------------------------------------------------------------------------


def test_row_17_what_cannot_be_pickled_or_unpickled_on_any_leg_has_an_outcome(workshop):
    client = workshop.client
    legs = {
        "argument out": (
            strange.echo(strange.ExplodesWhenPickled()),
            PayloadError,
            "ArithmeticError: exploded while it was packed",
        ),
        "argument in": (
            strange.echo(strange.ExplodesWhenUnpickled()),
            PayloadError,
            "ArithmeticError: exploded while it was unpacked",
        ),
        "result out": (
            strange.call(strange.ExplodesWhenPickled),
            PayloadError,
            "ArithmeticError: exploded while it was packed",
        ),
        "result in": (
            strange.call(strange.ExplodesWhenUnpickled),
            PayloadError,
            "ArithmeticError: exploded while it was unpacked",
        ),
        "lock": (strange.call(strange.make_lock), PayloadError, "TypeError: cannot pickle '_thread.lock' object"),
        "two arguments": (strange.fail(strange.TwoArguments, 3, "why"), strange.TwoArguments, "3: why"),
        "keyword": (strange.call(raise_keyword), strange.KeywordOnly, "5"),
        "no words": (strange.fail(strange.UnspeakableError), strange.UnspeakableError, None),
        "locked": (strange.fail(strange.LockedError, "locked"), RemoteError, "LockedError: locked"),
        "unloadable": (strange.fail(strange.UnloadableError, "bomb"), RemoteError, "UnloadableError: bomb"),
        "reduced": (strange.fail(strange.StrangelyReducedError, "odd"), strange.StrangelyReducedError, "odd"),
        "exit": (strange.fail(SystemExit, 3), SystemExit, "3"),
        "interrupt": (strange.fail(KeyboardInterrupt, "no"), KeyboardInterrupt, "no"),
    }
    for job, _, _ in legs.values():
        client.addJob(job)
    assert len(client.processedJobs(40)) == len(legs)
    for leg, (job, kind, text) in legs.items():
        assert type(job.exception) is kind, (leg, job.exception)
        if text is not None:  # else its words are what it has none of
            assert text in str(job.exception), (leg, str(job.exception))
        # The name of what was raised is in the text where it is not the type, and in the traceback anyway.
        raised = text.partition(":")[0] if text and kind in {PayloadError, RemoteError} else kind.__name__
        assert raised in job.exception.traceback, (leg, job.exception.traceback)
        assert job.exception.traceback.startswith("Traceback (most recent call last)"), leg
    client.addJob(double(1))
    assert client.popProcessedJob(20).result == 2
    assert workshop.lost() == 0


def raise_keyword():
    raise strange.KeywordOnly(code=5)


# Row 21 ---------------------------------------------------------------------------------


def test_row_21_a_bounded_queue_waits_or_is_full_and_all_of_many_jobs_are_processed(make_workshop, kind):
    client = make_workshop(kind, max_waiting=100).client
    count = 10_000

    def add():
        full = 0
        for number in range(count):
            while True:
                try:
                    client.addJob(double(number), timeout=0 if number % 100 == 0 else None)
                    break
                except queue.Full:
                    full += 1
        return full

    adding = Background(add)
    results = []
    while len(results) < count:
        job = client.popProcessedJob(30)
        if job is None:
            # None is no end while jobs are added; the last may have been added just now.
            assert adding.running or client.numPendingJobs(), f"{len(results)} of {count}"
            continue
        results.append(job.result)
        assert client.numPendingJobs() <= count
    adding.result()
    assert sorted(results) == list(range(0, 2 * count, 2))


@pytest.mark.slow
def test_row_21_a_hundred_thousand_jobs_in_a_bounded_queue_fill_no_memory(make_workshop, kind):
    workshop = make_workshop(kind, max_waiting=1000, max_processed=1000)
    client = workshop.client
    adding = Background(lambda: [client.addJob(double(number)) for number in range(100_000)] and None)
    base = memory(os.getpid())
    total = 0
    while total < 100_000:
        job = client.popProcessedJob(30)
        total += job is not None
    adding.result()
    assert memory(os.getpid()) < base + 100 * MB
    if workshop.master is not None:
        assert memory(workshop.master.pid, "VmHWM") < 200 * MB


#: What a master says whose clients do not take their results.
FULL = "too many processed jobs were not popped"


def test_row_21_results_that_a_client_does_not_pop_fill_no_memory(make_workshop, kind):
    workshop = make_workshop(kind, max_processed_bytes=20 * MB)
    client = workshop.client
    base = memory(os.getpid())
    for _ in range(100):
        client.addJob(blob(4 * MB))
    wait_until(lambda: FULL in client.status().stalled, "no more results")
    assert memory(os.getpid()) < base + 100 * MB
    if workshop.master is not None:
        # It has a bound of its own, beyond which come those that were assigned by then.
        assert memory(workshop.master.pid, "VmHWM") < 400 * MB
    assert sum(len(job.result) == 4 * MB for job in client.processedJobs(60)) == 100


SLEEPER = """
    import sys
    from papyros import DistributedMaster
    from tests.chaos.jobs import blob

    with DistributedMaster(*sys.argv[1:], host_master=False) as master:
        for number in range(150):
            master.addJob(blob(4 << 20))
        master.popProcessedJob()
        print("begun", flush=True)
        print("popped", 1 + sum(len(job.result) == 4 << 20 for job in iter(master.popProcessedJob, None)))
"""


@pytest.mark.slow
def test_row_21_results_of_a_client_that_sleeps_do_not_fill_the_masters_memory(launch, names, group):
    master = launch.master(group, names)
    client = launch.script(SLEEPER, group, names, name="client")
    uri = uri_of(names, group)
    wait_until(lambda: ask_status(uri, security()).waiting == 150, "jobs at the master")
    start_host(launch, group, names, 2)
    client.wait_for("begun")
    client.send(signal.SIGSTOP)
    wait_until(lambda: FULL in ask_status(uri, security()).stalled, "no more results")
    assert memory(master.pid, "VmHWM") < 400 * MB
    client.send(signal.SIGCONT)
    assert client.ended() == 0
    assert "popped 150" in client.text


WAITS = """
    import sys
    from papyros import DistributedMaster
    from tests.chaos.jobs import size_of

    data = bytes(4 << 20)
    with DistributedMaster(*sys.argv[1:], host_master=False) as master:
        for number in range(150):
            master.addJob(size_of(data))
        print("added", flush=True)
        print("popped", sum(job.result == 4 << 20 for job in iter(master.popProcessedJob, None)))
"""


@pytest.mark.slow
def test_row_21_jobs_that_wait_for_slaves_do_not_fill_the_masters_memory(launch, names, group):
    master = launch.master(group, names)
    client = launch.script(WAITS, group, names, name="client")
    client.wait_for("added")
    uri = uri_of(names, group)
    wait_until(lambda: ask_status(uri, security()).waiting >= 64, "as many jobs at the master as it takes")
    assert "no slave is connected" in ask_status(uri, security()).stalled
    start_host(launch, group, names, 2)
    assert client.ended() == 0
    assert "popped 150" in client.text
    assert memory(master.pid, "VmHWM") < 400 * MB


# Row 23 ---------------------------------------------------------------------------------


def test_row_23_ten_threads_on_one_master_get_no_crossed_replies(workshop):
    client = workshop.client
    popped: list = []

    def work(me):
        for job in client.execute(strange.echo(me, number) for number in range(50)):
            assert job.result == ((me, job.args[1]), {})
        for number in range(50):
            client.addJob(double(1000 * me + number))
            client.status()
        while (job := client.popProcessedJob(20)) is not None:
            popped.append(job.result)

    threads = [Background(work, me) for me in range(10)]
    for thread in threads:
        thread.result(60)
    assert sorted(popped) == [2 * (1000 * me + number) for me in range(10) for number in range(50)]


def test_row_23_a_forked_child_cannot_use_its_parents_master_and_does_not_harm_it(workshop, gates):
    client = workshop.client
    gate = gates()
    client.addJob(strange.wait_at(gate.path, "held"))
    gate.wait_for_arrivals(1)
    child = fork()
    if child == 0:
        code = 1
        try:
            client.addJob(double(1))
        except RuntimeError as error:
            client.close()
            code = 0 if "forked" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.open()
    assert client.popProcessedJob(20).result == "held"


def test_row_23_a_master_cannot_be_pickled_and_says_so(workshop):
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(workshop.client)
    workshop.client.addJob(double(1))
    assert workshop.client.popProcessedJob(20).result == 2
    assert threading.active_count() < 50
