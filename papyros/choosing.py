"""Which master it is, chosen by one word: on a command line, in the environment, or in the program.

The words are names of where the jobs run; what they stand for is loaded when it is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from typing import Any

from papyros.errors import ConfigError
from papyros.master import Master

__all__ = ["DEFAULT_SPEC", "VARIABLE", "add_master_option", "open_master"]

#: The environment variable that says which master it is, where the program does not.
VARIABLE = "PAPYROS_MASTER"

#: What it is where nobody says.
DEFAULT_SPEC = "processes"

#: What there is, with what it means.
WORDS = {
    "serial": "one job after the other, in this thread",
    "threads[:N]": "N threads of this process; by default one for each CPU",
    "processes[:N]": "N processes of this machine; by default one for each CPU",
    "pyro://[GROUP][@HOST[:PORT]]": "the cluster of that group, whose name server is there",
    "dask://HOST:PORT": "the Dask cluster whose scheduler is there",
    "ray://[HOST:PORT]": "the Ray cluster there; by default one of this machine",
}


def open_master(spec: str | None = None, **options: Any) -> Master:
    """Return the master that a word stands for.

    Args:
        spec: one of ``serial``, ``threads:4``, ``processes:8``, ``pyro://GROUP@HOST:PORT``, ``dask://HOST:PORT``
            and ``ray://HOST:PORT``, numbers and addresses being optional where they can be; None = what
            the environment variable ``PAPYROS_MASTER`` says, and otherwise ``processes``.
        options: further arguments for the constructor of that master, by name.

    Raises:
        ConfigError: there is no such word, or what follows it makes no sense; the text lists those there are.
        ImportError: it needs an extra that is not installed.
        ConnectionError: a cluster does not answer.
    """
    source = "" if spec is not None else f" (from {VARIABLE})"
    chosen = os.environ.get(VARIABLE) or DEFAULT_SPEC if spec is None else spec
    if not isinstance(chosen, str):
        raise TypeError(f"a master is chosen by a word, like 'threads:4', not by {chosen!r}")
    return _constructor(chosen.strip(), source)(**options)


def _constructor(spec: str, source: str) -> Callable[..., Master]:
    scheme, slashes, place = spec.partition("://")
    if slashes:
        arguments = {"pyro": _pyro, "dask": _dask, "ray": _ray}.get(scheme)
        if arguments is not None:
            kind, defaults = arguments(place, spec, source)
            return lambda **options: _load(kind)(**{**defaults, **options})
        raise _unknown(spec, source)
    word, colon, number = spec.partition(":")
    if word == "serial" and not colon:
        return _load("papyros:SingleThreadedMaster")
    kind = {"threads": "papyros:MultiThreadedMaster", "processes": "papyros:MultiProcessMaster"}.get(word, "")
    if not kind:
        raise _unknown(spec, source)
    if colon and not (number.isdecimal() and int(number) > 0):
        raise ConfigError(f"{spec!r}{source} is to name a number of slaves, from 1, after the colon, like '{word}:4'")
    defaults = {"slaves": int(number)} if colon else {}
    return lambda **options: _load(kind)(**{**defaults, **options})


def _pyro(place: str, spec: str, source: str) -> tuple[str, dict[str, Any]]:
    group, at, address = place.rpartition("@") if "@" in place else (place, "", "")
    if at and not address:
        raise ConfigError(f"{spec!r}{source} names no host after the @; it is to be like 'pyro://GROUP@HOST:PORT'")
    named = {"group": group, "nameserver": address}
    return "papyros:DistributedMaster", {name: value for name, value in named.items() if value}


def _dask(place: str, spec: str, source: str) -> tuple[str, dict[str, Any]]:
    if not place:
        raise ConfigError(f"{spec!r}{source} names no scheduler; it is to be like 'dask://HOST:PORT'")
    return "papyros.engines.dask:DaskMaster", {"client": place}


def _ray(place: str, spec: str, source: str) -> tuple[str, dict[str, Any]]:  # noqa: ARG001 - as the others
    return "papyros.engines.ray:RayMaster", {"address": place} if place else {}


def _load(kind: str) -> Callable[..., Master]:
    """Return a class by its name, since nobody imports all of them, nor those that are not installed."""
    module, _, name = kind.partition(":")
    constructor: Callable[..., Master] = getattr(importlib.import_module(module), name)
    return constructor


def _unknown(spec: str, source: str) -> ConfigError:
    words = "\n".join(f"  {word}: {meaning}" for word, meaning in WORDS.items())
    return ConfigError(f"{spec!r}{source} is no master; there are\n{words}")


def add_master_option(parser: argparse.ArgumentParser, flag: str = "--master", default: str | None = None) -> None:
    """Give a parser an option that chooses the master: ``open_master(arguments.master)`` opens it.

    Args:
        parser: the parser of the program's command line.
        flag: the name of the option.
        default: the word that is meant where the command line has none; None = what ``PAPYROS_MASTER`` says, and
            otherwise ``processes``.
    """
    told = f"{VARIABLE} or {DEFAULT_SPEC}" if default is None else default
    words = "; ".join(f"{word}: {meaning}" for word, meaning in WORDS.items())
    parser.add_argument(
        flag, type=_checked, default=default, metavar="WHERE", help=f"where the jobs run. {words} (default: {told})"
    )


def _checked(text: str) -> str:
    """Refuse on the command line what is no word."""
    try:
        _constructor(text.strip(), "")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
