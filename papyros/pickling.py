"""Pickling by value: of what cannot be imported, of handles of shared values, and of these values themselves.

A class of ``__main__``, of a notebook or of a function is pickled by value, by cloudpickle. A handle is pickled as the
digest of its value; where that is unpickled, somebody has to say which handle it is. A shared value is pickled
beside its large buffers, so that these can be used where they are held, without a copy.
"""

from __future__ import annotations

import io
import pickle
from array import array
from collections.abc import Callable
from typing import Any, Final

from papyros.errors import PayloadError
from papyros.frames import Buffer
from papyros.sharing import Shared
from papyros.store import Held

__all__ = [
    "PROTOCOL",
    "Rebuilt",
    "brief",
    "dumps_by_value",
    "find_shared",
    "hold_value",
    "load_value",
    "loads",
    "modules_by_value",
    "text_of",
]

PROTOCOL: Final = 5

Find = Callable[[bytes], Shared[Any]]

#: Parts of what is held begin at multiples of this, as arrays like it.
_ALIGNMENT = 64


def dumps_by_value(value: Any, handles: list[Shared[Any]] | None = None, met: list[Any] | None = None) -> bytes:
    """Pickle; handles of shared values by reference, if they are to be noted, and else with their values.

    The modules, functions and classes that are met on the way are added to `met`, where that is given.
    """
    from papyros.byvalue import MeetingPickler, Pickler, ReferringPickler  # see there

    def refer(handle: Shared[Any]) -> tuple[Any, ...]:
        if handles is not None:
            handles.append(handle)
        return find_shared, (handle.hold(hold_value).digest,)

    with io.BytesIO() as file:
        if met is not None:
            pickler = MeetingPickler(file, PROTOCOL, refer if handles is not None else None, met)
        else:
            pickler = Pickler(file, PROTOCOL) if handles is None else ReferringPickler(file, PROTOCOL, refer)
        pickler.dump(value)
        return file.getvalue()


def modules_by_value() -> set[str]:
    """Return the modules and packages that the program has travel by value."""
    from papyros.byvalue import modules_by_value  # see there

    return modules_by_value()


class Rebuilt:
    """Pickles as a call that makes something."""

    def __init__(self, call: tuple[Any, ...]) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


# Shared values ----------------------------------------------------------------------------


def _view(buffer: Buffer, form: Any, shape: tuple[int, ...]) -> memoryview:
    view: memoryview = memoryview(buffer).cast("B").cast(form, shape)
    return view


def _reduce_view(view: memoryview) -> tuple[Any, ...]:
    """Reduce a view of memory, which pickle knows nothing of, to what it shows."""
    if not view.nbytes:
        return memoryview, (b"",)  # of nothing there is but one form
    # A ValueError where it could not be made again.
    memoryview(b"").cast("B").cast(view.format)  # type: ignore[call-overload]
    plain = view if view.c_contiguous else view.tobytes()
    return _view, (pickle.PickleBuffer(memoryview(plain).cast("B")), view.format, view.shape)


def hold_value(value: Any) -> Held:
    """Pickle a value that jobs share, and hold it: the lengths of its parts, what is pickled, and large buffers.

    Raises:
        PayloadError: it cannot be pickled.
    """
    from papyros.byvalue import ValuePickler  # see there

    buffers: list[pickle.PickleBuffer] = []
    form = Rebuilt((type(value), (pickle.PickleBuffer(value),))) if type(value) in (bytes, bytearray) else value
    try:
        with io.BytesIO() as file:
            ValuePickler(file, PROTOCOL, _reduce_view, buffers.append).dump(form)
            parts: list[Buffer] = [file.getvalue(), *(buffer.raw() for buffer in buffers)]
        lengths = [len(part) for part in parts]
        parts.insert(0, array("Q", [len(lengths), *lengths]).tobytes())
        return Held.of(part for each in parts for part in (each, bytes(-len(each) % _ALIGNMENT)))
    except Exception as error:
        raise PayloadError(f"a value to be shared cannot be pickled, or not be held: {brief(error)}") from error


def load_value(view: memoryview) -> Any:
    """Return a shared value; its large buffers stay where they are.

    Raises:
        PayloadError: it cannot be unpickled here.
    """
    count = int.from_bytes(view[:8], "little")
    end, parts = 8 * (1 + count), []
    for length in array("Q", bytes(view[8:end])):
        start = end + -end % _ALIGNMENT
        end = start + length
        parts.append(view[start:end])
    try:
        return pickle.loads(parts[0], buffers=parts[1:])
    except Exception as error:
        raise PayloadError(f"a shared value cannot be unpickled: {brief(error)}") from error


def find_shared(digest: bytes) -> Shared[Any]:
    """Stand in a pickle for the handle of a shared value; whoever unpickles that says where it is to be found."""
    raise PayloadError(f"the shared value {digest.hex()[:8]} is not known where its handle was unpickled")


def loads(pickled: Buffer, find: Find | None) -> Any:
    """Unpickle what `dumps_by_value` pickled; `find` returns the handles of shared values, given their digests."""
    with io.BytesIO(pickled) as file:
        return _Unpickler(file, find or find_shared).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, find: Find) -> None:
        super().__init__(file)
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        if name == find_shared.__name__ and module == __name__:
            return self._find
        return super().find_class(module, name)


# Words ------------------------------------------------------------------------------------


def text_of(error: BaseException) -> str:
    """Return the text of an error, also of one that has none to offer."""
    try:
        return str.__str__(str(error))  # it may be of a class of the user's own, which cannot travel
    except BaseException as failure:  # noqa: BLE001 - a __str__ of the user's may raise anything at all
        return f"<its text cannot be had: {type(failure).__name__}>"


def brief(error: BaseException) -> str:
    """Return the type and the text of an error."""
    return f"{type(error).__name__}: {text_of(error)}"
