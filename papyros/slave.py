"""What a slave process does: a fresh interpreter, started by a crew with `PROGRAM`.

It takes jobs off its connection, runs them one after the other, and has `papyros.telling` send back what becomes of
them. What it and its crew say to each other, and by which means, is told in `papyros.protocol`. What a job says of its
children goes the same way, and what the crew has to say of them is read while the job runs only if it has any; whatever
else comes by then is kept for later.

A crew that has taken back some of the bundle that runs puts its tokens in place again, or `CUT` instead: so a slave in
the midst of a bundle may wait for the one or the other.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import mmap
import multiprocessing.process
import os
import select
import signal
import socket
import sys
import threading
from array import array
from collections import deque
from functools import partial
from itertools import repeat
from time import monotonic, sleep  # themselves: a job may put others in their place
from typing import Any, Final, NoReturn

from papyros.bundles import blobs_of
from papyros.current import FamilyMaster, Place
from papyros.echo import Echo
from papyros.encoded import asks_for_retry, encode_outcome, encode_refusal, outcome_in_parts
from papyros.errors import NoCurrentMasterError, PayloadError
from papyros.frames import Buffer, Frame, FrameReader, Parts, split_column
from papyros.jobclasses import JobClasses
from papyros.outcome import Outcome
from papyros.protocol import (
    BUNDLE,
    DEFINE,
    ECHO,
    FAMILY,
    HELLO,
    JOBS,
    LENT,
    NEWS,
    ON_STDERR,
    ON_STDOUT,
    ONCE,
    ORDINAL,
    ORDINALS,
    PRINTED,
    READY,
    RETIRES,
    TIMED,
    TOKEN_BYTES,
    UNSHARE,
    VALUES,
    spoken,
)
from papyros.running import leave_fork, run_job
from papyros.shares import LONG_SECONDS
from papyros.slate import SLATE_BYTES, Slate
from papyros.sources import OtherModuleError
from papyros.tasks import Silent
from papyros.telling import Teller
from papyros.wire import Packer, build_job

__all__ = ["PROGRAM", "Slave"]

#: What a slave's interpreter is started with. With ``-m`` this module would be run twice, and `runpy` imported. Nothing
#: that is loaded here becomes garbage, so the collector does not look for some meanwhile.
PROGRAM = (
    "import gc, sys; collects = gc.isenabled(); gc.disable(); "
    "from papyros.slave import main; main(sys.argv[1:], collects)"
)

#: When no more than half of the jobs are left that a slave had, which take less than so long, outcomes are sent, so
#: that more jobs come in time.
LEFT_SECONDS: Final = 0.05

#: Nobody has the tokens of a slave in its hands for longer than this, but who keeps them.
TOKEN_SECONDS: Final = 10.0

#: Of what is printed at a time, so much is sent: the end.
PRINT_CHARACTERS = 1 << 20

#: A slave whose crew is gone ends its job after so long.
ORPHAN_SECONDS = 0.5

#: ... and the process of one that had nothing to do ends within so long.
LEAVE_SECONDS = 5.0


class Slave:
    """Takes jobs from a socket, runs them one at a time, and sends the outcomes back.

    Args:
        sock: the stream to and from the crew.
        tokens: the file descriptor of the pipe of tokens; reads from it do not block.
        slate: where it notes what it does.
    """

    def __init__(self, sock: socket.socket, tokens: int, slate: Slate) -> None:
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._sock = sock
        self._reader = FrameReader(sock)
        self._teller = Teller(sock)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._tokens = tokens
        self._token_poll = select.poll()
        self._token_poll.register(tokens, select.POLLIN)
        self._slate = slate
        self.max_bytes = 0
        #: Packs the children of jobs.
        self.packer = Packer()
        #: How jobs get a master for their children: what the crew has to say of that; None = they get none.
        self.family: dict[str, Any] | None = None
        self._place = Place(self._open_family)
        self._families = 0
        self._news: deque[memoryview] = deque()
        self._classes = JobClasses()
        self._queue: deque[tuple[bytes, int, int, int, Buffer]] = deque()  # epoch, ordinal, definition, flags, blob
        self._tokens_gone = False  # tokens are gone that the crew has not taken back
        self.echo = False
        #: What jobs print to.
        self.streams: tuple[Any, Any] = sys.stdout, sys.stderr
        self._started = 0
        self._quick: set[int] = set()  # the definitions of jobs of which the last one was quick
        self._few = 0  # once so few jobs are here, it is time to ask for more
        self._idle = False
        self._forked = False  # this is a process that a job has forked

    def serve(self) -> None:
        """Work until the crew closes the connection."""
        threading.Thread(target=self._watch_crew, name="papyros-watch", daemon=True).start()
        threading.Thread(target=self._teller.serve_as_guard, name="papyros-guard", daemon=True).start()
        os.register_at_fork(after_in_child=self._let_go_in_fork)
        self._place.enter()
        try:
            while True:
                epoch, definition, flags, blob = self._next_job()
                if (echo := bool(flags & ECHO)) != self.echo:
                    self._end_prints()  # of jobs before it, which go elsewhere
                    self.echo = echo
                if self._teller.waits and self._may_hold_up(definition, flags):
                    self._flush()  # what has ended must not wait for this one, nor be lost when it is stopped
                at_once = self._run_bundle(epoch, definition, blob) if flags & BUNDLE else self._run(definition, blob)
                if at_once or flags & ONCE:
                    self._flush()  # what has become of it must not die with the job after it
        except OtherModuleError as error:
            self._slate.leave(self._started)
            self._started -= 1
            self._retire(str(error))
        except (EOFError, OSError):
            return  # the crew is gone, or has no more use for this slave

    def _retire(self, reason: str) -> NoReturn:
        """Leave all jobs that were not started to a fresh slave, for a reason to be told."""
        try:
            self._flush()
            self._teller.send(RETIRES, 0, reason.encode(errors="replace"))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)  # without waiting for threads that jobs have left

    # Jobs in ----------------------------------------------------------------------------

    def _next_job(self) -> tuple[bytes, int, int, Buffer]:
        """Wait for a job that this slave may start."""
        while True:
            if self._tokens_gone:
                self._retire("a job has read what was meant for its slave")
            while not self._queue:
                self._receive()
            try:
                epoch = os.read(self._tokens, TOKEN_BYTES)
            except BlockingIOError:
                self._queue.clear()  # all that is here was taken back
                continue
            if not epoch:
                raise EOFError("the pipe of tokens was closed")
            while not self._queue or self._queue[0][0] != epoch:
                if self._queue:
                    self._queue.popleft()  # of an earlier epoch: taken back
                else:
                    self._receive()  # its token came first; the job itself is on its way
            _, ordinal, definition, flags, blob = self._queue.popleft()
            if ordinal == (self._started + 1) % ORDINALS:
                return epoch, definition, flags, blob
            self._tokens_gone = True  # those before it were taken for taken back

    def _receive(self) -> None:
        self._flush()
        self.packer.forget_dropped()  # what jobs have shared with their children
        self._idle = True
        frames = self._reader.read()
        self._idle = False
        self._sort(frames)
        self._news.clear()  # of families of jobs that have ended

    def _sort(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == JOBS:
                self._enqueue(frame)
            elif frame.kind == DEFINE:
                self._classes.define(frame.number, bytes(frame.body))
            elif frame.kind == NEWS:
                self._news.append(frame.body)
            elif frame.kind == VALUES:
                for digest, place in json.loads(bytes(frame.body)).items():
                    self._classes.offer(bytes.fromhex(digest), place)
            elif frame.kind == UNSHARE:
                self._unshare(*json.loads(bytes(frame.body)))
            elif frame.kind == HELLO:
                self._greet(frame)

    def _enqueue(self, frame: Frame) -> None:
        count, body = frame.number, frame.body
        epoch = bytes(body[:TOKEN_BYTES])
        first = ORDINAL.unpack_from(body, TOKEN_BYTES)[0]
        definitions = array("I")
        start = TOKEN_BYTES + ORDINAL.size
        after = start + 4 * count
        definitions.frombytes(body[start:after])
        flags = body[after : after + count]
        blobs = split_column(body, count, after + count)
        ordinals = [ordinal % ORDINALS for ordinal in range(first, first + count)]
        self._queue.extend(zip(repeat(epoch, count), ordinals, definitions, flags, blobs, strict=True))
        self._few = len(self._queue) // 2

    def print(self, stream: bytes, text: str) -> bool:
        """Send what the running job prints to its client; return False if nobody there wants it."""
        if not self.echo:
            return False
        body = stream + text[-PRINT_CHARACTERS:].encode(errors="replace")
        self._teller.send(PRINTED, self._started % ORDINALS, body)
        return True

    def _greet(self, frame: Frame) -> None:
        hello = json.loads(bytes(frame.body))
        self.max_bytes = hello["max_bytes"]
        family = hello.pop("family")
        self.family = None if family is None else Silent(family)
        self.packer = Packer(self.max_bytes)
        sys.path[:] = hello["path"]
        if authkey := hello.pop("secrets").get("authkey"):
            multiprocessing.process.current_process().authkey = bytes.fromhex(authkey)
        self._teller.send(READY, peak_memory() >> 20, self.name.encode())

    # Running ----------------------------------------------------------------------------

    def _run(self, definition: int, blob: Buffer) -> bool:
        """Run a job; return whether it is to be tried again, if it has retries left."""
        self._started += 1
        started = monotonic()
        self._slate.start(self._started, started)
        encoded = self._outcome_of(definition, blob)
        if self._forked:
            os._exit(1)  # loading or packing something has forked it
        finished = monotonic()
        self._note_end(definition, encoded, finished - started, finished)
        return not isinstance(encoded, Parts) and asks_for_retry(encoded)

    def _note_end(self, definition: int, encoded: Buffer | Parts, seconds: float, finished: float) -> None:
        """Take note of what has become of a task, and send it now or later."""
        self._slate.finish(self._started, finished)
        if seconds >= LONG_SECONDS:
            self._quick.discard(definition)
        elif definition not in self._quick:
            self._quick.add(definition)
        self._teller.add(encoded, seconds, finished)
        # What is large may be memory of the job's own, to which the next one may write.
        if isinstance(encoded, Parts) or self._is_time_to_tell(finished, seconds):
            self._flush()
        elif self._queue:
            self._teller.guard()  # without a next job, what there is will be sent at once
        self._teller.let_guard_look(finished)

    def _run_bundle(self, epoch: bytes, definition: int, bundle: Buffer) -> bool:
        """Run the jobs of a bundle, until the crew takes the rest of them back; return whether it has."""
        self._started += 1
        spent = 0.0
        self._teller.begin_bundle(self._started)
        cut = False
        for position, blob in enumerate(blobs_of(bundle)):
            if position and (cut := not self._may_go_on(epoch)):
                break
            started = monotonic()
            self._slate.start(self._started, started, position)
            encoded = self._outcome_of(definition, blob)
            if self._forked:
                os._exit(1)  # as in `_run`
            finished = monotonic()
            seconds = finished - started
            spent += seconds
            self._teller.add_to_bundle(encoded, seconds, finished)
        self._note_end(definition, self._teller.end_bundle(), spent, finished)
        return cut

    def _may_go_on(self, epoch: bytes) -> bool:
        """Take the token of the next job of the bundle that runs; return False if the rest was taken back."""
        while True:
            try:
                token = os.read(self._tokens, TOKEN_BYTES)
            except BlockingIOError:
                # In this moment, the crew has them in its hands; or somebody else has, for good.
                if self._token_poll.poll(TOKEN_SECONDS * 1000):
                    continue
                self._tokens_gone = True
                return False
            if not token:
                raise EOFError("the pipe of tokens was closed")
            return token == epoch

    def _may_hold_up(self, definition: int, flags: int) -> bool:
        """Return whether a job is not known to be quick, or may be stopped when its time is up."""
        if definition not in self._quick:
            return True
        return bool(flags & TIMED) and not self._teller.is_early(monotonic())

    def _is_time_to_tell(self, now: float, seconds: float) -> bool:
        """Return whether outcomes should be sent, the last of which has just come, of a task that took so long."""
        if self._teller.is_early(now):
            return False
        if self._teller.is_late(now + seconds):
            return True
        if self._few_are_left(seconds) and self._poll.poll(0):
            self._sort(self._reader.read())
        return self._few_are_left(seconds)

    def _few_are_left(self, seconds: float) -> bool:
        """Return whether it is time to ask for more tasks, if each takes so many seconds."""
        left = len(self._queue)
        return left <= self._few and left * seconds < LEFT_SECONDS

    def _outcome_of(self, definition: int, blob: Buffer) -> bytes | Parts:
        """Build a job, run it, and return what has become of it, encoded."""
        try:
            job_class = self._classes.find(definition, self.packer)
            job = build_job(job_class, blob, self._classes.values_for(definition))
        except OtherModuleError:
            raise
        except PayloadError as error:
            return encode_refusal(error)
        except BaseException as error:  # noqa: BLE001 - loading may run code of the user's that raises anything
            return encode_outcome(Outcome.failed(error), None)
        sys.stdout, sys.stderr = self.streams  # the job before may have put others there, and left them
        outcome = run_job(job, self.name)
        if self._forked:
            leave_fork(outcome)
        self._place.end_job()
        if self.echo:
            self._end_prints()
        encoded = outcome_in_parts(outcome, job, self.max_bytes)
        if outcome.exception is not None:
            # A job may raise the same object that one before it did: the frames of all of them would pile up.
            BaseException.with_traceback(outcome.exception, None)
        return encoded

    def _end_prints(self) -> None:
        """Send what is kept of a line that has no end, to where its beginning went, or would have gone."""
        for stream in self.streams:
            with contextlib.suppress(Exception):  # the job has closed what is under it, or has done what else it liked
                stream.end_job()

    def _unshare(self, digests: list[str], definitions: list[int]) -> None:
        self._classes.forget(map(bytes.fromhex, digests), definitions)
        self._quick.difference_update(definitions)

    # Children of the job that runs ------------------------------------------------------

    def _open_family(self) -> FamilyMaster:
        if self.family is None:
            raise NoCurrentMasterError("the master that runs this job gives it none for jobs of its own")
        module = importlib.import_module(self.family["module"])
        self._families += 1
        family: FamilyMaster = module.open_family(self, self._families)
        return family

    def say(self, message: bytes) -> None:
        """Send what the running job has to say of its children."""
        self._teller.send(FAMILY, self._started % ORDINALS, message)

    def lend(self, lent: bool) -> None:
        """Lend the place of this slave to another one; or take it back."""
        self._teller.send(LENT, int(lent), b"")

    def hear(self, stop: int | None = None) -> memoryview | None:
        """Wait for news of the running job's children; None when the file descriptor `stop` can be read first.

        Only one thread may be in here at a time, and only while a job runs.

        Raises:
            EOFError, OSError: the crew is gone.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if stop is not None:
            poll.register(stop, select.POLLIN)
        while not self._news:
            if any(fd == stop for fd, _ in poll.poll()):
                return None
            self._sort(self._reader.read())
        return self._news.popleft()

    def _flush(self) -> None:
        """Send the outcomes that wait; half of what is here now is few, once it is left."""
        self._few = len(self._queue) // 2
        self._teller.flush()

    # The end ----------------------------------------------------------------------------

    def _let_go_in_fork(self) -> None:
        """In a process that a job has forked: be no second slave on the same connection."""
        self._forked = True
        self.echo = False  # it prints as any process does
        self._teller.let_go_in_fork()
        self._sock.close()  # this end of it only

    def _watch_crew(self) -> None:
        """End this process soon after its crew is gone, whatever a job is doing."""
        poll = select.poll()
        poll.register(self._sock, getattr(select, "POLLRDHUP", 0))
        poll.poll()
        deadline = monotonic() + ORPHAN_SECONDS
        while monotonic() < deadline and not self._idle:
            sleep(0.01)
        if self._idle:
            sleep(LEAVE_SECONDS)  # it ends by itself, unless a job has left something that keeps it
        os._exit(1)


def peak_memory() -> int:
    """Return how many bytes of memory this process has used at most; on Linux, its parent's are counted in."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _die_with_parent() -> None:
    """Have the kernel end this process when the thread that started it ends (Linux only)."""
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main(arguments: list[str], collects: bool) -> None:
    """Serve the crew whose file descriptors, whose process's number, and whose Papyros the arguments name.

    The collector of garbage `collects` while jobs run, unless a program's own start of Python has switched it off.
    """
    gc.freeze()  # what is here stays: neither is it to be looked through again and again while jobs run
    if collects:
        gc.enable()
    socket_fd, tokens, slate_fd, parent = map(int, arguments[:4])
    if arguments[4:] != [spoken()]:
        sys.exit(
            f"this is Papyros {spoken()}, and the program that starts this slave has another one in memory, "
            f"{' '.join(arguments[4:])}: Papyros was exchanged while it ran; start that program again"
        )
    _die_with_parent()
    if os.getppid() != parent:
        return  # the crew died before the kernel was told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the crew's affair
    for fd in (socket_fd, tokens, slate_fd):
        os.set_inheritable(fd, False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with socket.socket(fileno=socket_fd) as sock, contextlib.closing(Slate(mmap.mmap(slate_fd, SLATE_BYTES))) as slate:
        os.close(slate_fd)
        slave = Slave(sock, tokens, slate)
        slave.streams = (
            Echo(sys.stdout, partial(slave.print, ON_STDOUT)),
            Echo(sys.stderr, partial(slave.print, ON_STDERR)),
        )
        sys.stdout, sys.stderr = slave.streams
        slave.serve()
