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
import math
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from papyros.aftermath import Aftermath
from papyros.bundles import MOST_JOBS
from papyros.cpus import usable_cpus
from papyros.deadlines import Deadline
from papyros.deaths import Death
from papyros.feeding import Feeder
from papyros.hiring import Hiring
from papyros.limits import culprit_of, kill_overdue, stop
from papyros.logs import logger_of
from papyros.loop import Loop
from papyros.process import Heard, Lent, Part, Printed, SlaveProcess
from papyros.screen import Screen
from papyros.staff import at_work, spares
from papyros.sweeper import Sweeper
from papyros.tasks import CrewOptions, SlaveView, Source, Task

__all__ = ["Crew"]

log = logger_of(__name__)

#: How long `close` waits for slaves to end by themselves before they are killed.
CLOSE_SECONDS = 1.0

#: How long the crew's thread may take to recall or cancel tasks; it never waits for anything itself.
RECALL_SECONDS = 5.0

#: No wait is longer than this, since systems have a longest one; then it is begun anew.
LONGEST_PATIENCE = 86_400.0


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
        self._requests: deque[Callable[[], None]] = deque()
        self._slaves: list[SlaveProcess] = []
        self._sweeper = Sweeper()
        self._screen = Screen()
        self._feeder = Feeder(source, self._watch_outbox, usable_cpus())
        self._hiring = Hiring(self._slaves, slaves, self._hire, self._begin, source.broken)
        self._aftermath = Aftermath(source, self._feeder)
        self._staff_at: float | None = None  # when a spare may have to be sent away
        self._staffed = False  # there are as many as there should be, and none lends its place
        #: One that is being buried, and what it had started: nobody has heard yet what becomes of its tasks.
        self._dying: tuple[SlaveProcess, list[Task]] | None = None
        self._draining = False
        self._closing = False
        self._over = False  # the thread has ended, or is about to
        self._lock = threading.Lock()  # held by the crew's thread while it works, and by those who feed idle slaves
        self._feeding = 0  # which thread feeds idle slaves, if one does: not the crew's own
        self._closes_later = False  # this crew was closed in the midst of that
        self._until = math.inf  # until when it waits, if it does
        self._busy = True  # the crew's thread works, or is about to
        self._drained = threading.Event()
        self._loop = Loop(name="papyros-crew", run=self._serve, on_poke=self._on_poke)

    # For others -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the slaves; returns before they are ready. It may be called again when a signal has interrupted it.

        Raises:
            OSError, RuntimeError: the system has no file descriptor, or no thread, to spare now, which may pass.
        """
        self._loop.start()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until all slaves are ready, or cannot be started; return whether that happened in time."""
        return Deadline(timeout).wait_for(self._hiring.ready)

    @property
    def expected(self) -> int:
        """How many slaves there are, or will be in a moment: those that the system does not let start are not."""
        return self._wanted - self._hiring.lacking

    def poke(self) -> None:
        """Have the crew ask its source again. Any thread may call this; it never waits."""
        self._loop.poke()

    @property
    def may_be_fed(self) -> bool:
        """Whether all slaves are there, one has nothing to do, and nor has the crew's thread, at this moment."""
        # Without a generator: one that is left early is closed where Ctrl-C cannot be raised.
        feeder = self._feeder
        if self._busy or self._draining or self._requests or feeder.returned or feeder.sparing or not self._staffed:
            return False
        return bool([slave for slave in self._slaves if slave.ready and not slave.queue])

    def feed(self) -> None:
        """Give slaves that have nothing to do tasks at once, in the calling thread; if all are busy, poke the crew.

        So a task by itself is spared the way through the crew's thread. Any thread may call this that holds no lock
        which the source takes; it waits for no more than what the crew's thread may have begun in this moment. If
        a signal interrupts it meanwhile, the slaves are replaced that may have been sent something.
        """
        fed = False
        if self.may_be_fed:
            try:
                with self._lock:
                    if fed := self.may_be_fed:
                        self._feed_here()
            finally:
                if self._closes_later:
                    self._closes_later = False
                    self._loop.await_end()
        if not fed:
            self.poke()

    def _feed_here(self) -> None:
        idle = [slave for slave in self._slaves if not slave.queue]
        try:
            self._feeding = threading.get_ident()
            self._feeder.starved = False
            self._feed(here=True)
            waits_for_other = self._next_moment() < self._until or [slave for slave in idle if slave.watched_outbox]
            if waits_for_other or not self._feeder.starved:  # there may be something for others, too
                self.poke()
        except BaseException:  # Ctrl-C, or an alarm of the program's: an error of any type
            for slave in idle:
                if slave.queue:
                    slave.kill()  # nobody knows what it was sent
            raise
        finally:
            self._feeding = 0

    def audit(self, check: Callable[[set[Any]], None]) -> None:
        """Have the tags of all tasks that are here checked: one that fed may have been interrupted. Does not wait."""
        self._request(lambda: check({task.tag for task in [*self._feeder.returned, *self._queued()]}))

    def _queued(self) -> list[Task]:
        return [task for slave in self._slaves for task in slave.queue]

    def cancel(self, tags: Collection[Any], wait: bool = False) -> None:
        """Stop the tasks with these tags, also those that run; nothing more is heard of them.

        Does not wait, unless it is asked to: then those that come later under these tags are others.
        """
        done = threading.Event()

        def cancel() -> None:
            self._cancel(tags)
            done.set()

        self._request(cancel)
        if wait:
            done.wait(RECALL_SECONDS)

    def tell(self, tag: Any, message: bytes) -> None:
        """Send a message to the job that runs under this tag, about its children; it is lost if none does."""
        self._request(lambda: self._tell(tag, message))

    def unshare(self, digests: Collection[bytes]) -> None:
        """Have all slaves let go of shared values, which no job needs any more. Does not wait."""
        self._request(lambda: self._unshare(digests))

    def recall(self) -> list[Any]:
        """Give all tasks that were not started back to the source; waits until that is done.

        Returns the tags of the others, also of those that have ended of which their slaves have not told yet.
        """
        started: list[Any] = []
        done = threading.Event()

        def recall() -> None:
            self._recall_all()
            started.extend([task.tag for task in self._queued()])
            done.set()

        self._request(recall)
        done.wait(RECALL_SECONDS)
        return started

    def shed(self, count: int) -> None:
        """Give up to so many tasks that were not started back to the source. Does not wait."""
        self._request(lambda: self._shed(count))

    def drain(self, timeout: float | None = None) -> bool:
        """Give back what was not started, let the rest end; return whether it did in time."""

        def begin() -> None:
            self._draining = True
            self._recall_all()

        self._request(begin)
        return not self._loop.begun or Deadline(timeout).wait_for(self._drained)

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
                running = slave.progress.running()
                tag, seconds = (running[0].tag, now - running[1]) if running else (None, 0.0)
                ahead = slave.progress.jobs - (running is not None)
                views.append(SlaveView(slave.name, slave.pid, tag, seconds, max(0, ahead), slave.ready))
        return views

    def ended(self) -> int:
        """Return how many tasks the slaves have ended whose outcomes have not come. Any thread may call this."""
        ended = 0
        for slave in list(self._slaves):
            with contextlib.suppress(ValueError, IndexError):  # it is buried meanwhile: see `views`
                ended += slave.progress.ended()
        return ended

    def close(self) -> None:
        """End the slaves and the thread, in bounded time; what runs is stopped, and given back.

        In a handler of a signal that interrupts `feed`, slaves are killed, and it is `feed` that waits for the rest.
        """
        if self._closing:
            return
        self._closing = True
        if self._loop.close():
            self._end()
            return
        self.poke()
        if self._feeding == threading.get_ident():
            # A handler of a signal closes this crew in the midst of what its thread waits for to be over.
            self._closes_later = True
            for slave in list(self._slaves):
                slave.kill()
        else:
            self._loop.await_end()

    # The thread -------------------------------------------------------------------------

    def _request(self, request: Callable[[], None]) -> None:
        self._requests.append(request)
        if self._over:
            self._run_requests()  # nobody else would, and somebody may wait for it
            self._source.announce()
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
        broken = False
        try:
            watched = self._loop.selector.get_map()
            self._staff()
            while not self._closing:
                self._until = self._next_moment()
                self._busy = False
                came = self._loop.selector.select(_patience(self._until))
                self._busy = True
                with self._lock:
                    for key, _ in came:
                        # One before it may have closed what it is about, and even opened another of its number.
                        if (current := watched.get(key.fd)) is not None and current.data is key.data:
                            key.data()
                    self._run_requests()
                    kill_overdue(self._slaves)
                    self._feeder.relieve(self._slaves)
                    if not self._staffed:
                        self._source.announce()  # to start a process takes long
                        self._staff()
                    self._feed()
                    self._source.announce()  # now, since those who wait for outcomes want the interpreter then
        except Exception:
            # A bug, in here or in the source. Nobody would come to feed the slaves any more: say so to all.
            broken = True
            log.exception("the crew of slaves broke down")
        finally:
            try:
                self._dismiss_all()
            except Exception:
                broken = True
                log.exception("the slaves of a crew could not be sent away in order")
            if broken:  # only now, since what is given back before it is among what nobody will do any more
                self._source.broken("the crew of slaves broke down; the log has the traceback")
            self._loop.selector.close()
            self._end()

    def _end(self) -> None:
        """Have nobody wait any more for what this crew will not do."""
        self._hiring.ready.set()
        self._sweeper.close()
        self._screen.close()
        self._drained.set()
        self._over = True  # before what came by now is looked for: what comes later looks for this
        self._run_requests()
        self._source.announce()

    def _on_poke(self) -> None:
        self._feeder.starved = False

    # Slaves come and go -----------------------------------------------------------------

    def _staff(self) -> None:
        """Hire slaves for those that lend their places, and send those away that have been spare for a while."""
        if self._staffed:
            return
        self._hiring.hire_missing()
        unneeded, self._staff_at = spares(self._slaves, self._wanted, time.monotonic())
        for slave in unneeded:
            slave.dismissed = True
            slave.dismiss()
            slave.check_at = time.monotonic() + CLOSE_SECONDS  # what a job has left may keep it from its end
            self._loop.selector.unregister(slave.socket_fd)
        complete = len(self._slaves) == self._wanted and not any(slave.lent for slave in self._slaves)
        self._staffed = complete and self._hiring.again_at is None

    def _begin(self) -> None:
        # Once slaves are fed: sooner, it would take time that slaves need to start.
        self._request(lambda: self._sweeper.start(self._loop.selector))

    def _hire(self) -> None:
        slave = SlaveProcess(self._options, self._screen, self._sweeper.mark)
        self._slaves.append(slave)
        watch: list[tuple[int, Callable[[], None]]] = [
            (slave.socket_fd, lambda: self._on_socket(slave)),
            (slave.death_fd, lambda: self._on_death(slave)),
            *slave.streams(self._loop.selector),
        ]
        try:
            for fd, action in watch:
                self._loop.selector.register(fd, selectors.EVENT_READ, action)
        except OSError:  # the system lets no more be watched now: of a slave like that, nobody would ever hear
            self._bury(slave)
            raise

    def _on_socket(self, slave: SlaveProcess) -> None:
        if slave.gone:
            return
        was_ready = slave.ready
        self._take_in(slave)
        if slave.ready and not was_ready:
            self._hiring.note_ready()
        if slave.watched_outbox or len(slave.outbox):
            slave.outbox.flush()
            self._watch_outbox(slave)

    def _take_in(self, slave: SlaveProcess) -> None:
        """Receive outcomes and prints, and hand them to the source."""
        for event in slave.receive():
            if isinstance(event, Printed):
                self._source.printed(event.task.tag, slave.name, event.text)
            elif isinstance(event, Heard):
                self._hear(slave, event)
            elif isinstance(event, Lent):
                self._note_lent(slave)
            elif isinstance(event, Part):
                self._source.finished([event.task.tag], [event.encoded], [0.0], slave.name)
            else:
                self._feeder.pace.learn(event.seconds, [task.terms.jobs for task in event.tasks])
                self._source.finished([task.tag for task in event.tasks], event.encoded, event.seconds, slave.name)

    def _hear(self, slave: SlaveProcess, said: Heard) -> None:
        """Have the source hear what a job has to say of its children, whatever that is."""
        try:
            self._source.heard(said.task.tag, said.message)
        except Exception as error:
            log.warning("what a job says of its children cannot be", exc_info=True)  # or we have a bug
            slave.distrust(f"of children of its job, {type(error).__name__}: {error}")

    def _note_lent(self, slave: SlaveProcess) -> None:
        self._feeder.starved = False
        self._staffed = False
        if slave.lent:
            # None of these is to wait for the end of a job that may wait for one of them.
            self._source.returned([task.tag for task in self._feeder.take_back(slave)], "")
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
        self._feeder.starved = False  # what it had may be with the source again
        self._take_in(slave)  # what it sent before it died
        slave.check_slate()
        running = slave.progress.running()
        started = slave.progress.had_started(bool(slave.retired))
        # Of a bundle that has ended, it died with the last job.
        position = slave.progress.position() if running is not None else MOST_JOBS
        self._dying = slave, started
        death = self._bury(slave)
        if not slave.dismissed:
            self._aftermath.settle(slave, culprit_of(slave, running, started), started, death, position)
        self._dying = None
        if slave.dismissed:
            return
        if slave.lent:
            self._source.lent(sum(other.lent for other in self._slaves))
        if not slave.ready:
            self._hiring.note_false_start(death)

    def _bury(self, slave: SlaveProcess) -> Death:
        self._slaves.remove(slave)
        self._staffed = False
        for fd in slave.fds():
            with contextlib.suppress(KeyError):
                self._loop.selector.unregister(fd)
        return slave.bury()

    def _dismiss_all(self) -> None:
        for slave in self._slaves:
            slave.dismiss()
        deadline = time.monotonic() + CLOSE_SECONDS
        with contextlib.ExitStack() as steps:  # each of which is taken, whatever another one raises
            steps.callback(self._recall_all)
            if self._dying is not None:
                steps.callback(self._aftermath.give_back, *self._dying)
            for slave in reversed(self._slaves):
                steps.callback(self._dismiss, slave, deadline)

    def _dismiss(self, slave: SlaveProcess, deadline: float) -> None:
        slave.wait(max(0.0, deadline - time.monotonic()))
        slave.kill()
        slave.wait(CLOSE_SECONDS)
        try:
            self._take_in(slave)
        finally:  # whatever that raises, it is neither left alive nor are its tasks forgotten
            started = slave.progress.started()
            try:
                self._bury(slave)
            finally:
                self._aftermath.give_back(slave, started)

    # Stopping jobs ----------------------------------------------------------------------

    def _next_moment(self) -> float:
        """When something has to be done at the latest: to look after a job that may have run for too long, say."""
        moments = [moment for slave in self._slaves for moment in (slave.check_at, slave.look_at)]
        moments += [self._staff_at, self._feeder.level_at, self._feeder.slow_at, self._hiring.again_at]
        return min((moment for moment in moments if moment is not None), default=math.inf)

    def _cancel(self, tags: Collection[Any]) -> None:
        self._feeder.drop(tags)
        for slave in self._slaves:
            if not any(task.tag in tags for task in slave.queue):
                continue
            recalled = self._feeder.take_back(slave, worth=MOST_JOBS)
            kept = [task for task in recalled if task.tag not in tags]
            if kept:
                self._feeder.spread(kept, [slave])
            stop(slave, tags)

    def _unshare(self, digests: Collection[bytes]) -> None:
        # Somebody may have shared the same again since this was asked for, and jobs been sent that need it.
        digests = [digest for digest in digests if self._source.held(digest) is None]
        for slave in self._slaves:
            if not slave.dismissed:
                slave.unshare(digests)
                self._watch_outbox(slave)

    def _recall_all(self) -> None:
        self._source.returned([task.tag for task in self._feeder.recall(self._slaves)], "")

    def _shed(self, count: int) -> None:
        self._source.returned([task.tag for task in self._feeder.shed(count, self._slaves)], "")

    # Feeding ----------------------------------------------------------------------------

    def _feed(self, here: bool = False) -> None:
        """Give slaves jobs; in another thread than the crew's, which is `here`, only to those without any."""
        if not self._draining:
            self._feeder.feed(at_work(self._slaves, self._wanted), here)
        elif not self._queued():
            self._drained.set()

    def _watch_outbox(self, slave: SlaveProcess) -> None:
        full = len(slave.outbox) > 0
        if full != slave.watched_outbox:
            slave.watched_outbox = full
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if full else 0)
            self._loop.selector.modify(slave.socket_fd, events, self._loop.selector.get_key(slave.socket_fd).data)


def _patience(until: float) -> float | None:
    """How long to wait for something to happen, if it is to be until that moment."""
    return None if until == math.inf else min(LONGEST_PATIENCE, max(0.0, until - time.monotonic()))
