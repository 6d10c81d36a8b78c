"""A slave host: the slaves of one machine, and the connection to the master for all of them.

Jobs are fetched in batches before the slaves run out of them; outcomes are
reported in batches as they come, by the `Reporter`. When the master goes, the slaves stay, finish
what they run, and serve the next one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from papyros.checks import clamp_silence
from papyros.crew import Crew
from papyros.deadlines import Deadline
from papyros.deaths import Death
from papyros.distributed.batches import unpack_definitions, unpack_host_jobs
from papyros.distributed.config import changed_pyro_items
from papyros.distributed.hostvalues import HostValues, Refusal
from papyros.distributed.intake import Intake, Tag
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.naming import Address
from papyros.distributed.outbox import Outbox
from papyros.distributed.reporting import Reporter
from papyros.distributed.security import Role, Security
from papyros.distributed.seeker import Pauses, Seeker
from papyros.encoded import encode_overdue
from papyros.frames import pack_message
from papyros.logs import logger_of
from papyros.relay import pack_words, unpack_words
from papyros.store import Held
from papyros.story import tell_overdue
from papyros.streams import TOLD_CHARACTERS
from papyros.tasks import CrewOptions, Silent, Task
from papyros.threads import worker
from papyros.wire import MAX_PAYLOAD_BYTES, Buffer

__all__ = ["SlaveHost"]

log = logger_of(__name__)

#: While this host can take fewer jobs than it should, or may soon, it is looked so often how many it can take.
LACKING_SECONDS = 1.0

#: A goodbye may take so long.
RETIRE_SECONDS = 2.0


class SlaveHost:
    """Runs jobs for the master of a group, whichever that is at a time.

    Args:
        group: which group.
        nameserver: where its master is registered.
        security: what this host proves itself with, and checks the master by.
        slaves: how many slaves there are.
        max_bytes: a larger result of a job is refused.
        tell: is told in words what the host waits for and whom it serves.
        on_failure: called, from another thread, when slaves cannot be started, or a bug has ended a thread of this
            host; `broken` says why.
    """

    def __init__(
        self,
        group: str,
        nameserver: Address,
        security: Security,
        slaves: int,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        tell: Callable[[str], None] = log.info,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.group = group
        self._on_failure = on_failure
        self._key = uuid.uuid4().hex
        self._security = security
        self._intake = Intake(security.key)
        self._count = slaves
        self._tell = tell
        self._told_slaves = slaves  # how many serve, as was told last
        self._stop = threading.Event()
        self._seeker = Seeker(group, nameserver, security, Role.SLAVE_HOST, self._stop, tell)
        family = Silent(
            module="papyros.distributed.family",
            group=group,
            nameserver=str(nameserver),
            pyro=changed_pyro_items(),
            key=security.key.hand_over(),
        )
        self._crew = Crew(slaves, _NetworkSource(self), CrewOptions(max_bytes, sys.path, family))
        self._lock = threading.Lock()
        self._outbox = Outbox(self._lock)
        self._reporter = Reporter(self)
        self._draining = threading.Event()
        self._hurried = False
        self._queue: deque[Task] = deque()
        self._values = HostValues(self, self._key, lambda: self._beat)
        self._refused: list[tuple[Tag, str]] = []  # what is to be given back, since it needs what cannot be held here
        self._pause = self._pause_until = 0.0  # ... and how long no jobs are taken then
        self._acknowledged = self._heard = 0  # of what this master has sent, also over a line that broke
        self._connected = threading.Event()
        self._stay = ""  # what this host is enlisted for
        self._uri = self._uid = ""
        self._answered = 0.0  # when the master was last heard of
        self._beat = self._silence = 1.0  # how often to show that this host lives, and how long a master may not
        self._lines: set[Line] = set()
        #: Why nothing can be done here any more, once that is so.
        self.broken = ""
        self._threads = [
            worker("papyros-fetch", self._fetch, self.broke),
            worker("papyros-report", self._reporter.run, self.broke),
        ]

    def start(self) -> None:
        """Start the slaves, and look for the master; returns at once."""
        self._crew.start()
        for thread in self._threads:
            thread.start()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until all slaves are ready and a master is found; return whether they are, in time."""
        deadline = Deadline(timeout)
        if not self._crew.wait_ready(deadline.remaining()):
            return False
        return deadline.wait_for(self._connected) and not self._stop.is_set() and not self.broken

    def take_no_more(self) -> None:
        """Take no more jobs, and give those back that no slave has; `drain` sees to the others."""
        self._draining.set()
        with self._lock:
            queue, self._queue = self._queue, deque()
            self._outbox.returned([task.tag for task in queue])
            self._give_back_refused()

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more jobs, give back what was not started, let the rest end; return whether it did in time."""
        deadline = Deadline(timeout)
        self.take_no_more()
        drained = self._crew.drain(deadline.remaining())
        with self._lock:
            while self._outbox.is_owed():
                if self._hurried or not self._outbox.await_told(deadline):
                    return False
        return drained and not self._hurried

    def hurry(self) -> None:
        """Have `drain` wait no longer, whether it has begun or not. Any thread may call this."""
        with self._lock:
            self._hurried = True
            self._outbox.wake()
        self._crew.hurry()

    def close(self) -> None:
        """Stop what runs, give all of it back, end the slaves, leave."""
        if self._stop.is_set():
            return
        self._draining.set()
        self._crew.close()
        self._stop.set()
        self._connected.set()  # nobody is to wait for a master any more
        with self._lock:
            self._outbox.wake()
            for line in self._lines:
                line.abort()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._values.close()
        if self._uri:
            with (
                contextlib.suppress(LineBrokenError, MemoryError),
                self._seeker.line(self._uri, connect_timeout=RETIRE_SECONDS) as line,
            ):
                try:
                    self._reporter.tell_rest(line, RETIRE_SECONDS)
                finally:  # whatever that may come to, the master is not to wait for this host
                    line.call("retire", self._key, timeout=RETIRE_SECONDS)

    def broke(self, reason: str) -> None:
        """Have this host end, and its jobs run elsewhere, since it can do nothing any more."""
        self.broken = self.broken or reason
        self._connected.set()  # nobody is to wait for a master any more
        self._on_failure()

    # Jobs in ----------------------------------------------------------------------------

    def _fetch(self) -> None:
        """Find the master, and take jobs from it; again when it is gone."""
        pauses = Pauses()
        while not self._stop.is_set():
            line = self._seeker.seek()
            if line is None:
                return
            with self._use(line):
                try:
                    self._serve(line)
                except LineBrokenError as error:
                    log.info("%s", error)
            self._connected.clear()
            self._stop.wait(pauses.next())

    def _serve(self, line: Line) -> None:
        answer, enlisted = self._enlist(line)
        if answer["stay"] != self._stay:
            # Not whether it was known: the answer that it was not may have been lost.
            self._move(line, answer["stay"])
        self._answered = time.monotonic()
        self._silence = clamp_silence(answer["lease"])
        self._beat = min(answer["patience"], self._silence)
        self._uid = answer["uid"]
        self._uri = line.uri
        self._connected.set()
        self._tell_whom(line)
        self._take_jobs(line, self._beat, enlisted)

    def _note_enlisted(self, line: Line, slaves: int) -> None:
        """Do what was to wait until the master knows that there are so many slaves for new jobs."""
        if self._crew.expected != self._told_slaves:
            self._tell_whom(line)
        if not slaves:
            with self._lock:
                self._give_back_refused()

    def _tell_whom(self, line: Line) -> None:
        self._told_slaves = self._crew.expected
        slaves = count_slaves(self._told_slaves, self._count)
        self._tell(f"{slaves} the group {self.group!r}, whose master is at {_location(line.uri)}")

    def _take_jobs(self, line: Line, patience: float, enlisted: int) -> None:
        answered = 0
        while not self._stop.is_set():
            if self._for_work() != enlisted or self._refused:
                # It goes on to call: it may have to stop what still runs, and to give back jobs that were on their way.
                answer, enlisted = self._enlist(line)
                if answer["stay"] != self._stay:
                    return
                self._note_enlisted(line, enlisted)
            line.expect(patience + self._silence)
            soon = enlisted != self._count or self._values.awaited
            wait = min(patience, LACKING_SECONDS) if soon else patience
            answer, message = line.call("fetch", self._key, self._acknowledged, self._heard, wait)
            self._answered = time.monotonic()
            if not answer["known"]:
                return
            if answer["orders"]:
                # First, and at once: a client that was given up and came back may have added such a job again.
                self._cancel({(session, number) for session, number in answer["orders"]}, wait=bool(answer["count"]))
            if answer["count"]:
                self._accept(line, message)
            self._acknowledged, self._heard = answer["number"], answer["heard"]
            self._values.go_on()
            if answer["surplus"]:
                self._shed(answer["surplus"])
            if answer["question"] > answered:
                answered = answer["question"]
                line.call("tell", self._key, answered, self._slaves_now())

    def _enlist(self, line: Line) -> tuple[dict[str, Any], int]:
        """Say how many slaves there are for new jobs, which is returned, too."""
        slaves = self._for_work()
        answer, _ = line.call("enlist", self._key, slaves)
        return answer, slaves

    def _for_work(self) -> int:
        """How many slaves there are for new jobs: none while this host drains, or gives those back that come."""
        pausing = self._refused or time.monotonic() < self._pause_until
        return 0 if self._draining.is_set() or pausing else self._crew.expected

    def _move(self, line: Line, stay: str) -> None:
        """Begin another stay, with a master that is new, or that had given this host up."""
        self._acknowledged = self._heard = 0
        with self._lock:
            self._queue.clear()  # what was not started is given to others
            self._refused.clear()
            for other in self._lines - {line}:
                other.abort()  # reports to a master that may never answer
        with self._reporter.telling:  # what is claimed is not reported meanwhile, or it would be claimed for ever
            # Before the stay begins, in which the master may give the same jobs to this host.
            started = self._crew.recall()
            with self._lock:
                self._outbox.begin_stay(stay)
            line.call("claim", self._key, *self._started(started))
        self._stay = stay

    def _started(self, here: list[Tag]) -> tuple[list[tuple[str, int]], int, list[tuple[str, int]]]:
        """Return the jobs that were started, and the number of the report that is on its way, and its jobs.

        Those which slaves have, who gather outcomes while they work, are handed in.
        """
        with self._lock:
            return [*here, *self._outbox.ended()], self._outbox.sequence, list(self._outbox.flying)

    def _cancel(self, tags: set[tuple[str, int]], wait: bool) -> None:
        with self._lock:
            self._queue = deque(task for task in self._queue if task.tag not in tags)
        self._crew.cancel(tags, wait)

    def _shed(self, count: int) -> None:
        """Give back so many jobs that were not started, for hosts whose slaves have nothing to do."""
        with self._lock:
            shed = [self._queue.pop() for _ in range(min(count, len(self._queue)))]
            self._outbox.returned([task.tag for task in shed])
        if len(shed) < count:
            self._crew.shed(count - len(shed))

    def _slaves_now(self) -> list[list[Any]]:
        return [[v.name, *(v.tag or ("", 0)), v.seconds, v.ahead, v.ready] for v in self._crew.views()]

    def _accept(self, line: Line, message: memoryview) -> None:
        try:
            tasks, altered = self._check(line, message)
        except MemoryError as error:  # nothing of it is in the queue, and it is not acknowledged
            raise LineBrokenError("there is no memory for the jobs that came: they are fetched again") from error
        with self._lock:
            if altered:
                self._outbox.died(altered)
            if self._draining.is_set():
                self._outbox.returned([task.tag for task in tasks])
                return
            definitions = self._intake.definitions
            self._values.need({task.definition: definitions[task.definition] for task in tasks})
            self._queue.extend(tasks)
        self._crew.feed()

    def _check(self, line: Line, message: memoryview) -> tuple[list[Task], list[tuple[str, int, str]]]:
        """Return the tasks that a message is about, and those that are not what was sent; see `Intake.check`."""
        jobs = unpack_host_jobs(message)
        intake = self._intake
        intake.forget(self._values.take_stale())
        while missing := intake.missing(jobs):
            answer, message = line.call("definitions", self._key, message=pack_message(list(missing)))
            if not answer["known"]:
                raise LineBrokenError("the master gave this slave host up")
            if not (definitions := unpack_definitions(message)):
                break  # their client has left meanwhile
            intake.define(definitions)
        return intake.check(jobs)

    # What jobs share --------------------------------------------------------------------

    def _take_ready(self, limit: int) -> list[Task]:
        """Take jobs that do not wait for values from the queue. Called with the lock held."""
        awaited = set(self._values.awaited)
        ready = [task for task in self._queue if task.definition not in awaited][:limit]
        tags = {task.tag for task in ready}
        self._queue = deque(task for task in self._queue if task.tag not in tags)
        return ready

    def value_line(self) -> AbstractContextManager[Line] | None:
        """Return a line to the master; None, after a while, if none was found."""
        return self._line_for_values() if self._connected.wait(1.0) and not self._stop.is_set() else None

    @contextlib.contextmanager
    def _line_for_values(self) -> Iterator[Line]:
        with self._seeker.line(self._uri, silence=self._silence) as line, self._use(line):
            yield line

    @property
    def stay(self) -> str:
        """What this host is enlisted for: a master that was started anew where the one before was has another one."""
        return self._stay

    def is_current(self, line: Line) -> bool:
        """Return whether a line goes to the master that this host serves."""
        return line.uri == self._uri and not self._stop.is_set()

    def values_came(self) -> None:
        """Have the crew take jobs that could not be started before."""
        self._crew.poke()

    def values_gone(self, digests: Collection[bytes]) -> None:
        """Have slaves let go of values that nobody needs any more."""
        self._crew.unshare(digests)

    def values_refused(self, digest: bytes, refusal: Refusal) -> None:
        """Give back the jobs that need this value, which cannot be started.

        Where others may be able to, that waits until the master gives this host no more: it would be the same ones.
        """
        with self._lock:
            definitions = self._values.give_up(digest)
            refused = [task for task in self._queue if task.definition in definitions]
            self._queue = deque(task for task in self._queue if task.definition not in definitions)
            if refusal.altered:
                self._outbox.died((*task.tag, refusal.reason) for task in refused)
                return
            if refusal.pause and refused:
                self._pause = max(self._pause, refusal.pause)
            for task in refused:
                self._refused.append((task.tag, refusal.reason if refusal.lasting or not task.terms.once else ""))
            if not self._pause:
                self._give_back_refused()

    def _give_back_refused(self) -> None:
        """Give back what cannot be started here; take no more for as long as it is to be. Called with the lock held."""
        for tag, reason in self._refused:
            self._outbox.returned([tag], reason)
        self._refused.clear()
        self._pause_until, self._pause = max(self._pause_until, time.monotonic() + self._pause), 0.0

    @contextlib.contextmanager
    def _use(self, line: Line) -> Iterator[None]:
        """Note that a line is in use, so that `close` can break it."""
        with self._lock:
            self._lines.add(line)
            if self._stop.is_set():
                line.abort()  # `close` came before it could know of this one
        try:
            yield
        finally:
            with self._lock:
                self._lines.discard(line)
            line.close()


class _NetworkSource:
    """Feeds a crew from the network."""

    def __init__(self, host: SlaveHost) -> None:
        self._host = host

    def take(self, limit: int) -> list[Task]:
        host = self._host
        with host._lock:
            queue = host._queue
            if host._values.awaited:
                return host._take_ready(limit)
            return [queue.popleft() for _ in range(min(limit, len(queue)))]

    def definition(self, digest: bytes) -> bytes:
        return self._host._intake.definitions.get(digest, b"")

    def held(self, digest: bytes) -> Held | None:
        return self._host._values.held(digest)

    def finished(self, tags: Sequence[Tag], outcomes: Sequence[Buffer], seconds: Sequence[float], slave: str) -> None:
        host = self._host
        sealed = host._intake.sealed(tags, outcomes, seconds, slave)
        with host._lock:
            host._outbox.finished(sealed)

    def announce(self) -> None:
        """Who reports was told at once: that takes its time anyway."""

    def overdue(self, tag: Any, slave: str, timeout: float) -> None:
        self.finished([tag], [encode_overdue(tell_overdue(slave, timeout))], [timeout], slave)

    def died(self, tag: Any, death: Death) -> None:
        host = self._host
        with host._lock:
            host._outbox.died([(*tag, str(death))])

    def returned(self, tags: list[Any], reason: str) -> None:
        host = self._host
        with host._lock:
            host._outbox.returned(tags, reason)

    def held_up(self) -> None:
        host = self._host
        with host._lock:
            host._outbox.held_up([task.tag for task in host._queue])
            host._queue.clear()

    def printed(self, tag: Any, slave: str, text: str) -> None:
        host = self._host
        with host._lock:
            host._outbox.printed(tag, slave, text)

    def heard(self, tag: Any, message: memoryview) -> None:
        host = self._host
        (question, *arguments), _ = unpack_words(message)
        if question == "who":
            [number] = arguments
            if not isinstance(number, int):
                raise ValueError("a job is to say by a number what it asks")
            host._crew.tell(tag, pack_words([number, *tag, host._uri]))
        elif question == "stop":
            [reason] = arguments
            if not (isinstance(reason, str) and reason):
                raise ValueError("a job is to be stopped for no reason")
            host._crew.cancel({tag})
            self.returned([tag], reason[:TOLD_CHARACTERS])  # any job may say anything, and it is to go into a report
        else:
            raise ValueError(f"no job asks {question!r}"[:TOLD_CHARACTERS])

    def lent(self, places: int) -> None:
        host = self._host
        with host._lock:
            host._outbox.lent(places)
            # What has come ahead may not be what is to be run first now.
            host._outbox.returned([task.tag for task in host._queue])
            host._queue.clear()

    def broken(self, reason: str) -> None:
        self._host.broke(reason)


def count_slaves(count: int, wanted: int) -> str:
    """Return that so many slaves serve, of those that are wanted, in words."""
    number = f"{count}" if count == wanted else f"{count} of {wanted}"
    return f"{number} {'slave' if wanted == 1 else 'slaves'} {'serves' if count == 1 else 'serve'}"


def _location(uri: str) -> str:
    return uri.partition("@")[2]
