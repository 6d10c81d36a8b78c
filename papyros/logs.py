"""Loggers of threads that look after others, and may not wait until somebody reads what they log.

A handler of the program's writes to a pipe, say, that nobody reads: once that is full, whoever logs waits. A
crew whose thread waits keeps no time limits any more. So what has no room now is kept, up to a bound, for a thread
that hands it to the handlers once there is some. Nor does what a handler raises end a thread that logs.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

__all__ = ["logger_of", "show_warnings", "takes_more"]

#: So many records are kept of what nobody reads; the oldest go first.
KEPT_RECORDS = 1000

#: How often to look whether there is room again, in seconds.
LOOK_SECONDS = 0.1


def logger_of(name: str) -> logging.Logger:
    """Return the logger of a module, which keeps nobody waiting for a reader, and raises nothing of a handler's."""
    logger = logging.getLogger(name)
    logger.addFilter(_UNREAD)  # which does nothing when it is there already
    logger.callHandlers = partial(_call_handlers, logger)  # type: ignore[method-assign]
    return logger


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Hand a record to the handlers of a logger; of one that raises, say so where errors of handlers are shown."""
    try:
        logging.Logger.callHandlers(logger, record)
    except Exception:  # noqa: BLE001 - a handler of the program's may raise anything
        with contextlib.suppress(Exception):  # standard error may be closed
            logging.Handler().handleError(record)


def show_warnings() -> None:
    """Have the warnings of this package shown as lines of the command line, which say whose they are.

    Unless somebody handles them already: a program that has set up its logging, or that was here before.
    """
    logger = logging.getLogger("papyros")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("papyros: %(message)s"))
    logger.addHandler(handler)


class _Unread(logging.Filter):
    """Takes a record out of the hands of who logs it, if a handler might keep that waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # as handlers have: whoever handles a signal may log, too
        self._kept: deque[logging.LogRecord] = deque(maxlen=KEPT_RECORDS)
        self._thread: threading.Thread | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be handled at once."""
        with self._lock:
            if not self._kept and _has_room(record):
                return True
            self._kept.append(record)
            if self._thread is None:
                thread = threading.Thread(target=self._hand_on, name="papyros-log", daemon=True)
                with contextlib.suppress(RuntimeError):  # the system has none to spare: with the next record, then
                    thread.start()
                    self._thread = thread
            return False

    def _hand_on(self) -> None:
        while True:
            with self._lock:
                if not self._kept:
                    self._thread = None
                    return
                record = self._kept[0]
                ready = _has_room(record)
                if ready:
                    self._kept.popleft()
            if ready:
                logging.getLogger(record.name).callHandlers(record)
            else:
                threading.Event().wait(LOOK_SECONDS)

    def _forget(self) -> None:
        """In a forked process: the thread is not here, and somebody may have held the lock."""
        self._lock = threading.RLock()
        self._kept.clear()
        self._thread = None


#: One for each process, as its loggers are: so all that they log keeps its order, and one thread hands it on.
_UNREAD = _Unread()


def _has_room(record: logging.LogRecord) -> bool:
    try:
        return all(map(takes_more, _streams(record)))
    except Exception:  # noqa: BLE001 - a handler of the program's may raise anything
        return True


def _streams(record: logging.LogRecord) -> Iterator[IO[Any]]:
    """Yield the streams that handlers write a record to."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    found = False
    while logger is not None:
        for handler in logger.handlers:
            found = True
            if isinstance(handler, logging.StreamHandler) and record.levelno >= handler.level:
                yield handler.stream
        logger = logger.parent if logger.propagate else None
    last = logging.lastResort
    if not found and isinstance(last, logging.StreamHandler) and record.levelno >= last.level:
        yield last.stream


def takes_more(stream: IO[Any]) -> bool:
    """Whether a stream takes some lines without keeping anybody waiting; one that is no file always does."""
    try:
        fd = stream.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0):
            return False
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and sys.platform == "linux":
            # It says so when there is room for a page, and what is to be written may be longer than that.
            import fcntl
            import termios

            unread = array.array("i", [0])
            fcntl.ioctl(fd, termios.FIONREAD, unread)
            return unread[0] <= fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // 2
    except Exception:  # noqa: BLE001 - it may be anybody's; and to import takes descriptors, of which none may be left
        return True
    return True
