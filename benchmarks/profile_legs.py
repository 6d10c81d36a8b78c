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
from benchmarks.processes import children, cpu_seconds
from benchmarks.program import add_and_pop
from benchmarks.report import publish, table
from benchmarks.service_calls import call_service
from papyros.distributed.batches import (
    AddedJob,
    HostReport,
    JobOutcome,
    pack_added,
    pack_definitions,
    pack_report,
    unpack_host_jobs,
    unpack_outcomes,
)
from papyros.distributed.keys import ClusterKey
from papyros.distributed.seals import Seals, ticket_of
from papyros.distributed.service import MasterService
from papyros.frames import Buffer, unpack_message
from papyros.outcome import Outcome
from papyros.packing import PackingMaster
from papyros.process import Outcomes, SlaveProcess
from papyros.running import run_job
from papyros.screen import Screen
from papyros.tasks import CrewOptions, Task
from papyros.wire import MAX_PAYLOAD_BYTES, Packer, build_job, encode_outcome, load_definition

__all__ = ["limit", "main", "run_cluster", "run_processes", "the_legs"]

SLAVES = 2
BATCH = 500

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


class _Books(PackingMaster):
    """A master without an engine: what is added waits, until it is given outcomes."""

    def _work_came(self) -> None:
        pass

    def _stop(self) -> None:
        pass

    def assign(self) -> list[Any]:
        with self._lock:
            return self._ledger.assign(self._ledger.enlist("nobody", 1), 10**9)

    def finish(self, outcomes: Sequence[JobOutcome], entries: dict[int, Any]) -> None:
        with self._lock:
            for done in outcomes:
                outcome = (done.outcome, done.slave, done.seconds)
                self._finish(entries[done.number], outcome, done.seconds, len(done.outcome))


def cheapest(measure: Callable[[int], dict[str, Any]], jobs: int, times: int) -> dict[str, Any]:
    """Measure several times; return the least of each figure, since whatever else goes on only adds to it."""
    found = [measure(jobs) for _ in range(times)]
    return {name: _least([one[name] for one in found]) for name in found[0]}


def _least(figures: Sequence[Any]) -> Any:
    if isinstance(figures[0], dict):
        return {name: _least([one[name] for one in figures]) for name in figures[0]}
    return min(figures)


def the_legs(jobs: int) -> dict[str, Legs]:
    """Return what each leg costs, by the process in which it happens."""
    client, master, host, slave = (_Clock(jobs) for _ in range(4))
    books = _Books()
    slaves = _slave_process()
    try:
        service = _Service()
        seals = Seals(ClusterKey(bytes(32), "this profile"), service.client)
        for start in range(0, jobs, BATCH):
            added = _add(books, client, range(start, min(start + BATCH, jobs)))
            with client.leg("seal, and check seals"):
                added = [job._replace(seal=seals.seal_job(job.number, job.definition, job.blob)) for job in added]
            fetched = service.through(master, client, added)
            with host.leg("check seals, and seal"):
                if not all(seals.check_job(job.number, job.definition, job.blob, job.seal) for job in fetched):
                    raise RuntimeError("a job was not what its client sealed")
            reported = _run(slaves, host, fetched)
            with host.leg("check seals, and seal"):
                reported = [_sealed(seals, done, job.seal) for done, job in zip(reported, fetched, strict=True)]
            message = service.back(master, host, reported)
            with client.leg("unpack outcomes"):
                outcomes = unpack_outcomes(unpack_message(message)[1])
            with client.leg("seal, and check seals"):
                if not all(seals.check_outcome(done.number, done.ticket, done.outcome, done.seal) for done in outcomes):
                    raise RuntimeError("an outcome was not what the slave host sealed")
            entries = {entry.number: entry for entry in books._main._session.entries.values()}
            with client.leg("finish"):
                books.finish(outcomes, entries)
            with client.leg("popProcessedJob"):
                for _ in outcomes:
                    popped = books.popProcessedJob(0)
                    assert popped is not None
            _inside(slave, added)
    finally:
        books.close()
        slaves.kill()
        slaves.bury()
    return {"client": client.legs, "master": master.legs, "slave host": host.legs, "slaves": slave.legs}


def _sealed(seals: Seals, done: JobOutcome, seal: Buffer) -> JobOutcome:
    ticket = ticket_of(seal)
    return done._replace(ticket=ticket, seal=seals.seal_outcome(done.number, ticket, done.outcome))


def _add(books: _Books, clock: _Clock, numbers: range) -> list[AddedJob]:
    with clock.leg("make the job"):
        jobs = [Noop(number) for number in numbers]
    with clock.leg("addJob"):
        for job in jobs:
            books.addJob(job)
    with clock.leg("assign a batch"):
        entries = books.assign()
    return [AddedJob(e.number, e.payload[0], e.payload[1], e.terms) for e in entries]


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

    def through(self, clock: _Clock, client: _Clock, added: list[AddedJob]) -> list[Any]:
        """Take jobs from a client to a slave host; return them."""
        if not self.defined:
            packer = Packer()
            packer.pack(Noop(0))
            self.call("define", self.client, {}, message=pack_definitions(packer.definitions))
            self.defined = True
        self.sequence += 1
        with client.leg("pack a batch"):
            packed = pack_added(added)
        with clock.leg("add"):
            self.call("add", self.client, self.sequence, 0.0, message=packed)
        fetched: list[Any] = []
        while len(fetched) < len(added):
            with clock.leg("fetch"):
                answer, message = self.call("fetch", self.host, self.acknowledged, 0, 0.0)
            self.acknowledged = answer["number"]
            fetched += unpack_host_jobs(message)
        return fetched

    def back(self, clock: _Clock, host: _Clock, outcomes: list[JobOutcome]) -> memoryview:
        """Take outcomes from a slave host to the client; return the message that it gets."""
        with host.leg("pack a report"):
            packed = pack_report(HostReport.empty()._replace(outcomes=outcomes))
        with clock.leg("report"):
            self.call("report", self.host, self.sequence, *self.stay, message=packed)
        with clock.leg("collect"):
            answer, message = self.call("collect", self.client, self.collected, False, 0.0)
        self.collected = answer["number"]
        if answer["count"] != len(outcomes):
            raise RuntimeError(f"{answer['count']} outcomes came back, not {len(outcomes)}")
        return message


def _slave_process() -> SlaveProcess:
    slave = SlaveProcess(CrewOptions(MAX_PAYLOAD_BYTES, sys.path), Screen())
    while not slave.ready:
        list(slave.receive())
        slave.outbox.flush()
        time.sleep(0.001)
    return slave


def _run(slave: SlaveProcess, clock: _Clock, fetched: list[Any]) -> list[JobOutcome]:
    """Have a slave run jobs; return the outcomes."""
    packer = Packer()
    packer.pack(Noop(0))
    message = _host_message(fetched)
    with clock.leg("unpack jobs"):
        jobs = unpack_host_jobs(message)
        tasks = [Task((job.session, job.number), job.definition, job.blob, job.terms) for job in jobs]
    with clock.leg("send to a slave"):
        slave.send(tasks, packer.definitions.__getitem__)
    done: list[JobOutcome] = []
    while len(done) < len(tasks):
        slave.outbox.flush()
        time.sleep(0.001)  # so that outcomes come in batches, as they do
        with clock.leg("receive from a slave"):
            for event in slave.receive():
                assert isinstance(event, Outcomes)
                batch = zip(event.tasks, event.encoded, event.seconds, strict=True)
                done += [JobOutcome(t.tag[0], t.tag[1], encoded, spent, slave.name) for t, encoded, spent in batch]
    return done


def _host_message(jobs: list[Any]) -> memoryview:
    from papyros.distributed.batches import pack_host_jobs

    return memoryview(pack_host_jobs(jobs))


def _inside(clock: _Clock, added: list[AddedJob]) -> None:
    """What a slave does with a job, apart from how it gets there."""
    packer = Packer()
    definition = packer.pack(Noop(0)).definition
    job_class = load_definition(packer.definitions[definition])
    with clock.leg("unpickle, call, pickle"):
        for job in added:
            built = build_job(job_class, cast(Buffer, job.blob))
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
    before = {name: cpu_seconds(pids) for name, pids in processes.items()}
    started = time.perf_counter()
    add_and_pop(master, jobs)
    wall = time.perf_counter() - started
    used = {name: (cpu_seconds(pids) - before[name]) / jobs * 1e6 for name, pids in processes.items()}
    return {**used, "wall": wall / jobs * 1e6}


# Shown ------------------------------------------------------------------------------------


def legs_table(legs: dict[str, Legs], used: Legs, which: dict[str, Callable[[str], bool]]) -> str:
    """Return a table of the legs of each process, the rest, and the sum."""
    lines = []
    for process, keep in which.items():
        known = {name: spent for name, spent in legs.get(process, {}).items() if keep(name)}
        lines += [[process, name, f"{spent:.1f}"] for name, spent in known.items()]
        lines.append([process, "the rest: sockets, threads, locks", f"{used[process] - sum(known.values()):.1f}"])
        lines.append([process, "**all of it**", f"**{used[process]:.1f}**"])
    lines.append(["all", "**processor time**", f"**{sum(used[p] for p in which):.1f}**"])
    lines.append(["all", "time, with the cores that there are", f"{used['wall']:.1f}"])
    return table(["process", "leg", "us a job"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_legs", description=__doc__.split(":")[0])
    parser.add_argument("--jobs", type=int, default=20_000, metavar="N", help="how many no-op jobs in each run")
    parser.add_argument("--times", type=int, default=3, metavar="N", help="how often; the least of each figure counts")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write it there, too, for the manual")
    options = parser.parse_args(arguments)
    legs = cheapest(the_legs, options.jobs, options.times)
    used = cheapest(run_cluster, options.jobs, options.times)
    parts = ["With `DistributedMaster` and a `LocalCluster` of two slaves:\n"]
    parts.append(legs_table(legs, used, dict.fromkeys(("client", "master", "slave host", "slaves"), lambda _: True)))
    # There is one process less between: what the slave host's crew does happens in the client.
    both = {"client": legs["client"] | legs["slave host"], "slaves": legs["slaves"]}
    own = {
        "make the job",
        "addJob",
        "assign a batch",
        "finish",
        "popProcessedJob",
        "send to a slave",
        "receive from a slave",
    }
    used = cheapest(run_processes, options.jobs, options.times)
    parts.append("With `MultiProcessMaster(2)`:\n")
    parts.append(legs_table(both, used, {"client": own.__contains__, "slaves": lambda _: True}))
    least = min(limit(options.jobs) for _ in range(options.times))
    parts.append(f"The limit, which is to pickle, load, call, pickle and load one job: {least:.1f} us on one core.")
    publish("\n".join(parts), "python -m benchmarks.profile_legs", options.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
