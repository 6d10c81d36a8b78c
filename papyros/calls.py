"""Calls of functions as jobs: what an executor is given becomes something that a master can keep.

A job class's definition is sent once, and each job after it carries but its
arguments. So a function that can be known again gets a class of its own; any
other callable (a closure, a bound method, a partial) travels with each call, as it is at
that moment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from papyros.jobs import Job, job
from papyros.master import Master

__all__ = ["Call", "Calls", "calls_of"]

#: So many functions of a program get a class of their own; masters keep the definitions of all classes that they saw.
MAX_CLASSES = 1000

_NAMED = (FunctionType, BuiltinFunctionType, type)


class Call(Job):
    """The call of any callable: the first argument, with the others."""

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwds: Any) -> Any:
        """Call the function."""
        return function(*args, **kwds)


class Calls:
    """Makes jobs of calls, for one master."""

    def __init__(self) -> None:
        self._classes: dict[Hashable, type[Job]] = {}
        self._call: type[Job] = Call

    def job(self, function: Callable[..., Any], args: tuple[Any, ...], kwds: dict[str, Any]) -> Job:
        """Return a job that makes this call.

        A job class stands for its jobs: they keep their options. A job stands for itself.
        """
        kind = self._class_of(function) if type(function) in _NAMED else _job_class(function)
        if kind is not None:
            return kind(*args, **kwds)
        if not callable(function):
            raise TypeError(f"an executor is given functions and other callables to call, and {function!r} is none")
        if isinstance(function, Job):
            if args or kwds:
                raise TypeError(f"{function!r} has its arguments already; submit its class with other ones")
            return function
        return self._call(function, *args, **kwds)

    def _class_of(self, function: Any) -> type[Job] | None:
        kind = self._classes.get(function)
        if kind is not None:
            return kind
        if (kind := _job_class(function)) is not None:
            return kind
        key = _identity(function)
        if key is None:
            return None
        kind = self._classes.get(key)
        if kind is None and len(self._classes) < MAX_CLASSES:
            kind = self._classes.setdefault(key, self._make(function))
        return kind

    def _make(self, function: Any) -> type[Job]:
        return job(function)


def _job_class(function: Any) -> type[Job] | None:
    """Return what stands for jobs, also where it has a metaclass of its own; None of anything else."""
    return function if isinstance(function, type) and issubclass(function, Job) else None


def _identity(function: Any) -> Hashable | None:
    """Return what tells a function from all others, for good; None where nothing does.

    That is the function itself, where its module has it under its name. Of the others, two that were made by the
    same line are the same if they keep nothing of where they were made.
    """
    named: Any = getattr(sys.modules.get(function.__module__), getattr(function, "__qualname__", ""), None)
    if named is function:
        return function  # type: ignore[no-any-return]
    if type(function) is not FunctionType:
        return None
    kept = function.__closure__, function.__defaults__, function.__kwdefaults__, function.__dict__
    return None if any(kept) else (function.__code__, id(function.__globals__))


def calls_of(master: Master) -> Calls:
    """Return what makes jobs of calls for `master`: always the same, so that no class is defined there twice."""
    calls: Calls = master.__dict__.setdefault("_calls", Calls())
    return calls
