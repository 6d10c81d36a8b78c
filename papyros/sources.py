"""The modules that a program has of its own, and whether a slave that runs its jobs has the same.

Slaves import a module once, by its name, and serve one program after the other. So what a slave has under a name may
be the module of another program, or what its file was before somebody changed it. A definition of a job class
names the sources of those modules that the class needs, and where it is loaded, they are compared. A slave that has
another one lets a fresh slave take its place.

What is installed is not looked at, nor is the standard library: whoever looks after the machines looks after these.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import NamedTuple

from papyros.digests import blake2b
from papyros.errors import PayloadError

__all__ = ["OtherModuleError", "Source", "check_sources", "note_sources", "sources_of"]

#: The statements of a source that import something, in parentheses or on continued lines also.
# Not compiled before they are needed: that takes longer than to import this module.
_IMPORTS = rb"(?m)^[ \t]*(?:from[ \t][^\n(]*\([^)]*\)|(?:from|import)[ \t](?:\\\n|[^\n])*)"
_WORDS = rb"\w+"

_STANDARD = os.path.dirname(os.path.realpath(os.__file__)) + os.sep
_INSTALLED = r"[/\\](?:site|dist)-packages[/\\]"


class OtherModuleError(PayloadError):
    """A module that a job needs is another one here; in a process that has imported nothing yet it may not be."""


class Source(NamedTuple):
    """Which source a module was imported from: a digest of it, and the path of its file."""

    digest: bytes
    path: str


#: Under this name, the spec that a module was imported by keeps the source that it had: a reloaded one has another.
_NOTED = "_papyros_source"


def note_sources() -> None:
    """Note the sources of this program's own modules: the sooner, the surer they are what was imported."""
    for name in list(sys.modules):
        _own_source(name)


def sources_of(met: Iterable[ModuleType | FunctionType | type], by_value: Collection[str]) -> dict[str, Source]:
    """Return the sources of this program's own modules that are needed where somebody unpickles what was met.

    Args:
        met: the modules, functions and classes that were met while something was pickled.
        by_value: the modules and packages that travel by value themselves.
    """
    own = {name: source for name in list(sys.modules) if (source := _own_source(name)) is not None}
    needed: dict[str, Source] = {}
    unread = _needed_first(met, own, by_value)
    while unread:
        name = unread.pop()
        if name in needed or name not in own:
            continue
        needed[name] = own[name]
        unread.append(name.rpartition(".")[0])  # a package is imported before what is in it
        unread.extend(_named_by(_imported_words(own[name]), own))
    return needed


def check_sources(label: str, sources: dict[str, Source]) -> None:
    """Refuse to load a class where a module that it needs is another one than in the program that it comes from.

    A file that was changed after that program has imported it is let pass: it is the module that was meant.

    Args:
        label: the name of the class.
        sources: what `sources_of` returned in that program.

    Raises:
        OtherModuleError: so it is; the text says what to do.
    """
    for name, theirs in sources.items():
        ours = _source_here(name)
        if ours is None or ours.digest == theirs.digest:
            continue
        if ours.path != theirs.path:
            raise OtherModuleError(
                f"the job class {label} could not be loaded: it needs the module {name}, which is {theirs.path} in the "
                f"program that added the job; where it was to run, {ours.path} comes first under that name. Give the "
                "modules different names, let them travel with cloudpickle.register_pickle_by_value, or give each "
                "program slaves of its own (--group=NAME), started in another folder"
            )
        if ours.digest != _digest_of(ours.path):
            raise OtherModuleError(
                f"the job class {label} could not be loaded: it needs the module {name}, and {ours.path} was changed "
                "after it was imported where the job was to run. No process imports a module twice: start it again"
            )


# Which modules ----------------------------------------------------------------------------


def _needed_first(
    met: Iterable[ModuleType | FunctionType | type], own: Collection[str], by_value: Collection[str]
) -> list[str]:
    """Return the names of modules that are imported for what was met, where it is unpickled."""
    found: set[str] = set()
    for value in met:
        name = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        found.add(name)
        if isinstance(value, FunctionType) and (name not in own or _is_in(name, by_value)):
            found.update(_named_by(frozenset(".".join(value.__code__.co_names).split(".")), own))
    return [name for name in found if not _is_in(name, by_value)]


def _is_in(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _named_by(words: frozenset[str], own: Iterable[str]) -> list[str]:
    """Return the modules of which the last part of the name is one of these words: too many rather than too few."""
    return [name for name in own if name.rpartition(".")[2] in words]


@cache
def _imported_words(source: Source) -> frozenset[str]:
    """Return the words in the statements by which a source imports anything."""
    with suppress(OSError), open(source.path, "rb") as file:
        statements = b" ".join(re.findall(_IMPORTS, file.read()))
        return frozenset(word.decode(errors="replace") for word in re.findall(_WORDS, statements))
    return frozenset()


def _own_source(name: str) -> Source | None:
    """Return the source of a module that was imported, if it is the program's own."""
    # This is asked of all modules that there are, often of more than a thousand.
    spec = _spec_of(name) if _may_be_own(name) else None
    return _noted(spec) if spec is not None and not _is_installed(spec.origin or "") else None


@cache
def _may_be_own(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in ("papyros", "__main__") and top not in sys.stdlib_module_names


@cache
def _is_installed(path: str) -> bool:
    return path.startswith(_STANDARD) or re.search(_INSTALLED, path) is not None


# What they are ----------------------------------------------------------------------------


def _source_here(name: str) -> Source | None:
    """Return the source of a module that was imported here, or else of the one that would be; None if none is known."""
    if name in sys.modules:
        return _noted(_spec_of(name))
    if name.rpartition(".")[0] in (*sys.modules, ""):  # else it would be imported to answer this
        with suppress(Exception):  # finders of the user's may raise anything
            spec = importlib.util.find_spec(name)
            return _read(spec) if spec is not None else None
    return None


def _spec_of(name: str) -> ModuleSpec | None:
    with suppress(Exception):  # what lies there need not be a module
        spec = getattr(sys.modules.get(name), "__spec__", None)
        return spec if isinstance(spec, ModuleSpec) else None
    return None


def _noted(spec: ModuleSpec | None) -> Source | None:
    """Return the source of the module of a spec, as it was when it was first asked for."""
    if spec is None:
        return None
    noted: Source | None = vars(spec).get(_NOTED)
    if noted is None and (noted := _read(spec)) is not None:
        setattr(spec, _NOTED, noted)
    return noted


def _path_of(spec: ModuleSpec) -> str | None:
    return spec.origin if spec.has_location and spec.origin is not None and spec.origin.endswith(".py") else None


def _read(spec: ModuleSpec) -> Source | None:
    path = _path_of(spec)
    digest = _digest_of(path) if path is not None else None
    return None if path is None or digest is None else Source(digest, os.path.realpath(path))


def _digest_of(path: str) -> bytes | None:
    with suppress(OSError), open(path, "rb") as file:
        return blake2b(file.read(), digest_size=16).digest()
    return None
