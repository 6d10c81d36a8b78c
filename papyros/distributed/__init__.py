"""Papyros on many machines: a master on a Pyro5 daemon, slave hosts, and clients.

The only part of Papyros that imports Pyro5. See the guide on distributed work
for how the parts are started; ``python -m papyros.distributed --help`` is the short of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papyros.errors import ConfigError

if TYPE_CHECKING:
    from papyros.distributed.client import DistributedMaster
    from papyros.distributed.cluster import LocalCluster
    from papyros.distributed.naming import DEFAULT_GROUP

__all__ = ["DEFAULT_GROUP", "DistributedMaster", "LocalCluster"]

_LAZY = {
    "DEFAULT_GROUP": "papyros.distributed.naming",
    "DistributedMaster": "papyros.distributed.client",
    "LocalCluster": "papyros.distributed.cluster",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'papyros.distributed' has no attribute {name!r}")
    import_pyro()
    return getattr(importlib.import_module(module), name)


def import_pyro() -> None:
    """Import Pyro5, which reads the environment as it is imported.

    Raises:
        ConfigError: there is something in the environment that Pyro does not understand.
    """
    try:
        importlib.import_module("Pyro5")
    except ValueError as error:
        raise ConfigError(
            f"Pyro refuses what the environment says ({error}); variables that begin with PYRO_ set items of Pyro's "
            "configuration: unset this one, or mend it"
        ) from None
