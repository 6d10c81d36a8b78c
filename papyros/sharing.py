"""Handles of values that many jobs share: such a value travels once to each machine, however many jobs it is in.

A handle stands for its value, as an object that may be put anywhere in the arguments of jobs. What a
value becomes on its way is the affair of `papyros.wire`, and where it is held that of `papyros.store`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from papyros.store import Held

__all__ = ["Shared", "arrived", "shared"]

T = TypeVar("T")


class Shared(Generic[T]):
    """A value that many jobs share; `shared` makes it.

    As an argument of a job, positional or named, it arrives as the value itself. Inside of
    something else (a list, a dictionary, an attribute of the job) it stays a handle.
    """

    __slots__ = ("__weakref__", "_held", "_load", "_lock", "_value")

    def __init__(self, value: T) -> None:
        self._lock = threading.Lock()
        self._value: T = value
        self._load: Callable[[], T] | None = None
        self._held: Held | None = None

    @classmethod
    def found(cls, held: Held, load: Callable[[], T]) -> Shared[T]:
        """Return a handle of what is held on this machine already, and is loaded when somebody looks at it."""
        handle = cls(cast("T", None))
        handle._held, handle._load = held, load
        return handle

    @property
    def value(self) -> T:
        """The value. In a slave process it is not to be changed, and arrays cannot be: their memory is shared.

        Raises:
            PayloadError: it cannot be unpickled here.
        """
        if self._load is not None:
            with self._lock:
                if self._load is not None:
                    self._value = self._load()
                    self._load = None
        return self._value

    def hold(self, pack: Callable[[Any], Held]) -> Held:
        """Return the value as other processes can have it; `pack` makes that, the first time."""
        with self._lock:
            if self._held is None:
                self._held = pack(self._value)
            return self._held

    def __repr__(self) -> str:
        return f"shared({'...' if self._load is not None else type(self._value).__name__})"

    def __reduce__(self) -> tuple[Any, ...]:
        # For those who know nothing of handles, as engines of other people: the value goes along.
        return shared, (self.value,)


def shared(value: Any) -> Any:
    """Return a handle of a value that many jobs share: put it into their arguments, in place of the value.

    The value is pickled once, when the first such job is added, as it is then: what is changed in it later does not
    reach the jobs. It goes once to each machine on which such jobs run, and is held there once for all slaves.
    It is let go of everywhere when nobody has the handle any more, and no job with it is pending.

    Args:
        value: anything that can be pickled. A handle is returned as it is.

    Returns:
        A `Shared`. To type checkers it may be anything, since it stands for the value in calls that are to get that.
    """
    return value if isinstance(value, Shared) else Shared(value)


def arrived(args: tuple[Any, ...], kwds: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments as a job is to see them: values in place of their handles.

    Raises:
        PayloadError: one of them cannot be unpickled here.
    """
    if Shared in map(type, args):
        args = tuple(arg.value if type(arg) is Shared else arg for arg in args)
    if kwds and Shared in map(type, kwds.values()):
        kwds = {name: arg.value if type(arg) is Shared else arg for name, arg in kwds.items()}
    return args, kwds
