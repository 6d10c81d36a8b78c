"""Calls in slaves that are prepared: what the initializer of a pool is about.

The initializer is called once in each slave, before the first call there, and what it leaves in global variables is
there for the calls. In a slave process that takes a hand: functions of a script travel by value, each with global
variables of its own, so what the initializer has left in its own is put into theirs.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable
from functools import cache
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

    def __reduce__(self) -> tuple[Any, ...]:
        return Preparation, self._args

    def make(self, function: Callable[..., Any]) -> None:
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
            self._slaves.left = _globals_of(initializer)
        elif why:
            raise self._failure()
        _share(self._slaves.left, _globals_of(function))

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


def _globals_of(function: Any) -> dict[str, Any]:
    """Return the global variables of a function, a method, or what a partial calls; none where it has none."""
    while (inner := getattr(function, "__func__", None) or getattr(function, "func", None)) is not None:
        function = inner
    found: dict[str, Any] = getattr(function, "__globals__", {})
    return found


def _share(left: dict[str, Any], target: dict[str, Any]) -> None:
    """Put what the initializer has left among the global variables of a function, if both travelled by value."""
    name = target.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if target is left or _SHARED in target or left.get("__name__") != name or target is getattr(module, "__dict__", {}):
        return
    target.update((name, value) for name, value in left.items() if not name.startswith("__"))
    target[_SHARED] = True


class PreparedCall(Call):
    """The call of any callable, in a slave that is prepared."""

    preparation: ClassVar[Preparation]

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwds: Any) -> Any:
        """Prepare the slave, unless it is; then call the function."""
        type(self).preparation.make(function)
        return function(*args, **kwds)


class PreparedFunction(FunctionJob[..., Any]):
    """The call of one function, in a slave that is prepared."""

    preparation: ClassVar[Preparation]

    def __call__(self, /, *args: Any, **kwds: Any) -> Any:
        """Prepare the slave, unless it is; then call the function."""
        function = type(self).function
        type(self).preparation.make(function)
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
