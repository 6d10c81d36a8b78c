"""What becomes of the tasks of slaves that are no more: which job is charged, which run again, which are given back.

Why a slave was killed is in `papyros.limits`, what of its tasks it had begun in `papyros.progress`. Whoever calls holds
the lock of the crew.
"""

from __future__ import annotations

import logging
from typing import Any

from papyros.bundles import death as tell_death
from papyros.deaths import Death
from papyros.feeding import Feeder
from papyros.limits import OVERDUE
from papyros.logs import logger_of
from papyros.process import SlaveProcess
from papyros.tasks import Source, Task

__all__ = ["Aftermath"]

log = logger_of(__name__)

#: So many slaves that leave a job to a fresh one are worth a warning.
OFTEN = frozenset({10, 100, 1000, 10_000, 100_000})


class Aftermath:
    """Says what becomes of tasks whose slave has ended.

    Args:
        source: where the tasks came from.
        feeder: has those that run again.
    """

    def __init__(self, source: Source, feeder: Feeder) -> None:
        self._source = source
        self._feeder = feeder
        self._retirements = 0  # of slaves that left a job to a fresh one
        self._suspect: Any = None  # the tag of the task that a slave was about to begin, or to receive, when it died

    def settle(
        self, slave: SlaveProcess, running: Task | None, started: list[Task], death: Death, position: int
    ) -> None:
        """Say what becomes of the tasks of a slave that died: only the one that ran is charged.

        Of a bundle, that is the job at this position, or the last one.
        """
        condemned, verdict = slave.sentence or (None, "")
        if condemned is not None and verdict == OVERDUE and any(task is condemned for task in slave.queue):
            # It may have ended in the same moment, but what became of it died with the slave.
            self._source.overdue(condemned.tag, slave.name, condemned.terms.timeout or 0.0)
        if running is not None and running is condemned:
            pass
        elif running is not None and verdict:
            # It had just begun when the slave was killed for the sake of the one before.
            self._source.returned([running.tag], f"slave {slave.name} was killed to stop the job before")
        elif running is not None:
            self._charge(slave, running, death, position)
        elif slave.retired:
            self._note_retirement(slave)
        elif slave.queue and not started and not verdict:
            running = self._suspected(slave, death)
        else:
            log.warning("%s", death)
        for task in reversed(slave.queue):
            if task is running or (verdict and task is condemned):
                continue
            if task in started and task.terms.once:
                self._source.died(task.tag, death)  # it ended, but what became of it died with the slave
            else:
                self._feeder.returned.appendleft(task)

    def _suspected(self, slave: SlaveProcess, death: Death) -> Task | None:
        """Charge the task with a slave that died before it began any, if it was the next one of that before it, too.

        To receive it may take more memory than there is. It is known which one it is where each comes by itself.
        """
        first = slave.queue[0]
        self._feeder.be_wary()
        if first.tag != self._suspect:
            self._suspect = first.tag
            log.warning("%s", death)
            return None
        self._charge(slave, first, death, 0)
        return first

    def _charge(self, slave: SlaveProcess, running: Task, death: Death, position: int) -> None:
        log.warning("%s", death)
        self._feeder.be_careful()
        if running.terms.jobs > 1:
            told = tell_death(min(position, running.terms.jobs - 1), str(death))
            self._source.finished([running.tag], [told], [0.0], slave.name)
        else:
            self._source.died(running.tag, death)

    def _note_retirement(self, slave: SlaveProcess) -> None:
        """Tell why a slave is replaced; those who look after it, if that happens often: it takes time."""
        self._retirements += 1
        level = logging.WARNING if self._retirements in OFTEN else logging.INFO
        log.log(level, "%d slaves were replaced by fresh ones, the last since %s", self._retirements, slave.retired)

    def give_back(self, slave: SlaveProcess, started: list[Task]) -> None:
        """Give back the tasks of a slave that ended with its crew: what it had started may not be started again."""
        self._source.returned([task.tag for task in started], f"slave {slave.name} was stopped with its host")
        self._source.returned([task.tag for task in slave.queue if task not in started], "")
