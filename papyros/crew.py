"""The slave processes of this machine: started, fed, watched, stopped and replaced.

::

    source ──take──▶ queue of a slave ──tokens──▶ runs ──▶ source.finished
                        │        ▲
                        └─recall─┘ an idle slave gets what another one has not started

A crew works in one thread of its own, to which its slaves' sockets and queues
belong; others leave it requests and `poke` it, but for a job that finds a slave
without any, which whoever has it sends (`feed`). Where jobs come from and outcomes go
to is a `papyros.tasks.Source`: a ledger in `papyros.multiprocess`, the network in a slave
host. What runs inside a slave is `papyros.slave`'s affair.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from papyros.logs import logger_of
from papyros.pace import Pace
from papyros.process import Death, Heard, Lent, Printed, SlaveProcess
from papyros.screen import Screen
from papyros.staff import at_work, missing, spares
from papyros.sweeper import Sweeper
from papyros.tasks import CrewOptions, SlaveView, Source, Task

__all__ = ["Crew"]

log = logger_of(__name__)

#: Few quick jobs go to few slaves; after so long, what waits there is shared out among those that have nothing to do.
LEVEL_SECONDS = 0.001

#: Slaves that die before they are ready: so many in a row, and the crew gives up.
MAX_FALSE_STARTS = 3

#: A slave that cannot be started, for want of memory, say, is tried again after so long.
HIRE_AGAIN_SECONDS = 1.0

#: How long `close` waits for slaves to end by themselves before they are killed.
CLOSE_SECONDS = 1.0

#: How long the crew's thread may take to recall tasks; it never waits for anything itself.
RECALL_SECONDS = 5.0

#: No wait is longer than this, since systems have a longest one; then it is begun anew.
LONGEST_PATIENCE = 86_400.0

#: So many slaves that leave a job to a fresh one are worth a warning.
OFTEN = frozenset({10, 100, 1000, 10_000, 100_000})

#: How soon to look again whether a cancelled job that is about to start has started.
LOOK_AGAIN_SECONDS = 0.01

#: How often to look whether a slave goes on with what it was sent.
DEAF_LOOK_SECONDS = 2.5

#: For so long after a job has taken its slave along, slaves tell of each outcome at once: it may be tried again, and is
#: not to take the outcomes of others with it time and again.
CAREFUL_SECONDS = 10.0

# Why a slave is killed.
OVERDUE, CANCELLED = "overdue", "cancelled"


class Crew:
    """Slave processes, and the thread that looks after them.

    Args:
        slaves: how many.
        source: where tasks come from and outcomes go to.
        options: what the slaves are told.
    """

    def __init__(self, slaves: int, source: Source, options: CrewOptions) -> None:
        self._wanted = slaves
        self._source = source
        self._options = options
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_out, False)
        os.set_blocking(self._wake_in, False)
        self._requests: deque[Callable[[], None]] = deque()
        self._slaves: list[SlaveProcess] = []
        self._sweeper = Sweeper()
        self._screen = Screen()
        self._returned: deque[Task] = deque()  # tasks of slaves that died, to be run first
        self._pace = Pace()
        self._false_starts = 0
        self._retirements = 0  # of slaves that left a job to a fresh one
        self._staff_at: float | None = None  # when a spare may have to be sent away
        self._hire_at: float | None = None  # when to try again to start slaves, since the system did not let us
        self._level_at: float | None = None  # when to share out what was not, should it wait still
        self._staffed = False  # there are as many as there should be, and none lends its place
        self._careful_until = 0.0  # a job has taken its slave along
        #: One that is being buried, and what it had started: nobody has heard yet what becomes of its tasks.
        self._dying: tuple[SlaveProcess, list[Task]] | None = None
        self._starved = False  # the source had less than it was asked for, and nothing but outcomes has come since
        self._draining = False
        self._closing = False
        self._over = False  # the thread has ended, or is about to
        self._lock = threading.Lock()  # held by the crew's thread while it works, and by those who feed idle slaves
        self._until = math.inf  # until when it waits, if it does
        self._busy = True  # the crew's thread works, or is about to
        self._ready = threading.Event()
        self._drained = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="papyros-crew", daemon=True)

    # For others -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the slaves; returns before they are ready."""
        self._thread.start()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until all slaves are ready, or cannot be started; return whether that happened in time."""
        return self._ready.wait(timeout)

    def poke(self) -> None:
        """Have the crew ask its source again. Any thread may call this; it never waits."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_in, b"!")

    @property
    def may_be_fed(self) -> bool:
        """Whether all slaves are there, one has nothing to do, and nor has the crew's thread, at this moment."""
        # Without a generator: one that is left early is closed where Ctrl-C cannot be raised.
        if self._busy or self._draining or self._requests or self._returned or not self._staffed:
            return False
        return bool([slave for slave in self._slaves if slave.ready and not slave.queue])

    def feed(self) -> None:
        """Give slaves that have nothing to do tasks at once, in the calling thread; if all are busy, poke the crew.

        So a task by itself is spared the way through the crew's thread. Any thread may call this that holds no lock
        which the source takes; it waits for no more than what the crew's thread may have begun in this moment. If
        Ctrl-C comes meanwhile, the slaves are replaced that may have been sent something.
        """
        if self.may_be_fed:
            with self._lock:
                if self.may_be_fed:
                    self._feed_here()
                    return
        self.poke()

    def _feed_here(self) -> None:
        idle = [slave for slave in self._slaves if not slave.queue]
        self._starved = False
        try:
            self._feed(here=True)
            waits_for_other = self._next_moment() < self._until or [slave for slave in idle if slave.watched_outbox]
            if waits_for_other or not self._starved:  # there may be something for others, too
                self.poke()
        except BaseException as error:
            for slave in idle:
                if slave.queue:
                    slave.kill()  # nobody knows what it was sent
            if not isinstance(error, Exception):
                raise
            self._request(partial(_break_down, error))

    def audit(self, check: Callable[[set[Any]], None]) -> None:
        """Have the tags of all tasks that are here checked: one that fed may have been interrupted. Does not wait."""
        self._request(lambda: check({task.tag for task in [*self._returned, *self._queued()]}))

    def _queued(self) -> list[Task]:
        return [task for slave in self._slaves for task in slave.queue]

    def cancel(self, tags: Collection[Any]) -> None:
        """Stop the tasks with these tags, also those that run; nothing more is heard of them. Does not wait."""
        self._request(lambda: self._cancel(tags))

    def tell(self, tag: Any, message: bytes) -> None:
        """Send a message to the job that runs under this tag, about its children; it is lost if none does."""
        self._request(lambda: self._tell(tag, message))

    def unshare(self, digests: Collection[bytes]) -> None:
        """Have all slaves let go of shared values, which no job needs any more. Does not wait."""
        self._request(lambda: self._unshare(digests))

    def recall(self) -> None:
        """Give all tasks that were not started back to the source; waits until that is done."""
        done = threading.Event()

        def recall() -> None:
            self._recall_all()
            done.set()

        self._request(recall)
        done.wait(RECALL_SECONDS)

    def shed(self, count: int) -> None:
        """Give up to so many tasks that were not started back to the source. Does not wait."""
        self._request(lambda: self._shed(count))

    def drain(self, timeout: float | None = None) -> bool:
        """Give back what was not started, let the rest end; return whether it did in time."""

        def begin() -> None:
            self._draining = True
            self._recall_all()

        self._request(begin)
        return not self._thread.is_alive() or self._drained.wait(timeout)

    def hurry(self) -> None:
        """Have `drain` wait no longer, whether it has begun or not. Any thread may call this."""
        self._drained.set()

    def views(self) -> list[SlaveView]:
        """Return what each slave does now. Any thread may call this; it never waits."""
        now = time.monotonic()
        views = []
        for slave in list(self._slaves):
            # The crew's thread may bury the slave meanwhile: then there is nothing to see.
            with contextlib.suppress(ValueError, IndexError):
                running = slave.running()
                tag, seconds = (running[0].tag, now - running[1]) if running else (None, 0.0)
                ahead = len(slave.queue) - (running is not None)
                views.append(SlaveView(slave.name, slave.pid, tag, seconds, max(0, ahead), slave.ready))
        return views

    def close(self) -> None:
        """End the slaves and the thread, in bounded time; what runs is stopped, and given back."""
        if self._closing:
            return
        self._closing = True
        self.poke()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._wake_in)
        os.close(self._wake_out)

    # The thread -------------------------------------------------------------------------

    def _request(self, request: Callable[[], None]) -> None:
        self._requests.append(request)
        if self._over:
            self._run_requests()  # nobody else would, and somebody may wait for it
        else:
            self.poke()

    def _run_requests(self) -> None:
        while self._requests:
            try:
                request = self._requests.popleft()
            except IndexError:  # this thread is not the only one, once the crew's own one has ended
                return
            request()

    def _serve(self) -> None:
        self._selector = selectors.DefaultSelector()
        broken = False
        try:
            self._selector.register(self._wake_out, selectors.EVENT_READ, self._on_poke)
            watched = self._selector.get_map()
            self._staff()
            while not self._closing:
                self._until = self._next_moment()
                self._busy = False
                came = self._selector.select(_patience(self._until))
                self._busy = True
                with self._lock:
                    for key, _ in came:
                        # One before it may have closed what it is about, and even opened another of its number.
                        if (current := watched.get(key.fd)) is not None and current.data is key.data:
                            key.data()
                    self._run_requests()
                    self._check_times()
                    self._staff()
                    self._feed()
        except Exception:
            # A bug, in here or in the source. Nobody would come to feed the slaves any more: say so to all.
            log.exception("the crew of slaves broke down")
            broken = True
        finally:
            self._ready.set()
            try:
                self._dismiss_all()
            except Exception:
                log.exception("the slaves of a crew could not be sent away in order")
                broken = True
            if broken:  # only now, since what is given back before it is among what nobody will do any more
                self._source.broken("the crew of slaves broke down; the log has the traceback")
            self._sweeper.close()
            self._screen.close()
            self._drained.set()
            self._selector.close()
            self._over = True  # before what came by now is looked for: what comes later looks for this
            self._run_requests()

    def _on_poke(self) -> None:
        self._starved = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_out, 4096)

    # Slaves come and go -----------------------------------------------------------------

    def _staff(self) -> None:
        """Hire slaves for those that lend their places, and send those away that have been spare for a while."""
        if self._staffed:
            return
        if self._false_starts < MAX_FALSE_STARTS:
            self._hire_missing()
        unneeded, self._staff_at = spares(self._slaves, self._wanted, time.monotonic())
        for slave in unneeded:
            slave.dismissed = True
            slave.dismiss()
        self._staffed = len(self._slaves) == self._wanted and not any(slave.lent for slave in self._slaves)

    def _hire_missing(self) -> None:
        if self._hire_at is not None and time.monotonic() < self._hire_at:
            return
        self._hire_at = None
        for _ in range(missing(self._slaves, self._wanted)):
            try:
                self._hire()
            except OSError as error:
                self._cannot_hire(error)
                return

    def _cannot_hire(self, error: OSError) -> None:
        """Try again later: the system has no file descriptor, process or memory to spare, which may pass."""
        log.warning("a slave cannot be started now: %s", error)
        self._hire_at = time.monotonic() + HIRE_AGAIN_SECONDS
        if self._ready.is_set():
            return
        self._false_starts += 1  # there never were any: it may not pass at all
        if self._false_starts >= MAX_FALSE_STARTS:
            self._give_up(str(error))

    def _give_up(self, reason: object) -> None:
        self._ready.set()
        self._source.broken(f"slaves cannot be started: {reason}")

    def _hire(self) -> None:
        slave = SlaveProcess(self._options, self._screen, self._sweeper.mark)
        self._slaves.append(slave)
        watch: list[tuple[int, Callable[[], None]]] = [
            (slave.socket_fd, lambda: self._on_socket(slave)),
            (slave.death_fd, lambda: self._on_death(slave)),
            *slave.streams(self._selector),
        ]
        for fd, action in watch:
            self._selector.register(fd, selectors.EVENT_READ, action)

    def _on_socket(self, slave: SlaveProcess) -> None:
        if slave.gone:
            return
        was_ready = slave.ready
        self._take_in(slave)
        if slave.ready and not was_ready:
            self._false_starts = 0
            if all(other.ready for other in self._slaves) and not self._ready.is_set():
                self._ready.set()
                # Once they are fed: sooner, it would take time that slaves need to start.
                self._request(lambda: self._sweeper.start(self._selector))
        if slave.watched_outbox or len(slave.outbox):
            slave.outbox.flush()
            self._watch_outbox(slave)

    def _take_in(self, slave: SlaveProcess) -> None:
        """Receive outcomes and prints, and hand them to the source."""
        for event in slave.receive():
            if isinstance(event, Printed):
                self._source.printed(event.task.tag, slave.name, event.text)
            elif isinstance(event, Heard):
                self._source.heard(event.task.tag, event.message)
            elif isinstance(event, Lent):
                self._note_lent(slave)
            else:
                self._pace.learn(event.seconds)
                self._source.finished([task.tag for task in event.tasks], event.encoded, event.seconds, slave.name)

    def _note_lent(self, slave: SlaveProcess) -> None:
        self._starved = False
        self._staffed = False
        if slave.lent:
            # None of these is to wait for the end of a job that may wait for one of them.
            self._source.returned([task.tag for task in slave.recall()], "")
        self._source.lent(sum(other.lent for other in self._slaves))

    def _tell(self, tag: Any, message: bytes) -> None:
        for slave in self._slaves:
            # Not only the first: the outcome of the job before it may not have come yet.
            if any(task.tag == tag for task in slave.queue):
                slave.tell(message)
                self._watch_outbox(slave)

    def _on_death(self, slave: SlaveProcess) -> None:
        """Find out what the slave was doing, and hire another one."""
        if slave.gone:
            return
        self._starved = False  # what it had may be with the source again
        self._take_in(slave)  # what it sent before it died
        running = slave.running()
        started = slave.started()
        self._dying = slave, started
        death = self._bury(slave)
        self._dying = None
        if slave.dismissed:
            return
        self._settle(slave, _culprit(slave, running, started), started, death)
        if slave.lent:
            self._source.lent(sum(other.lent for other in self._slaves))
        if not slave.ready:
            self._false_starts += 1
        if self._false_starts >= MAX_FALSE_STARTS:
            self._give_up(death)

    def _settle(self, slave: SlaveProcess, running: Task | None, started: list[Task], death: Death) -> None:
        """Say what becomes of the tasks of a slave that died: only the one that ran is charged."""
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
            log.warning("%s", death)
            self._careful_until = time.monotonic() + CAREFUL_SECONDS
            self._source.died(running.tag, death)
        elif slave.retired:
            self._note_retirement(slave)
        else:
            log.warning("%s", death)
        for task in reversed(slave.queue):
            if task is running or (verdict and task is condemned):
                continue
            if task in started and task.terms.once:
                self._source.died(task.tag, death)  # it ended, but what became of it died with the slave
            else:
                self._returned.appendleft(task)

    def _note_retirement(self, slave: SlaveProcess) -> None:
        """Tell why a slave is replaced; those who look after it, if that happens often: it takes time."""
        self._retirements += 1
        level = logging.WARNING if self._retirements in OFTEN else logging.INFO
        log.log(level, "%d slaves were replaced by fresh ones, the last since %s", self._retirements, slave.retired)

    def _bury(self, slave: SlaveProcess) -> Death:
        self._slaves.remove(slave)
        self._staffed = False
        for fd in slave.fds():
            with contextlib.suppress(KeyError):
                self._selector.unregister(fd)
        return slave.bury()

    def _dismiss_all(self) -> None:
        for slave in self._slaves:
            slave.dismiss()
        deadline = time.monotonic() + CLOSE_SECONDS
        with contextlib.ExitStack() as steps:  # each of which is taken, whatever another one raises
            steps.callback(self._recall_all)
            if self._dying is not None:
                steps.callback(self._give_back, *self._dying)
            for slave in reversed(self._slaves):
                steps.callback(self._dismiss, slave, deadline)

    def _dismiss(self, slave: SlaveProcess, deadline: float) -> None:
        slave.wait(max(0.0, deadline - time.monotonic()))
        slave.kill()
        slave.wait(CLOSE_SECONDS)
        try:
            self._take_in(slave)
        finally:  # whatever that raises, it is neither left alive nor are its tasks forgotten
            started = slave.started()
            try:
                self._bury(slave)
            finally:
                self._give_back(slave, started)

    def _give_back(self, slave: SlaveProcess, started: list[Task]) -> None:
        """Give back the tasks of a slave that ended with this crew: what it had started may not be started again."""
        self._source.returned([task.tag for task in started], f"slave {slave.name} was stopped with its host")
        self._source.returned([task.tag for task in slave.queue if task not in started], "")

    # Stopping jobs ----------------------------------------------------------------------

    def _next_moment(self) -> float:
        """When something has to be done at the latest: to look after a job that may have run for too long, say."""
        moments = [moment for slave in self._slaves for moment in (slave.check_at, slave.look_at) if moment is not None]
        moments += [moment for moment in (self._staff_at, self._level_at, self._hire_at) if moment is not None]
        return min(moments, default=math.inf)

    def _check_times(self) -> None:
        """Kill the slaves whose jobs have run for too long."""
        now = time.monotonic()
        for slave in self._slaves:
            if slave.check_at is not None and slave.check_at <= now:
                slave.check_at = self._next_check(slave, now)
            if slave.look_at is not None and slave.look_at <= now:
                slave.look_at = self._next_look(slave, now)

    def _next_look(self, slave: SlaveProcess, now: float) -> float | None:
        """Kill a slave that begins none of its tasks, so that others get them: somebody has stopped it, say."""
        if slave.is_deaf():
            log.warning("slave %s begins no job any more, so it is killed, and another one takes its place", slave.name)
            slave.kill()
            return None
        return now + DEAF_LOOK_SECONDS if slave.queue else None

    def _next_check(self, slave: SlaveProcess, now: float) -> float | None:
        moments = []
        running = slave.running()
        for task in slave.queue:
            if slave.unwanted and task.tag in slave.unwanted:
                if running is not None and task is running[0]:
                    self._condemn(slave, task, CANCELLED)
                    return None
                moments.append(now + LOOK_AGAIN_SECONDS)
            timeout = task.terms.timeout
            if timeout is None:
                continue
            if running is not None and task is running[0]:
                if now >= running[1] + timeout:
                    self._condemn(slave, task, OVERDUE)
                    return None
                moments.append(running[1] + timeout)
            else:
                moments.append(now + timeout)  # it has not begun
        return min(moments, default=None)

    def _condemn(self, slave: SlaveProcess, task: Task, verdict: str) -> None:
        if slave.sentence is None:
            slave.sentence = (task, verdict)
            slave.kill()

    def _cancel(self, tags: Collection[Any]) -> None:
        self._returned = deque(task for task in self._returned if task.tag not in tags)
        for slave in self._slaves:
            if not any(task.tag in tags for task in slave.queue):
                continue
            kept = [task for task in slave.recall() if task.tag not in tags]
            if kept:
                self._spread(kept, [slave])
            running = slave.running()
            if running is not None and running[0].tag in tags:
                self._condemn(slave, running[0], CANCELLED)
            elif any(task.tag in tags for task in slave.queue):
                slave.unwanted.update(tags)  # its token is taken: it starts in this moment, or has just ended
                slave.check_at = time.monotonic()

    def _unshare(self, digests: Collection[bytes]) -> None:
        # Somebody may have shared the same again since this was asked for, and jobs been sent that need it.
        digests = [digest for digest in digests if self._source.held(digest) is None]
        for slave in self._slaves:
            slave.unshare(digests)
            self._watch_outbox(slave)

    def _recall_all(self) -> None:
        tasks = list(self._returned)
        self._returned.clear()
        for slave in self._slaves:
            tasks += slave.recall()
        self._source.returned([task.tag for task in tasks], "")

    def _shed(self, count: int) -> None:
        """See `shed`: first those give that have waited for the longest time behind a task that runs."""
        shed = [self._returned.pop() for _ in range(min(count, len(self._returned)))]
        since = {slave: running[1] for slave in self._slaves if (running := slave.running()) is not None}
        for slave in sorted(since, key=since.__getitem__):
            if len(shed) >= count:
                break
            tasks = slave.recall()
            kept = max(0, len(tasks) - (count - len(shed)))
            self._spread(tasks[:kept], [slave])
            shed += tasks[kept:]
        self._source.returned([task.tag for task in shed], "")

    # Feeding ----------------------------------------------------------------------------

    def _feed(self, here: bool = False) -> None:
        """Give slaves jobs: to those without any at once, to the others before they run out.

        That is, in the crew's thread. In another one, which is `here`, only the former: nobody else is touched there.
        """
        if self._draining:
            if not any(slave.queue for slave in self._slaves):
                self._drained.set()
            return
        ready = at_work(self._slaves, self._wanted)
        target = self._pace.target
        enough = 0 if here else target * 2 // 3  # slaves tell what they did when half of what they had is left
        wants = {slave: target - len(slave.queue) for slave in ready if len(slave.queue) <= enough}
        if not wants:
            return
        tasks = self._take(sum(wants.values()))
        if tasks:
            eager = sorted(wants, key=lambda slave: len(slave.queue))
            self._spread(tasks, eager[: self._pace.parts(len(tasks))])
        self._level(ready, len(tasks) < len(wants), here)

    def _take(self, limit: int) -> list[Task]:
        tasks: list[Task] = []
        while self._returned and len(tasks) < limit:
            tasks.append(self._returned.popleft())
        if len(tasks) < limit and not self._starved:
            # One that had nothing is not asked again after each outcome: that takes the time of whoever waits for it.
            tasks += self._source.take(limit - len(tasks))
            self._starved = len(tasks) < limit
        return tasks

    def _spread(self, tasks: list[Task], slaves: list[SlaveProcess]) -> None:
        """Send tasks to slaves, an even part to each, in order."""
        for position, slave in enumerate(slaves):
            left = len(slaves) - position
            share = -(-len(tasks) // left)
            part, tasks = tasks[:share], tasks[share:]
            if part:
                self._send(slave, part)

    def _send(self, slave: SlaveProcess, tasks: list[Task]) -> None:
        careful = bool(self._careful_until) and time.monotonic() < self._careful_until
        self._pace.weigh(slave.send(tasks, self._source.definition, self._source.held, careful), len(tasks))
        self._watch_outbox(slave)
        if slave.look_at is None:
            slave.look_at = time.monotonic() + DEAF_LOOK_SECONDS
        timeouts = [task.terms.timeout for task in tasks if task.terms.timeout is not None]
        if timeouts:
            check_at = time.monotonic() + min(timeouts)
            slave.check_at = check_at if slave.check_at is None else min(slave.check_at, check_at)

    def _level(self, ready: list[SlaveProcess], now: bool, here: bool) -> None:
        """Share out what waits behind other tasks while slaves have nothing to do: now, or if it waits for long."""
        idle = [slave for slave in ready if not slave.queue]
        if not idle or max(len(slave.queue) for slave in ready) < 2:
            self._level_at = None
            return
        moment = time.monotonic()
        if now or (self._level_at is not None and moment >= self._level_at):
            if here:
                self._level_at = moment  # by the crew's thread
                return
            self._share_out(idle, ready)
            self._level_at = moment + LEVEL_SECONDS
        elif self._level_at is None:
            self._level_at = moment + LEVEL_SECONDS

    def _share_out(self, idle: list[SlaveProcess], ready: list[SlaveProcess]) -> None:
        """Give idle slaves what the one with the longest queue has not started."""
        victim = max(ready, key=lambda slave: len(slave.queue))
        recalled = victim.recall()
        if recalled:
            # The victim is busy with the job that it started, so it comes last.
            self._spread(recalled, [*idle[: self._pace.parts(len(recalled))], victim])

    def _watch_outbox(self, slave: SlaveProcess) -> None:
        full = len(slave.outbox) > 0
        if full != slave.watched_outbox:
            slave.watched_outbox = full
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if full else 0)
            self._selector.modify(slave.socket_fd, events, self._selector.get_key(slave.socket_fd).data)


def _patience(until: float) -> float | None:
    """How long to wait for something to happen, if it is to be until that moment."""
    return None if until == math.inf else min(LONGEST_PATIENCE, max(0.0, until - time.monotonic()))


def _break_down(error: Exception) -> None:
    """Let the crew's thread meet with an error that another thread has met with while it fed the crew."""
    raise error


def _culprit(slave: SlaveProcess, running: tuple[Task, float] | None, started: list[Task]) -> Task | None:
    """Return the task of which a slave died, of those that it had started."""
    if started and slave.garbled:
        return started[0]  # by the next time slaves tell of each outcome at once, so that it is this one
    if running is not None:
        return running[0]
    # One that died by itself with an outcome in its hands did so of that job, or it might do so again and again.
    return started[-1] if started and slave.sentence is None else None
