"""Configuration files: the options of the command line, and Pyro's own items, in TOML.

::

    group = "lab"
    nameserver = "lab1:9090"
    slaves = 8

    [pyro]
    COMMTIMEOUT = 5.0
"""

from __future__ import annotations

import argparse
import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import Pyro5
from Pyro5.configure import Configuration
from Pyro5.serializers import serializers

from papyros.errors import ConfigError

__all__ = ["OPTIONS", "apply_pyro_items", "changed_pyro_items", "read_config"]

#: The options that a file may set, with the types of their values.
OPTIONS: dict[str, type] = {
    "group": str,
    "nameserver": str,
    "host": str,
    "key_file": str,
    "publish": str,
    "port": int,
    "slaves": int,
    "lease": float,
    "grace": float,
    "drain": float,
    "max_bytes": int,
    "logging": bool,
    "standalone": bool,
}

_TYPES = {str: "text", int: "a whole number", bool: "true or false", float: "a number", list: "a list"}


def read_config(
    path: Path, checks: Mapping[str, Callable[[str], object]] = MappingProxyType({})
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and the Pyro items that a file sets.

    Args:
        path: the file.
        checks: for options, what raises an error with words for a value that is of the right type, but wrong.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has a key or a value that is not understood;
            the text names the file, the line and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    try:
        options = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration file {path} is no TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"the configuration file {path} has values in values that are nested too deeply") from None
    items = options.pop("pyro", {})
    if not isinstance(items, dict):
        raise ConfigError(f"{_place(path, text, 'pyro')}: 'pyro' is a table of Pyro's items, [pyro]")
    for key, value in options.items():
        _check(_place(path, text, key), key, value, OPTIONS)
        _check_value(_place(path, text, key), key, value, checks)
    known = pyro_items()
    for key, value in items.items():
        _check(_place(path, text, key), key, value, known)
    _check_pyro(path, text, items)
    return options, items


def pyro_items() -> dict[str, type]:
    """Return the names of Pyro's configuration items, with the types of their values."""
    return {name: type(getattr(Pyro5.config, name)) for name in Pyro5.config.__slots__}


def apply_pyro_items(items: Mapping[str, Any]) -> None:
    """Set items of Pyro's configuration, which is that of this process."""
    for name, value in items.items():
        setattr(Pyro5.config, name, value)


def changed_pyro_items() -> dict[str, Any]:
    """Return the items of Pyro's configuration that differ, in this process, from Pyro's own defaults."""
    default = Configuration.__new__(Configuration)
    default.reset(use_environment=False)
    items = ((name, getattr(Pyro5.config, name)) for name in Pyro5.config.__slots__)
    return {name: value for name, value in items if value != getattr(default, name)}


def _check(place: str, key: str, value: object, known: Mapping[str, type]) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
        raise ConfigError(f"{place}: {key!r} is no option; {hint}")
    wanted = known[key]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return
    if wanted in _TYPES and type(value) is not wanted:
        raise ConfigError(f"{place}: {key!r} is {_TYPES[wanted]}, not {value!r}")


def _check_value(place: str, key: str, value: object, checks: Mapping[str, Callable[[str], object]]) -> None:
    if key in checks:
        try:
            checks[key](str(value))
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise ConfigError(f"{place}: {key!r}: {error}") from None


def _check_pyro(path: Path, text: str, items: Mapping[str, Any]) -> None:
    """Refuse values that Pyro itself would refuse, later and in a traceback."""
    if items.get("SSL"):
        raise ConfigError(f"{_place(path, text, 'SSL')}: 'SSL' is Pyro's own encryption, which Papyros does not use")
    if items.get("SERIALIZER", "serpent") not in serializers:
        raise ConfigError(
            f"{_place(path, text, 'SERIALIZER')}: 'SERIALIZER' is one of {', '.join(sorted(serializers))}, "
            f"not {items['SERIALIZER']!r}"
        )
    least = items.get("THREADPOOL_SIZE_MIN", Pyro5.config.THREADPOOL_SIZE_MIN)
    if not 1 <= least <= items.get("THREADPOOL_SIZE", Pyro5.config.THREADPOOL_SIZE):
        key = "THREADPOOL_SIZE" if "THREADPOOL_SIZE" in items else "THREADPOOL_SIZE_MIN"
        raise ConfigError(f"{_place(path, text, key)}: 'THREADPOOL_SIZE' is at least THREADPOOL_SIZE_MIN, {least}")


def _place(path: Path, text: str, key: str) -> str:
    pattern = re.compile(rf"""^\s*\[?\s*["']?{re.escape(key)}\b""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return f"{path}, line {number}"
    return str(path)
