"""Threads that others wait for: should one end of what nobody foresaw, it is told, and nobody waits for ever.

Each thread catches what can happen to it. This is the net below: it catches bugs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from papyros.logs import logger_of

__all__ = ["worker"]

log = logger_of(__name__)


def worker(name: str, work: Callable[[], None], broke: Callable[[str], None]) -> threading.Thread:
    """Return a thread that does some work, and does not keep the program from ending.

    Args:
        name: what it is called.
        work: returns when it is done.
        broke: told in words, in the same thread, what has ended it, if that is an exception.
    """

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a bug may raise anything; it is told
            try:
                log.critical("the thread %s broke down", name, exc_info=True)
            finally:  # a handler of the program's logs may raise, too
                broke(f"the thread {name} broke down ({type(error).__name__}: {error}); the log has the traceback")

    return threading.Thread(target=run, name=name, daemon=True)
