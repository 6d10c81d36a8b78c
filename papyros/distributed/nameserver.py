"""Pyro5's name server on Papyros' daemon, as a part of a local cluster.

A group of machines may as well use the stock one, ``pyro5-ns``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from Pyro5 import core
from Pyro5.nameserver import NameServer

from papyros.distributed.config import apply_pyro_items
from papyros.distributed.daemon import Daemon
from papyros.distributed.lifeline import Lifeline
from papyros.distributed.signals import StopSignals

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve names until the program that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m papyros.distributed.nameserver", description=__doc__)
    parser.add_argument("--host", required=True, help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0 = any free one")
    parser.add_argument("--lifeline", type=int, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    lifeline = Lifeline(options.lifeline)
    apply_pyro_items(lifeline.hello()["pyro"])
    try:
        daemon = Daemon(options.host, options.port)
    except OSError as error:
        print(f"a name server cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    names = NameServer()
    uri = daemon.register(names, core.NAMESERVER_NAME)
    names.register(core.NAMESERVER_NAME, uri)
    with StopSignals() as stop:
        lifeline.watch(stop.set)
        daemon.start()
        lifeline.ready(port=daemon.port)
        stop.wait()
    daemon.close_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
