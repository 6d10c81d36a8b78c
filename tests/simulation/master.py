"""The real service and the real desk of a master, in virtual time, and the network that leads there.

A call that has to wait is tried again when the bell rings that it waits for, or its patience is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from Pyro5.callcontext import current_context

from papyros.bundles import is_more_to_come
from papyros.distributed.batches import JobOutcome
from papyros.distributed.bells import Ticket, Waiting
from papyros.distributed.desk import Desk
from papyros.distributed.line import LineBrokenError
from papyros.distributed.messages import ANNOTATION, NOTHING, joined
from papyros.distributed.service import MasterService
from papyros.encoded import asks_for_retry
from papyros.entries import Entry, Holder, Session
from tests.simulation.world import Actor, BrokenRule, Future, World

__all__ = ["Master", "Network", "SimulatedLine"]

CONNECT_SECONDS = 5.0


class SimulatedAlarm:
    def __init__(self, master: Master) -> None:
        self._master = master

    def set(self, moment: float, call: Callable[[], None]) -> None:
        master = self._master
        master.later(max(0.0, moment - master.world.now), call)

    def set_earliest(self, moment: float, call: Callable[[], None]) -> None:
        self.set(moment, call)  # to call more often is harmless

    def look(self) -> None:
        pass

    def close(self) -> None:
        pass


class Call:
    """One call, at the master."""

    def __init__(
        self,
        master: Master,
        method: str,
        arguments: tuple[Any, ...],
        message: bytes | None,
        notes: dict[str, str],
        answered: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.master = master
        self.method = method
        self.arguments = arguments
        self.message = message
        self.notes = notes
        self._answered = answered
        self._attempt: Callable[[bool], Any] | None = None
        self._ticket: Ticket | None = None

    def run(self) -> None:
        current_context.annotations = {ANNOTATION: self.message} if self.message is not None else {}
        current_context.response_annotations = {}
        current_context.client = self.notes
        answer = getattr(self.master.service, self.method)(*self.arguments)
        if isinstance(answer, Waiting):
            self._attempt = answer.attempt
            self.master.later(answer.seconds, partial(self._go_on, over=True))
            answer = answer.attempt(answer.seconds <= 0)
        self._take(answer)

    def _take(self, answer: Any) -> None:
        if isinstance(answer, Ticket):
            self._ticket = answer
            answer.then(partial(self.master.later, 0.0, self._go_on))
            return
        self._ticket = None
        master = self.master
        reply = joined(current_context.response_annotations.get(ANNOTATION, NOTHING))
        if master.world.tracing:
            master.trace(f"answers {self.method}", self.arguments, answer)
        master.look(self.method)
        self._answered((answer, memoryview(bytes(reply))))

    def _go_on(self, over: bool = False) -> None:
        """Try again, unless it has been answered."""
        if self._ticket is None:
            return
        assert self._attempt is not None
        self._ticket.give_back()
        self._ticket = None
        current_context.response_annotations = {}
        self._take(self._attempt(over))


class Master(Actor):
    """A master's process.

    Args:
        charged: told each charge of a job for a death, with the deaths so far.
        dismissed: told who was given up, and the jobs that it held.
    """

    disorderly = True

    def __init__(
        self,
        world: World,
        name: str,
        lease: float,
        grace: float,
        charged: Callable[[str, int, int], None],
        dismissed: Callable[[Master, str, list[Entry]], None],
    ) -> None:
        super().__init__(world, name)
        self.service = MasterService("simulated", lease, grace)
        self.desk = Desk(lease, grace, lambda: world.now, SimulatedAlarm(self))  # type: ignore[arg-type]
        self.service._desk = self.desk
        self.lines: list[SimulatedLine] = []
        self.closed = False
        self._watch(charged, dismissed)
        self._looks = 0
        self._beat = min(2.0, lease / 4)
        self.later(self._beat, self._sweep)

    def _watch(
        self, charged: Callable[[str, int, int], None], dismissed: Callable[[Master, str, list[Entry]], None]
    ) -> None:
        desk, ledger = self.desk, self.desk.ledger
        charge, dismiss, add, take = ledger.charge, ledger.dismiss, ledger.add, desk.take_outcomes
        early: dict[tuple[str, int], float] = {}

        def watched_charge(holder: Holder, entry: Entry, death: Any) -> bool:
            before = entry.session.counts.lost
            lost = charge(holder, entry, death)
            if entry.session.counts.lost > before:
                charged(str(entry.session.key), entry.number, len(entry.deaths or []))
            return lost

        def watched_dismiss(key: str, *arguments: Any) -> list[Entry]:
            held = dismiss(key, *arguments)
            dismissed(self, key, held)
            return held

        def watched_take(outcomes: Iterable[JobOutcome], *arguments: Any) -> None:
            for done in outcomes:
                over = not (asks_for_retry(done.outcome) or is_more_to_come(done.outcome))
                if over and done.session not in desk.clients:
                    early.setdefault((done.session, done.number), self.world.now)
            take(outcomes, *arguments)

        def watched_add(session: Session, number: int, *arguments: Any) -> bool:
            came = early.get((str(session.key), number))
            if came is not None and self.world.now - came < desk.grace - 1.0 and number not in session.entries:
                raise BrokenRule(f"{session.key}#{number} waits, though its outcome was handed in before")
            return add(session, number, *arguments)

        ledger.charge, ledger.dismiss, ledger.add = watched_charge, watched_dismiss, watched_add  # type: ignore
        desk.take_outcomes = watched_take  # type: ignore[method-assign]

    def _sweep(self) -> None:
        if not self.closed:
            self.service.sweep()
            self.look("sweep")
            self.later(self._beat, self._sweep)

    def crash(self) -> None:
        super().crash()
        self._hang_up()

    def close(self) -> None:
        """End as a master does that gives way to another."""
        self.trace("gives way")
        self.closed = True
        self.service.close()
        self._hang_up()

    def _hang_up(self) -> None:
        lines, self.lines = self.lines, []
        for line in lines:
            line.break_off("the master has gone")

    # What must hold at any time ---------------------------------------------------------

    def look(self, after: str, thorough: bool = False) -> None:
        """Check the books."""
        self._looks += 1
        thorough = thorough or self._looks % 16 == 0
        for session in self.desk.ledger.sessions.values():
            counts = session.counts
            if counts.added != counts.popped + counts.cancelled + len(session.entries):
                raise BrokenRule(f"after {after} the books do not add up: {counts}, {len(session.entries)} entries")
            if thorough:
                self._look_into(session, after)

    def _look_into(self, session: Any, after: str) -> None:
        ledger = self.desk.ledger
        states = [entry.state for entry in session.entries.values()]
        held = [entry for entry in session.entries.values() if entry.state == "assigned"]
        delayed = sum(bool(entry.delayed) for entry in session.entries.values())
        kept = len(session.processed) + len(session.delivery.entries)
        found = (session.assigned, len(session.line) + delayed, kept, session in ledger._turns)
        wanted = (len(held), states.count("waiting"), states.count("processed"), len(session.line) > 0)
        if found != wanted:
            raise BrokenRule(f"after {after} session {session.key} has {found} jobs, but the entries say {wanted}")
        for entry in held:
            holder = entry.holder
            if holder is None or entry not in holder.assigned or ledger.holders.get(holder.key) is not holder:
                raise BrokenRule(f"after {after} {entry!r} is held by nobody: {holder}")

    def leftovers(self) -> dict[str, object]:
        """Return what is still in memory though all jobs are done."""
        desk = self.desk
        found: dict[str, object] = {"early": desk._early, "early bytes": desk._early.size, "claims": desk._claims}
        found["delayed"] = list(desk.ledger._delays._heap)
        found["turns"] = list(desk.ledger._turns)
        for key, session in desk.ledger.sessions.items():
            parts = [session.entries, session.processed, session.delivery.entries, session.assigned]
            parts += [session.processed_bytes, len(session.line), session.line.size]
            found[f"session {key}"] = [part for part in parts if part]
        for key, host in desk.hosts.items():
            found[f"host {key}"] = [
                part for part in (host.orders, host.holder.assigned, host.holder.delivery.entries) if part
            ]
        found["sessions of nobody"] = desk.ledger.sessions.keys() ^ desk.clients.keys()
        found["holders of nobody"] = desk.ledger.holders.keys() ^ desk.hosts.keys()
        return {what: left for what, left in found.items() if left}


class Network:
    """How well messages travel, and to whom.

    Args:
        trouble: how likely it is that something happens to a call.
        delay: how long a message travels, on average.
    """

    def __init__(self, world: World, trouble: float, delay: float) -> None:
        self.world = world
        self.trouble = trouble
        self.unreliable = trouble > 0
        self.delay = delay
        self.down = self.was_down = False
        self.zombies = 1.0  # seconds a request may be on its way after its line broke
        self.registered: Master | None = None

    def travel(self) -> float:
        return self.world.dice.expovariate(1 / self.delay)

    def line(self) -> SimulatedLine | None:
        """Return a line to the registered master, or None when it does not answer."""
        master = self.registered
        if master is None or not master.alive or master.closed or master.paused or self.down:
            return None
        line = SimulatedLine(self, master)
        master.lines.append(line)
        return line


class SimulatedLine:
    """As `papyros.distributed.line.Line`: calls one after the other, and when one broke, none."""

    def __init__(self, network: Network, master: Master) -> None:
        self.network = network
        self.world = network.world
        self.master = master
        self.broken = False
        self.notes: dict[str, str] = {}  # the master's
        self._current: Future | None = None
        self._queue: list[tuple[Future, str, tuple[Any, ...], bytes | None]] = []

    def call(self, method: str, *arguments: Any, message: bytes | None = None) -> Future:
        """Make a call; the future is its answer and the batch beside it, or a `LineBrokenError`."""
        future = Future(self.world)
        if self.broken:
            future.set(error=LineBrokenError("the connection was closed"))
        else:
            self._queue.append((future, method, arguments, message))
            self._next()
        return future

    def _next(self) -> None:
        if self._current is not None or not self._queue:
            return
        future, method, arguments, message = self._queue.pop(0)
        self._current = future
        network, dice = self.network, self.world.dice
        fate = dice.random()
        trouble = network.trouble
        if network.down or fate < trouble * 0.3:
            if network.down or dice.random() < 0.5:
                self._fail_after(dice.random(), method, "its request was lost")
            else:
                # The line breaks, but what was written to it arrives, later.
                call = Call(self.master, method, arguments, message, self.notes)
                self.master.later(dice.uniform(0.0, network.zombies), call.run)
                self._fail_after(dice.random() * 0.1, method, "its request is late")
            return
        if fate < trouble * 0.6:
            lose = lambda _: self._fail_after(dice.random() * 0.5, method, "its reply was lost")  # noqa: E731
            self.master.later(network.travel(), Call(self.master, method, arguments, message, self.notes, lose).run)
            return
        if fate < trouble * 0.7:
            again = Call(self.master, method, arguments, message, self.notes)
            self.master.later(dice.uniform(0.0, network.zombies), again.run)  # somebody repeats it
        slow = dice.uniform(0.1, 1.0) if fate < trouble else 0.0
        call = Call(self.master, method, arguments, message, self.notes, partial(self._answered, method, slow))
        self.master.later(network.travel() + slow * dice.random(), call.run)

    def _answered(self, method: str, slow: float, answer: Any) -> None:
        seconds = self.network.travel() + slow * self.world.dice.random()
        self.world.after(seconds, partial(self._reply, method, answer))

    def _reply(self, method: str, answer: Any) -> None:
        if self._current is None or self.broken:
            return
        if self.network.down:
            self._fail_after(1.0, method, "the network is gone")
            return
        current, self._current = self._current, None
        current.set(answer)
        self._next()

    def _fail_after(self, seconds: float, method: str, why: str) -> None:
        self.world.after(seconds, lambda: self.break_off(f"{method}: {why}"))

    def break_off(self, why: str) -> None:
        """Break the line, also under a call."""
        if self.broken:
            return
        self.broken = True
        if self in self.master.lines:
            self.master.lines.remove(self)
        self.world.trace("network", f"breaks a line to {self.master.name}: {why}")
        waiting = [self._current, *(future for future, *_ in self._queue)]
        for future in waiting:
            if future is not None:
                future.set(error=LineBrokenError(why))
