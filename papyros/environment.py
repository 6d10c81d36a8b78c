"""The environment of other Python processes, which are to find this Papyros, and to run as this one does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

__all__ = ["STARTED_IN", "python_command", "python_environment", "search_path", "slave_environment"]


def _here() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # somebody has deleted it
        return None


#: The working directory when Papyros was imported: what is in `sys.path` as relative to it was found there. None where
#: there was none.
STARTED_IN = _here()

#: Options of the interpreter by ``-X`` that change what a program does, and not only what is told of it.
X_OPTIONS = ("dev", "faulthandler", "frozen_modules", "int_max_str_digits", "tracemalloc", "utf8")

#: Libraries that start threads of their own; with many slaves, one for each slave is enough.
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def python_command(*arguments: str) -> list[str]:
    """Return what starts another Python process that is to find this Papyros.

    A folder `papyros` in the working directory, as in a checkout, is another one: it is not looked into (``-P``).

    Raises:
        FileNotFoundError: nobody knows which program Python is here, since it is embedded in another one, say.
    """
    if not sys.executable:
        raise FileNotFoundError(
            f"sys.executable is {sys.executable!r}, so no other Python process can be started: set it to a path of one"
        )
    return [sys.executable, "-P", *_options(), *arguments]


def _options() -> Iterator[str]:
    """Yield the options of this interpreter that another one is to have, so that a job does there what it does here.

    Of ``-E`` and ``-I``, see `python_environment`.
    """
    flags = sys.flags
    yield from ["-O"] * flags.optimize
    yield from ["-b"] * flags.bytes_warning
    yield from ["-B"] * flags.dont_write_bytecode
    yield from ["-s"] * flags.no_user_site
    for name in X_OPTIONS:
        if (value := sys._xoptions.get(name)) is not None:
            yield from ("-X", name if value is True else f"{name}={value}")
    for warning in sys.warnoptions:
        yield from ("-W", warning)


def python_environment() -> dict[str, str]:
    """Return the environment for another Python process that is to find this Papyros.

    If this one takes no notice of Python's own variables (``-E``, ``-I``), those are not in it that say what is
    imported. Others that begin with ``PYTHON_`` may be the user's own.
    """
    environment = dict(os.environ)
    if sys.flags.ignore_environment:
        for name in [name for name in environment if name.startswith("PYTHON") and not name.startswith("PYTHON_")]:
            del environment[name]
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if "site-packages" not in home:  # a checkout: what made it importable here may not hold there
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{known}{os.pathsep}{home}" if known else home
    return environment


def search_path(folders: Iterable[object]) -> list[str]:
    """Return the folders of `sys.path` for another process; what is no text in there, Python passes over, too.

    What is relative to the working directory is so to that of this moment, and to that in which the program began: this
    may have imported its modules there before it went elsewhere.
    """
    bases = [base for base in dict.fromkeys((_here(), STARTED_IN)) if base is not None]
    found: dict[str, None] = {}  # in order, and each once
    for folder in folders:
        if isinstance(folder, str):
            there = [folder] if os.path.isabs(folder) else [_joined(base, folder) for base in bases]
            found.update(dict.fromkeys(there))
    return list(found)


def _joined(base: str, folder: str) -> str:
    return os.path.join(base, folder) if folder else base


def slave_environment() -> dict[str, str]:
    """Return the environment of a slave, with modest thread pools unless the user says otherwise."""
    return dict.fromkeys(THREAD_LIMITS, "1") | python_environment()
