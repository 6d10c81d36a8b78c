"""One slave process, as its crew sees it: how to start it, talk to it, and learn why it died.

Everything that depends on the operating system is in here.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import mmap
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from array import array
from builtins import memoryview  # noqa: A004 - a NamedTuple that is compiled looks for it here
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from papyros import protocol
from papyros.bundles import check as check_told
from papyros.bundles import is_of_bundle
from papyros.deaths import Death, DeathWatch, abandon, cause_of, reap, signal_group
from papyros.environment import python_command, search_path, slave_environment
from papyros.forensics import oom_kills, tell_memory
from papyros.frames import (
    Buffer,
    Frame,
    FrameReader,
    Outbox,
    Parts,
    join_column,
    pack_frame,
    seconds_column,
    split_column,
)
from papyros.logs import logger_of
from papyros.screen import Screen
from papyros.slate import SLATE_BYTES, Slate
from papyros.slave import PROGRAM
from papyros.store import Held, needs_of
from papyros.streams import TOLD_CHARACTERS, SlaveStream
from papyros.sweeping import MARK, sweep
from papyros.terms import Terms

if TYPE_CHECKING:
    from papyros.tasks import CrewOptions, Task

__all__ = ["MOST_TOKENS", "Heard", "Lent", "Outcomes", "Part", "Printed", "Recalled", "SlaveProcess", "jobs_in"]

log = logger_of(__name__)

LAST_LINES = 20

#: So many bytes may be on their way between a slave and its crew, where the system allows it: the fewer times a large
#: payload keeps one side waiting for the other, the better.
SEND_BYTES = 1 << 20

#: Jobs of more bytes than this are sent in several frames.
PART_BYTES = 1 << 19

#: A slave has no more tokens than this at a time, which always fit into a pipe: elsewhere they would be lost.
MOST_TOKENS = 1024

#: No frame of a slave has more bytes, but for those of a job: there is one large outcome in it, beside small ones.
MOST_BYTES = protocol.OUTCOME_BYTES + (64 << 20)

#: What reading a connection raises to which a job has written.
_GARBLED = (ValueError, IndexError, OverflowError, MemoryError)

#: A slave that has begun nothing, though it could have, in so many looks of its crew in a row hears nothing any more.
DEAF_LOOKS = 4

#: How long after its connections a process that dies is gone.
DEATH_SECONDS = 0.2

#: How long a process that was killed may take to be gone.
REAP_SECONDS = 5.0


class Outcomes(NamedTuple):
    """Outcomes that came from a slave, encoded, with their tasks and how long each took."""

    tasks: list[Task]
    encoded: list[Buffer]
    seconds: array[float]


class Part(NamedTuple):
    """What has become of jobs of a bundle that runs, so far; encoded."""

    task: Task
    encoded: Buffer


class Recalled(NamedTuple):
    """What was taken back of a slave.

    Attributes:
        tasks: those that it had not started.
        cut: the bundle that it runs, and how many of its jobs it has started, if it is to start no others.
    """

    tasks: list[Task]
    cut: tuple[Task, int] | None


class Printed(NamedTuple):
    """What a job printed."""

    task: Task
    text: str


class Heard(NamedTuple):
    """What a job has to say of its children."""

    task: Task
    message: memoryview


class Lent(NamedTuple):
    """The slave lends its place, as its job waits for children; or takes it back."""

    lent: bool


class SlaveProcess:
    """A slave process, with what was sent to it and not answered yet.

    Args:
        options: what the slave is told.
        screen: where what it prints is shown.
        crew: the mark of its crew.

    Attributes:
        queue: the tasks that it has, in order; the first ones may be started.
        jobs: how many jobs these are, as far as is known: a bundle counts as all of its jobs until there are none of
            them left that could be taken back, and as one from then on.
        cut: the last bundle of which it runs no more than it had started, and how many jobs that are.
        check_at: when to look next whether a job has run for too long, if ever.
        look_at: when to look next whether it goes on with what it was sent, if ever.
        unwanted: the tags of tasks that were cancelled when they were about to start.
        sentence: the task for whose sake the slave is being killed, and why.
        ready: whether it has said that it is.
        watched_outbox: whether its crew waits until it takes more of what is to be sent to it.
        lent: whether it lends its place, since the job that it runs waits for children.
        dismissed: whether it was sent away.
        idle_since: since when it is one too many, and has nothing to do.
        retired: why it has left the jobs that it has not started to a fresh slave, and ends.
        garbled: whether what came from it could not be true, so that no outcome after that is taken.
        spoilt: whether what is on its slate cannot be true.
        deaf: whether it has gone on with nothing for too long.
        gone: whether it is dead and buried.
    """

    def __init__(self, options: CrewOptions, screen: Screen, crew: str = "") -> None:
        self.queue: deque[Task] = deque()
        self.jobs = 0
        self.cut: tuple[Task, int] | None = None
        self.lent = self.dismissed = self.garbled = self.spoilt = self.deaf = False
        self.retired = ""
        self.idle_since: float | None = None
        self.check_at: float | None = None
        self.look_at: float | None = None
        self.sentence: tuple[Task, str] | None = None
        self.unwanted: set[Any] = set()
        self.ready = self.watched_outbox = False
        self.gone = False
        self._received = 0
        self._begun = 0  # so many tasks, the first ones, count as one job each
        self._progress = (0, 0, 0)  # how many jobs it had started, and finished, at the last look, and bytes unsent
        self._seen = (0, 0.0)  # the task that it runs, and when it was seen first, where its slate has no such moment
        self._deaf_looks = 0
        self._memory_before = 0
        self._definitions: dict[bytes, int] = {}
        self._numbers = itertools.count()
        self._needs: dict[bytes, list[bytes]] = {}  # what the definitions that it has need of shared values
        #: The shared values that it was told of. They are held: it may open them only when it has ended a long job.
        self._values: dict[bytes, Held] = {}
        self._epoch = 0
        self._mark = f"{crew}.{uuid.uuid4().hex}"
        self._oom_kills = oom_kills()
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        with contextlib.ExitStack() as undo:
            self._start(undo)
            undo.pop_all()
        self._reader = FrameReader(self._sock, protocol.FROM_SLAVE, MOST_BYTES)
        self.outbox = Outbox(self._sock)
        self.pid = self._popen.pid
        self.name = f"{socket.gethostname()}/{self.pid}"
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._streams = [
            SlaveStream(self._popen.stdout, lambda text: screen.show(sys.stdout, text), None),
            SlaveStream(self._popen.stderr, lambda text: screen.show(sys.stderr, text), self._lines),
        ]
        path = search_path(options.path)
        hello = {"path": path, "max_bytes": options.max_bytes, "family": options.family, "secrets": options.secrets}
        self.outbox.put(pack_frame(protocol.HELLO, 0, [json.dumps(hello).encode()]))

    def _start(self, undo: contextlib.ExitStack) -> None:
        """Start the process; `undo` is told how to let go of all that was made, should the rest of it fail."""
        self._sock, theirs = socket.socketpair()
        undo.callback(self._sock.close)
        for sock in (self._sock, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._sock.setblocking(False)
        with theirs:
            self._token_out, self._token_in = os.pipe()
            for token in (self._token_out, self._token_in):
                undo.callback(os.close, token)
                os.set_blocking(token, False)
            with _memory_file() as slate:
                slate.truncate(SLATE_BYTES)
                _fix_size(slate)
                self._slate = Slate(mmap.mmap(slate.fileno(), SLATE_BYTES))
                undo.callback(self._slate.close)
                fds = (theirs.fileno(), self._token_out, slate.fileno())
                self._popen = subprocess.Popen(
                    python_command("-c", PROGRAM, *map(str, fds), str(os.getpid())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=fds,
                    env=slave_environment() | {MARK: self._mark},
                    start_new_session=True,  # Ctrl-C reaches the crew only; and what a job starts can be ended with it
                )
        undo.callback(abandon, self._popen)
        self._death = DeathWatch(self._popen)

    # File descriptors, for a selector ---------------------------------------------------

    @property
    def socket_fd(self) -> int:
        """Readable when outcomes came."""
        return self._sock.fileno()

    @property
    def death_fd(self) -> int:
        """Readable when the process has ended."""
        return self._death.fd

    def streams(self, selector: selectors.BaseSelector) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield the standard streams, and what to do when one can be read."""
        for stream in self._streams:
            yield stream.fd, lambda stream=stream: stream.forward(selector)  # type: ignore[misc]

    def fds(self) -> list[int]:
        """All file descriptors that a selector may watch."""
        return [self.socket_fd, self.death_fd, *(stream.fd for stream in self._streams)]

    # Jobs out, outcomes in --------------------------------------------------------------

    def send(
        self,
        tasks: Sequence[Task],
        definition: Callable[[bytes], bytes],
        value: Callable[[bytes], Held | None] = lambda _: None,
        careful: bool = False,
    ) -> int:
        """Send tasks, and the definitions of their classes, and the places of shared values, that the slave has not.

        Of those that are to run at most once, or of all where the crew is `careful`, the slave tells one by one.
        Returns how many bytes there are of them.
        """
        ordinal = self._received + len(self.queue) + 1
        self.queue.extend(tasks)  # before all else: who is interrupted in what follows can tell by that
        jobs = jobs_in(tasks)
        self.jobs += jobs
        epoch = self._epoch.to_bytes(protocol.TOKEN_BYTES, "little")
        definitions = [task.definition for task in tasks]
        known = self._definitions
        missing = [digest for digest in dict.fromkeys(definitions) if digest not in known]
        if missing:
            known = known | {digest: self._define(digest, definition(digest), value) for digest in missing}
        numbers = array("I", map(known.__getitem__, definitions))
        flags = _flags([task.terms for task in tasks], careful)
        with contextlib.suppress(OSError):  # it died; its death is noticed elsewhere
            # Tokens first: a slave that has a job and finds no token knows that the job was taken back.
            os.write(self._token_in, epoch * jobs)
        blobs = [task.blob for task in tasks]
        size = sum(map(len, blobs))
        for start, end in [(0, len(blobs))] if size < PART_BYTES else _parted(blobs):
            part = blobs[start:end]
            first = protocol.ORDINAL.pack((ordinal + start) % protocol.ORDINALS)
            columns = (epoch, first, numbers[start:end].tobytes(), flags[start:end], *join_column(part))
            self.outbox.put(pack_frame(protocol.JOBS, len(part), columns))
        return size

    def _define(self, digest: bytes, definition: bytes, value: Callable[[bytes], Held | None]) -> int:
        """Send a definition, and say where the values are that its jobs need.

        What is not there any more, be it the definition or a value, was of a job that nobody waits for: it is
        looked for again when the next one comes.
        """
        number = next(self._numbers)
        needs = needs_of(definition)
        if self._offer(needs, value) and definition:
            self._definitions[digest] = number
            if needs:
                self._needs[digest] = needs
        self.outbox.put(pack_frame(protocol.DEFINE, number, [definition]))
        return number

    def _offer(self, needs: list[bytes], value: Callable[[bytes], Held | None]) -> bool:
        """Say where values are that the slave was not told of; return whether all are there."""
        found = {need: held for need in needs if need not in self._values and (held := value(need)) is not None}
        if found:
            self._values.update(found)
            told = json.dumps({need.hex(): held.place for need, held in found.items()}).encode()
            self.outbox.put(pack_frame(protocol.VALUES, 0, [told]))
        return all(need in self._values for need in needs)

    def unshare(self, digests: Collection[bytes]) -> None:
        """Have the slave let go of shared values, and of the definitions of jobs that need them."""
        needy = [definition for definition, needs in self._needs.items() if not set(needs).isdisjoint(digests)]
        numbers = [self._definitions.pop(definition) for definition in needy]
        for definition in needy:
            del self._needs[definition]
        known = [digest for digest in digests if self._values.pop(digest, None) is not None]
        if known or numbers:
            told = json.dumps([[digest.hex() for digest in known], numbers]).encode()
            self.outbox.put(pack_frame(protocol.UNSHARE, 0, [told]))

    def recall(self, worth: int = 1) -> Recalled:
        """Take back all tasks that the slave has not started.

        Also what it has not started of the bundle that it runs, if it is `worth` it: at least so many jobs.
        """
        tokens = b""
        with contextlib.suppress(BlockingIOError):
            while taken := os.read(self._token_out, 1 << 16):
                tokens += taken
        was_cut = tokens.startswith(protocol.CUT)  # the slave has not come to it yet
        left = len(tokens) // protocol.TOKEN_BYTES - was_cut
        tasks = []
        while left and self.queue and left >= self.queue[-1].terms.jobs:
            task = self.queue.pop()
            left -= task.terms.jobs
            tasks.append(task)
        tasks.reverse()
        self._epoch += 1
        bundle = self.queue[-1] if left and self.queue else None
        cut = was_cut or left >= worth
        if was_cut or bundle is not None:
            # The slave is in the midst of a bundle, and waits for these tokens, or for what stands in their place.
            with contextlib.suppress(OSError):  # it died
                os.write(self._token_in, protocol.CUT if cut else tokens[: left * protocol.TOKEN_BYTES])
        if bundle is None or cut:
            self._begun = self.jobs = len(self.queue)
        else:
            self._begun = len(self.queue) - 1
            self.jobs = self._begun + bundle.terms.jobs
        if bundle is None or not cut:
            return Recalled(tasks, None)
        self.cut = bundle, bundle.terms.jobs - left
        return Recalled(tasks, self.cut)

    def tell(self, message: bytes) -> None:
        """Send the running job a message, about its children."""
        self.outbox.put(pack_frame(protocol.NEWS, 0, [message]))

    def receive(self) -> Iterator[Outcomes | Part | Printed | Heard | Lent]:
        """Yield what came: outcomes, in the order of the queue, and what jobs printed or said of their children.

        A slave that does not speak as slaves do, since a job has written to its connection, is killed.
        """
        if self.garbled:
            return
        try:
            for frame in self._frames():  # one by one: those before what cannot be read count
                yield from self._events(frame)
                if self.garbled:
                    return
        except _GARBLED as error:
            self.distrust(error)

    def distrust(self, reason: object) -> None:
        """Kill a slave that does not speak as slaves do, for a reason to be told; nothing more of it is listened to."""
        if not self.garbled:
            self.garbled = True
            log.warning("slave %s says what no slave says (%s), so it is killed", self.name, reason)
            self.kill()

    def _events(self, frame: Frame) -> Iterator[Outcomes | Part | Printed | Heard | Lent]:
        if frame.kind == protocol.READY:
            self.ready = True
            self.name = bytes(frame.body).decode()
            self._memory_before = frame.number << 20
        elif frame.kind == protocol.OUTCOMES:
            yield self._outcomes(frame)
        elif frame.kind == protocol.PART and (task := self._find(frame.number)) is not None:
            check_told(frame.body, task.terms.jobs, over=False)
            yield Part(task, bytes(frame.body))
        elif frame.kind == protocol.PRINTED and (task := self._find(frame.number)) is not None:
            text = bytes(frame.body[1:]).decode(errors="replace")
            if frame.body[:1] == protocol.ON_STDERR:
                self._lines.extend(line[-TOLD_CHARACTERS:] for line in text.splitlines())
            yield Printed(task, text)
        elif frame.kind == protocol.FAMILY and (task := self._find(frame.number)) is not None:
            yield Heard(task, frame.body)
        elif frame.kind == protocol.RETIRES:
            self.retired = bytes(frame.body).decode(errors="replace")
        elif frame.kind == protocol.LENT:
            self.lent = bool(frame.number)
            yield Lent(self.lent)

    def _outcomes(self, frame: Frame) -> Outcomes:
        start = protocol.ORDINAL.size
        after = start + 8 * frame.number
        seconds = seconds_column(frame.body[start:after])
        encoded = split_column(frame.body, frame.number, after)
        self._check_order(frame)
        if len(frame.body) > protocol.OUTCOME_BYTES and max(map(len, encoded)) > protocol.OUTCOME_BYTES:
            raise ValueError("an outcome that is too large for any message")
        bundled = [task.terms.jobs for task in self.queue] if self._begun or self.jobs > len(self.queue) else []
        for jobs, told in zip(bundled or itertools.repeat(1), encoded, strict=False):
            if jobs > 1:
                check_told(told, jobs, over=True)
            elif is_of_bundle(told):
                raise ValueError("what is told of bundles only came of a single job")
        tasks = [self.queue.popleft() for _ in encoded]
        self._received += frame.number
        if self.cut is not None and any(task is self.cut[0] for task in tasks):
            self.cut = None
        begun = min(self._begun, frame.number)
        self._begun -= begun
        self.jobs -= begun + jobs_in(tasks[begun:])
        return Outcomes(tasks, encoded, seconds)

    def _check_order(self, frame: Frame) -> None:
        """Refuse outcomes that are not of the tasks whose turn it is: those after them would be taken for others'.

        Raises:
            ValueError: that is so.
        """
        first = protocol.ORDINAL.unpack_from(frame.body)[0]
        started = self._slate.started
        if first != (self._received + 1) % protocol.ORDINALS:
            raise ValueError(f"outcomes from task {first} on after those of {self._received}")
        begun = min(started - self._received, len(self.queue))
        if not 0 < frame.number <= max(begun, len(self.taken()) if frame.number > begun else 0):
            raise ValueError(f"{frame.number} outcomes for {len(self.queue)} tasks, and {started} were started in all")

    def _find(self, ordinal: int) -> Task | None:
        """Return the task that the slave started as its so manieth one."""
        position = ordinal - self._received % protocol.ORDINALS - 1
        return self.queue[position] if 0 <= position < len(self.queue) else None

    def _frames(self) -> Iterator[Frame]:
        while True:
            try:
                frames = self._reader.read()
            except BlockingIOError:
                return
            except (EOFError, OSError):
                if not (self.dismissed or self._death.wait(DEATH_SECONDS)):
                    # A job has closed it, or put another program in the place of this one, which is nobody's slave.
                    self.distrust("its connection is closed")
                return
            yield from frames
            if self._reader.drained:
                return

    # The end ----------------------------------------------------------------------------

    def running(self) -> tuple[Task, float] | None:
        """Return the task that the slave runs, or ran when it died, and since when; or None."""
        started = self._slate.started
        position = started - self._received - 1
        if started == self._slate.finished or not 0 <= position < len(self.queue):
            return None
        now, since = time.monotonic(), self._slate.moment
        if not since <= now:  # a job has put another clock in place of the real one: it is since it was seen first
            if self._seen[0] != started:
                self._seen = started, now
            since = self._seen[1]
        return self.queue[position], since

    def check_slate(self) -> None:
        """Kill the slave if what is on its slate cannot be true: a job has written there."""
        finished = self._slate.finished  # first: in this moment, the slave may begin with another one
        started = self._slate.started
        if not self._received <= finished <= started <= self._received + len(self.queue):
            self.spoilt = True
            self.distrust(f"it has ended {finished} tasks, begun {started} and told of {self._received}")

    def position(self) -> int:
        """Return the position of the job that the slave runs, or ran when it died, in its bundle."""
        return self._slate.position

    def ended(self) -> int:
        """Return how many tasks the slave has ended whose outcomes have not come."""
        # Never more than it has, whatever a job that writes all over has made of its slate.
        return min(max(0, self._slate.finished - self._received), len(self.queue))

    def left(self) -> tuple[int, int]:
        """Return how many tasks the slave has that have not ended, and how many jobs they are."""
        ended = self.ended()
        begun = min(self._begun, ended)
        return len(self.queue) - ended, self.jobs - begun - jobs_in(list(itertools.islice(self.queue, begun, ended)))

    def started(self) -> list[Task]:
        """Return the tasks that the slave has started, and whose outcomes have not come."""
        started = self._slate.started - self._received
        return [self.queue[position] for position in range(min(started, len(self.queue)))]

    def taken(self) -> list[Task]:
        """Return the tasks of which the slave has taken tokens: whatever its slate says, it has started no others."""
        queue = list(self.queue)
        unread = array("i", [0])
        fcntl.ioctl(self._token_out, termios.FIONREAD, unread)
        left = unread[0] // protocol.TOKEN_BYTES
        while queue and queue[-1].terms.jobs <= left:
            left -= queue.pop().terms.jobs
        return queue

    def is_deaf(self) -> bool:
        """Look whether it goes on with what it was sent; return whether it did not for so many looks in a row.

        By looks and not by time, since whoever looks may have been stopped as well, as with a machine that sleeps.
        """
        started, finished, unsent = self._slate.started, self._slate.finished, self.outbox.size()
        waits = bool(self.queue) and started == finished
        self._deaf_looks = self._deaf_looks + 1 if waits and (started, finished, unsent) == self._progress else 0
        self._progress = started, finished, unsent
        self.deaf = self._deaf_looks >= DEAF_LOOKS
        return self.deaf

    def kill(self) -> None:
        """Kill the slave, whatever it does; that it died is noticed as with every death."""
        signal_group(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Tell the slave to go: an idle one ends by itself, a busy one is stopped."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self.running() is not None:
            signal_group(self.pid, signal.SIGTERM)

    def wait(self, timeout: float) -> None:
        """Wait until the process has ended, or the time is up."""
        self._death.wait(timeout)

    def bury(self) -> Death:
        """End the process, if it lives, and what it started; let go of everything."""
        self.gone = True
        signal_group(self.pid, signal.SIGKILL)  # before it is reaped, so that the number is still its own
        self._death.wait(REAP_SECONDS)
        code, peak = reap(self._popen)
        with contextlib.suppress(OSError):  # out of file descriptors, say: the sweeper has another look
            sweep(self._mark)
        self._values.clear()
        for stream in self._streams:
            stream.close()
        self._sock.close()
        self._death.close()
        os.close(self._token_in)
        os.close(self._token_out)
        self._slate.close()
        killed_for_memory = code == -signal.SIGKILL and oom_kills() > self._oom_kills
        memory = tell_memory(peak, self._memory_before, killed_for_memory) if code is not None else ""
        return Death(self.name, cause_of(code), tuple(self._lines), memory)


def _flags(terms: list[Terms], careful: bool) -> bytes:
    if terms.count(terms[0]) == len(terms):  # nearly always, and told with the least effort
        return bytes([_flag(terms[0], careful)]) * len(terms)
    return bytes(_flag(each, careful) for each in terms)


def _flag(terms: Terms, careful: bool) -> int:
    told_at_once = protocol.ONCE * (careful or terms.once)
    bundle = protocol.BUNDLE * (terms.jobs > 1)
    return protocol.ECHO * terms.echo | told_at_once | protocol.TIMED * (terms.timeout is not None) | bundle


def jobs_in(tasks: Sequence[Task]) -> int:
    """Return how many jobs these tasks are."""
    terms = [task.terms for task in tasks]
    if terms and terms.count(terms[0]) == len(terms):
        return len(terms) * terms[0].jobs  # nearly always, and counted with the least effort
    return sum([each.jobs for each in terms])


def _parted(blobs: list[Buffer | Parts]) -> Iterator[tuple[int, int]]:
    """Part a batch, so that a slave can begin with what is large as soon as that is there."""
    start = size = 0
    for end, blob in enumerate(blobs, 1):
        size += len(blob)
        if size >= PART_BYTES or end == len(blobs):
            yield start, end
            start, size = end, 0


def _memory_file() -> IO[bytes]:
    """Return a file in memory; where the system has none, one that is gone from its folder at once."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("papyros-slate", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _fix_size(file: IO[bytes]) -> None:
    """Let nobody change the size of a file in memory, where the system can see to that.

    Who reads what a job has cut off is killed by the system, and that would be the crew.
    """
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
