"""The end of a program over executors: they end before `atexit` asks anybody, so what goes through one ends earlier."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

__all__ = ["ProgramEnd", "program_end"]


class ProgramEnd:
    """Calls those who have something under way over executors, before these are of no more use."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come, or garbage be collected, while it is held
        self._calls: set[Callable[[], None]] = set()
        self._modules: set[str] = set()  # those that executors are of before which all are called
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def comes_before(self, executor: object) -> None:
        """See to it that all are called before this executor ends, and those like it.

        Those of `concurrent.futures`, and others after their example, have `threading` end them. What is
        registered there last is called first, so this is done again for those of another module.
        """
        modules = {kind.__module__ for kind in type(executor).__mro__}
        register = getattr(threading, "_register_atexit", None)  # as they do it
        with self._lock:
            if register is not None and not modules <= self._modules:
                with contextlib.suppress(RuntimeError):  # the program is ending
                    register(self._call_all)
                self._modules |= modules

    def calls(self, what: Callable[[], None]) -> None:
        """Have this called; each is called once, however often it is said."""
        with self._lock:
            self._calls.add(what)

    def calls_no_more(self, what: Callable[[], None]) -> None:
        """Let go of what was to be called, if it was."""
        with self._lock:
            self._calls.discard(what)

    def _call_all(self) -> None:
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call()

    def _forget(self) -> None:
        """In a forked process: what is under way is its parent's, and somebody may have held the lock."""
        self._lock = threading.RLock()
        self._calls.clear()


#: One for each process: `threading` has one list for each, from which nothing is taken. If each master had an entry of
#: its own in it, that list would grow with each master that there ever was.
program_end = ProgramEnd()
