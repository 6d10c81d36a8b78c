"""What ``python -m papyros.distributed.nameserver`` runs: nothing but the command, all of which is in `names`."""

from __future__ import annotations

import sys

from papyros.distributed.starting import start

__all__ = ["start"]

if __name__ == "__main__":
    sys.exit(start("papyros.distributed.names", "python -m papyros.distributed.nameserver"))
