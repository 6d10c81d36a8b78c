"""A snapshot of what a master and its slaves do; for people, and for programs that watch them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["SharedStatus", "SlaveStatus", "Status"]


@dataclass(frozen=True, slots=True)
class SlaveStatus:
    """What a slave did at a moment.

    Attributes:
        name: its name: ``HOST/PID`` of a process, or the name of a thread.
        job: what it ran, in words; empty where it was idle.
        seconds: for how long it had run that.
        ahead: how many further jobs it had been sent.
        ready: whether it could run jobs; False while it starts.
        silent: for how many seconds nothing was heard of its slave host, which did not answer: it may be gone.
    """

    name: str
    job: str = ""
    seconds: float = 0.0
    ahead: int = 0
    ready: bool = True
    silent: float = 0.0

    @property
    def host(self) -> str:
        """The name of its machine; empty for a thread."""
        return self.name.rpartition("/")[0]

    @property
    def pid(self) -> int:
        """The number of its process; 0 for a thread."""
        number = self.name.rpartition("/")[2]
        return int(number) if number.isdigit() else 0

    def __str__(self) -> str:
        does = f"{self.job} for {self.seconds:.1f} s" if self.job else "idle" if self.ready else "starting"
        ahead = f", {self.ahead} ahead" if self.ahead else ""
        silent = f" (its slave host has been silent for {self.silent:.0f} s since)" if self.silent else ""
        return f"{self.name}: {does}{ahead}{silent}"


class SharedStatus(NamedTuple):
    """What a slave host held of shared values: its name, ``HOST/PID``, how many values, and of how many bytes."""

    host: str
    values: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a master and its slaves did at a moment.

    Attributes:
        master: which master it is, in words.
        slaves: the slaves that there were.
        clients: how many clients there were.
        waiting: how many jobs waited.
        assigned: how many were assigned to slaves.
        processed: how many were processed, and not popped.
        lost: how often a slave had died while it ran a job.
        hosts_lost: how often a slave host had been silent for so long that it was given up.
        retried: how often a job had been tried again after an exception.
        late: how many outcomes had come for jobs that had one already, or that nobody wanted any more.
        held: how many of those that waited could not be assigned yet: results were not popped, or a retry is due later.
        shared: how many shared values the master held.
        shared_bytes: how many bytes these were.
        shared_on: which slave hosts held some of them, of a master whose slaves are on such.
    """

    master: str
    slaves: tuple[SlaveStatus, ...] = ()
    clients: int = 1
    waiting: int = 0
    assigned: int = 0
    processed: int = 0
    lost: int = 0
    retried: int = 0
    late: int = 0
    held: int = 0
    shared: int = 0
    shared_bytes: int = 0
    shared_on: tuple[SharedStatus, ...] = ()
    hosts_lost: int = 0

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Status:
        """Return a status that was a dictionary on its way."""
        slaves = tuple(SlaveStatus(**slave) for slave in answer.pop("slaves"))
        shared_on = tuple(SharedStatus(*host) for host in answer.pop("shared_on"))
        return cls(slaves=slaves, shared_on=shared_on, **answer)

    @property
    def stalled(self) -> str:
        """Why nothing goes on although jobs wait, in words; empty where that is not so."""
        if not self.waiting:
            return ""
        jobs = _count(self.waiting, "job waits", "jobs wait")
        if not self.slaves:
            return f"{jobs}, no slave is connected"
        if all(slave.silent for slave in self.slaves):
            return f"{jobs}, and no slave host answers; one that stays silent is given up, and its jobs wait for others"
        if not any(slave.ready for slave in self.slaves):
            return f"{jobs}, the slaves are starting"
        if self.assigned or self.held < self.waiting or any(slave.job for slave in self.slaves):
            return ""
        return f"{jobs}, and no slave may start one: too many processed jobs were not popped, or a retry is due later"

    def __str__(self) -> str:
        lines = [
            self.master,
            f"  {_count(len(self.slaves), 'slave', 'slaves')}, {_count(self.clients, 'client', 'clients')}",
            f"  jobs: {self.waiting} waiting, {self.assigned} assigned, {self.processed} processed but not popped",
            f"  since the start: {self._lost}, jobs retried {self.retried}, outcomes late {self.late}",
            *self._shared_lines(),
            *(f"  {slave}" for slave in self.slaves),
        ]
        if self.stalled:
            lines.append(f"  stalled: {self.stalled}")
        return "\n".join(lines)

    @property
    def _lost(self) -> str:
        """What was lost; slave hosts only where some were, since most masters have none."""
        hosts = f", slave hosts lost {self.hosts_lost}" if self.hosts_lost else ""
        return f"slaves lost {self.lost}{hosts}"

    def _shared_lines(self) -> list[str]:
        if not self.shared and not self.shared_on:
            return []
        held = _values(self.shared, self.shared_bytes)
        if self.shared_on and all(host[1:] == (self.shared, self.shared_bytes) for host in self.shared_on):
            return [f"  shared: {held}, on {_count(len(self.shared_on), 'slave host', 'slave hosts')}"]
        return [f"  shared: {held}", *(f"    on {name}: {_values(*some)}" for name, *some in self.shared_on)]


def _values(number: int, size: int) -> str:
    return f"{_count(number, 'value', 'values')}, {size / 1e6:,.{0 if size >= 1e8 else 1}f} MB"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
