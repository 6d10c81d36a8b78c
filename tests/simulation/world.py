"""Virtual time: events in order, programs written as generators, actors that pause and crash.

A program yields what it waits for: a number of seconds, a `Future`, or a
`Signal`, alone or with a timeout. No thread and no clock of the machine is involved.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
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
        self.seed = seed
        self.dice = random.Random(seed)
        self.tracing = tracing
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._now: deque[Callable[[], None]] = deque()  # what is to happen before time passes
        self._ticket = 0

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        if seconds <= 0.0:
            self._now.append(call)
        else:
            self._ticket += 1
            heappush(self._heap, (self.now + seconds, self._ticket, call))

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether `done` came true before `until`. It is asked whenever time is about to pass."""
        heap, now = self._heap, self._now
        events = self.events
        while True:
            while now:
                now.popleft()()
                events += 1
            if done is not None and done():
                self.events = events
                return True
            if not heap or heap[0][0] > until:
                break
            self.now, _, call = heappop(heap)
            call()
            events += 1
            if events > MAX_EVENTS:
                raise BrokenRule("this never ends")
        self.events = events
        self.now = max(self.now, until)
        return False

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
            self._world.after(timeout, partial(future.set, False))
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
        self.world.after(seconds, partial(self.act, call))

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
        self.later(0.0, partial(self._step, program))

    def _step(self, program: Program, answer: Future | None = None) -> None:
        try:
            if answer is None:
                waits_for = program.send(None)
            elif answer.error is None:
                waits_for = program.send(answer.value)
            else:
                waits_for = program.throw(answer.error)
        except StopIteration:
            return
        if isinstance(waits_for, float):
            self.later(waits_for, partial(self._step, program))
        else:
            waits_for.then(partial(self.act, partial(self._step, program, waits_for)))

    def trace(self, what: str, *details: object) -> None:
        if self.world.tracing:
            self.world.trace(self.name, what, *details)
