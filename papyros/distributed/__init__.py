"""Papyros on many machines: a master on a Pyro5 daemon, slave hosts, and clients.

The only part of Papyros that imports Pyro5. See the guide on distributed work
for how the parts are started; ``python -m papyros.distributed --help`` is the short of it.
"""

from __future__ import annotations

from papyros.distributed.client import DistributedMaster
from papyros.distributed.cluster import LocalCluster
from papyros.distributed.naming import DEFAULT_GROUP

__all__ = ["DEFAULT_GROUP", "DistributedMaster", "LocalCluster"]
