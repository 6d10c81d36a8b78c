"""Builds the package; its metadata is in pyproject.toml.

The rooms through which each job comes are compiled to C, by mypyc, from the same sources that run without that: see
"Compiled rooms" in docs/architecture.md. Where that cannot be done, for want of a compiler, say, Papyros is
installed as it is, and is slower. PAPYROS_PURE=1 asks for that. An editable install is never compiled.
"""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

#: The modules that are compiled: what is done for each job, and no more.
COMPILED = [
    "aftermath",
    "briefing",
    "books",
    "bundles",
    "crew",
    "delays",
    "distributed/batches",
    "distributed/bundling",
    "distributed/exchange",
    "distributed/sent",
    "encoded",
    "entries",
    "feeding",
    "frames",
    "hiring",
    "jobclasses",
    "keeping",
    "ledger",
    "ledgersource",
    "limits",
    "loop",
    "outcome",
    "pace",
    "process",
    "progress",
    "shares",
    "slate",
    "slave",
    "staff",
    "tasks",
    "telling",
    "terms",
    "turns",
    "waiting",
    "wire",
]

#: With these commands of setuptools, something is built to be installed.
BUILDING = {"bdist_wheel", "build", "build_ext", "install"}


def extensions():
    """Return what is to be compiled; nothing where that is not wanted, or cannot be."""
    if os.environ.get("PAPYROS_PURE", "0") not in ("", "0") or not BUILDING.intersection(sys.argv):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        _tell("mypy is not installed")
        return []
    # What other packages say of their types is not known where this is built, and makes no difference.
    options = ["--config-file=", "--ignore-missing-imports"]
    try:
        return mypycify([*options, *(f"papyros/{module}.py" for module in COMPILED)], opt_level="2", debug_level="1")
    except SystemExit:  # it has said why
        _tell("mypyc refuses the sources")
        return []


class BuildIfPossible(build_ext):
    """Compiles all of it, or goes without."""

    def run(self):
        """Compile; an error is told, and ends nothing."""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - whatever a compiler, or the lack of one, may come to
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []
            _tell(error)


def _tell(why):
    print(f"papyros is installed without compiled parts, which costs speed and nothing else: {why}", file=sys.stderr)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildIfPossible})
