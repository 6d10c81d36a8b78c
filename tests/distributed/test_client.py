"""A client: it finds its master, does not wait for the network, and gets its fair share."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from papyros import (
    DistributedMaster,
    GroupNameError,
    LocalCluster,
    MasterNotFoundError,
    MultiProcessMaster,
    NameServerNotFoundError,
    PayloadTooLargeError,
)
from papyros.bundles import cut_off, death
from papyros.distributed import cancelling
from papyros.distributed.batches import JobOutcome
from papyros.distributed.bundling import BUNDLE_SECONDS
from papyros.distributed.line import Line, LineBrokenError, LineRefusedError
from papyros.distributed.naming import ask_status
from papyros.errors import ConfigError
from tests.contract.jobs_for_tests import double, nap, say, urgent, wait_at
from tests.contract.test_interrupts import moments, real_interrupts
from tests.distributed.jobs import blob, size_of, starts, trace
from tests.distributed.programs import cpu_seconds, free_port, groups, processes, uri_of
from tests.support import PATIENCE, Background, at_most, wait_until

__all__ = ["real_interrupts"]

pytestmark = pytest.mark.measured

MB = 1 << 20


@pytest.fixture
def single():
    """A cluster with a single slave."""
    with LocalCluster(slaves=1) as cluster:
        yield cluster


def at_master(client):
    """Return how many jobs the master has, of all its clients; not those that wait in this one only."""
    status = ask_status(client._uri, client._security)
    return status.waiting + status.assigned + status.processed


def sent_ahead(*clients):
    """Wait until all jobs that were added have arrived at the master; these are all the clients it has."""
    pending = sum(client.numPendingJobs() for client in clients)
    wait_until(lambda: at_master(clients[0]) == pending, "jobs sent ahead")


# Finding the master -----------------------------------------------------------------------


@pytest.mark.parametrize("host_master", [True, False])
def test_no_name_server_is_an_error_in_words_at_once(host_master):
    address = f"localhost:{free_port()}"
    with at_most(1), pytest.raises(NameServerNotFoundError) as error:
        DistributedMaster(nameserver=address, host_master=host_master)
    assert address in str(error.value)
    assert "pyro5-ns" in str(error.value)


def test_a_name_server_that_does_not_answer_is_an_error_in_words_soon(launch):
    names = launch.nameserver()
    names.send(signal.SIGSTOP)
    with at_most(5), pytest.raises(NameServerNotFoundError, match="no name server answers"):
        DistributedMaster(nameserver=names.address)


def test_an_unknown_group_is_an_error_that_lists_the_groups_there_are(launch, names, group):
    launch.master(f"{group}.here", names)
    with at_most(1), pytest.raises(MasterNotFoundError) as error:
        DistributedMaster(f"{group}.elsewhere", names, host_master=False)
    for words in (f"'{group}.elsewhere'", f"{group}.here", f"--group={group}.elsewhere"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    "group", ["", " ", "a b", "a/b", "../a", "a\nb", "a\n", ".a", "-a", "ä", "x" * 64, "x" * MB, "\x1b[31m", 7, None]
)
def test_a_bad_name_of_a_group_is_refused_before_anybody_is_asked(group):
    with at_most(0.5), pytest.raises(GroupNameError) as error:
        DistributedMaster(group, f"localhost:{free_port()}")
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


@pytest.mark.parametrize("address", ["", "a:b:c", "host:0", "host:99999", "http://lab", "a b", None, 9090])
def test_a_bad_address_of_a_name_server_is_refused(address):
    with pytest.raises(ConfigError, match="name server"):
        DistributedMaster("lab", address)


def test_work_goes_on_without_the_name_server_and_one_that_comes_back_empty_is_told(launch, group):
    names = launch.nameserver()
    address, port = names.address, int(names.address.rpartition(":")[2])
    launch.master(group, address)
    host = launch.host(group, address)
    with DistributedMaster(group, address, host_master=False) as client:
        names.end(signal.SIGKILL)
        client.addJob(double(1))
        assert client.popProcessedJob(10).result == 2
        with pytest.raises(NameServerNotFoundError):
            DistributedMaster(group, address)
        launch.nameserver(port)
        wait_until(lambda: groups(address) == [group], "the master registered again", 5)
        client.addJob(double(2))
        assert client.popProcessedJob(10).result == 4
        with DistributedMaster(group, address, host_master=False) as newcomer:
            newcomer.addJob(double(3))
            assert newcomer.popProcessedJob(10).result == 6
    assert host.text.count("waiting for") == 0


def test_a_master_that_slept_gives_way_to_the_one_that_took_its_name(launch, names, group):
    first = launch.master(group, names)
    host = launch.host(group, names)
    first.send(signal.SIGSTOP)
    second = launch.part(f"--group={group}", f"--nameserver={names}", name="second")
    second.wait_for("is up at", 10)
    first.send(signal.SIGCONT)
    assert first.ended(10) == 1
    assert "gives way" in first.text or "has a master already" in first.text
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(double(1))
        assert client.popProcessedJob(30).result == 2
    assert host.running


# Not waiting for the network --------------------------------------------------------------


@pytest.mark.alone
def test_adding_jobs_does_not_wait_for_the_network(launch, names, group):
    master = launch.master(group, names)
    launch.host(group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        master.send(signal.SIGSTOP)
        with at_most(0.5):
            for number in range(1000):
                client.addJob(double(number))
        assert client.popProcessedJob(0) is None
        assert client.numPendingJobs() == 1000
        master.send(signal.SIGCONT)
        results = [job.result for job in client.processedJobs(30)]
    assert sorted(results) == list(range(0, 2000, 2))


def test_popping_what_has_arrived_does_not_wait_for_the_network(launch, names, group, tmp_path):
    master = launch.master(group, names)
    launch.host(group, names, 2)
    with DistributedMaster(group, names, host_master=False) as client:
        for number in range(100):
            client.addJob(double(number))
        client.addJob(trace(str(tmp_path), "last"))
        wait_until(lambda: starts(tmp_path, "last"), "the last job started")
        wait_until(lambda: at_master(client) == 0, "all outcomes fetched from the master")
        master.send(signal.SIGSTOP)
        popping = Background(lambda: list(iter(lambda: client.popProcessedJob(0), None)))
        try:
            popped = popping.result(PATIENCE)  # while nobody answers
        finally:
            master.send(signal.SIGCONT)
    assert sorted(job.result for job in popped if job.result != "last") == list(range(0, 200, 2))
    assert len(popped) == 101


def test_closing_takes_bounded_time_though_the_master_does_not_answer(launch, names, group):
    master = launch.master(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        master.send(signal.SIGSTOP)
        client.addJob(double(1))  # the sender has to wait for an answer
        closing = Background(client.close)
        try:
            closing.result(6)
        finally:
            master.send(signal.SIGCONT)
            closing.result()


def test_the_status_of_a_master_that_is_gone_is_an_error_that_says_where_the_jobs_are(launch, names, group):
    master = launch.master(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(double(1))
        master.end(signal.SIGKILL)
        with pytest.raises(ConnectionError, match=rf"the group '{group}' does not answer now .* keeps its jobs"):
            client.status()
        launch.master(group, names)
        launch.host(group, names)
        assert client.popProcessedJob(30).result == 2


def test_a_status_that_is_refused_says_why(single, monkeypatch):
    def refuse(*_):
        raise LineRefusedError("another key")

    with single.master() as client:
        monkeypatch.setattr("papyros.distributed.client.ask_status", refuse)
        with pytest.raises(LineRefusedError, match=r"^another key$"):
            client.status()


@pytest.mark.alone
def test_a_large_job_does_not_keep_others_from_being_added(single):
    with single.master() as client:
        with at_most(1):
            client.addJob(size_of(bytes(64 * MB)))
            for number in range(100):
                client.addJob(double(number))
        assert len(client.processedJobs(60)) == 101


# Idling -----------------------------------------------------------------------------------


@pytest.mark.alone
def test_an_idle_cluster_computes_next_to_nothing_and_starts_at_once(mark):
    with LocalCluster(slaves=2) as cluster, cluster.master() as client:
        for number in range(20):
            client.addJob(double(number))
        assert len(client.processedJobs(30)) == 20
        parts = wait_until(lambda: len(found := list(processes(mark))) == 6 and found, "the sweeper, too")
        before, own = cpu_seconds(parts), time.process_time()
        time.sleep(3)  # what is measured takes this long
        assert cpu_seconds(parts) - before < 0.1
        assert time.process_time() - own < 0.1
        with at_most(0.25):
            client.addJob(double(21))
            assert client.popProcessedJob().result == 42


# Status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "value"), [("max_processed", 2), ("max_processed_bytes", 1)])
def test_a_status_tells_of_what_waits_in_the_client_for_room_for_results(single, bound, value):
    """The master knows nothing of these: they are sent as soon as their results may come."""
    with single.master(**{bound: value}) as client:
        client.addJob(double(0))
        # Here, not only at the master: as long as there is room here, more are sent, and then nothing is held back.
        wait_until(lambda: client._main._session.processed, "the first result to be here")
        for number in range(1, 9):
            client.addJob(double(number))
        # What is on its way at that moment may be counted twice.
        full = lambda: (s := client.status()).stalled and s.waiting + s.processed == 9 and s  # noqa: E731
        status = wait_until(full, "it to be full, and all nine to be told of")
        assert not status.assigned
        assert "too many processed jobs were not popped" in status.stalled
        assert len(client.processedJobs(30)) == 9
        wait_until(lambda: not ((s := client.status()).waiting or s.assigned or s.processed), "nothing to be left")
        assert client.status().stalled == ""


# Cancelling -------------------------------------------------------------------------------


def test_a_job_that_was_sent_ahead_is_cancelled_at_the_master(single, gates, tmp_path):
    gate = gates()
    with single.master() as client:
        client.addJob(wait_at(gate.path, "first"))
        gate.wait_for_arrivals()
        jobs = [trace(str(tmp_path), f"job-{number}") for number in range(5)]
        for job in jobs:
            client.addJob(job)
        sent_ahead(client)
        assert client.cancelJob(jobs[2])
        assert not client.cancelJob(jobs[2])
        assert client.numPendingJobs() == 5
        gate.open()
        results = [job.result for job in client.processedJobs(30)]
        assert results == ["first", "job-0", "job-1", "job-3", "job-4"]
        assert not list(tmp_path.glob("job-2.*"))
        client.addJob(jobs[2])  # it belongs to nobody now
        assert client.popProcessedJob(30) is jobs[2]


def test_all_jobs_that_were_sent_ahead_are_cancelled_but_for_those_that_run(single, gates, tmp_path):
    gate = gates()
    with single.master() as client, single.master() as other:
        client.addJob(running := wait_at(gate.path, "running"))
        gate.wait_for_arrivals()
        for number in range(500):
            client.addJob(trace(str(tmp_path), f"job-{number}"))
        other.addJob(double(21))
        sent_ahead(client, other)
        client.cancelAllJobs()
        assert client.numPendingJobs() == 1
        gate.open()
        assert client.processedJobs(30) == [running]
        assert other.popProcessedJob(30).result == 42
        assert client.popProcessedJob() is None
    assert not list(tmp_path.glob("job-*"))


def test_jobs_are_cancelled_wherever_they_are_on_their_way(single, gates):
    """Whether they wait here, are being sent, or have arrived: when the call returns, none is left but what runs."""
    gate = gates()
    with single.master() as client:
        client.addJob(wait_at(gate.path))
        gate.wait_for_arrivals()
        for number in range(300):
            client.addJob(double(number))
            if number % 3:
                client.addJob(double(number))
            client.cancelAllJobs()
            assert client.numPendingJobs() == 1
        for number in range(300):
            client.addJob(job := double(number))
            assert client.cancelJob(job)
        gate.open()
        assert len(client.processedJobs(30)) == 1


CANCELS = {
    "all": lambda client, jobs: client.cancelAllJobs(),
    "one": lambda client, jobs: client.cancelJob(jobs[2]),
    "those that wait": lambda client, jobs: client._withdraw(
        client._main._session, [job._keeper.number for job in jobs]
    ),
}


@pytest.fixture
def waiting(single, gates):
    """A client, five jobs of its own that wait at the master, and the gate that is in their way."""
    gate = gates()
    with single.master() as client:
        client.addJob(wait_at(gate.path))
        gate.wait_for_arrivals()
        jobs = [double(number) for number in range(5)]
        for job in jobs:
            client.addJob(job)
        sent_ahead(client)
        yield client, jobs, gate


def interrupt_first_cancel(monkeypatch, before=lambda line: None):
    """Have Ctrl-C come when the first cancellation was carried out; what is done before that is done to its line."""
    interrupted = []

    def call(line, method, *arguments, **options):
        answer = call_on(line, method, *arguments, **options)
        if method == "cancel" and not interrupted:
            interrupted.append(True)
            before(line)
            raise KeyboardInterrupt
        return answer

    call_on = Line.call
    monkeypatch.setattr(Line, "call", call)


@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
def test_jobs_are_popped_though_ctrl_c_kept_it_from_their_client_that_they_were_cancelled(waiting, cancel, monkeypatch):
    client, jobs, gate = waiting
    interrupt_first_cancel(monkeypatch, Line.abort)  # as one that comes while a line waits for an answer breaks it
    with pytest.raises(KeyboardInterrupt):
        cancel(client, jobs)
    assert client.numPendingJobs() == 6
    gate.open()
    assert set(client.processedJobs(30)) >= set(jobs)
    assert client.numPendingJobs() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("real_interrupts")
@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
def test_whenever_a_cancel_is_interrupted_each_job_is_cancelled_or_popped(single, gates, cancel):
    with single.master() as client, single.master() as other:
        for interruption in moments(at_least=50):
            gate = gates()
            other.addJob(wait_at(gate.path))  # the only slave has something else to do meanwhile
            gate.wait_for_arrivals()
            jobs = [double(number) for number in range(5)]
            for job in jobs:
                job.timeout = 60.0  # so that each travels by itself
                client.addJob(job)
            sent_ahead(client, other)
            interruption.of(cancel, client, jobs)
            kept = client.numPendingJobs()
            gate.open()
            assert other.popProcessedJob(30)
            assert len(client.processedJobs(30)) == kept
            assert client.numPendingJobs() == 0


def test_jobs_are_cancelled_again_after_ctrl_c_has_kept_away_that_they_were(waiting, monkeypatch):
    client, jobs, gate = waiting
    interrupt_first_cancel(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        client.cancelAllJobs()
    assert client.cancelJob(jobs[0])
    client.cancelAllJobs()
    assert client.numPendingJobs() == 1
    gate.open()
    assert len(client.processedJobs(30)) == 1


def test_jobs_are_popped_though_a_master_that_slept_has_cancelled_them_too_late(
    launch, names, group, gates, monkeypatch, caplog
):
    """What was asked of it stands in its line, and is done when it wakes up, though nobody waits for it any more."""
    monkeypatch.setattr(cancelling, "CANCEL_SECONDS", 0.5)
    master = launch.master(group, names, "--lease=1")
    launch.host(group, names, 1)
    gate = gates()
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(wait_at(gate.path))
        gate.wait_for_arrivals()
        jobs = [double(number) for number in range(5)]
        for job in jobs:
            client.addJob(job)
        sent_ahead(client)
        master.stop()
        try:
            assert not client.cancelJob(jobs[0])
            assert "are not cancelled" in caplog.text
            client.cancelAllJobs()
        finally:
            master.send(signal.SIGCONT)
        assert client.numPendingJobs() == 6
        gate.open()
        assert set(client.processedJobs(30)) >= set(jobs)
        assert client.numPendingJobs() == 0


@pytest.fixture
def bundled(single, gates):
    """A client whose five jobs wait at the master, as one bundle; the bundle; and the gate that is in their way."""
    gate = gates()
    with single.master() as client:
        client.addJob(wait_at(gate.path))
        gate.wait_for_arrivals()
        jobs = [double(number) for number in range(5)]
        definition = client._packer.pack_plainly(jobs[0])[0]
        client._exchange.bundling.learn(definition, BUNDLE_SECONDS / (len(jobs) + 0.5), 10)
        with client._lock:  # so that they are sent at once
            for job in jobs:
                client.addJob(job)
        sent_ahead(client)
        (bundle,) = client._sent.bundles.values()
        assert len(bundle.entries) == 5
        yield client, jobs, bundle, gate


def tell(client, bundle, told):
    """Have a client hear that of a bundle."""
    with client._lock:
        client._exchange.take(JobOutcome(client._key, bundle.number, told, 0.0, "lab/1"))
        client._outcomes_came()


def results_of_others(client, gate, jobs, cancelled):
    gate.open()
    done = client.processedJobs(30)
    assert cancelled not in done
    return sorted(job.result for job in done if job in jobs)


def test_a_job_of_a_bundle_is_cancelled_and_the_others_run(bundled):
    client, jobs, _, gate = bundled
    assert client.cancelJob(jobs[2])
    assert results_of_others(client, gate, jobs, jobs[2]) == [0, 2, 6, 8]


def test_a_bundle_is_not_lost_though_the_answer_is_that_it_was_cancelled_for_one_of_its_jobs(bundled, monkeypatch):
    """Meanwhile that job has come back from it: the bundle is gone at the master all the same."""
    client, jobs, bundle, gate = bundled
    line, told = client._sender.line, []

    def call(method, *arguments, **options):
        answer = Line.call(line, method, *arguments, **options)
        if method == "cancel" and not told:
            told.append("cut")
            tell(client, bundle, cut_off(1))
            raise LineBrokenError("the answer was lost")
        return answer

    monkeypatch.setattr(line, "call", call)
    assert client.cancelJob(jobs[2])
    assert told
    assert results_of_others(client, gate, jobs, jobs[2]) == [0, 2, 6, 8]


def test_a_job_is_cancelled_though_it_is_too_late_for_its_bundle(bundled, monkeypatch):
    """The slave that ran it has died, say, of which the client has not heard yet."""
    client, jobs, bundle, gate = bundled
    line, asked = client._sender.line, []

    def call(method, *arguments, **options):
        if method == "cancel" and not asked:
            asked.append(threading.Thread(target=tell, args=(client, bundle, death(0, "killed"))))
            Line.call(line, "drop", client._key, **options)  # it is over at the master
            asked[0].start()
            return {"known": True, "left": (0, 0, 0)}, b""
        return Line.call(line, method, *arguments, **options)

    monkeypatch.setattr(line, "call", call)
    assert client.cancelJob(jobs[2])
    asked[0].join()
    assert results_of_others(client, gate, jobs, jobs[2]) == [0, 2, 6, 8]


# Sizes ------------------------------------------------------------------------------------


def test_large_arguments_and_results_travel_whole(cluster):
    with cluster.master() as client:
        client.addJob(blob(20 * MB))
        assert client.popProcessedJob(30).result == bytes(20 * MB)
        client.addJob(size_of(os.urandom(20 * MB)))
        assert client.popProcessedJob(30).result == 20 * MB


def test_many_large_results_travel_whole(cluster):
    with cluster.master() as client:
        for _ in range(8):
            client.addJob(blob(20 * MB))
        assert [len(job.result) for job in client.processedJobs(60)] == [20 * MB] * 8


@pytest.fixture(params=["multiprocess", "distributed"])
def with_bound(request):
    """Make a master on which arguments are bounded."""
    made = []

    def make(max_bytes):
        if request.param == "multiprocess":
            made.append(MultiProcessMaster(1, max_bytes=max_bytes))
        else:
            made.append(request.getfixturevalue("cluster").master(max_bytes=max_bytes))
        return made[-1]

    yield make
    for master in made:
        master.close()


@pytest.fixture
def standing(request, standing):  # the cluster is asked for by name above
    if getattr(request.node, "callspec", None) and "distributed" in request.node.callspec.params.values():
        request.getfixturevalue("_shared_cluster")


def test_arguments_beyond_the_bound_fail_that_job_alone(with_bound):
    master = with_bound(MB)
    jobs = [size_of(bytes(10)), size_of(bytes(2 * MB)), size_of(bytes(MB // 2))]
    for job in jobs:
        master.addJob(job)
    assert set(master.processedJobs(30)) == set(jobs)
    assert (jobs[0].result, jobs[2].result) == (10, MB // 2)
    with pytest.raises(PayloadTooLargeError, match="1,048,576 bytes"):
        jobs[1].result


def bounded_results(make_master):
    with make_master() as master:
        jobs = [blob(10), blob(2 * MB), blob(MB // 2)]
        for job in jobs:
            master.addJob(job)
        assert set(master.processedJobs(30)) == set(jobs)
        assert (len(jobs[0].result), len(jobs[2].result)) == (10, MB // 2)
        with pytest.raises(PayloadTooLargeError, match="1,048,576 bytes"):
            jobs[1].result
        assert len({job.slave for job in jobs}) == 1  # the slave has survived it


def test_results_beyond_the_bound_fail_that_job_alone():
    bounded_results(lambda: MultiProcessMaster(1, max_bytes=MB))


def test_results_beyond_the_bound_of_a_slave_host_fail_that_job_alone(launch, names, group):
    launch.master(group, names)
    launch.host(group, names, 1, f"--max-bytes={MB}")
    bounded_results(lambda: DistributedMaster(group, names, host_master=False))


# Turns ------------------------------------------------------------------------------------


def test_priorities_hold_across_the_network(single, gates):
    gate = gates()
    with single.master() as client:
        client.addJob(wait_at(gate.path, "first"))
        gate.wait_for_arrivals()
        jobs = [double(0), urgent(1), double(1), urgent(2), double(2)]
        lowest = nap(0, "lowest")
        lowest.priority = -1
        highest = nap(0, "highest")
        highest.priority = 100
        for job in (lowest, *jobs, highest):
            client.addJob(job)
        sent_ahead(client)
        gate.open()
        order = client.processedJobs(30)[1:]
        assert order == [highest, jobs[1], jobs[3], jobs[0], jobs[2], jobs[4], lowest]


@pytest.mark.alone
def test_a_few_jobs_of_one_client_do_not_wait_for_the_many_of_another(single):
    with single.master() as busy, single.master() as modest:
        for number in range(2000):
            busy.addJob(nap(0.0005, number))
        assert busy.popProcessedJob(30) is not None
        for number in range(10):
            modest.addJob(nap(0.0005, number))
        assert len(modest.processedJobs(30)) == 10
        left = busy.numPendingJobs() - len(busy.processedJobs(0))
        assert left > 1000, "the ten came back only when most of the two thousand were done"
        assert len(busy.processedJobs(30)) >= left


def test_clients_come_and_go(cluster):
    for _ in range(20):
        with cluster.master() as client:
            client.addJob(double(21))
            assert client.popProcessedJob(10).result == 42
    assert uri_of(cluster.nameserver, cluster.group) is not None


# What jobs print --------------------------------------------------------------------------


def test_of_a_print_that_is_too_long_for_a_message_the_end_is_shown(cluster, capsys):
    """It harms nothing but itself: neither the slave host nor the client has to send it whole."""
    with cluster.master(echo=True) as client:
        client.addJob(say("a" * (3 * MB) + "the end"))
        client.addJob(double(1))
        assert len(client.processedJobs(30)) == 2
        shown = ""

        def ended():
            nonlocal shown
            shown += capsys.readouterr().out
            return shown.endswith("the end\n")

        wait_until(ended, "the end of the print")
        assert MB * 7 // 8 - 200 < shown.count("a") < MB + 100
        assert len(shown.splitlines()) == 1
