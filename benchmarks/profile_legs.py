"""Where a job's microseconds go, leg by leg: ``python -m benchmarks.profile_legs``.

Two measurements that have to add up. From a run of no-op jobs on a `LocalCluster`,
and on a `MultiProcessMaster`: the processor time that each process used, by the
number of jobs. And each leg by itself: the real functions on batches of the size
that such runs have, one after the other in one thread, in processor time of that
thread. What a process used beyond its legs is *the rest*: sockets, threads, locks.
Beside it stands the limit: what it costs to pickle a job, load it, call it, pickle
its result and load that.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import papyros
from benchmarks.jobs import Noop
from benchmarks.processes import children, exact_cpu_seconds
from benchmarks.program import add_and_pop
from benchmarks.report import publish, table
from benchmarks.service_calls import call_service
from papyros.bundles import MOST_JOBS, blobs_of
from papyros.distributed.batches import (
    HostReport,
    JobOutcome,
    pack_added,
    pack_definitions,
    pack_report,
    unpack_host_jobs,
    unpack_outcomes,
)
from papyros.distributed.bundling import Bundling
from papyros.distributed.exchange import SEND_JOBS, Exchange
from papyros.distributed.intake import Intake
from papyros.distributed.keys import ClusterKey
from papyros.distributed.seals import Seals
from papyros.distributed.service import MasterService
from papyros.encoded import encode_outcome
from papyros.frames import Buffer, unpack_message
from papyros.ledgersource import LedgerSource
from papyros.multiprocess import MultiProcessMaster
from papyros.outcome import Outcome
from papyros.process import Outcomes, SlaveProcess
from papyros.running import run_job
from papyros.screen import Screen
from papyros.tasks import CrewOptions, Task
from papyros.wire import MAX_PAYLOAD_BYTES, Packer, build_job, load_definition

__all__ = ["cluster_legs", "limit", "main", "processes_legs", "run_cluster", "run_processes"]

SLAVES = 2

#: So many jobs go through the legs at a time: a dozen bundles and some, of which a slave can have all.
BATCH = 15 * MOST_JOBS

#: Microseconds for each job, by leg.
Legs = dict[str, float]


class _Clock:
    """Adds up the processor time of this thread, by leg."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.legs: Legs = {}

    @contextmanager
    def leg(self, name: str) -> Iterator[None]:
        started = time.thread_time()
        yield
        spent = (time.thread_time() - started) / self.jobs * 1e6
        self.legs[name] = self.legs.get(name, 0.0) + spent


class _Books(MultiProcessMaster):
    """A master whose slaves are never started: what is added waits, until it is given outcomes.

    Attributes:
        source: by which its crew would take jobs, and bring outcomes.
    """

    def __init__(self) -> None:
        super().__init__(SLAVES)
        self.source = LedgerSource(self, self._ledger, self._holder)

    def _start(self) -> None:
        pass

    def exchange(self, seals: Seals, definition: bytes) -> Exchange:
        """Return what takes jobs out of these books in bundles, since those of this class are known to be quick."""
        exchange = Exchange(self._ledger, self._holder, self._numbers, seals, Bundling(), lambda: None)
        exchange.bundling.learn(definition, 1e-6, 10.0)
        return exchange


def cheapest(measure: Callable[[int], dict[str, Any]], jobs: int, times: int) -> dict[str, Any]:
    """Measure several times; return the least of each figure, since whatever else goes on only adds to it."""
    found = [measure(jobs) for _ in range(times)]
    return {name: _least([one[name] for one in found]) for name in found[0]}


def _least(figures: Sequence[Any]) -> Any:
    if isinstance(figures[0], dict):
        return {name: _least([one[name] for one in figures]) for name in figures[0]}
    return min(figures)


def processes_legs(jobs: int) -> dict[str, Legs]:
    """Return what each leg of a `MultiProcessMaster` costs, by the process in which it happens."""
    client, slave = _Clock(jobs), _Clock(jobs)
    packer = _packer()
    with _Books() as books, _slave_process() as process:
        for start in range(0, jobs, BATCH):
            _add(books, client, range(start, min(start + BATCH, jobs)))
            with client.leg("take out of the books"):
                tasks = books.source.take(BATCH)
            for came in _run(process, client, tasks, packer):
                with client.leg("finish"):
                    books.source.finished([task.tag for task in came.tasks], came.encoded, came.seconds, process.name)
            _pop(books, client, len(tasks))
            _inside(slave, packer, [task.blob for task in tasks])
    return {"client": client.legs, "slaves": slave.legs}


def cluster_legs(jobs: int) -> dict[str, Legs]:
    """Return what each leg of a cluster costs, by the process in which it happens: the jobs travel in bundles."""
    client, master, host, slave = (_Clock(jobs) for _ in range(4))
    packer = _packer()
    service = _Service()
    key = ClusterKey(bytes(32), "this profile")
    intake = Intake(key)
    intake.define(packer.definitions)
    with _Books() as books, _slave_process() as process:
        exchange = books.exchange(Seals(key, service.client), next(iter(packer.definitions)))
        for start in range(0, jobs, BATCH):
            count = min(start + BATCH, jobs) - start
            _add(books, client, range(start, start + count))
            with client.leg("take out of the books, bundle, seal"):
                added = exchange.next_batch(lambda: SEND_JOBS, SLAVES)
            with client.leg("pack a message"):
                packed = pack_added(added)
            fetched = service.through(master, packer, packed, len(added))
            with host.leg("unpack jobs, and check seals"):
                tasks, altered = intake.check([job for message in fetched for job in unpack_host_jobs(message)])
            if altered:
                raise RuntimeError("a job was not what its client sealed")
            reported: list[JobOutcome] = []
            for came in _run(process, host, tasks, packer):
                with host.leg("seal outcomes"):
                    tags = [task.tag for task in came.tasks]
                    reported += intake.sealed(tags, came.encoded, came.seconds, process.name)
            with host.leg("pack a report"):
                packed = pack_report(HostReport.empty()._replace(outcomes=reported))
            message = service.back(master, packed, len(reported))
            with client.leg("unpack outcomes, and check seals"):
                checked = map(exchange.checked, unpack_outcomes(unpack_message(message)[1]))
                outcomes = [done for done in checked if done is not None]
            with client.leg("finish"):
                for done in outcomes:
                    exchange.take(done)
            _pop(books, client, count)
            _inside(slave, packer, [blob for job in added for blob in blobs_of(cast(Buffer, job.blob))])
    return {"client": client.legs, "master": master.legs, "slave host": host.legs, "slaves": slave.legs}


def _packer() -> Packer:
    """Return a packer that knows the class of the jobs."""
    packer = Packer()
    packer.pack(Noop(0))
    return packer


def _add(books: _Books, clock: _Clock, numbers: range) -> None:
    with clock.leg("make the job"):
        jobs = [Noop(number) for number in numbers]
    with clock.leg("addJob"):
        for job in jobs:
            books.addJob(job)


def _pop(books: _Books, clock: _Clock, count: int) -> None:
    with clock.leg("popProcessedJob"):
        popped = [books.popProcessedJob() for _ in range(count)]
    if None in popped or books.numPendingJobs():
        raise RuntimeError("not all jobs have come back")


class _Service:
    """The object that a distributed master exposes, called as Pyro would call it."""

    def __init__(self) -> None:
        self.service = MasterService("profile")
        self.client, self.host = uuid.uuid4().hex, uuid.uuid4().hex
        self.sequence = self.acknowledged = self.collected = 0
        self.defined = False
        self.call("join", self.client)
        # With many slaves, so that a batch is as large as it gets; that it learns how quick jobs are does the rest.
        welcome = self.call("enlist", self.host, BATCH)[0]
        self.stay = welcome["uid"], welcome["stay"]

    def call(self, method: str, *args: Any, message: bytes = b"") -> tuple[Any, memoryview]:
        return call_service(self.service, method, *args, message=message)

    def through(self, clock: _Clock, packer: Packer, added: bytes, count: int) -> list[memoryview]:
        """Take a message of so many jobs, or bundles, to a slave host; return the messages that it gets."""
        if not self.defined:
            self.call("define", self.client, {}, message=pack_definitions(packer.definitions))
            self.defined = True
        self.sequence += 1
        with clock.leg("add"):
            self.call("add", self.client, self.sequence, 0.0, message=added)
        messages: list[memoryview] = []
        while count > 0:
            with clock.leg("fetch"):
                answer, message = self.call("fetch", self.host, self.acknowledged, 0, 0.0)
            self.acknowledged = answer["number"]
            count -= answer["count"]
            messages.append(message)
        return messages

    def back(self, clock: _Clock, report: bytes, count: int) -> memoryview:
        """Take so many outcomes from a slave host to the client; return the message that it gets."""
        with clock.leg("report"):
            self.call("report", self.host, self.sequence, *self.stay, message=report)
        with clock.leg("collect"):
            answer, message = self.call("collect", self.client, self.collected, False, 0.0)
        self.collected = answer["number"]
        if answer["count"] != count:
            raise RuntimeError(f"{answer['count']} outcomes came back, not {count}")
        return message


@contextmanager
def _slave_process() -> Iterator[SlaveProcess]:
    slave = SlaveProcess(CrewOptions(MAX_PAYLOAD_BYTES, sys.path), Screen())
    try:
        while not slave.ready:
            list(slave.receive())
            slave.outbox.flush()
            time.sleep(0.001)
        yield slave
    finally:
        slave.kill()
        slave.bury()


def _run(slave: SlaveProcess, clock: _Clock, tasks: list[Task], packer: Packer) -> Iterator[Outcomes]:
    """Have a slave run tasks; yield the outcomes."""
    with clock.leg("send to a slave"):
        slave.send(tasks, packer.definitions.__getitem__)
    while slave.queue:
        slave.outbox.flush()
        time.sleep(0.001)  # so that outcomes come in batches, as they do
        with clock.leg("receive from a slave"):
            came = [event for event in slave.receive() if isinstance(event, Outcomes)]
        yield from came


def _inside(clock: _Clock, packer: Packer, blobs: Sequence[Any]) -> None:
    """What a slave does with a job, apart from how it gets there."""
    [definition] = packer.definitions.values()
    job_class = load_definition(definition)
    with clock.leg("unpickle, call, pickle"):
        for blob in blobs:
            built = build_job(job_class, blob)
            encode_outcome(run_job(built, "slave"), built)


def limit(jobs: int) -> float:
    """Return the microseconds to pickle a job, load it, call it, pickle its result and load that, on one core."""
    started = time.thread_time()
    for number in range(jobs):
        job = pickle.loads(pickle.dumps(Noop(number), 5))
        pickle.loads(pickle.dumps(Outcome(job(*job.args)).value, 5))
    return (time.thread_time() - started) / jobs * 1e6


# Whole runs -------------------------------------------------------------------------------


def run_cluster(jobs: int) -> Legs:
    """Return the processor time that each process of a cluster uses for a job, and how long one takes."""
    with papyros.LocalCluster(SLAVES) as cluster, cluster.master() as master:
        pids = cluster.pids
        return _whole_run(
            master,
            jobs,
            {
                "client": [os.getpid()],
                "master": [pids["master"]],
                "slave host": [pids["slave host"]],
                "slaves": children(pids["slave host"]),
            },
        )


def run_processes(jobs: int) -> Legs:
    """Return the same for a master of processes of this machine."""
    with papyros.MultiProcessMaster(SLAVES) as master:
        master.wait_ready()
        slaves = [int(slave.name.rpartition("/")[2]) for slave in master.status().slaves]
        return _whole_run(master, jobs, {"client": [os.getpid()], "slaves": slaves})


def _whole_run(master: papyros.Master, jobs: int, processes: dict[str, list[int]]) -> Legs:
    add_and_pop(master, jobs // 10)
    before = {name: exact_cpu_seconds(pids) for name, pids in processes.items()}
    started = time.perf_counter()
    add_and_pop(master, jobs)
    wall = time.perf_counter() - started
    used = {name: (exact_cpu_seconds(pids) - before[name]) / jobs * 1e6 for name, pids in processes.items()}
    return {**used, "wall": wall / jobs * 1e6}


# Shown ------------------------------------------------------------------------------------


def legs_table(legs: dict[str, Legs], used: Legs) -> str:
    """Return a table of the legs of each process, the rest, and the sum."""
    lines = []
    for process, known in legs.items():
        lines += [[process, name, f"{spent:.2f}"] for name, spent in known.items()]
        lines.append([process, "the rest: sockets, threads, locks", f"{used[process] - sum(known.values()):.2f}"])
        lines.append([process, "**all of it**", f"**{used[process]:.2f}**"])
    lines.append(["all", "**processor time**", f"**{sum(used[process] for process in legs):.2f}**"])
    lines.append(["all", "time, with the cores that there are", f"{used['wall']:.2f}"])
    return table(["process", "leg", "us a job"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_legs", description=__doc__.split(":")[0])
    parser.add_argument("--jobs", type=int, default=20_000, metavar="N", help="how many no-op jobs in each run")
    parser.add_argument("--times", type=int, default=3, metavar="N", help="how often; the least of each figure counts")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write it there, too, for the manual")
    options = parser.parse_args(arguments)
    parts = ["With `DistributedMaster` and a `LocalCluster` of two slaves, where no-op jobs travel in bundles:\n"]
    parts.append(
        legs_table(
            cheapest(cluster_legs, options.jobs, options.times), cheapest(run_cluster, options.jobs, options.times)
        )
    )
    parts.append("With `MultiProcessMaster(2)`:\n")
    parts.append(
        legs_table(
            cheapest(processes_legs, options.jobs, options.times), cheapest(run_processes, options.jobs, options.times)
        )
    )
    least = min(limit(options.jobs) for _ in range(options.times))
    parts.append(f"The limit, which is to pickle, load, call, pickle and load one job: {least:.1f} us on one core.")
    publish("\n".join(parts), "python -m benchmarks.profile_legs", options.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
