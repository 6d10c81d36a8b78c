"""The environment of other Python processes: they are to find this Papyros, and slaves are to be modest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["python_command", "python_environment", "search_path", "slave_environment"]

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
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """Return the environment for another Python process that is to find this Papyros."""
    environment = dict(os.environ)
    home = str(Path(__file__).resolve().parent.parent)
    if "site-packages" not in home:  # a checkout: what made it importable here may not hold there
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{known}{os.pathsep}{home}" if known else home
    return environment


def search_path(folders: Iterable[object]) -> list[str]:
    """Return the folders of `sys.path` for another process; what is no text in there, Python passes over, too."""
    texts = [folder for folder in folders if isinstance(folder, str)]
    if "" not in texts:
        return texts
    try:
        here = str(Path.cwd())
    except OSError:  # somebody has deleted it
        return [folder for folder in texts if folder]
    return [folder or here for folder in texts]


def slave_environment() -> dict[str, str]:
    """Return the environment of a slave, with modest thread pools unless the user says otherwise."""
    return dict.fromkeys(THREAD_LIMITS, "1") | python_environment()
