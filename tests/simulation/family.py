"""A model of the master that a job sees: what `papyros.distributed.family` does, in the slave that runs the job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from papyros.distributed.line import LineBrokenError
from tests.simulation.client import Client
from tests.simulation.master import Network
from tests.simulation.stories import Stories, Story
from tests.simulation.world import Program, World

__all__ = ["Family"]

#: How long a master may not know the parent, and how often to ask again; see `papyros.distributed.family`.
PARENT_SECONDS = 30.0
AGAIN_SECONDS = 0.1


class Place(Protocol):
    """The slave that runs the parent, as its family sees it."""

    def lend(self, lent: bool) -> None:
        """Let another slave work in its stead while the job waits, or go on."""

    def give_up(self) -> None:
        """Have the slave host stop the job and give it back."""


class Family(Client):
    """The children of one run of a job, and what the job does with them.

    Args:
        parent: that job.
        tag: what the master knows of it: its session, and its number or that of its bundle.
        place: where it runs.
        ended: called when it has all the outcomes that it wants.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        stories: Stories,
        parent: Story,
        tag: tuple[str, int],
        place: Place,
        ended: Callable[[], None],
    ) -> None:
        dice = world.dice
        name = f"{parent.name}/{parent.starts}"
        cancels = dice.choice((0.0, 0.0, 0.1))
        super().__init__(
            world, name, network, stories, parent.children, parent.seconds, 0.02, None, cancels, parent.depth + 1
        )
        self._tag = tag
        self._place = place
        self._end_job = ended
        #: A job may end before its children have: those that are left are dropped then.
        self._wants = dice.randrange(parent.children + 1) if dice.random() < 0.2 else None
        self._refused_since: float | None = None

    def _is_done(self) -> bool:
        if self._wants is not None and self.added >= self._jobs and self.results + self.failures >= self._wants:
            return True
        return super()._is_done()

    def _came_to_its_end(self) -> None:
        self._end_job()

    def _wait_for_outcomes(self, timeout: float) -> Program:
        self._place.lend(True)
        yield from super()._wait_for_outcomes(timeout)
        self._place.lend(False)

    def _introduction(self) -> tuple[Any, ...]:
        return self.name, list(self._tag)

    def _be_refused(self, answer: dict[str, Any]) -> Program:
        if self._refused_since is None:
            self._refused_since = self.world.now
        if self._ending:
            self.crash()  # it is the family of a job that has ended: another one runs in its place by now
        elif answer["over"] or self.world.now - self._refused_since > PARENT_SECONDS:
            self.trace("gives up: the master does not know its parent")
            self._place.give_up()
            self.crash()
        yield AGAIN_SECONDS

    def _join(self, line: Any) -> Program:
        yield from super()._join(line)
        self._refused_since = None

    def _say_goodbye(self) -> Program:
        # The master drops it all the same, when it hears the outcome of the job.
        if self._line is not None and not self._line.broken:
            with contextlib.suppress(LineBrokenError):
                yield self._line.call("leave", self.name)
