"""How the commands start: before there is anything of them that could say what goes wrong."""

from __future__ import annotations

import importlib
import sys

from papyros.distributed import import_pyro
from papyros.errors import ConfigError

__all__ = ["start"]


def start(module: str, program: str) -> int:
    """Run what a module calls `main`, under the name of a program; return the exit code."""
    try:
        import_pyro()
        code: int = importlib.import_module(module).main()
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before what it starts is there, which hears it in order; or while it asks somebody
        return 130
    return code
