"""Jobs whose classes have ideas of their own of attributes, state, instances and exceptions."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import papyros


class Frozen(papyros.Job):
    """Refuses to be changed once it is made."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.__dict__["ready"] = True

    def __setattr__(self, name: str, value: object) -> None:
        if "ready" in self.__dict__:
            raise AttributeError(f"{name} is read-only")
        super().__setattr__(name, value)

    def __call__(self, number: int) -> int:
        return number


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenData(papyros.Job):
    """Refuses that from the beginning."""

    number: int

    def __post_init__(self) -> None:
        super().__init__()

    def __call__(self) -> int:
        return self.number


class Slotted(papyros.Job):
    """Has attributes that are not in its `__dict__`, one of them under another name than it says."""

    __slots__ = ("__added", "number")

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.__added = 1

    def __call__(self) -> int:
        return self.number + self.__added


class SlottedAndMore(Slotted):
    """Has a state of its own beside what is in slots."""

    def __getstate__(self) -> Any:
        return super().__getstate__()


class HasLock(papyros.Job):
    """Has what cannot travel, which it makes anew where it arrives, in a dictionary of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.lock = threading.Lock()
        self.added = 2

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        del state["lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "lock": threading.Lock()}

    def __call__(self, number: int) -> int:
        with self.lock:
            return number + self.added


class MadeWithArguments(papyros.Job):
    """Cannot be made without arguments."""

    def __new__(cls, number: int) -> MadeWithArguments:
        return super().__new__(cls)

    def __call__(self, number: int) -> int:
        return number


class IsDict(papyros.Job, dict[str, int]):
    """Has contents that are in no attribute."""

    def __call__(self) -> int:
        return self["number"]


class HasTracebackError(Exception):
    """Has another idea of what its traceback is."""

    @property
    def traceback(self) -> str:
        return "none of yours"


class ShowsNothingError(Exception):
    """Has no attributes that can be looked at."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(f"{name} is nobody's affair")


class EndsAllError(Exception):
    """Ends whoever looks at its text."""

    def __str__(self) -> str:
        raise SystemExit(3)


@papyros.job
def throw(kind: type[BaseException], *args: object) -> None:
    """Raise an exception."""
    raise kind(*args)


class ShowsNothing(papyros.Job):
    """Ends whoever looks at it."""

    def __repr__(self) -> str:
        raise SystemExit(3)

    def __call__(self, event: threading.Event) -> None:
        event.wait()
