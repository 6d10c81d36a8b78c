"""What security costs: connections, calls, batches and seals, with and without encryption.

``python -m benchmarks.security`` prints a table. Both ends are threads of one
process, so a call costs the work of both; the best of several turns counts.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from Pyro5.callcontext import current_context

from papyros.distributed.daemon import Daemon, offer
from papyros.distributed.keys import ClusterKey
from papyros.distributed.line import Line
from papyros.distributed.messages import ANNOTATION
from papyros.distributed.seals import Seals
from papyros.distributed.security import Role, Security

__all__ = ["main"]

TURNS = 7
MB = 1 << 20


class Echo:
    """Sends back what comes."""

    @offer(Role.CLIENT)
    def echo(self) -> int:
        batch = current_context.annotations[ANNOTATION]
        if len(batch):
            current_context.response_annotations = {ANNOTATION: batch}
        return len(batch)


def best(work: Callable[[], Any], count: int) -> float:
    """Return how many seconds one of `count` pieces of work takes, in the best turn."""
    found = []
    for _ in range(TURNS):
        started = time.perf_counter()
        for _ in range(count):
            work()
        found.append((time.perf_counter() - started) / count)
    return min(found)


def bare_connection(address: str) -> float:
    """Return how long a connection takes that proves nothing: made, accepted in a thread, one byte each way."""
    with socket.create_server((address, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=lambda s=sock: (s.sendall(s.recv(1)), s.close())).start()

        thread = threading.Thread(target=serve)
        thread.start()

        def connect() -> None:
            with socket.create_connection(listener.getsockname()) as sock:
                sock.sendall(b"x")
                sock.recv(1)

        seconds = best(connect, 50)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    return seconds


def measure(address: str) -> dict[str, float]:
    """Return the seconds of a connection, of a call, and of a MB that goes there and back, on an address."""
    security = Security(ClusterKey(os.urandom(32), "a benchmark"))
    daemon = Daemon(address, 0, security, Role.MASTER, Echo())
    daemon.start()
    uri = f"PYRO:papyros.master@{address}:{daemon.port}"
    batch = os.urandom(8 * MB)
    try:

        def connect() -> None:
            with Line(uri, security, Role.CLIENT) as line:
                line.call("echo")

        connect()
        found = {"connection": best(connect, 20)}
        with Line(uri, security, Role.CLIENT) as line:
            found["call"] = best(lambda: line.call("echo"), 300)
            found["megabyte"] = best(lambda: line.call("echo", message=batch), 3) / 16
    finally:
        daemon.close()
    return found


def seals() -> dict[str, float]:
    """Return the seconds of a seal, of something small and of a MB, and of the check of it."""
    found = Seals(ClusterKey(os.urandom(32), "a benchmark"), "session")
    digest, small, large = os.urandom(16), os.urandom(60), os.urandom(MB)
    seal = found.seal_job(1, digest, small)
    return {
        "seal": best(lambda: found.seal_job(1, digest, small), 20_000),
        "check": best(lambda: found.check_job(1, digest, small, seal), 20_000),
        "megabyte": best(lambda: found.seal_job(1, digest, large), 100),
    }


def own_address() -> str:
    """Return an address of this machine that others could reach, for which everything is encrypted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])


def table() -> str:
    """Measure; return the table."""
    address = own_address()
    plain, encrypted, sealed = measure("127.0.0.1"), measure(address), seals()
    rows = [
        ("a connection, with the proofs of both sides", plain["connection"], encrypted["connection"], 1e3, "ms"),
        ("a call and its answer", plain["call"], encrypted["call"], 1e6, "µs"),
    ]
    lines = ["| | on the loopback address | encrypted |", "|---|---|---|"]
    lines.append(f"| a connection that proves nothing | {bare_connection('127.0.0.1') * 1e3:.2f} ms | |")
    lines += [f"| {what} | {one * by:.2f} {unit} | {two * by:.2f} {unit} |" for what, one, two, by, unit in rows]
    rates = f"{1 / plain['megabyte']:,.0f} MB/s | {1 / encrypted['megabyte']:,.0f} MB/s"
    lines.append(f"| large batches, each way | {rates} |")
    tiny = f"{sealed['seal'] * 1e6:.2f} and {sealed['check'] * 1e6:.2f} µs"
    lines.append(f"| to seal a small payload, and to check it | {tiny} | the same |")
    lines.append(f"| to seal a large payload | {1 / sealed['megabyte'] / 1000:.1f} GB/s | the same |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.security", description=__doc__)
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the table into this file")
    options = parser.parse_args(arguments)
    found = table()
    print(found)
    if options.into is not None:
        options.into.write_text(found)


if __name__ == "__main__":
    main()
