"""Pyro5's name server on the daemon of this package, as a part of a local cluster: it asks for the key.

A group of machines may as well use the stock one, ``pyro5-ns``.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

from Pyro5 import core
from Pyro5.errors import NamingError
from Pyro5.nameserver import NameServer

from papyros.distributed.config import apply_pyro_items
from papyros.distributed.daemon import Daemon, offer
from papyros.distributed.keys import find_key
from papyros.distributed.lifeline import Lifeline
from papyros.distributed.security import Role, Security
from papyros.distributed.signals import StopSignals
from papyros.logs import show_warnings

__all__ = ["Names", "main"]

#: So many names are kept, and none that is longer, or stands for more, than this.
MOST_NAMES, LONGEST = 10_000, 500

EVERYBODY = (Role.WATCHER, Role.CLIENT, Role.SLAVE_HOST, Role.MASTER)


class Names:
    """What can be asked of a name server: enough to find masters, and to be found."""

    def __init__(self) -> None:
        self._names = NameServer()

    @offer(*EVERYBODY)
    def lookup(self, name: str) -> str:
        """Return the URI that is registered under a name."""
        return str(self._names.lookup(name))

    @offer(*EVERYBODY)
    def list(self, prefix: str) -> dict[str, str]:
        """Return what is registered under names that begin so."""
        found: dict[str, str] = self._names.list(prefix=prefix)
        return found

    @offer(*EVERYBODY)
    def register(self, name: str, uri: str, safe: bool) -> None:
        """Register a URI under a name; safely, if there is none yet."""
        if max(len(name), len(uri)) > LONGEST or self._names.count() >= MOST_NAMES:
            raise NamingError(f"no more than {MOST_NAMES} names, of {LONGEST} characters, are kept")
        core.URI(uri)
        self._names.register(name, uri, safe)

    @offer(*EVERYBODY)
    def remove(self, name: str) -> int:
        """Forget a name; return how many were forgotten."""
        return int(self._names.remove(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve names until the program that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m papyros.distributed.nameserver", description=__doc__)
    parser.add_argument("--host", required=True, help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0 = any free one")
    parser.add_argument("--lifeline", type=int, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    lifeline = Lifeline(options.lifeline)
    hello = lifeline.hello()
    apply_pyro_items(hello["pyro"])
    show_warnings()
    broken: list[str] = []
    stop = StopSignals()

    def broke(why: str) -> None:
        broken.append(why)
        stop.set()

    try:
        security = Security(find_key(hello["key_file"]))
        daemon = Daemon(options.host, options.port, security, Role.NAME_SERVER, Names(), broke)
    except OSError as error:
        hint = "; another name server, perhaps: take another port" if error.errno == errno.EADDRINUSE else ""
        print(f"a name server cannot listen on {options.host}:{options.port}: {error}{hint}", file=sys.stderr)
        return 1
    with stop:
        lifeline.watch(stop.set)
        daemon.start()
        lifeline.ready(port=daemon.port)
        stop.wait()
    daemon.close()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
