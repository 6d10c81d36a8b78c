"""All killers together, for minutes: nothing is lost, nothing comes twice, nothing is left behind.

``python -m tests.chaos.soak --seconds 600`` starts a name server, a master, three slave hosts with two
slaves each, and two clients that add jobs of different durations: some fail, some are tried again, some
must run at most once, some run out of time, some have children, and some are cancelled. Meanwhile
slaves, slave hosts, the master and the name server are killed, and started again. At all times and for each
client, added = delivered + failed + cancelled + pending; and at the end no part has grown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import papyros
from papyros.distributed import DistributedMaster
from papyros.distributed.naming import NameServer, ask_status, parse_address
from papyros.errors import PapyrosError
from tests.distributed.programs import CHECKOUT, MARK, PART, free_port, processes, slaves_of
from tests.support import hear_ctrl_c, security

GROUP = "soak"
LEASE = 2
HOSTS, SLAVES = 3, 2

#: How often, on average and in seconds, one of a kind is killed.
INTERVALS = {"slave": 2.0, "host": 10.0, "master": 30.0, "names": 20.0}

#: At most so many jobs of a client are pending.
PENDING = 100

#: A part may have so many threads and descriptors more than at first: a master's alarm starts with the first retry.
LAZY = 1

#: How long it may take, after the last kill, until all that is pending is delivered.
SETTLE_SECONDS = 90.0


class Unlucky(Exception):
    """What some jobs raise."""


@papyros.job
def steady(number, seconds):
    time.sleep(seconds)
    return number


@papyros.job
def failing(number, seconds):
    time.sleep(seconds)
    raise Unlucky(number)


@papyros.job(retries=5, backoff=0.05)
def wavering(number, seconds, luck):
    time.sleep(seconds)
    if random.random() > luck:
        raise Unlucky(number)
    return number


@papyros.job(at_most_once=True)
def once(number, seconds, folder):
    """Leave a trace of each start."""
    Path(folder, f"{number}.{uuid.uuid4().hex}").touch()
    time.sleep(seconds)
    return number


@papyros.job(timeout=0.3)
def endless(number, seconds):
    time.sleep(1000)


@papyros.job
def parent(number, seconds):
    master = papyros.current_master()
    for _ in range(3):
        master.addJob(steady(number, seconds / 3))
    children = [job.result for job in iter(master.popProcessedJob, None)]
    if children != [number] * 3:
        raise AssertionError(f"the children of {number} came to {children}")
    return number


class ViolationError(Exception):
    """Something does not hold that must hold at all times."""


@dataclass
class Tally:
    """What became of the jobs of a client."""

    added: int = 0
    delivered: int = 0
    failed: int = 0
    cancelled: int = 0
    lost_slaves: int = 0
    timeouts: int = 0
    longest_outage: float = 0.0
    seen: set[int] = field(default_factory=set)


class Client:
    """A client of the cluster, which adds jobs and pops them in a thread of its own."""

    def __init__(self, name: str, nameserver: str, seed: int, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.tally = Tally()
        self.violations: list[str] = []
        self.stopping = threading.Event()
        self._random = random.Random(seed)
        self._master = DistributedMaster(GROUP, nameserver, host_master=False)
        self._jobs: dict[int, papyros.Job] = {}
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self.stopping.set()
        self._thread.join(SETTLE_SECONDS + 10)
        self._master.close()

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                while len(self._jobs) < PENDING and not self.stopping.is_set():
                    self._add()
                if self._jobs and self._random.random() < 0.02:
                    self._cancel()
                self._pop(0.2)
                self._check()
            deadline = time.monotonic() + SETTLE_SECONDS
            while self._jobs and time.monotonic() < deadline:
                self._pop(0.5)
                self._check()
            if self._jobs:
                raise ViolationError(f"{len(self._jobs)} jobs are never processed: {list(self._jobs.values())[:5]}")
            if (extra := self._master.popProcessedJob(1)) is not None:
                raise ViolationError(f"{extra!r} comes, though nothing is pending")
        except Exception as error:
            self.violations.append(f"{self.name}: {type(error).__name__}: {error}")

    def _add(self) -> None:
        number = self.tally.added
        seconds = self._random.choice([0.0, 0.0, 0.001, 0.01, 0.1, 0.5])
        kind = self._random.random()
        if kind < 0.65:
            job: papyros.Job = steady(number, seconds)
        elif kind < 0.75:
            job = failing(number, seconds)
        elif kind < 0.85:
            job = wavering(number, seconds, 0.7)
        elif kind < 0.95:
            job = once(number, seconds, str(self.folder))
        elif kind < 0.98:
            job = parent(number, seconds)
        else:
            job = endless(number, seconds)
        self._master.addJob(job)
        self._jobs[number] = job
        self.tally.added += 1

    def _cancel(self) -> None:
        number = self._random.choice(list(self._jobs))
        if self._master.cancelJob(self._jobs[number]):
            del self._jobs[number]
            self.tally.cancelled += 1

    def _pop(self, timeout: float) -> None:
        job = self._master.popProcessedJob(timeout)
        now = time.monotonic()
        if job is None:
            return
        self.tally.longest_outage = max(self.tally.longest_outage, now - self._last)
        self._last = now
        number = job.args[0]
        if number in self.tally.seen:
            raise ViolationError(f"{job!r} is delivered twice")
        if self._jobs.pop(number, None) is not job:
            raise ViolationError(f"{job!r} is delivered, but is not pending")
        self.tally.seen.add(number)
        self._judge(job, number)

    def _judge(self, job: papyros.Job, number: int) -> None:
        error = job.exception
        if error is None and not isinstance(job, (failing, endless)):
            if job.result != number:
                raise ViolationError(f"{job!r} has the result {job.result!r}")
            self.tally.delivered += 1
        elif isinstance(error, papyros.SlaveLost):
            self.tally.failed += 1
            self.tally.lost_slaves += 1
        elif isinstance(error, papyros.JobTimeout) and isinstance(job, endless):
            self.tally.failed += 1
            self.tally.timeouts += 1
        elif isinstance(error, Unlucky) and isinstance(job, (failing, wavering)):
            self.tally.failed += 1
        else:
            raise ViolationError(f"{job!r} has the outcome {error!r}")

    def _check(self) -> None:
        tally, pending = self.tally, self._master.numPendingJobs()
        if pending != len(self._jobs):
            raise ViolationError(f"{pending} jobs are pending at the master object, {len(self._jobs)} by our own books")
        if tally.added != tally.delivered + tally.failed + tally.cancelled + pending:
            raise ViolationError(f"the sums do not add up: {tally}, {pending} pending")


class Cluster:
    """The parts of the cluster, each of which is started again when it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.nameserver = f"localhost:{self.port}"
        self.restarts: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.late = 0
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._output = (folder / "output").open("wb")
        for name in ("names", "master", *(f"host{number}" for number in range(HOSTS))):
            self._start(name)

    def _start(self, name: str) -> None:
        common = [f"--group={GROUP}", f"--nameserver={self.nameserver}"]
        commands: dict[str, Sequence[str]] = {
            "names": [
                str(Path(sys.executable).parent / "pyro5-ns"),
                "--host=localhost",
                f"--port={self.port}",
                "--nobc",
            ],
            "master": [*PART, *common, f"--lease={LEASE}"],
        }
        command = commands.get(name) or [*PART, *common, f"--slaves={SLAVES}"]
        self._parts[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, cwd=self.folder
        )

    def kill(self, kind: str, chance: random.Random) -> None:
        """Kill one of a kind, and start it again where nobody else does."""
        self.kills[kind] += 1
        if kind == "slave":
            slaves = [pid for name, part in self._parts.items() if "host" in name for pid in slaves_of(part.pid)]
            if slaves:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(sorted(slaves)), signal.SIGKILL)
            return
        name = chance.choice([name for name in self._parts if name.startswith(kind)])
        if kind == "master":
            self.note_late()
        self._parts[name].kill()
        self._parts[name].wait()
        self._start(name)
        self.restarts[kind] += 1

    def revive(self) -> None:
        """Start again what ended by itself, which only a name server does whose port is not free yet."""
        for name, part in self._parts.items():
            if part.poll() is not None:
                self._start(name)
                self.restarts[f"{name} by itself"] += 1

    def status(self) -> papyros.Status | None:
        """Return what the master tells, or None when none does."""
        with contextlib.suppress(PapyrosError, ConnectionError):
            uri = NameServer(parse_address(self.nameserver), security()).lookup(GROUP)
            return ask_status(uri, security()) if uri is not None else None
        return None

    @property
    def ours(self) -> list[str]:
        """The parts that are not Pyro's."""
        return [name for name in self._parts if name != "names"]

    def size(self, name: str) -> tuple[int, int]:
        """Return how many file descriptors a part has open, and how many threads it has."""
        folder = Path("/proc", str(self._parts[name].pid))
        return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))

    def note_late(self) -> None:
        if (status := self.status()) is not None:
            self.late += status.late

    def end(self) -> None:
        self.note_late()
        for name in reversed(self._parts):
            part = self._parts[name]
            part.send_signal(signal.SIGINT)
            try:
                part.wait(20)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()
                raise ViolationError(f"{name} does not end within 20 s after Ctrl-C") from None
        self._output.close()

    def kill_all(self) -> None:
        for part in self._parts.values():
            if part.poll() is None:
                part.kill()
                part.wait()


def wait(condition: Callable[[], Any], seconds: float) -> bool:
    """Wait until the condition holds; return whether it does in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def descriptors() -> int:
    """Return how many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def soak(seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run the soak; return its figures, among which are the violations."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    os.environ["PYTHONPATH"] = str(CHECKOUT)
    threads, fds = set(threading.enumerate()), descriptors()
    chance = random.Random(seed)
    violations: list[str] = []
    started = time.monotonic()
    cluster = Cluster(folder)
    clients: list[Client] = []
    try:
        if not wait(lambda: _complete(cluster, mark), 60):
            raise ViolationError("the cluster does not come up")
        sizes = {name: tuple(size + LAZY for size in cluster.size(name)) for name in cluster.ours}
        for number in range(2):
            traces = folder / f"traces-{number}"
            traces.mkdir()
            clients.append(Client(f"client {number}", cluster.nameserver, seed + number, traces))
        for client in clients:
            client.start()
        _harm(cluster, clients, chance, time.monotonic() + seconds)
        cluster.revive()
        for client in clients:
            client.stopping.set()
        wait(lambda: not any(client.busy for client in clients), SETTLE_SECONDS + 20)
        if any(client.busy for client in clients):
            violations.append("a client hangs")
        violations += [text for client in clients for text in client.violations]
        if violations:
            violations.append(f"at the end: {cluster.status()}")
        for client in clients:
            client.close()
            violations += _started_twice(client)
        violations += _grown(cluster, sizes)
        cluster.end()
    except ViolationError as error:
        violations.append(str(error))
    finally:
        cluster.kill_all()
        os.environ.pop(MARK, None)
    violations += _left_behind(mark, threads, fds)
    return _figures(cluster, clients, time.monotonic() - started, seed, violations)


def _complete(cluster: Cluster, mark: str) -> bool:
    """Return whether all slaves are ready, and each slave host has its sweeper."""
    sweepers = sum("sweeping" in command for command in processes(mark).values())
    status = cluster.status() if sweepers == HOSTS else None
    return status is not None and sum(slave.ready for slave in status.slaves) == HOSTS * SLAVES


def _harm(cluster: Cluster, clients: Sequence[Client], chance: random.Random, end: float) -> None:
    """Kill, at random moments, until the time is up or something is violated."""
    due = {kind: time.monotonic() + chance.expovariate(1 / mean) for kind, mean in INTERVALS.items()}
    while (now := time.monotonic()) < end and not any(client.violations for client in clients):
        kind = min(due, key=lambda one: due[one])
        if due[kind] > now:
            time.sleep(min(due[kind], end, now + 0.5) - now)
            cluster.revive()
            continue
        cluster.kill(kind, chance)
        due[kind] = time.monotonic() + chance.expovariate(1 / INTERVALS[kind])


def _started_twice(client: Client) -> list[str]:
    """Return which jobs of a client were started again that must not be, in words."""
    starts = Counter(path.name.partition(".")[0] for path in client.folder.iterdir())
    return [f"{client.name}: once({number}) was started {count} times" for number, count in starts.items() if count > 1]


def _grown(cluster: Cluster, before: dict[str, tuple[int, ...]]) -> list[str]:
    """Return which parts have more file descriptors or threads than before there were clients, in words."""
    grown = []
    for name, most in before.items():
        if not wait(lambda name=name, most=most: all(map(int.__le__, cluster.size(name), most)), 15):
            grown.append(f"{name} has {cluster.size(name)} file descriptors and threads, and may have {most}")
    return grown


def _left_behind(mark: str, threads: set[threading.Thread], fds: int) -> list[str]:
    """Return what is left, in words."""
    left = []
    if not wait(lambda: not processes(mark), 10):
        left.append(f"processes are left: {processes(mark)}")
        for pid in processes(mark):
            os.kill(pid, signal.SIGKILL)
    if not wait(lambda: set(threading.enumerate()) <= threads, 10):
        left.append(f"threads are left: {set(threading.enumerate()) - threads}")
    if not wait(lambda: descriptors() <= fds, 10):
        left.append(f"{descriptors() - fds} file descriptors are left")
    return left


def _figures(
    cluster: Cluster, clients: Sequence[Client], seconds: float, seed: int, violations: list[str]
) -> dict[str, Any]:
    tallies = [client.tally for client in clients]
    done = sum(tally.delivered + tally.failed for tally in tallies)
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "jobs added": sum(tally.added for tally in tallies),
        "delivered": sum(tally.delivered for tally in tallies),
        "failed": sum(tally.failed for tally in tallies),
        "of these, slaves lost": sum(tally.lost_slaves for tally in tallies),
        "of these, out of time": sum(tally.timeouts for tally in tallies),
        "cancelled": sum(tally.cancelled for tally in tallies),
        "jobs/s": round(done / seconds, 1),
        "longest outage, s": round(max((tally.longest_outage for tally in tallies), default=0.0), 1),
        "late outcomes, as far as masters lived to tell": cluster.late,
        "killed": dict(cluster.kills),
        "started again": dict(cluster.restarts),
        "violations": violations,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for how long parts are killed (default: 600)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="by default another one each time")
    options = parser.parse_args(arguments)
    hear_ctrl_c()
    # This module is imported by its name in the slaves, so the jobs have to be those of that one.
    from tests.chaos import soak as module

    with tempfile.TemporaryDirectory() as folder:
        figures = module.soak(options.seconds, options.seed, Path(folder))
        print(json.dumps(figures, indent=2))
        if figures["violations"]:
            print((Path(folder) / "output").read_text(errors="replace")[-5000:])
    return 1 if figures["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
