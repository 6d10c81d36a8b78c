"""The picklers that pickle by value, by cloudpickle, what cannot be imported where it is unpickled.

They are imported when the first of them is needed: slaves of jobs that can be imported need none, and to import
cloudpickle takes half as long as to import all the rest that a slave needs.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable
from functools import _lru_cache_wrapper, cached_property, lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar, NamedTuple

import cloudpickle

from papyros.listing import code_with_lines, lines_of
from papyros.sharing import Shared

__all__ = ["MeetingPickler", "Pickler", "ReferringPickler", "ValuePickler", "modules_by_value"]

Refer = Callable[[Shared[Any]], tuple[Any, ...]]


def modules_by_value() -> set[str]:
    """Return the modules and packages that `cloudpickle.register_pickle_by_value` was called with."""
    names: set[str] = cloudpickle.list_registry_pickle_by_value()
    return names


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    """Reduce code as cloudpickle does, but with the name of its file, and its lines: tracebacks show them."""
    make, args = cloudpickle.Pickler.dispatch_table[CodeType](code)
    parts = tuple(code.co_filename if isinstance(arg, str) and arg == "<dynamic-code>" else arg for arg in args)
    lines = lines_of(code)
    return (code_with_lines, (make, parts, lines)) if lines else (make, parts)


def _with_slots(made: type, reduced: Any) -> Any:
    """Have a class that is pickled by value have its slots where it is made anew; cloudpickle drops them.

    Its instances would have a `__dict__` there. What was pickled of them could not be unpickled here.
    """
    if not (isinstance(reduced, tuple) and len(reduced) > 2 and len(reduced[1]) == 6):
        return reduced  # it is pickled by its name; or it is an Enum, which is made in another way
    if NamedTuple in vars(made).get("__orig_bases__", ()):
        return reduced  # it gets them anew, and must not be given any
    make, (metaclass, name, bases, options, *others) = reduced[:2]
    slots = vars(made)["__slots__"]
    options = {**options, "__slots__": slots if isinstance(slots, str) else tuple(slots)}
    return make, (metaclass, name, bases, options, *others), *reduced[2:]


def _goes_by_name(value: Any) -> bool:
    """Whether what a module defines is found under its name where it is unpickled, too."""
    name = getattr(value, "__module__", None) or ""
    module = sys.modules.get(name)
    packages = {name.rsplit(".", parts)[0] for parts in range(name.count(".") + 1)}
    if module is None or name == "__main__" or packages & modules_by_value():
        return False
    found: Any = module
    for part in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is value


def _reduce_cached(function: Any) -> Any:
    """Reduce what `functools.lru_cache` has made: where it goes by value, its cache is empty there."""
    if _goes_by_name(function):
        return NotImplemented
    made = vars(function).items()
    noted = {name: kept for name, kept in made if name != "cache_parameters" and not name.startswith("__")}
    return _cached, (function.__wrapped__, function.cache_parameters()), noted


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def _check_dispatch(function: Any) -> None:
    """Refuse in words what `functools.singledispatch` has made, unless it goes by name: it refers to types weakly."""
    if hasattr(function, "dispatch") and not _goes_by_name(function):
        raise TypeError(
            f"{function.__qualname__} is a generic function, by functools.singledispatch, and cannot go by value: "
            "put it into a module that slaves can import"
        )


def _reduce_property(made: cached_property[Any]) -> Any:
    """Reduce a cached property without the lock that it has up to Python 3.11."""
    return cached_property, (made.func,), {name: kept for name, kept in vars(made).items() if name != "lock"}


#: How to reduce what cloudpickle leaves to pickle, which does not find it by its name, or not all of it.
_REDUCED = {_lru_cache_wrapper: _reduce_cached, cached_property: _reduce_property}


def _register_main() -> None:
    """Have the script of a program go by value also in a process that `multiprocessing` has started.

    There it has another name, by which nobody else can import it, either.
    """
    main = sys.modules.get("__mp_main__")
    if main is not None:
        cloudpickle.register_pickle_by_value(main)


_register_main()


class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """Pickles by value what cannot be imported."""

    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def reducer_override(self, value: Any) -> Any:
        """See `pickle.Pickler.reducer_override`."""
        if (reduce := _REDUCED.get(type(value))) is not None:
            return reduce(value)
        if type(value) is FunctionType and hasattr(value, "registry"):
            _check_dispatch(value)
        reduced = super().reducer_override(value)
        return _with_slots(value, reduced) if isinstance(value, type) and "__slots__" in vars(value) else reduced


class ReferringPickler(Pickler):
    """Pickles handles of shared values as what `refer` reduces them to."""

    def __init__(self, file: io.BytesIO, protocol: int, refer: Refer) -> None:
        super().__init__(file, protocol)
        self._refer = refer

    def reducer_override(self, value: Any) -> Any:
        """See `pickle.Pickler.reducer_override`."""
        return self._refer(value) if type(value) is Shared else super().reducer_override(value)


class MeetingPickler(Pickler):
    """Notes the modules, functions and classes that it meets; refers to handles of shared values, if it can."""

    def __init__(self, file: io.BytesIO, protocol: int, refer: Refer | None, met: list[Any]) -> None:
        super().__init__(file, protocol)
        self._refer = refer
        self._met = met

    def reducer_override(self, value: Any) -> Any:
        """See `pickle.Pickler.reducer_override`."""
        if isinstance(value, (ModuleType, FunctionType, type)):
            self._met.append(value)
        return self._refer(value) if self._refer and type(value) is Shared else super().reducer_override(value)


class ValuePickler(Pickler):
    """Pickles values beside their large buffers: arrays, and views of memory, which `reduce_view` reduces."""

    def __init__(
        self,
        file: io.BytesIO,
        protocol: int,
        reduce_view: Callable[[memoryview], tuple[Any, ...]],
        keep: Callable[[pickle.PickleBuffer], Any],
    ) -> None:
        # It is looked up once, by what follows.
        self.dispatch_table = ChainMap({memoryview: reduce_view}, Pickler.dispatch_table)  # type: ignore[misc]
        super().__init__(file, protocol, buffer_callback=keep)
