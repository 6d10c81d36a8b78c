"""What grows with the number of jobs, slaves and clients, and what must not: ``python -m benchmarks.growth``.

Each measurement is a function that prints a table, and says against what it was to be held.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import papyros
from benchmarks.jobs import Noop
from benchmarks.processes import (
    PAGE,
    children,
    exact_cpu_seconds,
    proportional_bytes,
    received_bytes,
    resident_bytes,
    tree,
)
from benchmarks.program import ClientProgram, add_and_pop
from benchmarks.report import publish, table
from papyros.status import Status

__all__ = ["GROWTH", "Line", "main"]

SLAVES = 2

#: How often a cost is measured.
ROUNDS = 5

#: So many jobs that wait are soon popped.
BRIEF_JOBS = 10_000

#: How long an idle cluster is watched.
IDLE_SECONDS = 20.0

SHARED_BYTES = 100_000_000
SHARED_JOBS = 1000


class Line(NamedTuple):
    """A line of a table, and what was to be reached."""

    what: str
    measured: str
    wanted: str
    reached: bool | None  # None: nothing is asked


class Gate(papyros.Job):
    """Keeps a slave busy until a file is gone, so that others wait."""

    def __call__(self, path: str) -> None:
        """Wait."""
        while Path(path).exists():
            time.sleep(0.01)


class Look(papyros.Job):
    """Reads a byte of each page of its argument."""

    def __call__(self, view: memoryview, number: int) -> tuple[int, int]:  # noqa: ARG002 - so that no two jobs are equal
        """Return the length, and the sum of these bytes."""
        return len(view), sum(view[::PAGE])


# Jobs that wait ---------------------------------------------------------------------------


class Waiting(NamedTuple):
    """A number of jobs that waited: how long it took to add and to pop them all, and what the master grew by."""

    jobs: int
    there: int  # how many of them waited in the process that was looked at
    adding: float
    popping: float
    grown: int  # bytes, when all waited
    kept: int  # bytes, when all were popped

    @property
    def rate(self) -> float:
        """Jobs a second, all told."""
        return self.jobs / (self.adding + self.popping)


#: A process has so long to give memory back.
GIVE_BACK_SECONDS = 5.0


class Place(NamedTuple):
    """Where jobs wait: a process, what it says of itself, and how many of a program's jobs it takes."""

    pid: int
    status: Callable[[], Status]
    takes: float = math.inf


def _pile_up(master: papyros.Master, jobs: int, place: Place) -> Waiting:
    """Let jobs wait behind a gate, then open it and pop them."""
    pid = place.pid
    gate = tempfile.NamedTemporaryFile(prefix="papyros-gate-", delete=False)  # noqa: SIM115 - its removal opens the gate
    gate.close()
    for _ in range(SLAVES):
        master.addJob(Gate(gate.name))
    while sum(bool(slave.job) for slave in master.status().slaves) < SLAVES:
        time.sleep(0.01)  # polling: a slave that has no gate yet would run what is to wait
    gc.collect()
    at_first = resident_bytes(pid)
    pile = [Noop(number) for number in range(jobs)]
    before = resident_bytes(pid)  # what is the user's own does not count
    started = time.perf_counter()
    for job in pile:
        master.addJob(job)
    _wait_until_there(place, jobs + SLAVES)
    adding = time.perf_counter() - started
    grown = resident_bytes(pid) - before
    started = time.perf_counter()
    os.unlink(gate.name)
    popped = sum(1 for _ in iter(master.popProcessedJob, None))
    popping = time.perf_counter() - started
    if popped != jobs + SLAVES:
        raise RuntimeError(f"{popped} jobs came back, not {jobs + SLAVES}")
    del pile[:], job  # with the results, which are the user's, too
    gc.collect()
    return Waiting(jobs, int(min(jobs, place.takes)), adding, popping, grown, _kept(pid, at_first, grown))


def _kept(pid: int, at_first: int, grown: int) -> int:
    """Return how many bytes more a process has than at first, once it has had some time to give them back."""
    deadline = time.monotonic() + GIVE_BACK_SECONDS
    while (kept := resident_bytes(pid) - at_first) > grown / 10 and time.monotonic() < deadline:
        time.sleep(0.1)  # polling: a master looks after its memory every two seconds
    return kept


def _wait_until_there(place: Place, jobs: int) -> None:
    """Wait until so many jobs have come there, or as many as are taken: they may be on their way."""
    while True:
        asked = time.perf_counter()
        status = place.status()
        if status.waiting + status.assigned >= min(jobs, place.takes):
            return
        time.sleep(0.01 + 3 * (time.perf_counter() - asked))  # polling: not so that it is all that the master does


def _payload_bytes() -> int:
    from papyros.wire import Packer

    return len(Packer().pack(Noop(1_000_000)).blob)


def waiting_jobs(numbers: Sequence[int]) -> Iterator[Line]:
    """10^3 to 10^6 jobs that wait: throughput, and the memory of the process that keeps them."""
    for name, opened in (("MultiProcessMaster", _processes), ("DistributedMaster", _cluster)):
        found: dict[int, Waiting] = {}
        with opened() as (master, place):
            _pile_up(master, 1000, place)  # whatever is allocated once
            for number in numbers:
                # What is over in a fraction of a second is measured several times: one number of it says little.
                piles = [_pile_up(master, number, place) for _ in range(1 if number > BRIEF_JOBS else ROUNDS)]
                found[number] = sorted(piles, key=lambda pile: pile.rate)[len(piles) // 2]
                yield Line(f"{name}, {number:,} jobs wait: jobs/s", f"{found[number].rate:,.0f}", "", None)
        yield from _judge_waiting(name, found)


def _judge_waiting(name: str, found: dict[int, Waiting]) -> Iterator[Line]:
    most = found[max(found)]
    base = found.get(10**4) or found[min(found)]
    quotient = most.rate / base.rate
    what = f"{name}: throughput with {most.jobs:,} / with {base.jobs:,}"
    yield Line(what, f"{quotient:.2f}", ">= 0.8", quotient >= 0.8)
    each = most.grown / most.there - _payload_bytes()
    yield Line(f"{name}: the master's memory, bytes a job beyond the payload", f"{each:,.0f}", "<= 1,000", each <= 1000)
    kept = most.kept / max(1, most.grown)
    what = f"{name}: what of that it keeps when all is popped"
    yield Line(what, f"{kept:.0%} ({most.kept / 1e6:,.0f} MB)", "<= 10%", kept <= 0.1)


@contextmanager
def _processes() -> Iterator[tuple[papyros.Master, Place]]:
    with papyros.MultiProcessMaster(SLAVES) as master:
        yield master, Place(os.getpid(), master.status)


@contextmanager
def _cluster() -> Iterator[tuple[papyros.Master, Place]]:
    # Here, since slaves import this module for its jobs, and what they then take counts.
    from papyros.distributed.desk import SESSION_JOBS
    from papyros.distributed.keys import find_key
    from papyros.distributed.naming import NameServer, ask_status, parse_address
    from papyros.distributed.security import Security

    security = Security(find_key())
    with papyros.LocalCluster(SLAVES) as cluster, cluster.master() as master:
        uri = NameServer(parse_address(cluster.nameserver), security).lookup(cluster.group)
        if uri is None:
            raise RuntimeError("the master of a cluster is not registered")
        yield master, Place(cluster.pids["master"], partial(ask_status, uri, security), SESSION_JOBS)


# Slaves and clients -----------------------------------------------------------------------


def slaves(numbers: Sequence[int], jobs: int) -> Iterator[Line]:
    """1 to 100 slaves: what a no-op job costs all processes."""
    costs = {}
    for number in numbers:
        with papyros.LocalCluster(number) as cluster, cluster.master() as master:
            costs[number] = cost = _cost(partial(add_and_pop, master), jobs, _all_of(cluster))
        yield Line(f"slaves: {number}; processor time for a job, all processes", f"{cost * 1e6:.0f} us", "", None)
    yield _flat("slaves", costs)


def clients(numbers: Sequence[int], jobs: int) -> Iterator[Line]:
    """1 to 20 clients connected, of which one works, or all do: what a no-op job costs all processes.

    Each is a program of its own, as a cluster's clients are: in a single one, the threads of 20 clients would mostly
    wait for its interpreter's lock. Each of twenty has so many jobs still that what it costs to begin is little beside
    them.
    """
    with papyros.LocalCluster(SLAVES) as cluster, ExitStack() as programs:
        connected: list[ClientProgram] = []
        idle, busy = {}, {}
        for number in numbers:
            while len(connected) < number:
                connected.append(programs.enter_context(ClientProgram(cluster.nameserver)))
            processes = [*_all_of(cluster), *(client.pid for client in connected)]
            idle[number] = _cost(partial(_have_work, connected[:1]), jobs, processes)
            busy[number] = _cost(partial(_have_work, connected), jobs, processes)
            texts = f"{idle[number] * 1e6:.0f} us", f"{busy[number] * 1e6:.0f} us"
            yield Line(f"clients: {number}; processor time for a job, one works / all do", " / ".join(texts), "", None)
    yield _flat("clients connected, one works", idle)
    yield _flat("clients, all work", busy)


def _have_work(programs: Sequence[ClientProgram], jobs: int) -> None:
    """Have programs process so many jobs, all told."""
    each = jobs // len(programs)
    for program in programs:
        program.begin(each)
    for program in programs:
        program.wait(each)


def _all_of(cluster: papyros.LocalCluster) -> list[int]:
    return [os.getpid(), *(pid for part in cluster.pids.values() for pid in tree(part))]


def _cost(work: Callable[[int], None], jobs: int, processes: Iterable[int]) -> float:
    """Return the processor seconds that all processes use for one no-op job: the median of some rounds."""
    processes = list(processes)
    work(max(500, jobs // 10))
    costs = []
    for _ in range(ROUNDS):
        before = exact_cpu_seconds(processes)
        work(jobs)
        costs.append((exact_cpu_seconds(processes) - before) / jobs)
    return statistics.median(costs)


def _flat(of: str, costs: dict[int, float]) -> Line:
    few, many = min(costs), max(costs)
    growth = costs[many] / costs[few]
    return Line(f"cost of a job with {many} {of} / with {few}", f"{growth:.2f}", "flat: <= 1.25", growth <= 1.25)


# Idleness ---------------------------------------------------------------------------------


def idleness(number: int, seconds: float) -> Iterator[Line]:
    """A cluster with nothing to do: what it uses of a core."""
    with papyros.LocalCluster(number) as cluster, cluster.master() as master:
        add_and_pop(master, 100)
        host = cluster.pids["slave host"]
        groups = {**{name: [pid] for name, pid in cluster.pids.items()}, "slaves": children(host)}
        time.sleep(2.0)  # what was begun comes to its end
        before = {name: exact_cpu_seconds(pids) for name, pids in groups.items()}
        own = time.process_time()
        time.sleep(seconds)
        own = time.process_time() - own  # first: to ask for all the others is work of this program's
        used = {name: (exact_cpu_seconds(pids) - before[name]) / seconds for name, pids in groups.items()}
        used["client"] = own / seconds
    for name, share in used.items():
        yield Line(f"idle, {number} slaves: {name}, of a core", f"{share:.2%}", "", None)
    total = sum(used.values())
    yield Line(f"idle, {number} slaves: all of it, of a core", f"{total:.2%}", "< 0.5 %", total < 0.005)


# A large argument that many jobs share ----------------------------------------------------


def shared(size: int, jobs: int) -> Iterator[Line]:
    """A large argument that many jobs share: how often it crosses, is held, and what the status says."""
    # A view of memory, as an array would be: `bytes` are an object of each slave's own.
    content = memoryview(os.urandom(size))
    with papyros.LocalCluster(SLAVES) as cluster, cluster.master() as master:
        add_and_pop(master, 100)
        host = cluster.pids["slave host"]
        crossed, held = received_bytes(host), proportional_bytes(tree(host))
        started = time.perf_counter()
        value = papyros.shared(content)
        for number in range(jobs):
            master.addJob(Look(value, number))
        looks = [job.result for job in iter(master.popProcessedJob, None)]
        seconds = time.perf_counter() - started
        if looks != [(size, sum(content[::PAGE]))] * jobs:
            raise RuntimeError("what the jobs saw is not what was shared")
        crossed, held = received_bytes(host) - crossed, proportional_bytes(tree(host)) - held
        told = next((line.strip() for line in str(master.status()).splitlines() if "shared:" in line), "nothing")
    what = f"{size / 1e6:.0f} MB shared by {jobs:,} jobs"
    yield Line(f"{what}: seconds", f"{seconds:.1f}", "", None)
    yield Line(f"{what}: crossed to the slave host, times", f"{crossed / size:.2f}", "once", 0.9 < crossed / size < 1.1)
    yield Line(f"{what}: held by the slave host and its slaves, times", f"{held / size:.2f}", "once", held / size < 1.2)
    yield Line(f"{what}: the status says", told, "so", f"1 value, {size / 1e6:.{1 if size < 1e8 else 0}f} MB" in told)


# All of it --------------------------------------------------------------------------------

#: What can be measured, by name.
GROWTH: dict[str, Callable[[], Iterator[Line]]] = {
    "waiting": lambda: waiting_jobs([10**3, 10**4, 10**5, 10**6]),
    "slaves": lambda: slaves([1, 2, 10, 100], 10_000),
    "clients": lambda: clients([1, 5, 20], 40_000),
    "idle": lambda: idleness(100, IDLE_SECONDS),
    "shared": lambda: shared(SHARED_BYTES, SHARED_JOBS),
}


def growth_table(lines: Iterable[Line]) -> str:
    """Return what was measured as a table."""
    told = {True: "yes", False: "no", None: ""}
    return table(
        ["what", "measured", "wanted", "reached"],
        [[line.what, line.measured, line.wanted, told[line.reached]] for line in lines],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split(":")[0])
    parser.add_argument("what", nargs="*", help=f"of: {', '.join(GROWTH)}; all if none is named")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write it there, too, for the manual")
    options = parser.parse_args(arguments)
    if unknown := set(options.what) - set(GROWTH):
        parser.error(f"there is no {min(unknown)!r}; there are {', '.join(GROWTH)}")
    lines = []
    for name in options.what or GROWTH:
        for line in GROWTH[name]():
            print(f"{line.what}: {line.measured}", file=sys.stderr, flush=True)
            lines.append(line)
    publish(growth_table(lines), "python -m benchmarks.growth", options.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
