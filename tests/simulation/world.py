"""Virtual time: events in order, programs written as generators, actors that pause and crash.

A program yields what it waits for: a number of seconds, a `Future`, or a
`Signal`, alone or with a timeout. No thread and no clock of the machine is involved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

__all__ = ["Actor", "BrokenRule", "Future", "Program", "Signal", "World"]

Program = Generator[Any, Any, Any]

#: So many events, and the simulation is taken to go round in circles.
MAX_EVENTS = 400_000


class BrokenRule(AssertionError):
    """What must hold always did not."""


class World:
    """The clock, the events to come, and the dice."""

    def __init__(self, seed: int, tracing: bool = False) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.tracing = tracing
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = 0

    def at(self, moment: float, call: Callable[[], None]) -> None:
        self._ticket += 1
        heappush(self._heap, (moment, self._ticket, call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + seconds, call)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; return whether `done` came true before `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            if done():
                return True
            self.now, _, call = heappop(heap)
            call()
            self.events += 1
            if self.events > MAX_EVENTS:
                raise BrokenRule("this never ends")
        self.now = max(self.now, until)
        return done()

    def trace(self, who: str, what: str, *details: object) -> None:
        if self.tracing:
            print(f"{self.now:10.4f}  {who:<10} {what}", *details)


class Future:
    """A value that comes later, or an error."""

    __slots__ = ("_call", "_world", "done", "error", "value")

    def __init__(self, world: World) -> None:
        self._world = world
        self._call: Callable[[], None] | None = None
        self.done = False
        self.error: Exception | None = None
        self.value: Any = None

    def set(self, value: Any = None, error: Exception | None = None) -> None:
        if self.done:
            return
        self.done = True
        self.value, self.error = value, error
        if self._call is not None:
            self._world.after(0.0, self._call)

    def then(self, call: Callable[[], None]) -> None:
        self._call = call
        if self.done:
            self._world.after(0.0, call)


class Signal:
    """Wakes all who wait for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[Future] = []

    def future(self, timeout: float | None = None) -> Future:
        future = Future(self._world)
        self._waiting.append(future)
        if timeout is not None:
            self._world.after(timeout, lambda: future.set(False))
        return future

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set(True)


class Actor:
    """Something that acts, and can be paused, and can crash: then it never acts again."""

    #: Whether threads of it race for what came during a pause.
    disorderly = False

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.paused = self.was_paused = False
        self._held: list[Callable[[], None]] = []

    def act(self, call: Callable[[], None]) -> None:
        """Do something now, or when the pause is over, or never."""
        if not self.alive:
            return
        if self.paused:
            self._held.append(call)
        else:
            call()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.world.after(seconds, lambda: self.act(call))

    def pause(self) -> None:
        self.world.trace(self.name, "pauses")
        self.paused = self.was_paused = True

    def resume(self) -> None:
        if self.paused:
            self.world.trace(self.name, "goes on")
            self.paused = False
            held, self._held = self._held, []
            if self.disorderly:
                self.world.dice.shuffle(held)
            for call in held:
                self.later(0.0, call)

    def crash(self) -> None:
        self.world.trace(self.name, "crashes")
        self.alive = False
        self._held.clear()

    def start(self, program: Program) -> None:
        """Run a program, from now on."""
        self.later(0.0, lambda: self._step(program, None, None))

    def _step(self, program: Program, value: Any, error: Exception | None) -> None:
        try:
            waits_for = program.send(value) if error is None else program.throw(error)
        except StopIteration:
            return
        if isinstance(waits_for, float):
            self.later(waits_for, lambda: self._step(program, None, None))
        else:
            waits_for.then(lambda: self.act(lambda: self._step(program, waits_for.value, waits_for.error)))

    def trace(self, what: str, *details: object) -> None:
        if self.world.tracing:
            self.world.trace(self.name, what, *details)
