"""Which master it is, chosen by one word: on a command line, in the environment, or in the program.

The words are names of where the jobs run; what they stand for is loaded when it is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Callable
from typing import Any

from papyros.errors import ConfigError, GroupNameError
from papyros.master import Master

__all__ = ["DEFAULT_SPEC", "VARIABLE", "add_master_option", "open_master"]

#: The environment variable that says which master it is, where the program does not.
VARIABLE = "PAPYROS_MASTER"

#: What it is where nobody says.
DEFAULT_SPEC = "processes"

#: So many slaves are more than anybody has; what is larger is a slip.
MOST_SLAVES = 1_000_000

#: Bounded, since Python refuses to read numbers of thousands of digits.
_NUMBER = re.compile(rf"[0-9]{{1,{len(str(MOST_SLAVES))}}}")

_PLACE = re.compile(r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[^\s:\[\]/@]+):(\d{1,5})", re.ASCII)

#: What there is, with what it means.
WORDS = {
    "serial": "one job after the other, in this thread",
    "threads[:N]": "N threads of this process; by default one for each CPU",
    "processes[:N]": "N processes of this machine; by default one for each CPU",
    "pyro://[GROUP][@HOST[:PORT]]": "the cluster of that group, whose name server is there",
    "dask://HOST:PORT": "the Dask cluster whose scheduler is there",
    "ray://[HOST:PORT]": "the Ray cluster whose Ray Client server is there; by default one of this machine",
}


def open_master(spec: str | None = None, **options: Any) -> Master:
    """Return the master that a word stands for.

    Args:
        spec: one of ``serial``, ``threads:4``, ``processes:8``, ``pyro://GROUP@HOST:PORT``, ``dask://HOST:PORT``
            and ``ray://HOST:PORT``, numbers and addresses being optional where they can be; None = what
            the environment variable ``PAPYROS_MASTER`` says, and otherwise ``processes``.
        options: further arguments for the constructor of that master, by name.

    Raises:
        ConfigError: there is no such word, of which the text lists those there are; or what follows it makes no
            sense, and the text says what it is to be like.
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
    defaults = {"slaves": _slaves(word, number, spec, source)} if colon else {}
    return lambda **options: _load(kind)(**{**defaults, **options})


def _slaves(word: str, number: str, spec: str, source: str) -> int:
    if _NUMBER.fullmatch(number) and 0 < int(number) <= MOST_SLAVES:
        return int(number)
    raise ConfigError(
        f"{_shown(spec)}{source} is to name a number of slaves, from 1 to {MOST_SLAVES:,}, after the colon, "
        f"like '{word}:4'"
    )


def _pyro(place: str, spec: str, source: str) -> tuple[str, dict[str, Any]]:
    group, at, address = place.rpartition("@") if "@" in place else (place, "", "")
    if at and not address:
        raise ConfigError(
            f"{_shown(spec)}{source} names no host after the @; it is to be like 'pyro://GROUP@HOST:PORT'"
        )
    if not at and ":" in place:
        raise ConfigError(
            f"{_shown(spec)}{source} is to be like 'pyro://GROUP@HOST:PORT', or like 'pyro://@HOST:PORT' for the group "
            "of those who name none; without the @, it names a group"
        )
    try:
        # By name, as all that is needed for one of the words only.
        naming = importlib.import_module("papyros.distributed.naming")
        if group:
            naming.check_group(group)
        if address:
            naming.parse_address(address)
    except (ConfigError, GroupNameError) as error:
        raise ConfigError(f"{_shown(spec)}{source} is to be like 'pyro://GROUP@HOST:PORT', but {error}") from error
    named = {"group": group, "nameserver": address}
    return "papyros:DistributedMaster", {name: value for name, value in named.items() if value}


def _dask(place: str, spec: str, source: str) -> tuple[str, dict[str, Any]]:
    if not place:
        raise ConfigError(f"{spec!r}{source} names no scheduler; it is to be like 'dask://HOST:PORT'")
    _check_place(place, spec, source)
    return "papyros.engines.dask:DaskMaster", {"client": place}


def _ray(place: str, spec: str, source: str) -> tuple[str, dict[str, Any]]:
    if place:
        _check_place(place, spec, source)
    # As Ray itself reads it: the port is that of Ray Client. Its other addresses have no such scheme.
    return "papyros.engines.ray:RayMaster", {"address": spec} if place else {}


def _check_place(place: str, spec: str, source: str) -> None:
    match = _PLACE.fullmatch(place)
    if match is None or not 0 < int(match[1]) < 65536:
        scheme = spec.partition(":")[0]
        raise ConfigError(
            f"{_shown(spec)}{source} is to be like '{scheme}://HOST:PORT', with a port from 1 to 65535; "
            f"{_shown(place)} is no HOST:PORT"
        )


def _shown(text: str) -> str:
    """Return what somebody wrote as an error shows it: in letters that any terminal has, and not all of it."""
    return ascii(text) if len(text) <= 80 else ascii(text[:60]) + "..."


def _load(kind: str) -> Callable[..., Master]:
    """Return a class by its name, since nobody imports all of them, nor those that are not installed."""
    module, _, name = kind.partition(":")
    constructor: Callable[..., Master] = getattr(importlib.import_module(module), name)
    return constructor


def _unknown(spec: str, source: str) -> ConfigError:
    words = "\n".join(f"  {word}: {meaning}" for word, meaning in WORDS.items())
    return ConfigError(f"{_shown(spec)}{source} is no master; there are\n{words}")


def add_master_option(parser: argparse.ArgumentParser, flag: str = "--master", default: str | None = None) -> None:
    """Give a parser an option that chooses the master: ``open_master(arguments.master)`` opens it.

    Args:
        parser: the parser of the program's command line.
        flag: the name of the option.
        default: the word that is meant where the command line has none; None = what ``PAPYROS_MASTER`` says, and
            otherwise ``processes``.

    Raises:
        ConfigError: `default` is no such word. (A wrong word in ``PAPYROS_MASTER`` is told, as one on the command line
            is, when the command line is parsed.)
    """
    if default is not None:
        _constructor(default.strip(), "")
    told = f"{VARIABLE} or {DEFAULT_SPEC}" if default is None else default
    words = "; ".join(f"{word}: {meaning}" for word, meaning in WORDS.items())
    told = f"where the jobs run. {words} (default: {told})".replace("%", "%%")  # argparse would take it for a format
    # argparse checks a default like what was given, but at no other time: where nothing was.
    word = _FromEnvironment(os.environ.get(VARIABLE, "")) or None if default is None else default
    parser.add_argument(flag, type=_checked, default=word, metavar="WHERE", help=told)


class _FromEnvironment(str):
    """A word that the environment has, and not the command line."""

    __slots__ = ()


def _checked(text: str) -> str:
    """Refuse on the command line what is no word."""
    try:
        _constructor(text.strip(), f" (from {VARIABLE})" if isinstance(text, _FromEnvironment) else "")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return str(text)
