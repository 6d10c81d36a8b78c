"""What one master carries, and where it ends: ``python -m benchmarks.capacity``.

The master is the real one: its service, desk and ledger, with real messages, called as
Pyro would call it. Everything around it is modelled in virtual time: slave hosts whose
slaves are busy for as long as a job takes, clients that always have more jobs, and a
network on which half a round trip passes each way. The master works on one call at a time,
as it does (one interpreter runs one thread at a time), and each call takes as much virtual time as
it takes real processor time here, plus what Pyro takes for a call, which is measured
on a real cluster. So a master that is asked for more than it can do lets slaves wait, as a real one would.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import papyros
from benchmarks.jobs import Noop
from benchmarks.processes import cpu_seconds
from benchmarks.report import publish, table
from benchmarks.service_calls import call_service
from papyros.distributed.batches import (
    AddedJob,
    HostReport,
    JobOutcome,
    pack_added,
    pack_report,
    unpack_host_jobs,
)
from papyros.distributed.bells import Ticket
from papyros.distributed.service import MasterService
from papyros.encoded import encode_outcome
from papyros.outcome import Outcome
from papyros.terms import DEFAULT_TERMS
from papyros.wire import Packer

__all__ = ["Carried", "World", "call_seconds", "carry", "main"]

SLAVES = 64
JOB_SECONDS = 0.1
ROUND_TRIP = 0.0005
VIRTUAL_SECONDS = 4.0

#: Clients keep so many jobs waiting, for each slave.
AHEAD = 3

#: There is one client for so many slave hosts, so that what one client can say is not what is measured.
HOSTS_PER_CLIENT = 16

#: Calls that it takes to add, fetch, report and collect one job by itself.
CALLS = 4


class World:
    """Virtual time, and a master that does one thing after the other in it.

    Args:
        call_seconds: what a call takes beyond what the service takes.
    """

    def __init__(self, call_seconds: float, round_trip: float = ROUND_TRIP) -> None:
        self.now = 0.0
        self.busy = 0.0  # how long the master worked
        self.served = 0.0  # ... in its service, not in Pyro
        self.calls = 0
        self._call_seconds = call_seconds
        self._half = round_trip / 2
        self._working = False
        self._line: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._tickets += 1
        heappush(self._heap, (self.now + seconds, self._tickets, action))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heappop(self._heap)
            action()
        self.now = until

    def call(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Have the master do some work, after what it was asked for before, and act on the answer."""

        def arrive() -> None:
            self._line.append((work, then))
            if not self._working:
                self._serve()

        self.after(self._half, arrive)

    def _serve(self) -> None:
        self._working = bool(self._line)
        if not self._working:
            return
        work, then = self._line.popleft()
        started = time.thread_time()
        answer = work()
        served = time.thread_time() - started
        spent = served + self._call_seconds
        self.calls += 1
        self.busy += spent
        self.served += served
        self.after(spent, self._serve)
        self.after(spent + self._half, lambda: then(answer))


class _Master:
    """The service of a master, called without Pyro, in virtual time."""

    def __init__(self, world: World) -> None:
        self.service = MasterService("capacity")
        self.service._desk.clock = lambda: world.now

    def call(self, method: str, *args: Any, message: bytes = b"") -> tuple[Any, memoryview]:
        return call_service(self.service, method, *args, message=message)


class _Client:
    """Adds jobs ahead of need, and collects outcomes."""

    def __init__(self, world: World, master: _Master, waiting: int) -> None:
        self.world, self.master, self.waiting = world, master, waiting
        self.key = uuid.uuid4().hex
        self.added = self.collected = self.sequence = self.acknowledged = 0
        payload = Packer().pack(Noop(12345))
        self.job = (payload.definition, payload.blob, DEFAULT_TERMS)
        master.call("join", self.key)

    def start(self) -> None:
        """Have many jobs wait when time begins, and go on from there."""
        while (add := self._next_add()) is not None:
            add()
        self._add()
        self._collect()

    def _next_add(self) -> Callable[[], Any] | None:
        missing = self.waiting - (self.added - self.collected)
        if missing <= 0:
            return None
        numbers = range(self.added, self.added + min(2000, missing))
        self.added += len(numbers)
        self.sequence += 1
        message, sequence = pack_added([AddedJob(number, *self.job) for number in numbers]), self.sequence
        return lambda: self.master.call("add", self.key, sequence, 0.0, message=message)

    def _add(self) -> None:
        add = self._next_add()
        if add is None:
            self.world.after(0.001, self._add)
        else:
            self.world.call(add, lambda _: self._add())

    def _collect(self) -> None:
        acknowledged = self.acknowledged

        def collected(answer: tuple[dict[str, Any], memoryview]) -> None:
            self.acknowledged = answer[0]["number"]
            self.collected += answer[0]["count"]
            # A real one waits at the master until something is there.
            self.world.after(0.0 if answer[0]["count"] else 0.001, self._collect)

        self.world.call(lambda: self.master.call("collect", self.key, acknowledged, False, 0.0), collected)


class _Host:
    """A slave host: fetches, runs, reports. Slaves run what is there; nothing takes time but jobs and calls."""

    def __init__(self, world: World, master: _Master, slaves: int, seconds: float) -> None:
        self.world, self.master, self.seconds = world, master, seconds
        self.idle = slaves
        self.key = uuid.uuid4().hex
        self.queue: deque[tuple[str, int]] = deque()
        self.outcomes: list[JobOutcome] = []
        self.reporting = self.parked = False
        self.acknowledged = self.sequence = self.done = 0
        self.encoded = encode_outcome(Outcome(12345), None)
        welcome = master.call("enlist", self.key, slaves)[0]
        self.stay = welcome["uid"], welcome["stay"]

    def fetch(self) -> None:
        """Ask for jobs; if there are none, the call waits at the master until its bell rings."""
        self.world.call(self._served, self._fetched)

    def _served(self) -> tuple[dict[str, Any], memoryview] | None:
        answer = self.master.call("fetch", self.key, self.acknowledged, 0, math.inf)
        if isinstance(answer[0], Ticket):
            self.parked = True
            answer[0].then(self._woken)
            return None
        return answer

    def _woken(self) -> None:
        if self.parked:
            self.parked = False
            self.fetch()

    def _fetched(self, answer: tuple[dict[str, Any], memoryview] | None) -> None:
        if answer is not None:
            self.acknowledged = answer[0]["number"]
            self.queue.extend((job.session, job.number) for job in unpack_host_jobs(answer[1]))
            self._start()
            self.fetch()

    def _start(self) -> None:
        while self.idle and self.queue:
            self.idle -= 1
            tag = self.queue.popleft()
            self.world.after(self.seconds, lambda tag=tag: self._ended(tag))  # type: ignore[misc]

    def _ended(self, tag: tuple[str, int]) -> None:
        self.idle += 1
        self.done += 1
        self.outcomes.append(JobOutcome(*tag, self.encoded, self.seconds, "host/12345"))
        self._start()
        self._report()

    def _report(self) -> None:
        if self.reporting or not self.outcomes:
            return
        self.reporting = True
        self.sequence += 1
        sequence, outcomes, self.outcomes = self.sequence, self.outcomes, []
        message = pack_report(HostReport.empty()._replace(outcomes=outcomes))
        self.world.call(
            lambda: self.master.call("report", self.key, sequence, *self.stay, message=message), self._reported
        )

    def _reported(self, _: Any) -> None:
        self.reporting = False
        self._report()


class Carried(NamedTuple):
    """What a master carried."""

    hosts: int
    slaves: int
    wanted: float  # jobs a second that all slaves could do
    carried: float  # jobs a second that they did
    busy: float  # which part of its time the master worked
    per_job: float  # seconds of the master, all told
    served: float  # ... in its service
    jobs_per_call: float


def carry(
    hosts: int,
    call_seconds: float,
    slaves: int = SLAVES,
    job_seconds: float = JOB_SECONDS,
    seconds: float = VIRTUAL_SECONDS,
) -> Carried:
    """Let hosts work for some virtual seconds, of which the first half is for getting going."""
    world = World(call_seconds)
    master = _Master(world)
    number = -(-hosts // HOSTS_PER_CLIENT)
    clients = [_Client(world, master, AHEAD * hosts * slaves // number + 4000) for _ in range(number)]
    crews = [_Host(world, master, slaves, job_seconds) for _ in range(hosts)]
    for client in clients:
        client.start()
    for number, host in enumerate(crews):
        world.after(job_seconds * number / hosts, host.fetch)  # not all in the same moment
    # While a master is asked for more than it can do, it takes long until all slaves have got their first job.
    warm = seconds / 2 + hosts * slaves * 20e-6 * 2
    world.run(warm)
    done, busy, served, calls = sum(host.done for host in crews), world.busy, world.served, world.calls
    world.run(warm + seconds / 2)
    jobs = sum(host.done for host in crews) - done
    spent = world.busy - busy
    return Carried(
        hosts,
        slaves,
        hosts * slaves / job_seconds,
        jobs / (seconds / 2),
        spent / (seconds / 2),
        spent / max(1, jobs),
        (world.served - served) / max(1, jobs),
        jobs / max(1, world.calls - calls),
    )


def call_seconds(jobs: int = 1000) -> float:
    """Return what a call costs the process of a real master, beyond what its service does: in Pyro and the system."""
    with papyros.LocalCluster(1) as cluster, cluster.master() as master:
        _one_by_one(master, jobs // 10)
        pid = cluster.pids["master"]
        before = cpu_seconds([pid])
        _one_by_one(master, jobs)
        spent = (cpu_seconds([pid]) - before) / (CALLS * jobs)
    return max(0.0, spent - _service_seconds(jobs))


def _one_by_one(master: papyros.Master, jobs: int) -> None:
    for number in range(jobs):
        master.addJob(Noop(number))
        master.popProcessedJob()


def _service_seconds(jobs: int) -> float:
    """Return what a call costs the service, on average, when jobs come one by one."""
    world = World(0.0)
    master = _Master(world)
    client, host = _Client(world, master, 0), _Host(world, master, 1, 0.0)
    message = pack_added([AddedJob(0, *client.job)])
    started = time.thread_time()
    for number in range(jobs):
        message = pack_added([AddedJob(number, *client.job)])
        master.call("add", client.key, number + 1, 0.0, message=message)
        answer, fetched = master.call("fetch", host.key, host.acknowledged, 0, 0.0)
        host.acknowledged = answer["number"]
        outcomes = [JobOutcome(j.session, j.number, host.encoded, 0.0, "host/1") for j in unpack_host_jobs(fetched)]
        master.call(
            "report",
            host.key,
            number + 1,
            *host.stay,
            message=pack_report(HostReport.empty()._replace(outcomes=outcomes)),
        )
        answer, _ = master.call("collect", client.key, client.acknowledged, False, 0.0)
        client.acknowledged = answer["number"]
    return (time.thread_time() - started) / (CALLS * jobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__.split(":")[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1000], metavar="N")
    parser.add_argument("--slaves", type=int, default=SLAVES, metavar="N", help="of each host")
    parser.add_argument("--job", type=float, default=JOB_SECONDS, metavar="S", help="how long a job takes")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write it there, too, for the manual")
    options = parser.parse_args(arguments)
    each_call = call_seconds()
    found = [carry(hosts, each_call, options.slaves, options.job) for hosts in options.hosts]
    best = max(c.carried for c in found)
    busy = [f"{c.slaves:,} slaves {c.carried / c.wanted:.0%} busy" for c in found]
    told = (
        f"A call costs the master {each_call * 1e6:.0f} us beyond its service. With jobs of {options.job:g} s, one "
        f"master keeps {', '.join(busy)}. The most that it carries, when that much is asked of it, is "
        f"{best:,.0f} jobs/s."
    )
    publish(f"{told}\n\n{carried_table(found)}", "python -m benchmarks.capacity", options.into)
    return 0


def carried_table(found: Sequence[Carried]) -> str:
    """Return a table of what a master carried."""
    head = [
        "hosts",
        "slaves",
        "jobs/s wanted",
        "carried",
        "slaves busy",
        "master busy",
        "us/job",
        "in its service",
        "jobs/call",
    ]
    lines = [
        [
            f"{c.hosts:,}",
            f"{c.hosts * c.slaves:,}",
            f"{c.wanted:,.0f}",
            f"{c.carried:,.0f}",
            f"{c.carried / c.wanted:.0%}",
            f"{c.busy:.0%}",
            f"{c.per_job * 1e6:.1f}",
            f"{c.served * 1e6:.1f}",
            f"{c.jobs_per_call:.1f}",
        ]
        for c in found
    ]
    return table(head, lines)


if __name__ == "__main__":
    sys.exit(main())
