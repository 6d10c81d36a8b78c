"""What a crew of slaves is given, gives back and shows: the words between a crew and those it works for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from papyros.frames import Buffer, Parts
from papyros.terms import DEFAULT_TERMS, Terms

if TYPE_CHECKING:
    from papyros.deaths import Death
    from papyros.store import Held

__all__ = ["CrewOptions", "Silent", "SlaveView", "Source", "Task"]


class Task:
    """A job, as a crew sees it: somebody's tag, the digest of its class's definition, its blob, its terms.

    No tuple: one is made for each job, and where this is compiled, a tuple with names costs four times as much.
    """

    __slots__ = ("blob", "definition", "tag", "terms")

    def __init__(self, tag: Any, definition: bytes, blob: Buffer | Parts, terms: Terms = DEFAULT_TERMS) -> None:
        self.tag = tag
        self.definition = definition
        self.blob = blob
        self.terms = terms


class SlaveView(NamedTuple):
    """What a slave does at a moment: its name and number, what it runs, for how long, and how much it has ahead."""

    name: str
    pid: int
    tag: Any | None
    seconds: float
    ahead: int
    ready: bool


class Source(Protocol):
    """Where a crew takes tasks from and brings outcomes to.

    All of it is called in the crew's thread, but for the first three methods, which whoever feeds idle slaves calls
    instead. It never calls two at a time.
    """

    def take(self, limit: int) -> list[Task]:
        """Return up to `limit` tasks; if fewer, poke or feed the crew when there are more."""

    def definition(self, digest: bytes) -> bytes:
        """Return the definition with that digest."""

    def held(self, digest: bytes) -> Held | None:
        """Return the shared value with that digest; None if it is not held here, or nobody needs it any more."""

    def finished(self, tags: Sequence[Any], outcomes: Sequence[Buffer], seconds: Sequence[float], slave: str) -> None:
        """Take outcomes of a slave, encoded, with the tags of their tasks, and how long each took."""

    def announce(self) -> None:
        """Tell those who wait of what `finished` took; called when slaves have been fed, often with nothing to tell."""

    def overdue(self, tag: Any, slave: str, timeout: float) -> None:
        """Take note that a task ran for longer than its timeout, and was stopped."""

    def died(self, tag: Any, death: Death) -> None:
        """Take note that the slave that ran this task died of it."""

    def returned(self, tags: list[Any], reason: str) -> None:
        """Take back tasks that the crew does not process; those with a reason were started, and stopped for it."""

    def held_up(self) -> None:
        """Take note that all slaves run jobs that take long: whatever is kept ready for them waits."""

    def printed(self, tag: Any, slave: str, text: str) -> None:
        """Take what a job printed."""

    def heard(self, tag: Any, message: memoryview) -> None:
        """Take what the running job has to say of its children; `Crew.tell` brings it an answer."""

    def lent(self, places: int) -> None:
        """Take note that so many slaves lend their places now, since their jobs wait for children."""

    def broken(self, reason: str) -> None:
        """Take note that slaves cannot be started at all."""


class Silent(dict[str, Any]):
    """What is not to be seen in a log or a traceback that shows who holds it: there is a key in it."""

    def __repr__(self) -> str:
        return f"<{len(self)} items that are not shown>"


class CrewOptions(NamedTuple):
    """What slaves are told when they start.

    Attributes:
        max_bytes: a larger result of a job is refused.
        path: the search path for modules.
        family: how jobs get a master for their children: the name of a module that has `open_family`, as "module",
            and what that is to be told, which is `Silent` if there is a key in it; None = not at all.
        secrets: the program's `authkey`, in hex, if slaves are to be known to its managers of `multiprocessing`.
    """

    max_bytes: int
    path: Sequence[str]
    family: Mapping[str, Any] | None = None
    secrets: Silent = Silent()
