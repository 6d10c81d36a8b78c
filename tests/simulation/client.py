"""A model of a client: what `papyros.distributed.client` does, and its two threads, as programs in virtual time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from array import array
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from random import Random
from typing import Any

from papyros.distributed.batches import (
    AddedJob,
    pack_added,
    pack_definitions,
    unpack_outcomes,
)
from papyros.distributed.bundling import Bundling
from papyros.distributed.cancelling import STOPPED
from papyros.distributed.exchange import Exchange
from papyros.distributed.line import LineBrokenError
from papyros.distributed.seals import SEAL_BYTES
from papyros.encoded import encode_lost
from papyros.entries import PROCESSED, Entry
from papyros.frames import unpack_message
from papyros.ledger import Ledger
from tests.simulation.master import Network, SimulatedLine
from tests.simulation.stories import Stories
from tests.simulation.world import Actor, BrokenRule, Program, Signal, World

__all__ = ["Client"]

ROOM_SECONDS = 1.0
SEND_JOBS = 10

#: How likely it is that a call that cancels does not ask again when no answer came, ...
GIVES_UP = 0.5

#: ... and that Ctrl-C comes before any can.
INTERRUPTED = 0.2

NUMBER_BYTES = 8


def seal_of(client: str, number: int) -> bytes:
    """Stand in for the seal of a job, or of a bundle."""
    return hashlib.blake2b(f"{client}#{number}".encode(), digest_size=SEAL_BYTES).digest()


def blob_of(number: int) -> bytes:
    """Stand in for the arguments of a job."""
    return number.to_bytes(NUMBER_BYTES, "little") + b"x" * (number % 5)


def number_in(blob: bytes | memoryview) -> int:
    """Return the number of the job whose arguments these are."""
    return int.from_bytes(blob[:NUMBER_BYTES], "little")


class Whims(Bundling):
    """Bundles jobs as the dice fall, and not because they are quick.

    Args:
        dice: they decide how many jobs go into the next bundle, ...
        sizes: ... of these.
    """

    def __init__(self, dice: Random, sizes: Sequence[int]) -> None:
        super().__init__()
        self._dice = dice
        self._sizes = sizes

    def jobs(self, definition: bytes) -> int:
        return self._dice.choice(self._sizes)


class FakeSeals:
    """Stand in for the seals of a session, of which nobody changes anything here."""

    def __init__(self, client: str) -> None:
        self._client = client

    def seal_job(self, number: int, definition: bytes, blob: object) -> bytes:
        return seal_of(self._client, number)

    seal_bundle = seal_job


class WatchedExchange(Exchange):
    """The real exchange of a client, which tells the stories of bundles."""

    send_bundles = 2

    def __init__(self, client: Client, numbers: Iterator[int], bundling: Bundling, stories: Stories) -> None:
        seals: Any = FakeSeals(client.name)
        super().__init__(client.ledger, client.holder, numbers, seals, bundling, client.wake_sender)
        self._client = client
        self._stories = stories

    def _bundle(self, entries: Sequence[Entry]) -> AddedJob:
        bundle = super()._bundle(entries)
        numbers = [entry.number for entry in entries]
        self._stories.bundle(self._client.name, bundle.number, numbers)
        self._client.trace("bundles", numbers, f"as {self._client.name}#{bundle.number}")
        return bundle


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
        # Where jobs are counted on their way, each goes by itself; and so it does with some clients, anyway.
        bundles = max_waiting is None and world.dice.random() < 0.7
        self._numbers = itertools.count(1)
        bundling = Whims(world.dice, (1, 2, 4, 10) if bundles else (1,))
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
        self._exchange = WatchedExchange(self, self._numbers, bundling, stories)
        self.sent = self._exchange.sent
        self._acknowledged = self._sequence = 0
        self._message: bytes | None = None
        self._batch: list[AddedJob] = []
        self._unwanted: list[int] = []
        self._doubts: dict[int, str | None] = {}
        self._whims = Random(f"{name} {world.seed}")  # its own, so that the stories of others stay as they are
        self._defined: set[bytes] = set()
        self._line: SimulatedLine | None = None
        self._receiver_line: SimulatedLine | None = None
        for program in (self._send(), self._receive(), self._work()):
            self.start(program)

    def wake_sender(self) -> None:
        """There is something to be sent."""
        self._news.notify()

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
            while not self.session.has_room(self.sent.waiting[0]):
                yield self._room.future()
            number = next(self._numbers)
            story = self._stories.tell(self.name, number, self._pace, self._depth)
            definition = b"%016d" % (number // 10 % 2)
            self.ledger.add(self.session, number, (definition, blob_of(number)), 1, story.terms)
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
            told = entry.outcome
            outcome = bytes(told if isinstance(told, bytes) else told[0])  # by itself: of a job that was lost
            self.trace("pops", story.name, outcome[:1])
            if story.check(outcome):
                self.results += 1
            else:
                self.failures += 1

    def _wait_for_outcomes(self, timeout: float) -> Program:
        yield self._came.future(timeout)

    # Cancelling -------------------------------------------------------------------------

    def _cancel_something(self) -> Program:
        dice = self.world.dice
        with contextlib.suppress(LineBrokenError):
            if dice.random() < 0.15:
                yield from self._cancel_all()
            elif self.session.entries and dice.random() < 0.2:
                self._drop([number for number in self.session.entries if dice.random() < 0.5])
            elif self.session.entries:
                yield from self._cancel(dice.choice(list(self.session.entries)))

    def _drop(self, numbers: Collection[int]) -> None:
        """Want nothing of these jobs any more, as when a loop over `execute` is left."""
        self._unwanted.extend(self.sent.drop(numbers))
        self.ledger.discard(self.session, numbers)
        self._gone(numbers)
        self._news.notify()

    def _cancel(self, number: int) -> Program:
        while True:
            entry = self.session.entries.get(number)
            if entry is None or entry.state is PROCESSED:
                return
            if self.ledger.cancel(self.session, number):
                self._gone([number])
                return
            bundle = self.sent.bundle_of.get(number)
            gone = yield from self._cancel_at_master([number])
            if gone or (gone is not None and bundle is None):
                return
            while gone is not None and self.sent.bundle_of.get(number) is bundle:
                yield self._came.future()

    def _cancel_all(self) -> Program:
        self._gone(self.ledger.cancel_waiting(self.session))
        while (yield from self._cancel_at_master(None)) is None:
            self._gone(self.ledger.cancel_waiting(self.session))

    def _cancel_at_master(self, numbers: list[int] | None) -> Generator[Any, Any, list[int] | None]:
        if self._doubts:
            while self._doubts:
                yield self._joined.future()
            return None
        while self.sent.is_leaving(numbers) and not self._trouble:
            yield self._joined.future()
        stay = self._stay
        message = array("Q", dict.fromkeys(map(self.sent.sent_as, numbers or []))).tobytes()
        self._ticket += 1
        arguments = self.name, numbers is None, self._ticket
        if self._whims.random() < INTERRUPTED and self._line is not None:
            self._line.call("cancel", *arguments, message=message)  # it may be on its way
            self._line.break_off("Ctrl-C comes")
            self._doubt(self._ticket)
            raise LineBrokenError("Ctrl-C has come")
        while (found := (yield from self._ask_to_cancel(arguments, message))) is None:
            if self._whims.random() < GIVES_UP:
                self._doubt(self._ticket)
                raise LineBrokenError("no master can be reached")
            yield from self._reconnected(stay)
            if self._stay != stay:
                return None
        answer, reply = found
        cancelled = array("Q")
        cancelled.frombytes(reply)
        if self._stay == stay:
            self._note_left(answer["left"])
        gone, again = self.sent.cancelled(cancelled, None if numbers is None else set(numbers))
        self.ledger.discard(self.session, gone)
        self._gone(gone)
        for entry in again:
            self._stories.excuse(self.name, entry.number)  # it may have run before its bundle was stopped
        self._exchange.send_singly(again)
        return gone

    def _ask_to_cancel(self, arguments: tuple[Any, ...], message: bytes) -> Generator[Any, Any, Any]:
        if self._line is None:
            yield 0.1
            return None
        try:
            answer, reply = yield self._line.call("cancel", *arguments, message=message)
        except LineBrokenError:
            return None
        return (answer, reply) if answer["known"] else None

    def _doubt(self, ticket: int) -> None:
        self._doubts[ticket] = STOPPED
        self._news.notify()

    def _settle(self, line: SimulatedLine) -> Program:
        for ticket, started in list(self._doubts.items()):
            answer, reply = yield line.call("cancel", self.name, False, ticket)
            _check(answer)
            self._note_left(answer["left"])
            numbers = array("Q")
            numbers.frombytes(reply)
            for number in numbers:
                if number in self.sent.single or number in self.sent.bundles:
                    self.trace("settles that it has cancelled", f"{self.name}#{number}")
                    self._stories.excuse(self.name, number, new_master=True)  # all that it knew is forgotten
            self._exchange.undo_cancel(numbers, started)
            del self._doubts[ticket]
            self._came.notify()
            self._joined.notify()

    def _reconnected(self, stay: str) -> Program:
        self._trouble = True
        self._news.notify()
        while self._trouble and self._stay == stay:
            yield self._joined.future()

    def _gone(self, numbers: Iterable[int]) -> None:
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
            held = [entry for entry in self.holder.assigned if entry.number not in self.sent.bundle_of]
            for number in [*(entry.number for entry in held), *self.sent.bundles]:
                self._stories.excuse(self.name, number, new_master=True)
            self.ledger.give_back(self.holder, held, "the master was lost" if before else None)
            self._came.notify()
            self.sent.move()
            self._defined.clear()
            self._acknowledged = self._sequence = 0
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
        while not self._ending:
            yield from self._settle(line)
            if self._message is None:
                yield from self._make_message(line)
            if self._message is None:
                continue
            call = line.call("add", self.name, self._sequence, ROOM_SECONDS, message=self._message)
            answer = _check((yield call)[0])
            if answer["accepted"]:
                self._message = None
            self.sent.leaving.clear()
            self._joined.notify()
            self._note_left(answer["left"])

    def _make_message(self, line: SimulatedLine) -> Program:
        while not self._something_to_send():
            yield self._news.future()
        if self._trouble and not self._ending:
            raise LineBrokenError("the receiver lost the master")
        if self._ending or self._doubts:
            return
        self._batch = self._batch or self._exchange.next_batch(lambda: SEND_JOBS, slaves=2)
        if self._unwanted:
            unwanted = array("Q", self._unwanted)
            _check((yield line.call("drop", self.name, message=unwanted.tobytes()))[0])
            del self._unwanted[: len(unwanted)]
        if self._batch:
            yield from self._define(line, self._batch)
            self._message = pack_added(self._batch)
            self._batch = []
            self._sequence += 1

    def _something_to_send(self) -> bool:
        waiting = self._batch or self._unwanted or self._doubts or self.sent.unsent or self.session.assignable()
        return bool(self._ending or self._trouble or waiting)

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
                if done.number in self.sent.bundles:
                    self.trace(f"hears {bytes(done.outcome[:1])!r} of", f"{self.name}#{done.number}")
                self._exchange.take(done)
            self.check()
            self._came.notify()

    def _note_left(self, left: Sequence[int]) -> None:
        if self.sent.note_left(left):
            self._room.notify()

    @property
    def unsettled(self) -> bool:
        """Whether something is to be settled yet that was cancelled in vain."""
        return bool(self._doubts)

    def leftovers(self) -> dict[str, object]:
        """Return what is still in memory though all jobs are done."""
        sent = self.sent
        books = {"single": sent.single, "bundles": sent.bundles, "bundle of": sent.bundle_of, "unsent": sent.unsent}
        return {what: left for what, left in books.items() if left}


def _check(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer["known"]:
        raise LineBrokenError("the master does not know this client any more")
    return answer
