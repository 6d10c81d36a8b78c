"""A model of a client: what `papyros.distributed.client` does in two threads, as programs in virtual time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from array import array
from collections.abc import Generator, Sequence
from typing import Any

from papyros.distributed.batches import (
    AddedJob,
    pack_added,
    pack_definitions,
    unpack_outcomes,
)
from papyros.distributed.line import LineBrokenError
from papyros.distributed.seals import SEAL_BYTES
from papyros.entries import PROCESSED, Entry
from papyros.frames import unpack_message
from papyros.ledger import Ledger
from papyros.wire import encode_lost
from tests.simulation.master import Network, SimulatedLine
from tests.simulation.stories import Stories
from tests.simulation.world import Actor, BrokenRule, Program, Signal, World

__all__ = ["Client"]

ROOM_SECONDS = 1.0
SEND_JOBS = 7


def seal_of(client: str, number: int) -> bytes:
    """Stand in for the seal of a job."""
    return hashlib.blake2b(f"{client}#{number}".encode(), digest_size=SEAL_BYTES).digest()


class Client(Actor):
    """A program that adds jobs and pops them, with its sender and its receiver.

    Args:
        jobs: how many it adds.
        pace: how many seconds its jobs take, on average.
        hurry: how many seconds there are between two calls of the program.
        max_waiting: at most so many jobs wait.
        cancels: how likely it is that the next thing it does is to cancel something.
        depth: so many jobs are above it, of each of which the next is a child.
    """

    def __init__(
        self,
        world: World,
        name: str,
        network: Network,
        stories: Stories,
        jobs: int,
        pace: float,
        hurry: float,
        max_waiting: int | None,
        cancels: float,
        depth: int = 0,
    ) -> None:
        super().__init__(world, name)
        self._depth = depth
        self._network = network
        self._stories = stories
        self._jobs = jobs
        self._pace = pace
        self._hurry = hurry
        self._bounded = max_waiting is not None
        self._cancels = cancels
        self.ledger = Ledger(lost=lambda deaths: encode_lost(str(deaths)))
        self.session = self.ledger.open("main", max_waiting)
        self.holder = self.ledger.enlist("cluster", 1)
        self.added = self.results = self.failures = self.cancelled = 0
        self.finished = self._ending = False
        self._news, self._joined, self._came, self._room = (Signal(world) for _ in range(4))
        self._uri: Any = None
        self._patience = 0.0
        self._ticket = 0
        self._stay = ""
        self._trouble = True
        self._sent: dict[int, Entry] = {}
        self._total = self._left = self._acknowledged = self._sequence = 0
        self._message: bytes | None = None
        self._batch: list[AddedJob] = []
        self._unwanted: list[int] = []
        self._defined: set[bytes] = set()
        self._line: SimulatedLine | None = None
        self._receiver_line: SimulatedLine | None = None
        for program in (self._send(), self._receive(), self._work()):
            self.start(program)

    def crash(self) -> None:
        super().crash()
        for line in (self._line, self._receiver_line):
            if line is not None:
                line.break_off("the client crashed")

    def leave(self) -> None:
        """Close the master object."""
        self._ending = True
        self._news.notify()
        self._joined.notify()
        if self._receiver_line is not None:
            self._receiver_line.break_off("the client closes")

    # The program ------------------------------------------------------------------------

    def check(self) -> None:
        """All jobs are accounted for."""
        known = self.results + self.failures + self.cancelled + self.session.pending
        if self.added != known:
            raise BrokenRule(f"{self.name} added {self.added} jobs, but knows of {known}")

    def _work(self) -> Program:
        dice = self.world.dice
        while not self._is_done():
            step = dice.random()
            if step < self._cancels:
                yield from self._cancel_something()
            elif self.added < self._jobs and step < 0.7:
                yield from self._add(dice.choice((1, 1, 3, 10)))
            else:
                yield from self._pop(dice.choice((0.0, 0.5, 5.0)))
            self.check()
            yield dice.random() * self._hurry
        self.trace("has all its jobs back")
        self.finished = True
        self._came_to_its_end()

    def _is_done(self) -> bool:
        return self.added >= self._jobs and not self.session.pending

    def _came_to_its_end(self) -> None:
        """The program has all that it wants."""

    def _add(self, count: int) -> Program:
        for _ in range(min(count, self._jobs - self.added)):
            while not self.session.has_room(max(0, self._total - self._left)):
                yield self._room.future()
            number = self.added + 1
            story = self._stories.tell(self.name, number, self._pace, self._depth)
            definition = b"%016d" % (number % 2)
            self.ledger.add(self.session, number, (definition, b"x" * (number % 5)), 1, story.terms)
            self.added += 1
            self.trace("adds", story)
            self._news.notify()

    def _pop(self, timeout: float) -> Program:
        popped = self.ledger.pop(self.session)
        if not popped and timeout and self.session.pending:
            yield from self._wait_for_outcomes(timeout)
            popped = self.ledger.pop(self.session)
        for entry in popped:
            story = self._stories.all[self.name, entry.number]
            outcome = entry.outcome
            encoded = bytes(outcome if isinstance(outcome, bytes) else outcome.outcome)
            self.trace("pops", story.name, encoded[:1])
            if story.check(encoded):
                self.results += 1
            else:
                self.failures += 1

    def _wait_for_outcomes(self, timeout: float) -> Program:
        yield self._came.future(timeout)

    # Cancelling -------------------------------------------------------------------------

    def _cancel_something(self) -> Program:
        if self.world.dice.random() < 0.15:
            yield from self._cancel_all()
        elif self.session.entries:
            yield from self._cancel(self.world.dice.choice(list(self.session.entries)))

    def _cancel(self, number: int) -> Program:
        ticket = self._new_ticket()
        while True:
            entry = self.session.entries.get(number)
            if entry is None or entry.state is PROCESSED:
                return
            if self.ledger.cancel(self.session, number):
                self._gone([number])
                return
            if (yield from self._cancel_at_master([number], ticket)) is not None:
                return

    def _new_ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def _cancel_all(self) -> Program:
        ticket = self._new_ticket()
        while True:
            self._gone(self.ledger.cancel_waiting(self.session))
            if (yield from self._cancel_at_master(None, ticket)) is not None:
                return

    def _cancel_at_master(self, numbers: list[int] | None, ticket: int) -> Generator[Any, Any, list[int] | None]:
        line, stay = self._line, self._stay
        if line is None:
            yield 0.1
            return None
        try:
            message = array("Q", numbers or []).tobytes()
            answer, reply = yield line.call("cancel", self.name, numbers is None, ticket, message=message)
        except LineBrokenError:
            return (yield from self._reconnected(stay))
        if not answer["known"]:
            return (yield from self._reconnected(stay))
        cancelled = array("Q")
        cancelled.frombytes(reply)
        self._note_left(answer["left"])
        gone = [number for number in cancelled if self._sent.pop(number, None) is not None]
        self.ledger.discard(self.session, gone)
        self._gone(gone)
        return gone

    def _reconnected(self, stay: str) -> Program:
        self._trouble = True
        self._news.notify()
        while self._trouble and self._stay == stay:
            yield self._joined.future()

    def _gone(self, numbers: list[int]) -> None:
        for number in numbers:
            story = self._stories.all[self.name, number]
            if story.cancelled or story.popped:
                raise BrokenRule(f"{story} is cancelled, though it was gone before")
            story.cancelled = True
            self.cancelled += 1
            self.trace("cancelled", story.name)
        self._room.notify()
        self._came.notify()

    # Sending ----------------------------------------------------------------------------

    def _send(self) -> Program:
        while not self._ending:
            line = self._line = yield from self._seek()
            with contextlib.suppress(LineBrokenError):
                yield from self._join(line)
                yield from self._send_on(line)
            if not self._ending:
                line.break_off("the client gives it up")
        yield from self._say_goodbye()

    def _say_goodbye(self) -> Program:
        while True:
            if self._line is None or self._line.broken:
                self._line = yield from self._seek()
            with contextlib.suppress(LineBrokenError):
                yield self._line.call("leave", self.name)
                break

    def _seek(self) -> Program:
        delay = 0.02
        while (line := self._network.line()) is None:
            yield delay * self.world.dice.uniform(0.5, 1.5)
            delay = min(1.0, delay * 2)
        yield self._network.travel()
        return line

    def _join(self, line: SimulatedLine) -> Program:
        answer, _ = yield line.call("join", *self._introduction())
        if not answer["known"]:
            yield from self._be_refused(answer)
            raise LineBrokenError("the master opens no session")
        if answer["stay"] != self._stay:
            self.trace("joins", line.master.name, answer["stay"])
            before = bool(self._stay)
            self._stay = answer["stay"]
            for entry in self.holder.assigned:
                self._stories.excuse(self.name, entry.number, new_master=True)
            held = list(self.holder.assigned)
            self.ledger.give_back(self.holder, held, "the master was lost" if before else None)
            self._came.notify()
            self._sent.clear()
            self._defined.clear()
            self._total = self._left = self._acknowledged = self._sequence = 0
            self._message = None
            self._batch = []
            self._unwanted = []
            self._room.notify()
        self._uri = line.master
        self._patience = float(answer["patience"])
        self._trouble = False
        self._joined.notify()

    def _introduction(self) -> tuple[Any, ...]:
        return (self.name,)

    def _be_refused(self, answer: dict[str, Any]) -> Program:
        raise BrokenRule(f"{self.name} was not welcome: {answer}")
        yield

    def _send_on(self, line: SimulatedLine) -> Program:
        while True:
            if self._message is None:
                while not (self._ending or self._trouble or self._batch or self.session.assignable()):
                    yield self._news.future()
                if self._ending:
                    return
                if self._trouble:
                    raise LineBrokenError("the receiver lost the master")
                self._batch = self._batch or self._next_batch()
                if not self._batch:
                    continue
                if self._unwanted:
                    unwanted = array("Q", self._unwanted)
                    _check((yield line.call("drop", self.name, message=unwanted.tobytes()))[0])
                    del self._unwanted[: len(unwanted)]
                yield from self._define(line, self._batch)
                self._message = pack_added(self._batch)
                self._batch = []
                self._sequence += 1
            call = line.call("add", self.name, self._sequence, ROOM_SECONDS, message=self._message)
            answer = _check((yield call)[0])
            if answer["accepted"]:
                self._message = None
            self._note_left(answer["left"])
            if self._ending:
                return

    def _next_batch(self) -> list[AddedJob]:
        entries = self.ledger.assign(self.holder, SEND_JOBS)
        self._sent.update((entry.number, entry) for entry in entries)
        self._total += len(entries)
        return [
            AddedJob(entry.number, *entry.payload[:2], entry.terms, seal_of(self.name, entry.number))
            for entry in entries
        ]

    def _define(self, line: SimulatedLine, batch: list[AddedJob]) -> Program:
        missing = {job.definition: None for job in batch if job.definition not in self._defined}
        if missing:
            definitions = pack_definitions(dict.fromkeys(missing, b"definition"))
            _check((yield line.call("define", self.name, {}, message=definitions))[0])
            self._defined.update(missing)

    # Receiving --------------------------------------------------------------------------

    def _receive(self) -> Program:
        while not self._ending:
            while self._trouble and not self._ending:
                yield self._joined.future()
            uri = self._uri
            line = self._network.line()
            if line is not None and line.master is uri:
                self._receiver_line = line
                with contextlib.suppress(LineBrokenError):
                    yield from self._receive_on(line)
                line.break_off("the receiver gives it up")
            else:
                yield 0.02
            if uri is self._uri:
                self._trouble = True
                self._news.notify()

    def _receive_on(self, line: SimulatedLine) -> Program:
        stay = self._stay
        while not self._ending:
            call = line.call("collect", self.name, self._acknowledged, self._bounded, self._patience)
            answer, message = yield call
            _check(answer)
            if self._stay != stay:
                raise LineBrokenError("another master took over")
            outcomes = []
            if answer["news"]:
                prints, encoded = unpack_message(message)
                json.loads(bytes(prints))
                outcomes = unpack_outcomes(encoded)
            self._acknowledged = answer["number"]
            self._note_left(answer["left"])
            for done in outcomes:
                entry = self._sent.pop(done.number, None)
                if entry is not None:
                    self.ledger.finish(entry.session, done.number, done, done.seconds, len(done.outcome))
            self.check()
            self._came.notify()

    def _note_left(self, left: Sequence[int]) -> None:
        if left[0] > self._left:
            self._left = left[0]  # jobs; the others are their bytes, and the number of the answer
            self._room.notify()


def _check(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer["known"]:
        raise LineBrokenError("the master does not know this client any more")
    return answer
