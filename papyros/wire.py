"""Payloads: how jobs become bytes, and jobs again.

With `papyros.encoded`, which does the same for outcomes, and `pickling` and `byvalue` the only place that pickles for a
trip. A job travels as the digest of its class's *definition*, which each slave is sent once, and a blob with the
arguments. A class that can be imported is pickled by its name; one that cannot (of ``__main__``, of a notebook, of a
function) by value, by cloudpickle. Numbers, texts and such, which are most of what small jobs take and return, are
marshalled: that takes a third of the time. A first byte tells which it was, see `loads_plain`.

Whoever only passes payloads on (the crew, the slave host, the distributed master) handles bytes, and never comes in
here to look into them. How batches of payloads are framed is `papyros.frames`' affair.
"""

from __future__ import annotations

import marshal
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from papyros.digests import blake2b
from papyros.environment import search_path
from papyros.errors import PayloadError, PayloadTooLargeError
from papyros.frames import Parts
from papyros.jobs import Job, describe
from papyros.keeping import (
    arguments_of,
    check_travels,
    keep_handles,
    named_arguments,
    only_has_arguments,
    rebuild,
    travels_plainly,
    user_state,
)
from papyros.pickling import PROTOCOL, brief, dumps_by_value, hold_value, loads, modules_by_value
from papyros.sharing import Shared
from papyros.sources import Source, check_sources, note_sources, sources_of
from papyros.store import CLASS_NEEDS, JOB_NEEDS, Held, Kept, needs_of, with_needs, without_needs

__all__ = [
    "LARGE_BYTES",
    "MAX_PAYLOAD_BYTES",
    "Buffer",
    "Packer",
    "Payload",
    "build_job",
    "caused",
    "definition_digest",
    "dumps",
    "dumps_after",
    "load_definition",
    "loads_plain",
]

Buffer = bytes | bytearray | memoryview

#: Larger arguments or results are refused, unless a master is told otherwise: what one Pyro message can hold.
MAX_PAYLOAD_BYTES = (1 << 30) - (1 << 20)

#: Arguments and results of so many bytes are not to be copied more often than need be.
LARGE_BYTES: Final = 1 << 20

#: What is unpickled may be code of the user's, which raises anything. That it does not want to be is said by these.
_REFUSALS = (Exception, SystemExit, GeneratorExit)

_plain_dumps: Final = pickle.dumps
_plain_loads: Final = pickle.loads
_marshal_dumps: Final = marshal.dumps
_marshal_loads: Final = marshal.loads

#: The form that all versions of Python read. In it, nothing begins with `_PICKLED`.
_MARSHAL_VERSION: Final = 2

#: Of whole numbers beyond this, marshal makes more bytes than pickle does.
_HUGE: Final[Any] = 1 << 1000

#: What each pickle begins with, of a protocol of our times.
_PICKLED: Final = 0x80

_ATOMS: Final = frozenset({int, float, complex, str, bytes, bool, type(None)})
_SHORT: Final = 32  # containers up to this length are looked through for what plain pickle can do


class Payload(NamedTuple):
    """A job, packed."""

    definition: bytes
    blob: Buffer | Parts


class Packer:
    """Packs the jobs of one client, and keeps the definitions of their classes.

    Args:
        max_bytes: larger arguments, and larger shared values, are refused.
        sharing: whether shared values travel by themselves, and not with each job.
        in_parts: whether jobs with large arguments may be packed in parts, of which those arguments are some.
    """

    def __init__(self, max_bytes: int = MAX_PAYLOAD_BYTES, sharing: bool = True, in_parts: bool = False) -> None:
        self.max_bytes = max_bytes
        self.sharing = sharing
        self.in_parts = in_parts
        #: The shared values that jobs of this client may need.
        self.kept = Kept()
        #: Definitions by their digests.
        self.definitions: dict[bytes, bytes] = {}
        #: The names of their classes, by their digests.
        self.labels: dict[bytes, str] = {}
        self._digests: dict[type[Job], bytes] = {}
        self._peculiar: set[type[Job]] = set()  # the classes whose jobs are more than their attributes
        self._needing: dict[tuple[bytes, ...], bytes] = {}  # definitions of jobs with needs, by what they are made of
        self._class_handles: dict[bytes, list[Shared[Any]]] = {}
        note_sources()

    def pack(self, job: Job) -> Payload:
        """Pack a job.

        Raises:
            PayloadError: its class or its arguments cannot be pickled, or are too large.
        """
        return Payload(*self.pack_plainly(job))

    def pack_plainly(self, job: Job) -> tuple[bytes, Buffer | Parts]:
        """Do what `pack` does, and return a plain tuple.

        It costs less, and the garbage collector need not look through those again and again while jobs wait.
        """
        digest = self._digests.get(type(job)) or self._define(type(job))
        args = arguments_of(job)
        handles: list[Shared[Any]] | None = None
        blob: Buffer | Parts
        try:
            # Most jobs have one atom as their argument; those are told with the least effort.
            only = type(args[0]) if len(args) == 1 else None
            peculiar = len(self._peculiar) > 0 and type(job) in self._peculiar
            if not peculiar and only_has_arguments(job) and (only in _ATOMS or _is_plain(args)):
                if self.in_parts and (only is bytes or only is None) and _is_large(args):
                    blob = dumps_in_parts((args, None, None))
                elif only in _ATOMS and type(args) is tuple and not _is_long(args[0]):
                    blob = _marshal_dumps(args, _MARSHAL_VERSION)
                else:
                    blob = _plain_dumps((args, None, None), PROTOCOL)
            else:
                handles = [] if self.sharing else None
                blob = dumps_by_value((args, named_arguments(job), user_state(job)), handles)
        except KeyboardInterrupt:
            raise  # the user's
        except BaseException as error:
            refusal = PayloadError(f"the arguments of {describe(job)} cannot be pickled: {brief(error)}")
            raise caused(refusal, error) from error
        if len(blob) > self.max_bytes:
            raise PayloadTooLargeError(
                f"the arguments of {describe(job)} take {len(blob):,} bytes; the bound is {self.max_bytes:,} bytes"
            )
        if handles:
            digest = self._note_needs(digest, handles, job)
            keep_handles(job, handles)
        return digest, blob

    def knows(self, job_class: type[Job]) -> bool:
        """Return whether jobs of a class have been packed here before, or have come here."""
        try:
            return job_class in self._digests
        except TypeError:  # it is no class of jobs, but of a kind that cannot be looked up
            return False

    def _note_needs(self, digest: bytes, handles: list[Shared[Any]], job: Job) -> bytes:
        """Keep what jobs with these handles need, and return the digest of a definition that says so."""
        needs = self._keep(handles, job)
        key = (digest, *sorted({held.digest for held in needs}))
        with self.kept.lock:
            for handle, held in zip(handles, needs, strict=True):
                self.kept.note(handle, held)
            known = self._needing.get(key)
            if known is None:
                definition = with_needs(JOB_NEEDS, key[1:], self.definitions[digest])
                known = self._needing[key] = definition_digest(definition)
                self.definitions[known], self.labels[known] = definition, self.labels[digest]
            return known

    def _keep(self, handles: list[Shared[Any]], of: object) -> list[Held]:
        needs = [handle.hold(hold_value) for handle in handles]
        for held in needs:
            if held.size > self.max_bytes:
                raise PayloadTooLargeError(
                    f"a shared value of {of!r} takes {held.size:,} bytes; the bound is {self.max_bytes:,} bytes"
                )
        return needs

    def forget_dropped(self) -> tuple[list[bytes], list[bytes]]:
        """Forget the shared values of which there is no handle any more, and the definitions of jobs that need them.

        Returns the digests of these values, and of these definitions.
        """
        if not self.kept.stale:
            return [], []
        with self.kept.lock:
            gone = self.kept.take_dropped()
            keys = [key for key in self._needing if not set(gone).isdisjoint(key[1:])]
            definitions = [self._needing.pop(key) for key in keys]
            for known in definitions:
                del self.definitions[known], self.labels[known]
        return gone, definitions

    def forget_all(self) -> None:
        """Let go of all shared values, since no jobs will be packed any more."""
        self._class_handles.clear()
        self._digests.clear()  # classes may refer to handles
        self._peculiar.clear()
        with self.kept.lock:
            self.kept.clear()

    def know(self, job_class: type[Job], definition: bytes, find: Callable[[bytes], Shared[Any]] | None = None) -> None:
        """Use the definition from which a class was loaded here, so that nobody has to be sent another one.

        Where it needs shared values, `find` returns their handles.
        """
        digest = definition_digest(definition)
        if find is not None and (handles := list(map(find, needs_of(definition)))):
            self._hold_for_class(digest, handles, job_class)
        self.definitions[digest] = definition
        self.labels[digest] = job_class.__qualname__
        if not travels_plainly(job_class):
            self._peculiar.add(job_class)
        self._digests[job_class] = digest

    def _hold_for_class(self, digest: bytes, handles: list[Shared[Any]], job_class: type[Job]) -> None:
        needs = self._keep(handles, job_class)
        self._class_handles[digest] = handles
        with self.kept.lock:
            for handle, held in zip(handles, needs, strict=True):
                self.kept.note(handle, held)

    def _define(self, job_class: type[Job]) -> bytes:
        handles: list[Shared[Any]] = []
        met: list[Any] = []
        try:
            check_travels(job_class)
            pickled = dumps_by_value(job_class, handles if self.sharing else None, met)
        except KeyboardInterrupt:
            raise  # the user's
        except BaseException as error:
            name = job_class.__qualname__
            refusal = PayloadError(f"the job class {name} cannot be pickled, with what it refers to: {brief(error)}")
            raise caused(refusal, error) from error
        sources = {name: tuple(source) for name, source in sources_of(met, modules_by_value()).items()}
        definition = pickle.dumps((job_class.__qualname__, pickled, _search_path(), sources), PROTOCOL)
        if len(definition) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLargeError(
                f"the job class {job_class.__qualname__} takes {len(definition):,} bytes, with what it refers to; the "
                f"bound is {MAX_PAYLOAD_BYTES:,} bytes. Hand its jobs what is large as an argument: papyros.shared(...)"
            )
        if handles:  # it refers to them by names of its module
            needs = sorted({held.digest for held in self._keep(handles, job_class)})
            definition = with_needs(CLASS_NEEDS, needs, definition)
            self._hold_for_class(definition_digest(definition), handles, job_class)
        self.know(job_class, definition)
        return self._digests[job_class]


def definition_digest(definition: Buffer) -> bytes:
    """Return the digest by which jobs refer to the definition of their class: no other one has the same."""
    return blake2b(definition, digest_size=16).digest()


def _is_plain(args: Sequence[Any], depth: int = 2) -> bool:
    """Whether plain pickle does for the arguments: builtins, and short tuples and lists of them."""
    for arg in args:
        kind = type(arg)
        if kind in _ATOMS:
            continue
        if kind not in (tuple, list) or len(arg) > _SHORT or not depth or not _is_plain(arg, depth - 1):
            return False
    return True


def _is_long(atom: Any) -> bool:
    """Whether a text, or bytes, are not to be copied more often than need be; or a number takes less when pickled."""
    kind = type(atom)
    if kind is int:
        return not -_HUGE < atom < _HUGE
    return (kind is str or kind is bytes) and len(atom) >= LARGE_BYTES


def _is_large(args: Sequence[Any]) -> bool:
    """Whether something large is among the arguments that never changes, so that it need not be copied when added."""
    return any(type(arg) is bytes and len(arg) >= LARGE_BYTES for arg in args)


def _search_path() -> list[str]:
    """Where modules of this program may lie that a slave on the same file system can import too."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [os.path.dirname(os.path.realpath(main))] if main else []
    return search_path([*folders, ""])


def load_definition(definition: bytes, find: Callable[[bytes], Shared[Any]] | None = None) -> type[Job]:
    """Return the job class of a definition.

    The folders that the client named are looked in last. Shared values that it refers to are those that `find` returns.

    Raises:
        PayloadError: it cannot be unpickled here, or would be another class; the text names the class and says why.
    """
    plain = without_needs(CLASS_NEEDS, definition)
    name, pickled, folders, told = pickle.loads(plain)
    sources = {module: Source(*source) for module, source in told.items()}
    for folder in folders:
        if folder not in sys.path and os.path.isdir(folder):
            sys.path.append(folder)
    check_sources(name, sources)
    try:
        job_class: type[Job] = pickle.loads(pickled) if plain is definition else loads(pickled, find)
    except _REFUSALS as error:
        refusal = PayloadError(f"the job class {name} cannot be loaded: {brief(error)}{_way_out(error)}")
        raise caused(refusal, error) from error
    check_sources(name, sources)  # what was imported just now
    return job_class


def build_job(job_class: type[Job], blob: Buffer, find: Callable[[bytes], Shared[Any]] | None = None) -> Job:
    """Return the job that was packed into `blob`; where it needs shared values, `find` returns their handles.

    Raises:
        PayloadError: its arguments cannot be unpickled.
    """
    try:
        if blob[0] != _PICKLED:
            return rebuild(job_class, _marshal_loads(blob), None, None)
        args, kwds, state = _plain_loads(blob) if find is None else loads(blob, find)
        return rebuild(job_class, args, kwds, state)
    except _REFUSALS as error:
        refusal = PayloadError(
            f"the arguments of a {job_class.__name__} cannot be unpickled: {brief(error)}{_way_out(error)}"
        )
        raise caused(refusal, error) from error


def _way_out(error: BaseException) -> str:
    """Return what to do about a module that slaves lack."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    return (
        f"; install {error.name} where the slaves run, or let it travel along with "
        f"cloudpickle.register_pickle_by_value({error.name})"
    )


def caused(refusal: PayloadError, error: BaseException) -> PayloadError:
    """Return a refusal with its cause; where this is compiled, ``raise ... from`` does not see to it."""
    refusal.__cause__ = error
    return refusal


def dumps_after(prefix: bytes, value: Any) -> bytes | Parts:
    """Pickle a value behind a prefix, as `dumps` does; a large one without a copy of it."""
    if type(value) in _ATOMS and not _is_long(value):
        return prefix + _marshal_dumps(value, _MARSHAL_VERSION)
    if sys.getsizeof(value) < LARGE_BYTES:
        return prefix + dumps(value)
    try:
        return dumps_in_parts(value, prefix)
    except Exception:  # noqa: BLE001 - as in dumps
        return prefix + dumps_by_value(value)


def loads_plain(dumped: Buffer) -> Any:
    """Return the value that `dumps_after` dumped."""
    return _plain_loads(dumped) if dumped[0] == _PICKLED else _marshal_loads(dumped)


def dumps_in_parts(value: Any, *before: bytes) -> Parts:
    """Pickle a value behind some bytes, without a copy of what is large in it; raises what plain pickle does."""
    file = _FileOfParts(before)
    pickle.Pickler(file, PROTOCOL).dump(value)
    return Parts(file.parts)


class _FileOfParts:
    """What a pickler writes to that is to copy nothing large: it writes bytes objects, arrays and such as they are."""

    def __init__(self, before: Sequence[bytes]) -> None:
        self.parts: list[Buffer] = [*before]

    def write(self, data: Any) -> None:
        if isinstance(data, bytes):
            self.parts.append(data)
        else:
            self.parts.append(data.raw() if isinstance(data, pickle.PickleBuffer) else memoryview(data).cast("B"))


def dumps(value: Any) -> bytes:
    """Pickle a value: plainly, or, where that cannot be, by cloudpickle; which may raise anything."""
    try:
        return pickle.dumps(value, PROTOCOL)
    except Exception:  # noqa: BLE001 - whatever plain pickle dislikes, cloudpickle is asked for
        return dumps_by_value(value)
