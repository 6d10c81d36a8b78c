"""One slave process, as its crew sees it: how to start it, talk to it, and learn why it died.

What depends on the operating system is in here, but for the pipe of tokens and the slate (`papyros.progress`).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import math
import mmap
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from array import array
from builtins import memoryview  # noqa: A004 - a NamedTuple that is compiled looks for it here
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from papyros import protocol
from papyros.briefing import Briefing
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
from papyros.progress import Progress
from papyros.screen import Screen
from papyros.slate import SLATE_BYTES, Slate
from papyros.slave import PROGRAM
from papyros.store import Held
from papyros.streams import TOLD_CHARACTERS, SlaveStream
from papyros.sweeping import MARK, sweep
from papyros.terms import Terms

if TYPE_CHECKING:
    from papyros.tasks import CrewOptions, Task

__all__ = ["Heard", "Lent", "Outcomes", "Part", "Printed", "SlaveProcess"]

log = logger_of(__name__)

LAST_LINES = 20

#: So many bytes may be on their way between a slave and its crew, where the system allows it: the fewer times a large
#: payload keeps one side waiting for the other, the better.
SEND_BYTES = 1 << 20

#: One slave is listened to for so long at a time, in seconds: others are to be fed, and looked after, meanwhile.
TURN_SECONDS = 0.01

#: Jobs of more bytes than this are sent in several frames.
PART_BYTES = 1 << 19

#: No frame of a slave has more bytes, but for those of a job: there is one large outcome in it, beside small ones.
MOST_BYTES = protocol.OUTCOME_BYTES + (64 << 20)

#: No slave has a longer name, in bytes: a host's takes up to 255 of them.
NAME_BYTES = 300

#: What reading a connection raises to which a job has written.
_GARBLED = (ValueError, IndexError, OverflowError)

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
        progress: what it was sent and has not answered yet, and how far it is with that.
        queue: the tasks among that, in order.
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
        deaf: whether it has gone on with nothing for too long.
        gone: whether it is dead and buried.
    """

    def __init__(self, options: CrewOptions, screen: Screen, crew: str = "") -> None:
        self.lent = self.dismissed = self.garbled = self.deaf = False
        self.retired = self._distrusted = ""
        self.idle_since: float | None = None
        self.check_at: float | None = None
        self.look_at: float | None = None
        self.sentence: tuple[Task, str] | None = None
        self.unwanted: set[Any] = set()
        self.ready = self.watched_outbox = False
        self.gone = False
        self._memory_before = 0
        self._mark = f"{crew}.{uuid.uuid4().hex}"
        self._oom_kills = oom_kills()
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._greet(options, screen)
            undo.pop_all()

    def _greet(self, options: CrewOptions, screen: Screen) -> None:
        """Tell the process what to know first, and make what it takes to listen to it."""
        self.queue = self.progress.queue
        self._reader = FrameReader(self._sock, protocol.FROM_SLAVE, MOST_BYTES)
        self.outbox = Outbox(self._sock)
        self._briefing = Briefing(self.outbox)
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
        # It is to wait for what comes, whatever the program has made of `socket.setdefaulttimeout`.
        os.set_blocking(theirs.fileno(), True)  # gevent's sockets would not
        for sock in (self._sock, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._sock.setblocking(False)
        with theirs, _memory_file() as memory:
            token_out, token_in = os.pipe()
            for token in (token_out, token_in):
                undo.callback(os.close, token)
                os.set_blocking(token, False)
            memory.truncate(SLATE_BYTES)
            _fix_size(memory)
            slate = Slate(mmap.mmap(memory.fileno(), SLATE_BYTES))
            undo.callback(slate.close)
            self.progress = Progress(slate, token_in, token_out)
            fds = (theirs.fileno(), token_out, memory.fileno())
            self._popen = subprocess.Popen(
                python_command("-c", PROGRAM, *map(str, fds), str(os.getpid()), protocol.spoken()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                env=slave_environment() | {MARK: self._mark},
                start_new_session=True,  # Ctrl-C reaches the crew only; and what a job starts can be ended with it
            )
        undo.callback(abandon, self._popen)
        self._death = DeathWatch(self._popen)
        undo.callback(self._death.close)

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
        progress = self.progress
        ordinal, jobs = progress.add(tasks)  # before all else: who is interrupted in what follows can tell by that
        numbers = self._briefing.define([task.definition for task in tasks], definition, value)
        flags = _flags([task.terms for task in tasks], careful)
        # Tokens first: a slave that has a job and finds no token knows that the job was taken back.
        progress.allow(jobs)
        epoch = progress.epoch
        blobs = [task.blob for task in tasks]
        size = sum(map(len, blobs))
        for start, end in [(0, len(blobs))] if size < PART_BYTES else _parted(blobs):
            part = blobs[start:end]
            first = protocol.ORDINAL.pack((ordinal + start) % protocol.ORDINALS)
            columns = (epoch, first, numbers[start:end].tobytes(), flags[start:end], *join_column(part))
            self.outbox.put(pack_frame(protocol.JOBS, len(part), columns))
        return size

    def unshare(self, digests: Collection[bytes]) -> None:
        """Have the slave let go of shared values, and of the definitions of jobs that need them."""
        self._briefing.unshare(digests)

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
        except MemoryError:
            self.distrust("there is no memory here for what it sends")
        except _GARBLED as error:
            self.distrust(error)

    def distrust(self, reason: object) -> None:
        """Kill a slave that does not speak as slaves do, for a reason to be told; nothing more of it is listened to.

        The reason may have come from a job, and is told with a death: of a long one, the beginning is.
        """
        if not self.garbled:
            self.garbled = True
            reason = str(reason)[:TOLD_CHARACTERS]
            self._distrusted = f", since it says what no slave says ({reason})"
            log.warning("slave %s says what no slave says (%s), so it is killed", self.name, reason)
            self.kill()

    def _events(self, frame: Frame) -> Iterator[Outcomes | Part | Printed | Heard | Lent]:
        if frame.kind == protocol.READY:
            self._note_ready(frame)
        elif frame.kind == protocol.OUTCOMES:
            yield self._outcomes(frame)
        elif frame.kind == protocol.PART and (task := self.progress.find(frame.number)) is not None:
            if len(frame.body) > protocol.OUTCOME_BYTES:
                raise ValueError("a part of what is told of a bundle that is too large for any message")
            check_told(frame.body, task.terms.jobs, over=False)
            yield Part(task, bytes(frame.body))
        elif frame.kind == protocol.PRINTED and (task := self.progress.find(frame.number)) is not None:
            text = bytes(frame.body[1:]).decode(errors="replace")
            if frame.body[:1] == protocol.ON_STDERR:
                self._lines.extend(line[-TOLD_CHARACTERS:] for line in text.splitlines())
            yield Printed(task, text)
        elif frame.kind == protocol.FAMILY and (task := self.progress.find(frame.number)) is not None:
            yield Heard(task, frame.body)
        elif frame.kind == protocol.RETIRES:
            self.retired = bytes(frame.body).decode(errors="replace")
        elif frame.kind == protocol.LENT:
            self.lent = bool(frame.number)
            yield Lent(self.lent)

    def _note_ready(self, frame: Frame) -> None:
        # It says so before any job runs; and each outcome is told with that name.
        if self.ready or len(frame.body) > NAME_BYTES:
            raise ValueError("a slave that says again, or at great length, who it is")
        self.ready = True
        self.name = bytes(frame.body).decode()
        self._memory_before = frame.number << 20

    def _outcomes(self, frame: Frame) -> Outcomes:
        start = protocol.ORDINAL.size
        after = start + 8 * frame.number
        seconds = seconds_column(frame.body[start:after])
        encoded = split_column(frame.body, frame.number, after)
        self.progress.check_outcomes(protocol.ORDINAL.unpack_from(frame.body)[0], frame.number)
        if len(frame.body) > protocol.OUTCOME_BYTES and max(map(len, encoded)) > protocol.OUTCOME_BYTES:
            raise ValueError("an outcome that is too large for any message")
        for jobs, told in zip(self.progress.bundled() or itertools.repeat(1), encoded, strict=False):
            if jobs > 1:
                check_told(told, jobs, over=True)
            elif is_of_bundle(told):
                raise ValueError("what is told of bundles only came of a single job")
        return Outcomes(self.progress.end(frame.number), encoded, seconds)

    def _frames(self) -> Iterator[Frame]:
        until = 0.0
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
            if not until:  # of one that is dead, all is read that is there
                until = math.inf if self._death.wait(0.0) else time.monotonic() + TURN_SECONDS
            elif time.monotonic() > until and not self._reader.garbled:
                return  # the selector will say again that there is more

    # The end ----------------------------------------------------------------------------

    def check_slate(self) -> None:
        """Kill the slave if what is on its slate cannot be true: a job has written there."""
        try:
            self.progress.check_slate()
        except ValueError as error:
            self.distrust(error)

    def is_deaf(self) -> bool:
        """Look whether it goes on with what it was sent; return whether it did not for so many looks in a row."""
        self.deaf = self.progress.stands_still(self.outbox.size())
        return self.deaf

    def kill(self) -> None:
        """Kill the slave, whatever it does; that it died is noticed as with every death."""
        signal_group(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Tell the slave to go: an idle one ends by itself, a busy one is stopped."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self.progress.running() is not None:
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
        self._briefing.let_go()
        for stream in self._streams:
            stream.close()
        self._sock.close()
        self._death.close()
        self.progress.close()
        killed_for_memory = code == -signal.SIGKILL and oom_kills() > self._oom_kills
        memory = tell_memory(peak, self._memory_before, killed_for_memory) if code is not None else ""
        return Death(self.name, f"{cause_of(code)}{self._distrusted}", tuple(self._lines), memory)


def _flags(terms: list[Terms], careful: bool) -> bytes:
    if terms.count(terms[0]) == len(terms):  # nearly always, and told with the least effort
        return bytes([_flag(terms[0], careful)]) * len(terms)
    return bytes(_flag(each, careful) for each in terms)


def _flag(terms: Terms, careful: bool) -> int:
    told_at_once = protocol.ONCE * (careful or terms.once)
    bundle = protocol.BUNDLE * (terms.jobs > 1)
    return protocol.ECHO * terms.echo | told_at_once | protocol.TIMED * (terms.timeout is not None) | bundle


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
