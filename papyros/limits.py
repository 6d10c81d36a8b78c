"""Which slaves of a crew are killed, and for whose sake: tasks that run too long, are cancelled, or are never begun.

A slave that was killed has its *sentence*, the task and why. Whoever calls holds the lock of the crew.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

from papyros.logs import logger_of
from papyros.process import SlaveProcess
from papyros.tasks import Task

__all__ = ["CANCELLED", "OVERDUE", "culprit_of", "kill_overdue", "stop", "watch_times"]

log = logger_of(__name__)

#: How soon to look again whether a cancelled job that is about to start has started.
LOOK_AGAIN_SECONDS = 0.01

#: How often to look whether a slave goes on with what it was sent.
DEAF_LOOK_SECONDS = 2.5

# Why a slave is killed.
OVERDUE, CANCELLED = "overdue", "cancelled"


def watch_times(slave: SlaveProcess, tasks: Iterable[Task]) -> None:
    """Note when to look at a slave, which was sent these tasks."""
    if slave.look_at is None:
        slave.look_at = time.monotonic() + DEAF_LOOK_SECONDS
    timeouts = [task.terms.timeout for task in tasks if task.terms.timeout is not None]
    if timeouts:
        check_at = time.monotonic() + min(timeouts)
        slave.check_at = check_at if slave.check_at is None else min(slave.check_at, check_at)


def kill_overdue(slaves: Iterable[SlaveProcess]) -> None:
    """Kill the slaves whose jobs have run for too long, and those that begin none of their tasks."""
    now = time.monotonic()
    for slave in slaves:
        if slave.check_at is not None and slave.check_at <= now:
            slave.check_at = _next_check(slave, now)
        if slave.look_at is not None and slave.look_at <= now:
            slave.look_at = _next_look(slave, now)


def _next_look(slave: SlaveProcess, now: float) -> float | None:
    """Kill a slave that begins none of its tasks, so that others get them: somebody has stopped it, say.

    Also one whose slate cannot be true.
    """
    slave.check_slate()
    if slave.is_deaf():
        log.warning("slave %s begins no job any more, so it is killed, and another one takes its place", slave.name)
        slave.kill()
        return None
    return now + DEAF_LOOK_SECONDS if slave.queue else None


def _next_check(slave: SlaveProcess, now: float) -> float | None:
    if slave.dismissed:
        slave.kill()
        return None
    if slave.unwanted:
        slave.unwanted.intersection_update([task.tag for task in slave.queue])  # others may come under these tags
    moments = []
    running = slave.progress.running()
    for task in slave.queue:
        if slave.unwanted and task.tag in slave.unwanted:
            if running is not None and task is running[0]:
                _condemn(slave, task, CANCELLED)
                return None
            moments.append(now + LOOK_AGAIN_SECONDS)
        timeout = task.terms.timeout
        if timeout is None:
            continue
        if running is not None and task is running[0]:
            if now >= running[1] + timeout:
                _condemn(slave, task, OVERDUE)
                return None
            moments.append(running[1] + timeout)
        else:
            moments.append(now + timeout)  # it has not begun
    return min(moments, default=None)


def stop(slave: SlaveProcess, tags: Collection[Any]) -> None:
    """Kill a slave that runs one of the tasks with these tags, now or as soon as it is seen to."""
    running = slave.progress.running()
    if running is not None and running[0].tag in tags:
        _condemn(slave, running[0], CANCELLED)
    elif any(task.tag in tags for task in slave.queue):
        # Their tokens are taken: they start in this moment, or have just ended.
        slave.unwanted.update(task.tag for task in slave.queue if task.tag in tags)
        slave.check_at = time.monotonic()


def _condemn(slave: SlaveProcess, task: Task, verdict: str) -> None:
    if slave.sentence is None:
        slave.sentence = (task, verdict)
        slave.kill()


def culprit_of(slave: SlaveProcess, running: tuple[Task, float] | None, started: list[Task]) -> Task | None:
    """Return the task of which a slave died, of those that it had started."""
    if started and slave.progress.spoilt and len(started) < len(slave.queue):
        return started[-1]  # tokens are taken one by one; unless a job has read them all
    if started and (slave.garbled or slave.progress.spoilt):
        return started[0]  # by the next time slaves tell of each outcome at once, so that it is this one
    if running is not None:
        return running[0]
    # One that died by itself with an outcome in its hands did so of that job, or it might do so again and again.
    return started[-1] if started and slave.sentence is None else None
