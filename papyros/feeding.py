"""How the slaves of a crew get their tasks: what has none at once, all others before they run out.

Few quick tasks go to few slaves, and what waits behind others is shared out among those that have nothing to do.
Whoever calls holds the lock of the crew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Any

from papyros.bundles import MOST_JOBS, cut_off
from papyros.limits import watch_times
from papyros.pace import Pace
from papyros.process import SlaveProcess
from papyros.progress import MOST_TOKENS, jobs_in
from papyros.shares import LONG_SECONDS
from papyros.tasks import Source, Task

__all__ = ["Feeder"]

#: Few quick jobs go to few slaves; after so long, what waits there is shared out among those that have nothing to do.
LEVEL_SECONDS = 0.001

#: A job in a bundle that takes longer than this holds up those behind it, which go elsewhere.
SLOW_SECONDS = 0.01

#: How long it takes, about, until a job of a bundle is with another slave, by way of its client.
TRIP_SECONDS = 0.002

#: For so long after a job has taken its slave along, slaves tell of each outcome at once: it may be tried again, and is
#: not to take the outcomes of others with it time and again.
CAREFUL_SECONDS = 10.0


class Feeder:
    """Takes tasks from the source of a crew, and sends them to its slaves.

    Args:
        source: where tasks come from.
        watch: is told of each slave that was sent something, which may take the rest of it only later.
        cpus: how many of them the slaves may use.

    Attributes:
        pace: how fast the tasks go.
        returned: tasks of slaves that died, to be run first.
        starved: whether the source had less than it was asked for, and nothing but outcomes has come since.
        level_at: when to share out what was not, should it wait still.
        slow_at: when to look whether a job holds up what its slave was given ahead.
        sparing: whether some slaves have nothing to do since the others are enough for so quick jobs.
    """

    def __init__(self, source: Source, watch: Callable[[SlaveProcess], None], cpus: int) -> None:
        self._source = source
        self._watch = watch
        self._cpus = cpus
        self.pace = Pace()
        self.sparing = False
        self._left_out = False  # some slaves that have nothing to do were not among those that are needed
        self.returned: deque[Task] = deque()
        self.starved = False
        self.level_at: float | None = None
        self.slow_at: float | None = None
        self._careful_until = 0.0  # a job has taken its slave along
        self._wary = False  # one of those that were returned may do so before it is begun

    def feed(self, slaves: list[SlaveProcess], here: bool) -> None:
        """Give slaves tasks: to those without any at once, to the others before they run out.

        That is, in the crew's thread. In another one, which is `here`, only the former: nobody else is touched there.
        """
        slaves = self._needed(slaves)
        self._wary = self._wary and bool(self.returned)
        target = 1 if self._wary else self.pace.target
        enough = 0 if here else target * 2 // 3  # slaves tell what they did when half of what they had is left, or less
        wants = {
            slave: target - len(slave.queue)
            for slave in slaves
            if len(slave.queue) <= enough and slave.progress.jobs <= MOST_TOKENS - MOST_JOBS and not _runs_long(slave)
        }
        if not wants:
            if not self.starved:
                self._look_in(LONG_SECONDS)  # what the source has may wait behind jobs that take long
            self._level(slaves, False, here)
            return
        tasks = self._take(sum(wants.values()))
        if tasks:
            eager = sorted(wants, key=lambda slave: len(slave.queue))
            self.spread(tasks, eager if self._wary else eager[: self.pace.parts(len(tasks))])
        self._level(slaves, len(tasks) < len(wants), here)

    def _needed(self, slaves: list[SlaveProcess]) -> list[SlaveProcess]:
        """Return those slaves that are needed: where jobs are quick, fewer than there are.

        More slaves than CPUs are of use to jobs that wait for something. To wake them all for quick ones only costs.
        """
        enough = self.pace.slaves(self._cpus)
        if len(slaves) <= enough:
            self.sparing = self._left_out = False
            return slaves
        busy = [slave for slave in slaves if slave.queue]
        idle = [slave for slave in slaves if not slave.queue]
        moment = time.monotonic()
        for slave in busy:
            running = slave.progress.running()
            # One that runs a long job does not count. (It may only seem so, since it was not given a CPU.)
            enough -= running is None or moment - running[1] < SLOW_SECONDS
        self.sparing = enough <= 0 and bool(idle)
        self._left_out = len(idle) > max(0, enough)
        return busy + idle[: max(0, enough)]

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
        """Send tasks to slaves, equally many to each, by turns: so all of them begin with what is first in order."""
        for position, slave in enumerate(slaves):
            if part := tasks[position :: len(slaves)]:
                self._send(slave, part)

    def _send(self, slave: SlaveProcess, tasks: list[Task]) -> None:
        jobs = jobs_in(tasks)
        if slave.progress.jobs + jobs > MOST_TOKENS:
            tasks, left = _parted(tasks, MOST_TOKENS - slave.progress.jobs)
            self.returned.extendleft(reversed(left))
            if not tasks:
                return
            jobs = jobs_in(tasks)
        if jobs > len(tasks):
            self._look_in(SLOW_SECONDS)
        elif len(tasks) > 1 or slave.queue or not self.starved:
            self._look_in(LONG_SECONDS)
        careful = bool(self._careful_until) and time.monotonic() < self._careful_until
        self.pace.weigh(slave.send(tasks, self._source.definition, self._source.held, careful), len(tasks), jobs)
        self._watch(slave)
        watch_times(slave, tasks)

    def be_careful(self) -> None:
        """For a while, have slaves tell of each outcome at once: a job has taken its slave along."""
        self._careful_until = time.monotonic() + CAREFUL_SECONDS

    def be_wary(self) -> None:
        """Send tasks that were returned one by one: to receive one of them may have ended its slave."""
        self._wary = True

    # Sharing out ------------------------------------------------------------------------

    def _level(self, slaves: list[SlaveProcess], now: bool, here: bool) -> None:
        """Share out what waits behind other tasks while slaves have nothing to do: now, or if it waits for long."""
        idle = [slave for slave in slaves if not slave.queue]
        if not idle:
            # Those that are spared are needed once what the others run takes long.
            more = bool(self.returned) or not self.starved or any(len(slave.queue) > 1 for slave in slaves)
            waits = self._left_out and more
            self.level_at = time.monotonic() + SLOW_SECONDS if waits else None
            return
        # Without what has ended: of that, slaves that gather outcomes may have more than others have to do.
        left = {slave: slave.progress.left() for slave in slaves}
        victim = max(left, key=left.__getitem__)
        tasks, jobs = left[victim]
        if jobs < 2:
            self.level_at = None
            return
        moment = time.monotonic()
        if tasks < 2 and jobs <= self._worth_cutting(victim):
            self.level_at = moment + TRIP_SECONDS  # it runs a bundle, and is not known to be held up
            return
        if now or (self.level_at is not None and moment >= self.level_at):
            if here:
                self.level_at = moment  # by the crew's thread
                return
            self._share_out(idle, victim)
            self.level_at = moment + LEVEL_SECONDS
        elif self.level_at is None:
            self.level_at = moment + LEVEL_SECONDS

    def _share_out(self, idle: list[SlaveProcess], victim: SlaveProcess) -> None:
        """Give idle slaves what the one with the longest queue has not started."""
        recalled = self.take_back(victim, self._worth_cutting(victim))
        takers = idle[: self.pace.parts(len(recalled))]
        # The victim is busy with the job that it started, so it is left what is last in order.
        shared = len(recalled) - len(recalled) // (len(takers) + 1)
        self.spread(recalled[:shared], takers)
        self.spread(recalled[shared:], [victim])

    def _worth_cutting(self, slave: SlaveProcess) -> int:
        """Return how many jobs of the bundle that a slave runs are worth the trip to their client and back."""
        running = slave.progress.running()
        if running is not None and time.monotonic() - running[1] > TRIP_SECONDS:
            return 1
        return self.pace.jobs_in(TRIP_SECONDS)

    def relieve(self, slaves: list[SlaveProcess]) -> None:
        """Take back what waits behind a job that takes long, in a bundle or not; see when to look again, `slow_at`.

        It was given ahead since the jobs before it were quick. If one takes longer than what is given ahead may, the
        source has it again: there it can be cancelled, or overtaken by what is more urgent.
        """
        now = time.monotonic()
        if self.slow_at is None or now < self.slow_at:
            return
        self.slow_at = None
        for slave in slaves:
            bundled = slave.progress.jobs > len(slave.queue)
            if not bundled and len(slave.queue) < 2:
                continue  # it has nothing that could be taken back
            self._look_in(SLOW_SECONDS if bundled else LONG_SECONDS)
            running = slave.progress.running()
            spent = now - running[1] if running is not None else 0.0
            if spent >= LONG_SECONDS:
                if tasks := self.take_back(slave):
                    self.starved = False
                    self._source.returned([task.tag for task in tasks], "")
            elif running is not None and running[0].terms.jobs > 1 and spent >= SLOW_SECONDS:
                self.spread(self.take_back(slave), [slave])
        working = [slave for slave in slaves if slave.ready and not slave.lent]
        if working and all(map(_runs_long, working)):
            self._source.held_up()

    def _look_in(self, seconds: float) -> None:
        moment = time.monotonic() + seconds
        self.slow_at = moment if self.slow_at is None else min(self.slow_at, moment)

    # Taking back ------------------------------------------------------------------------

    def take_back(self, slave: SlaveProcess, worth: int = 1) -> list[Task]:
        """Take back what a slave has not started, and return it.

        If it is `worth` it, that is, at least so many jobs, also what it has not started of the bundle that it runs,
        which is told to the source: the jobs go back to their client.
        """
        recalled = slave.progress.recall(worth)
        if recalled.cut is not None:
            self._tell_cut(slave, *recalled.cut)
        return recalled.tasks

    def _tell_cut(self, slave: SlaveProcess, bundle: Task, kept: int) -> None:
        self._source.finished([bundle.tag], [cut_off(kept)], [0.0], slave.name)

    def drop(self, tags: Collection[Any]) -> None:
        """Forget those with these tags of the tasks that no slave has."""
        self.returned = deque(task for task in self.returned if task.tag not in tags)

    def recall(self, slaves: list[SlaveProcess]) -> list[Task]:
        """Take back all tasks that were not started, for somebody who may not know which bundles were cut before."""
        tasks = list(self.returned)
        self.returned.clear()
        for slave in slaves:
            if slave.progress.cut is not None:
                self._tell_cut(slave, *slave.progress.cut)
            tasks += self.take_back(slave)
        return tasks

    def shed(self, count: int, slaves: list[SlaveProcess]) -> list[Task]:
        """Take back up to so many: first of those that have waited for the longest time behind a task that runs."""
        shed = [self.returned.pop() for _ in range(min(count, len(self.returned)))]
        since = {slave: running[1] for slave in slaves if (running := slave.progress.running()) is not None}
        for slave in sorted(since, key=since.__getitem__):
            if len(shed) >= count:
                break
            tasks = self.take_back(slave, self._worth_cutting(slave))
            kept = max(0, len(tasks) - (count - len(shed)))
            self.spread(tasks[:kept], [slave])
            shed += tasks[kept:]
        return shed


def _runs_long(slave: SlaveProcess) -> bool:
    """Whether a slave runs a job behind which nothing is to wait."""
    if not slave.queue:
        return False
    running = slave.progress.running()
    return running is not None and time.monotonic() - running[1] >= LONG_SECONDS


def _parted(tasks: list[Task], most: int) -> tuple[list[Task], list[Task]]:
    """Return the first of these tasks, which are at most so many jobs, and the others."""
    for position, jobs in enumerate(accumulate(task.terms.jobs for task in tasks)):
        if jobs > most:
            return tasks[:position], tasks[position:]
    return tasks, []
