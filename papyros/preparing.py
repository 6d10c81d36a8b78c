"""Calls in slaves that are prepared: what the initializer of a pool is about.

The initializer is called once in each slave, before the first call there, and what it leaves in global variables is
there for the calls. In a slave process that takes a hand: functions of a script travel by value, each with global
variables of its own, so what the initializer has left in its own is put into theirs: into those of
whatever is called, and of its arguments, as far as it can be seen from outside what a call may come by.
"""

from __future__ import annotations

import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from functools import _lru_cache_wrapper, cache, cached_property, partial, partialmethod
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

from papyros.calls import Call, Calls
from papyros.jobs import FunctionJob, Job

__all__ = ["Preparation", "PreparedCalls"]

#: Among the global variables of functions: they have what the initializer has left.
_SHARED = "__papyros_prepared__"

#: Among the attributes of exceptions: the token of the preparation that failed. A call may raise what it got from a
#: pool that it uses itself, and that has not failed here.
_FAILED = "__papyros_preparation__"


class Preparation:
    """What is called once in each slave, before the first of the jobs that refer to it runs there.

    Args:
        initializer: what to call.
        initargs: what with.
        failure: the type of the exception that each of these jobs raises where that failed.
        token: what tells this preparation from others; None = a new one.
    """

    def __init__(
        self,
        initializer: Callable[..., object],
        initargs: tuple[Any, ...],
        failure: type[Exception],
        token: str | None = None,
    ) -> None:
        self._args = initializer, initargs, failure, token or uuid.uuid4().hex
        # One that came by wire has come with each class; what was done in this process is known once.
        self._slaves = threading.local() if token is None else _slaves_here(token)
        self._travelled = token is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return Preparation, self._args

    def make(self, function: Callable[..., Any], args: tuple[Any, ...], kwds: dict[str, Any]) -> None:
        """Prepare this slave, unless it is, for a call of `function`. Raises the failure if that fails, or did."""
        initializer, initargs, *_ = self._args
        why = getattr(self._slaves, "why", None)
        if why is None:
            try:
                initializer(*initargs)
            except BaseException as error:
                self._slaves.why = f"the initializer failed, so no call can be made: {type(error).__name__}: {error}"
                raise self._failure() from error
            self._slaves.why = ""
            self._slaves.left = Left(_tables_of([initializer, *initargs], {}))
        elif why:
            raise self._failure()
        if self._travelled:
            self._slaves.left.share([function, *args, *kwds.values()])

    def _failure(self) -> Exception:
        *_, failure, token = self._args
        error = failure(self._slaves.why)
        vars(error)[_FAILED] = token  # it travels along
        return error

    def has_raised(self, error: BaseException) -> bool:
        """Return whether it is the failure of this preparation that a call has raised, and not that of another."""
        *_, failure, token = self._args
        return isinstance(error, failure) and vars(error).get(_FAILED) == token


@cache
def _slaves_here(token: str) -> threading.local:  # noqa: ARG001 - what is cached is one for each
    return threading.local()


class Left:
    """What an initializer has left in global variables, in a process to which it has travelled.

    Args:
        tables: the tables of the global variables that it may have set.
    """

    def __init__(self, tables: Iterable[dict[str, Any]]) -> None:
        self._tables: dict[object, dict[str, Any]] = {}
        for table in tables:
            self._tables.setdefault(table.get("__name__"), table)
        self._known: Classes = weakref.WeakValueDictionary()

    def share(self, things: list[Any]) -> None:
        """Put it among the global variables of what is called, and what with, once, where that has travelled, too."""
        for table in _tables_of(things, self._known):
            if _SHARED not in table:
                self._put_into(table)

    def _put_into(self, table: dict[str, Any]) -> None:
        name = table.get("__name__")
        left = self._tables.get(name)
        module = sys.modules.get(name) if isinstance(name, str) else None
        if left is None or table is left or table is getattr(module, "__dict__", None):
            return
        table.update((name, value) for name, value in left.items() if not name.startswith("__"))
        table[_SHARED] = True


#: Classes by their ids: one of a metaclass of its own may not be hashable.
Classes = MutableMapping[int, type]


def _content_of(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # it is empty
        return ()


#: What is called by those that call others, by their types.
_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    FunctionType: lambda function: (*(function.__closure__ or ()), function.__dict__.get("__wrapped__")),
    CellType: _content_of,
    MethodType: lambda method: (method.__func__, method.__self__),
    partial: lambda made: (made.func, *made.args, *made.keywords.values()),
    partialmethod: lambda made: (made.func,),
    staticmethod: lambda made: (made.__func__,),
    classmethod: lambda made: (made.__func__,),
    property: lambda made: (made.fget, made.fset, made.fdel),
    cached_property: lambda made: (made.func,),
    _lru_cache_wrapper: lambda made: (made.__wrapped__,),
}


#: Of these there may be many among the arguments, and they call nothing.
_PLAIN = frozenset({bool, bytes, complex, dict, float, int, list, set, str, tuple, type(None)})


def _tables_of(things: list[Any], known: Classes) -> Iterator[dict[str, Any]]:
    """Yield the tables of the global variables of functions, and of what else can be called, by what it calls.

    Classes, also those of instances, have those of all their methods. Those that were imported are added to `known`,
    and what is there already is passed over. Others get new methods whenever they come again.
    """
    seen: set[int] = set()
    while things:
        thing = things.pop()
        kind = type(thing)
        if kind in _PLAIN or id(thing) in seen:
            continue
        if kind is FunctionType:
            yield thing.__globals__
            if thing.__closure__ is None and not thing.__dict__:
                continue  # as most are
        seen.add(id(thing))
        if (parts := _PARTS.get(kind)) is not None:
            things.extend(parts(thing))
        else:
            things.extend(_methods_of(kind, known))
            if issubclass(kind, type):
                things.extend(_methods_of(thing, known))


def _is_imported(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = vars(found).get(part) if isinstance(found, (type, ModuleType)) else None
    return found is kind


def _methods_of(kind: type, known: Classes) -> Iterator[Any]:
    for each in kind.__mro__:
        if id(each) not in known:
            if _is_imported(each):
                known[id(each)] = each
            yield from (value for value in vars(each).values() if type(value) in _PARTS)


class PreparedCall(Call):
    """The call of any callable, in a slave that is prepared."""

    preparation: ClassVar[Preparation]

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwds: Any) -> Any:
        """Prepare the slave, unless it is; then call the function."""
        type(self).preparation.make(function, args, kwds)
        return function(*args, **kwds)


class PreparedFunction(FunctionJob[..., Any]):
    """The call of one function, in a slave that is prepared."""

    preparation: ClassVar[Preparation]

    def __call__(self, /, *args: Any, **kwds: Any) -> Any:
        """Prepare the slave, unless it is; then call the function."""
        function = type(self).function
        type(self).preparation.make(function, args, kwds)
        return function(*args, **kwds)


class PreparedCalls(Calls):
    """Makes jobs of calls in slaves that are prepared. Jobs that are submitted as such do not know what to prepare."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        # Classes of their own, whose definitions are sent to each slave once, with what is needed to prepare it.
        self._preparation = preparation
        self._call = type("PreparedCall", (PreparedCall,), {"preparation": preparation})

    def _make(self, function: Any) -> type[Job]:
        body = {"function": staticmethod(function), "preparation": self._preparation, "__module__": function.__module__}
        return type(function.__name__, (PreparedFunction,), body)
