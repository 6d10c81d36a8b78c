"""The picklers that pickle by value, by cloudpickle, what cannot be imported where it is unpickled.

They are imported when the first of them is needed: slaves of jobs that can be imported need none, and to import
cloudpickle takes half as long as to import all the rest that a slave needs.
"""

from __future__ import annotations

import io
import pickle
from collections import ChainMap
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

import cloudpickle

from papyros.sharing import Shared

__all__ = ["MeetingPickler", "Pickler", "ReferringPickler", "ValuePickler", "modules_by_value"]

Refer = Callable[[Shared[Any]], tuple[Any, ...]]


def modules_by_value() -> set[str]:
    """Return the modules and packages that `cloudpickle.register_pickle_by_value` was called with."""
    names: set[str] = cloudpickle.list_registry_pickle_by_value()
    return names


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    """Reduce code as cloudpickle does, but with the name of its file, from which tracebacks show the line."""
    make, args = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return make, tuple(code.co_filename if isinstance(arg, str) and arg == "<dynamic-code>" else arg for arg in args)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """Pickles by value what cannot be imported."""

    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)


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
