"""A model of a slave host and its crew: what `papyros.distributed.host` and `papyros.crew` do, in virtual time."""

from __future__ import annotations

import contextlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from papyros.bundles import MOST_JOBS, blobs_of, count_jobs, cut_off, death, outcomes
from papyros.crew import Task
from papyros.distributed.batches import HostReport, JobOutcome, pack_report, unpack_definitions, unpack_host_jobs
from papyros.distributed.line import LineBrokenError
from papyros.distributed.outbox import ended_in
from papyros.distributed.seals import ticket_of
from papyros.encoded import encode_overdue
from papyros.frames import pack_message
from papyros.progress import Recalled
from papyros.staff import at_work, missing, spares
from tests.simulation.client import number_in
from tests.simulation.family import Family
from tests.simulation.master import Master, Network, SimulatedLine
from tests.simulation.stories import Stories, Story
from tests.simulation.world import Actor, BrokenRule, Program, Signal, World

__all__ = ["Host"]

FLUSH_SECONDS = 0.005

#: What a slave host reports that has nothing to report.
NOTHING = pack_report(HostReport.empty())


class Run:
    """What a slave does of a task: its job, or the jobs of a bundle one after the other.

    Attributes:
        task: the task.
        position: of the job that runs.
        cut: whether the crew has taken back those that were not started.
    """

    def __init__(self, task: Task, stories: Stories) -> None:
        self.task = task
        self.bundled = task.terms.jobs > 1
        client = task.tag[0]
        numbers = map(number_in, blobs_of(task.blob) if self.bundled else [task.blob])
        self.stories = [stories.all[client, number] for number in numbers]
        self.position = 0
        self.cut = False
        self._told = 0
        self._outcomes: list[bytes] = []

    @property
    def story(self) -> Story:
        """The job that runs."""
        return self.stories[self.position]

    @property
    def untold(self) -> list[Story]:
        """The jobs that have ended, and of which nothing was said yet."""
        return self.stories[self._told : self._told + len(self._outcomes)]

    @property
    def tokens(self) -> int:
        """How many tokens there are for jobs that were not started; or one that says that they were taken back."""
        return 1 if self.cut else len(self.stories) - self.position - 1

    def end_job(self) -> bool:
        """The job ends; return whether there is another one to go on with."""
        self._outcomes.append(self.story.end())
        if self.cut or self.position + 1 == len(self.stories):
            return False
        self.position += 1
        return True

    def tell(self, over: bool) -> bytes:
        """Return what is to be said of jobs that have ended, and was not said yet."""
        ended, encoded = self.untold, self._outcomes
        self._told += len(ended)
        self._outcomes = []
        if not self.bundled:
            return encoded[0]
        return outcomes(self._told - len(ended), array("d", [story.seconds for story in ended]), encoded, over)


class Slave:
    """A slave process. It goes on while its host is paused, and dies with it.

    Attributes:
        queue: what it was sent and has not answered, in order, as its host sees it.
        begun: so many of these it has started.
        run: what it does of the last of these, unless that has ended.
        family: the children of the job that it runs, if that has any.
    """

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.queue: deque[Task] = deque()
        self.begun = 0
        self.run: Run | None = None
        self.alive = True
        self.ready = self.lent = self.dismissed = False
        self.idle_since: float | None = None
        self.family: Family | None = None
        self.sentence: tuple[Task, str] | None = None
        self._unsent: list[tuple[Task, bytes, float]] = []

    def running(self) -> Task | None:
        return self.run.task if self.run is not None else None

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.host.world.after(seconds, lambda: call() if self.alive and self.host.alive else None)

    def go(self) -> None:
        """Start the next task, if this slave is free and has one."""
        if self.run is None and self.begun < len(self.queue) and self.alive:
            run = self.run = Run(self.queue[self.begun], self.host.stories)
            self.begun += 1
            self._start_job(run)

    def _start_job(self, run: Run) -> None:
        host, story = self.host, run.story
        host.trace(f"{self.name} starts", story.name)
        story.start()
        host.starts += 1
        ends = False
        if story.deaths < story.killing:
            self._later(story.seconds / 2, self._kill_itself)
        elif story.overdue:
            self._later(story.terms.timeout or 0.0, partial(host.act, partial(host.overdue, self, run.task)))
        else:
            ends = True
        if story.children:
            # It asks its slave host first for whom it runs.
            host.act(partial(self._later, 0.0, partial(self._begin_family, run, ends)))
        elif ends:
            self._later(story.seconds, self._end_job)
        if run.bundled:
            host.later(host.slow, partial(host.cut_slow_bundle, self, run, run.position))

    def _begin_family(self, run: Run, ends: bool) -> None:
        if self.run is run:
            host = self.host
            ended = self._end_job if ends else lambda: None
            self.family = Family(host.world, host.network, host.stories, run.story, run.task.tag, self, ended)

    def lend(self, lent: bool) -> None:
        """See `Place`: say so to the crew."""
        if self.alive:
            self.host.act(partial(self.host.note_lent, self, lent))

    def give_up(self) -> None:
        """See `Place`: ask the slave host for it."""
        if (task := self.running()) is not None:
            self.host.stories.excuse(*task.tag)
            self.host.act(partial(self.host.stop, task.tag))

    def _kill_itself(self) -> None:
        assert self.run is not None
        self.run.story.deaths += 1
        self.die()

    def _end_job(self) -> None:
        run = self.run
        assert run is not None
        if self.family is not None:
            family, self.family = self.family, None
            family.leave()
        if run.end_job():
            self._later(FLUSH_SECONDS, self._flush)
            self._start_job(run)
        else:
            self._end(run)

    def _end(self, run: Run) -> None:
        self.run = None
        self._unsent.append((run.task, run.tell(over=True), run.story.seconds))
        if self.begun < len(self.queue):
            self._later(FLUSH_SECONDS, self._flush)
            self.go()
        else:
            self._flush()

    def _flush(self) -> None:
        batch, self._unsent = self._unsent, []
        if batch:
            self.host.act(lambda: self.host.take_in(self, batch))
        if self.run is not None and self.run.untold:
            task, told = self.run.task, self.run.tell(over=False)
            self.host.act(lambda: self.host.say_outcome(self, task, told))

    def die(self) -> None:
        """End, whatever it does."""
        if not self.alive:
            return
        self.vanish()
        self.host.trace(f"{self.name} dies")
        for position in range(self.begun - (self.run is not None)):
            # It ended; if its outcome had not been sent, it has to be run again.
            self.host.stories.excuse(*self.queue[position].tag)
        for story in self.run.untold if self.run is not None else ():
            self.host.stories.excuse(story.client, story.number)
        self.host.act(lambda: self.host.bury(self))

    def vanish(self) -> None:
        """End without a word."""
        self.alive = False
        if self.family is not None:
            self.family.crash()

    def recall(self, worth: int) -> Recalled:
        """Take back what was not started; see `papyros.progress`."""
        tasks = []
        while len(self.queue) > self.begun:
            tasks.append(self.queue.pop())
        cut = None
        run = self.run
        if run is not None and run.tokens >= worth:
            cut = run.task, len(run.stories) - run.tokens
            run.cut = True
        return Recalled(tasks[::-1], cut)


class Host(Actor):
    """A slave host with so many slaves, each of which gets up to `ahead` jobs."""

    def __init__(self, world: World, name: str, network: Network, stories: Stories, slaves: int, ahead: int) -> None:
        super().__init__(world, name)
        self.stories = stories
        self.network = network
        self._count = slaves
        self._ahead = ahead
        self.slow = world.dice.choice((0.01, 0.1, 0.5))  # a job in a bundle that takes longer holds up those behind it
        self._names = 0
        self.starts = 0
        self._slaves: list[Slave] = []
        self._returned: deque[Task] = deque()
        self._queue: deque[Task] = deque()
        self._definitions: dict[bytes, bytes] = {}
        self._tickets: dict[tuple[str, int], bytes] = {}
        self._report = HostReport.empty()
        self._reporting = self._telling = False
        self._flying: list[tuple[str, int]] = []
        self._news, self._told, self._connected = (Signal(world) for _ in range(3))
        self._sequence = self._acknowledged = self._heard = 0
        self._master: Master | None = None
        self._beat, self._uid = 1.0, ""
        self._lines: list[SimulatedLine] = []
        self._draining = self._ending = False
        self._stay: Any = 0
        self._stay_told: Any = 0
        self.retired = False
        self._lent = 0
        self._staff_at: float | None = None
        self._staff()
        for slave in self._slaves:
            slave.ready = True
        self.start(self._fetch())
        self.start(self._push())

    @property
    def ahead(self) -> int:
        """How many jobs wait here behind others."""
        return len(self._queue) + len(self._returned) + sum(len(s.queue) - s.begun for s in self._slaves if s.alive)

    @property
    def idle(self) -> bool:
        """Whether a slave has nothing to do."""
        return any(not slave.queue for slave in at_work(self._slaves, self._count)) and not self._queue

    def crash(self) -> None:
        for slave in self._slaves:
            slave.vanish()
        super().crash()
        for line in list(self._lines):
            line.break_off("the slave host crashed")

    def drain(self) -> None:
        """Take no more jobs, finish what runs, report it, leave."""
        self.trace("drains")
        self._draining = True
        self._give_back([task.tag for task in self._queue])
        self._queue.clear()
        self._recall()
        self.start(self._finish_and_leave())

    # Jobs in ----------------------------------------------------------------------------

    def _seek(self) -> Program:
        delay = 0.02
        while (line := self.network.line()) is None:
            yield delay * self.world.dice.uniform(0.5, 1.5)
            delay = min(1.0, delay * 2)
        self._lines.append(line)
        yield self.network.travel()
        return line

    def _drop(self, line: SimulatedLine) -> None:
        line.break_off("the slave host gives it up")
        if line in self._lines:
            self._lines.remove(line)

    def _fetch(self) -> Program:
        while not self._ending:
            line = yield from self._seek()
            with contextlib.suppress(LineBrokenError):
                yield from self._serve(line)
            self._drop(line)

    def _serve(self, line: SimulatedLine) -> Program:
        draining = self._draining
        answer, _ = yield line.call("enlist", self.name, 0 if draining else self._count)
        # Whether it was known says nothing when the answer that it was not has been lost.
        stay = answer["stay"] if "stay" in answer else self._stay + (not answer["known"])
        if stay != self._stay:
            self.trace("serves", line.master.name)
            self._acknowledged = self._heard = 0
            self._queue.clear()
            for other in list(self._lines):
                if other is not line:
                    other.break_off("the slave host serves another master")
            while self._telling:
                yield 0.001
            self._telling = True
            self._stay_told = stay
            self._report.deaths.clear()
            self._report.returned.clear()
            self._report.lent.append(self._lent)
            try:
                yield line.call("claim", self.name, self._started(), self._sequence, self._flying)
            finally:
                self._telling = False
            self._stay = stay
        self._beat, self._uid = answer["patience"], answer["uid"]
        self._master = line.master
        self._connected.notify()
        yield from self._take_jobs(line, answer["patience"], draining)

    def _take_jobs(self, line: SimulatedLine, patience: float, draining: bool) -> Program:
        while not self._ending:
            if self._draining and not draining:
                draining = True
                answer, _ = yield line.call("enlist", self.name, 0)
                if answer.get("stay", self._stay) != self._stay:
                    return
            answer, message = yield line.call("fetch", self.name, self._acknowledged, self._heard, patience)
            if not answer["known"]:
                return
            if answer["orders"]:
                self._cancel({(session, number) for session, number in answer["orders"]})
            if answer["count"]:
                yield from self._accept(line, message)
            self._acknowledged, self._heard = answer["number"], answer["heard"]
            if answer["surplus"]:
                self._shed(answer["surplus"])

    def _started(self) -> list[tuple[str, int]]:
        """Give back what was not started; return what was, and not reported yet."""
        self._recall()
        running = [task.tag for slave in self._slaves if (task := slave.running()) is not None]
        return [*running, *ended_in(self._report)]

    def _accept(self, line: SimulatedLine, message: memoryview) -> Program:
        jobs = unpack_host_jobs(message)
        missing = {job.definition: None for job in jobs if job.definition not in self._definitions}
        if missing:
            answer, definitions = yield line.call("definitions", self.name, message=pack_message(list(missing)))
            if not answer["known"]:
                raise LineBrokenError("the master gave this slave host up")
            self._definitions.update(unpack_definitions(definitions))
        self._tickets.update(((job.session, job.number), ticket_of(job.seal)) for job in jobs)
        tasks = [
            Task((job.session, job.number), job.definition, job.blob, job.terms)
            for job in jobs
            if job.definition in self._definitions
        ]
        for task in tasks:
            if task.terms.jobs > 1 and count_jobs(task.blob) != task.terms.jobs:
                raise BrokenRule(f"{task} is not a bundle of {task.terms.jobs} jobs")
        if self._draining:
            self._give_back([task.tag for task in tasks])
            return
        self._queue.extend(tasks)
        self._feed()

    # Outcomes out -----------------------------------------------------------------------

    def _push(self) -> Program:
        message: bytes | None = None
        told: Any = 0
        while not self._ending:
            if self._master is None:
                yield self._connected.future()
            line = self.network.line()
            if line is None or line.master is not self._master:
                yield 0.05
                continue
            self._lines.append(line)
            with contextlib.suppress(LineBrokenError):
                while not self._ending:
                    if message is None:
                        if not any(self._report):
                            yield self._news.future(self._beat)
                        report, self._report = self._report, HostReport.empty()
                        self._reporting = report.is_owed()
                        self._flying = ended_in(report)
                        message, told = pack_report(report) if any(report) else NOTHING, self._stay_told
                        self._sequence += 1
                    if line.master is not self._master:
                        raise LineBrokenError("the slave host serves another master")
                    while self._telling:
                        yield 0.001
                    self._telling = True
                    try:
                        ended = len(ended_in(self._report))
                        call = line.call("report", self.name, self._sequence, self._uid, told, ended, message=message)
                        if not (yield call)[0]["taken"]:
                            break  # it is for the next master
                        message = None
                        self._reporting = False
                        self._flying = []
                    finally:
                        self._telling = False
                    self._told.notify()
            self._drop(line)
            yield 0.05

    def _finish_and_leave(self) -> Program:
        while any(slave.queue for slave in self._slaves) or self._reporting or self._report.is_owed():
            yield 0.05
        self._ending = True
        for slave in self._slaves:
            slave.vanish()
        while not self.retired:
            line = yield from self._seek()
            with contextlib.suppress(LineBrokenError):
                yield line.call("retire", self.name)
                self.retired = True
        self.crash()

    def _say(self, kind: str, items: Iterable[Any]) -> None:
        getattr(self._report, kind).extend(items)
        self._news.notify()

    def _give_back(self, tags: list[Any], reason: str = "") -> None:
        if tags:
            self._say("returned", [(*tag, reason) for tag in tags])

    # The crew ---------------------------------------------------------------------------

    def _staff(self) -> None:
        """Hire slaves for those that are gone or lend their places, and send spares away."""
        if self._ending:
            return
        for _ in range(missing(self._slaves, self._count)):
            self._names += 1
            slave = Slave(self, f"{self.name}/{self._names}")
            self._slaves.append(slave)
            self.later(self.world.dice.uniform(0.02, 0.2), partial(self._welcome, slave))
        unneeded, moment = spares(self._slaves, self._count, self.world.now)
        for slave in unneeded:
            slave.dismissed = True
            slave.vanish()
            self._slaves.remove(slave)
        if moment is not None and moment != self._staff_at:
            self._staff_at = moment
            self.later(moment - self.world.now, self._staff)

    def _welcome(self, slave: Slave) -> None:
        slave.ready = slave.alive
        self._feed()

    def note_lent(self, slave: Slave, lent: bool) -> None:
        """Take note that a slave lends its place, or goes on."""
        if not slave.alive:
            return
        slave.lent = lent
        if lent:
            self._give_back([task.tag for task in self._take_back(slave)])
        self._say_lent()
        self._feed()

    def _say_lent(self) -> None:
        self._lent = sum(slave.lent for slave in self._slaves)
        self._say("lent", [self._lent])
        self._give_back([task.tag for task in self._queue])
        self._queue.clear()

    def stop(self, tag: tuple[str, int]) -> None:
        """Stop a job that cannot go on here, and give it back."""
        self._cancel({tag})
        self._give_back([tag], "its children could not be given to the master")

    def take_in(self, slave: Slave, batch: list[tuple[Task, bytes, float]]) -> None:
        """Take outcomes of a slave."""
        if slave not in self._slaves:
            return  # it was killed in the moment when the host went on after a pause
        for _ in batch:
            slave.queue.popleft()
            slave.begun -= 1
        for task, outcome, seconds in batch:
            self.say_outcome(slave, task, outcome, seconds)
        self._feed()

    def say_outcome(self, slave: Slave, task: Task, outcome: bytes, seconds: float = 0.0) -> None:
        """Report an outcome, or what is told of a bundle."""
        self._say("outcomes", [JobOutcome(*task.tag, outcome, seconds, slave.name, self._tickets[task.tag])])

    def overdue(self, slave: Slave, task: Task) -> None:
        """Kill a slave whose job has run for too long."""
        if slave.alive and slave.running() is task:
            slave.sentence = (task, "overdue")
            slave.die()

    def bury(self, slave: Slave) -> None:
        """Find out what a slave was doing when it died, and hire another one."""
        self._slaves.remove(slave)
        if slave.lent:
            self._say_lent()
        running = slave.running()
        condemned, verdict = slave.sentence or (None, "")
        started = list(slave.queue)[: slave.begun]
        if running is not None and running is condemned:
            if verdict == "overdue":
                self.say_outcome(slave, running, encode_overdue("overdue"), running.terms.timeout or 0.0)
        elif slave.run is not None and slave.run.bundled:
            self.say_outcome(slave, slave.run.task, death(slave.run.position, f"{slave.name} died"))
        elif running is not None:
            self._say("deaths", [(*running.tag, f"{slave.name} died")])
        for position, task in reversed(list(enumerate(slave.queue))):
            if task is running:
                continue
            if position < len(started) and task.terms.once:
                self.stories.all[task.tag].deaths += 1
                self._say("deaths", [(*task.tag, f"{slave.name} died")])
            else:
                self._returned.appendleft(task)
        slave.queue.clear()
        self._feed()

    def kill_a_slave(self) -> None:
        """Kill a slave from outside: what it runs is charged all the same, since nobody can know."""
        slaves = [slave for slave in self._slaves if slave.alive and slave.ready]
        if slaves:
            slave = self.world.dice.choice(slaves)
            if slave.run is not None:
                slave.run.story.deaths += 1
            slave.die()

    def _cancel(self, tags: set[tuple[str, int]]) -> None:
        self._queue = deque(task for task in self._queue if task.tag not in tags)
        self._returned = deque(task for task in self._returned if task.tag not in tags)
        for slave in list(self._slaves):
            if not slave.alive or not any(task.tag in tags for task in slave.queue):
                continue
            slave.queue.extend(task for task in self._take_back(slave, worth=MOST_JOBS) if task.tag not in tags)
            slave.go()
            running = slave.running()
            if running is not None and running.tag in tags:
                slave.sentence = (running, "cancelled")
                slave.die()
        self._feed()

    def _shed(self, count: int) -> None:
        shed = [self._queue.pop() for _ in range(min(count, len(self._queue)))]
        while self._returned and len(shed) < count:
            shed.append(self._returned.pop())
        for slave in self._slaves:
            tasks = self._take_back(slave, self._worth_cutting()) if slave.alive and len(shed) < count else []
            kept = max(0, len(tasks) - (count - len(shed)))
            slave.queue.extend(tasks[:kept])
            shed += tasks[kept:]
        self._give_back([task.tag for task in shed])

    def _recall(self) -> None:
        tags = [task.tag for task in self._returned]
        self._returned.clear()
        for slave in self._slaves:
            tags += [task.tag for task in self._take_back(slave)]
        self._give_back(tags)

    def _take_back(self, slave: Slave, worth: int = 1) -> list[Task]:
        """Take back what a slave has not started; also of the bundle that it runs, if that is so many jobs."""
        tasks, cut = slave.recall(worth)
        if cut is not None:
            bundle, kept = cut
            self.trace(f"cuts what {slave.name} runs of {bundle.tag} after {kept} jobs")
            self.say_outcome(slave, bundle, cut_off(kept))
        return tasks

    def _worth_cutting(self) -> int:
        return self.world.dice.choice((1, 1, 3))

    def cut_slow_bundle(self, slave: Slave, run: Run, position: int) -> None:
        """Take back what waits in a bundle behind a job that takes long."""
        if slave.alive and slave.run is run and run.position == position:
            slave.queue.extend(self._take_back(slave))

    def _feed(self) -> None:
        if self._draining:
            self._recall()
            return
        if len(self._slaves) != self._count or self._lent:
            self._staff()
        ready = at_work(self._slaves, self._count)
        while ready and (self._returned or self._queue):
            slave = min(ready, key=lambda slave: len(slave.queue))
            if len(slave.queue) >= self._ahead:
                break
            slave.queue.append(self._returned.popleft() if self._returned else self._queue.popleft())
            slave.go()
        self._share_out(ready)

    def _share_out(self, ready: list[Slave]) -> None:
        """Give idle slaves what others have not started."""
        for idle in ready:
            victim = max(ready, key=lambda slave: len(slave.queue))
            if not idle.queue and len(victim.queue) > max(1, victim.begun):
                tasks = self._take_back(victim, self._worth_cutting())
                idle.queue.append(tasks[0])
                victim.queue.extend(tasks[1:])
                idle.go()
