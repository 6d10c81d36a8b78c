"""How the slaves of a crew get their tasks: what has none at once, all others before they run out.

Few quick tasks go to few slaves, and what waits behind others is shared out among those that have nothing to do.
Whoever calls holds the lock of the crew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from papyros.limits import watch_times
from papyros.pace import Pace
from papyros.process import SlaveProcess
from papyros.tasks import Source, Task

__all__ = ["Feeder"]

#: Few quick jobs go to few slaves; after so long, what waits there is shared out among those that have nothing to do.
LEVEL_SECONDS = 0.001

#: For so long after a job has taken its slave along, slaves tell of each outcome at once: it may be tried again, and is
#: not to take the outcomes of others with it time and again.
CAREFUL_SECONDS = 10.0


class Feeder:
    """Takes tasks from the source of a crew, and sends them to its slaves.

    Args:
        source: where tasks come from.
        watch: is told of each slave that was sent something, which may take the rest of it only later.

    Attributes:
        pace: how fast the tasks go.
        returned: tasks of slaves that died, to be run first.
        starved: whether the source had less than it was asked for, and nothing but outcomes has come since.
        level_at: when to share out what was not, should it wait still.
    """

    def __init__(self, source: Source, watch: Callable[[SlaveProcess], None]) -> None:
        self._source = source
        self._watch = watch
        self.pace = Pace()
        self.returned: deque[Task] = deque()
        self.starved = False
        self.level_at: float | None = None
        self._careful_until = 0.0  # a job has taken its slave along

    def feed(self, slaves: list[SlaveProcess], here: bool) -> None:
        """Give slaves tasks: to those without any at once, to the others before they run out.

        That is, in the crew's thread. In another one, which is `here`, only the former: nobody else is touched there.
        """
        target = self.pace.target
        enough = 0 if here else target * 2 // 3  # slaves tell what they did when half of what they had is left
        wants = {slave: target - len(slave.queue) for slave in slaves if len(slave.queue) <= enough}
        if not wants:
            return
        tasks = self._take(sum(wants.values()))
        if tasks:
            eager = sorted(wants, key=lambda slave: len(slave.queue))
            self.spread(tasks, eager[: self.pace.parts(len(tasks))])
        self._level(slaves, len(tasks) < len(wants), here)

    def _take(self, limit: int) -> list[Task]:
        tasks: list[Task] = []
        while self.returned and len(tasks) < limit:
            tasks.append(self.returned.popleft())
        if len(tasks) < limit and not self.starved:
            # One that had nothing is not asked again after each outcome: that takes the time of whoever waits for it.
            tasks += self._source.take(limit - len(tasks))
            self.starved = len(tasks) < limit
        return tasks

    def spread(self, tasks: list[Task], slaves: Sequence[SlaveProcess]) -> None:
        """Send tasks to slaves, an even part to each, in order."""
        for position, slave in enumerate(slaves):
            left = len(slaves) - position
            share = -(-len(tasks) // left)
            part, tasks = tasks[:share], tasks[share:]
            if part:
                self._send(slave, part)

    def _send(self, slave: SlaveProcess, tasks: list[Task]) -> None:
        careful = bool(self._careful_until) and time.monotonic() < self._careful_until
        self.pace.weigh(slave.send(tasks, self._source.definition, self._source.held, careful), len(tasks))
        self._watch(slave)
        watch_times(slave, tasks)

    def be_careful(self) -> None:
        """For a while, have slaves tell of each outcome at once: a job has taken its slave along."""
        self._careful_until = time.monotonic() + CAREFUL_SECONDS

    # Sharing out ------------------------------------------------------------------------

    def _level(self, slaves: list[SlaveProcess], now: bool, here: bool) -> None:
        """Share out what waits behind other tasks while slaves have nothing to do: now, or if it waits for long."""
        idle = [slave for slave in slaves if not slave.queue]
        if not idle or max(len(slave.queue) for slave in slaves) < 2:
            self.level_at = None
            return
        moment = time.monotonic()
        if now or (self.level_at is not None and moment >= self.level_at):
            if here:
                self.level_at = moment  # by the crew's thread
                return
            self._share_out(idle, slaves)
            self.level_at = moment + LEVEL_SECONDS
        elif self.level_at is None:
            self.level_at = moment + LEVEL_SECONDS

    def _share_out(self, idle: list[SlaveProcess], slaves: list[SlaveProcess]) -> None:
        """Give idle slaves what the one with the longest queue has not started."""
        victim = max(slaves, key=lambda slave: len(slave.queue))
        recalled = victim.recall()
        if recalled:
            # The victim is busy with the job that it started, so it comes last.
            self.spread(recalled, [*idle[: self.pace.parts(len(recalled))], victim])

    # Taking back ------------------------------------------------------------------------

    def drop(self, tags: Collection[Any]) -> None:
        """Forget those with these tags of the tasks that no slave has."""
        self.returned = deque(task for task in self.returned if task.tag not in tags)

    def recall(self, slaves: list[SlaveProcess]) -> list[Task]:
        """Take back all tasks that were not started."""
        tasks = list(self.returned)
        self.returned.clear()
        for slave in slaves:
            tasks += slave.recall()
        return tasks

    def shed(self, count: int, slaves: list[SlaveProcess]) -> list[Task]:
        """Take back up to so many: first of those that have waited for the longest time behind a task that runs."""
        shed = [self.returned.pop() for _ in range(min(count, len(self.returned)))]
        since = {slave: running[1] for slave in slaves if (running := slave.running()) is not None}
        for slave in sorted(since, key=since.__getitem__):
            if len(shed) >= count:
                break
            tasks = slave.recall()
            kept = max(0, len(tasks) - (count - len(shed)))
            self.spread(tasks[:kept], [slave])
            shed += tasks[kept:]
        return shed
