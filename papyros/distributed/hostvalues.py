"""The shared values of a slave host: fetched once, checked, held once for all of its slaves, and let go of.

They are fetched by a thread of their own, on a connection of their own, so that jobs that need nothing go on
meanwhile; those that need what is not here yet wait in the host's queue. A slave is told of a value only if it has
the digest by which the job refers to it, and the seal of the job vouches for that. While there are values, the
master is told so, and says which of them nobody needs any more.

What cannot be held here, for want of memory or files, may be held elsewhere: after some seconds, the jobs that need it
are given back, and the host takes no others for a while, which is longer each time: else it would be given the
same again, beside hosts that can run them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.values import fetch_value, tell_held
from papyros.logs import logger_of
from papyros.store import Held, needs_of
from papyros.threads import worker

__all__ = ["HostValues", "Refusal", "ValueUser"]

log = logger_of(__name__)

#: After another master has taken over, clients have so long to share their values with it, too.
SHARING_SECONDS = 60.0

#: How long to wait before something that went wrong is tried again; what goes wrong again and again, up to so long.
RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 1.0

#: For so long it is tried to hold a value here, before the jobs that need it are given back.
HOLD_SECONDS = 5.0

#: After that, no jobs are taken for so long at first; twice as long each time, up to the second number.
PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0

#: After so many times, also a job that must not be started twice is given back for good: it says why.
LASTING_REFUSALS = 20

ALTERED = "a shared value that the job needs was changed on its way: nothing of it was unpickled"
MISSING = "the master does not have a shared value that the job needs"
LACKING = "a slave host cannot hold a shared value that the job needs"


class Refusal(NamedTuple):
    """Why jobs cannot be started here that need a value.

    Attributes:
        reason: that, in words.
        altered: whether the value was changed on its way.
        pause: for how many seconds no jobs are to be taken then, since it would be the same ones.
        lasting: whether also those that must not be started twice are to end by it, once they have been given back;
            else they are not lost for it, since they were not started.
    """

    reason: str
    altered: bool = False
    pause: float = 0.0
    lasting: bool = True


class ValueUser(Protocol):
    """What values ask of their slave host. All of it is called in the thread that fetches values."""

    def value_line(self) -> AbstractContextManager[Line] | None:
        """Return a line to the master; None, after a while, if none was found.

        Raises:
            LineBrokenError: no connection can be made.
        """

    @property
    def stay(self) -> str:
        """With which master this host is, and since when: another one, each time that this changes."""

    def is_current(self, line: Line) -> bool:
        """Return whether a line goes to the master that this host serves."""

    def values_came(self) -> None:
        """Take note that jobs can be started that needed them."""

    def values_gone(self, digests: Collection[bytes]) -> None:
        """Have slaves let go of values that nobody needs any more."""

    def values_refused(self, digest: bytes, refusal: Refusal) -> None:
        """Give back the jobs of the definitions that `HostValues.give_up` returns, which cannot be started."""

    def broke(self, reason: str) -> None:
        """Take note that no value will come any more."""


@dataclass
class Lack:
    """What is known of a value that cannot be held here.

    Attributes:
        since: when it was tried first, since the jobs were given back.
        tries: how often it was tried since then.
        last: when it was tried last.
        refusals: how often the jobs that need it were given back.
        told: the reasons that the log has.
    """

    since: float
    tries: int = 0
    last: float = 0.0
    refusals: int = 0
    told: set[str] = field(default_factory=set)

    def next_try(self) -> float:
        """Return when to try again."""
        return self.last + min(LAST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(self.tries - 1, 10))

    def pause(self) -> float:
        """Return for how long no jobs are to be taken."""
        return min(LAST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(self.refusals - 1, 10))


class HostValues:
    """Holds the values that the jobs of a slave host need.

    Args:
        user: the slave host.
        key: by which the master knows it.
        beat: returns how often to tell the master what is held here, in seconds.

    Attributes:
        awaited: the digests of definitions of jobs that cannot be started yet.
    """

    def __init__(self, user: ValueUser, key: str, beat: Callable[[], float]) -> None:
        self._user = user
        self._key = key
        self._name = f"{socket.gethostname()}/{os.getpid()}"
        self._beat = beat
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self.awaited: dict[bytes, set[bytes]] = {}  # ... and what these need that is not here
        self._needs: dict[bytes, list[bytes]] = {}  # what the definitions need that have come
        self._needed: dict[bytes, float] = {}  # when a job came last that needs it, of values and of definitions
        self._stale: set[bytes] = set()  # definitions that nobody needs any more
        self._held: dict[bytes, Held] = {}
        self._confirmed: set[bytes] = set()  # those that the master has known, which it is asked about
        self._stay, self._since = "", time.monotonic()
        # The thread's own:
        self._partial: dict[bytes, Held] = {}
        self._lacks: dict[bytes, Lack] = {}
        self._lineless: float | None = None  # since when there is no line
        self._closing = False
        self._thread: threading.Thread | None = None

    # For the host -----------------------------------------------------------------------

    def need(self, definitions: Mapping[bytes, bytes]) -> None:
        """Take note of the definitions of jobs that have come, in one with putting these into the queue."""
        now = time.monotonic()
        for known, definition in definitions.items():
            needs = needs_of(definition)
            if not needs:
                continue
            with self._lock:
                self._needs[known] = needs
                self._needed.update(dict.fromkeys((known, *needs), now))
                self._stale.discard(known)
                missing = set(needs) - self._held.keys()
                if missing and not self._closing:
                    self.awaited[known] = missing
                    self._news.notify()
                    self._start()

    def go_on(self) -> None:
        """Have a thread fetch what is awaited, where the system had none to spare when that was asked for."""
        if self._thread is None and self.awaited:
            with self._lock:
                if not self._closing:
                    self._start()

    def _start(self) -> None:
        """Start the thread, if it does not run. Called with the lock held."""
        if self._thread is not None:
            return
        thread = worker("papyros-values", self._serve, self._user.broke)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            log.warning("shared values cannot be fetched now: %s", str(error) or "there is no memory for a thread")
        else:
            self._thread = thread

    def give_up(self, digest: bytes) -> list[bytes]:
        """Wait for a value no longer; return the definitions that need it, in one with giving back their jobs.

        For jobs that come later it is waited for anew: so none is started that lacks a value.
        """
        with self._lock:
            definitions = [known for known, missing in self.awaited.items() if digest in missing]
            for known in definitions:
                del self.awaited[known]
            return definitions

    def take_stale(self) -> set[bytes]:
        """Return the definitions of which no job will come any more, unless it is sent anew."""
        if not self._stale:
            return self._stale
        with self._lock:
            stale, self._stale = self._stale, set()
            return stale

    def held(self, digest: bytes) -> Held | None:
        """Return a value that is held here; None if it is not."""
        return self._held.get(digest)

    def close(self) -> None:
        """End the thread, whose line has to be broken before, and let go of everything."""
        with self._lock:
            self._closing = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._held.clear()
        self._partial.clear()

    # The thread -------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closing:
            try:
                lines = self._user.value_line()
                if lines is None:
                    self._lineless = None  # there is no master
                else:
                    with lines as line:
                        self._lineless = None
                        self._serve_on(line)
            except LineBrokenError as error:
                log.info("%s", error)
                self._note_no_line(error)
            except (OSError, MemoryError) as error:  # no file descriptor for a line, say: there may be some later
                self._note_no_line(error)
            with self._lock:
                if not self._closing:
                    self._news.wait(RETRY_SECONDS)

    def _serve_on(self, line: Line) -> None:
        while not self._closing and self._user.is_current(line):
            if self._user.stay != self._stay:
                self._stay, self._since = self._user.stay, time.monotonic()
                self._confirmed.clear()
            wanted = self._next_wanted()
            if wanted is not None:
                self._fetch(line, wanted)
            self._tell(line)
            with self._lock:
                if not self.awaited and not self._closing:
                    self._news.wait(self._beat() if self._held else None)

    def _next_wanted(self) -> bytes | None:
        """Return a value to be fetched; None, after a while, where it is too early to try again to hold those."""
        with self._lock:
            awaited = self._awaited_values()
            wanted = next((digest for digest in awaited if digest not in self._lacks), None)
            if wanted is not None or not awaited:
                return wanted
            wanted = min(awaited, key=lambda digest: self._lacks[digest].next_try())
            pause = self._lacks[wanted].next_try() - time.monotonic()
            if pause <= 0:
                return wanted
            if not self._closing:
                self._news.wait(pause)
            return None

    def _awaited_values(self) -> dict[bytes, None]:
        """Return the values that are awaited, in the order of those who await them. Called with the lock held."""
        return dict.fromkeys(digest for missing in self.awaited.values() for digest in missing)

    def _note_no_line(self, error: Exception) -> None:
        """Give the jobs back whose values cannot be fetched, for want of a line, if it has been so for a while."""
        now = time.monotonic()
        self._lineless = now if self._lineless is None else self._lineless
        if now - self._lineless < HOLD_SECONDS:
            return
        with self._lock:
            awaited = self._awaited_values()
        for digest in awaited:
            lack = self._lacks.setdefault(digest, Lack(self._lineless))
            self._note_lack(digest, lack, error)

    def _note_lack(self, digest: bytes, lack: Lack, error: Exception) -> None:
        """Take note that a value cannot be held here now; give the jobs back that need it, if it has been so for long.

        Those that come again are given back after the first try: where they were elsewhere, no time was lost with it.
        """
        reason = str(error) or "there is no memory for it"
        if reason not in lack.told:
            lack.told.add(reason)
            log.warning("the shared value %s cannot be held here now: %s", digest.hex()[:8], reason)
        lack.tries += 1
        lack.last = now = time.monotonic()
        if not lack.refusals and now - lack.since < HOLD_SECONDS:
            return
        lack.refusals += 1
        lack.tries = 0
        self._partial.pop(digest, None)
        lasting = lack.refusals >= LASTING_REFUSALS
        self._user.values_refused(digest, Refusal(f"{LACKING}: {reason}", pause=lack.pause(), lasting=lasting))
        forgotten = now - 10 * LAST_PAUSE_SECONDS
        self._lacks = {other: lack for other, lack in self._lacks.items() if lack.last > forgotten}

    def _fetch(self, line: Line, digest: bytes) -> None:
        try:
            held = fetch_value(line, self._key, digest, self._partial)
        except LineBrokenError:
            raise
        except (OSError, MemoryError) as error:  # no file descriptor for it, say: there may be some later
            self._note_lack(digest, self._lacks.setdefault(digest, Lack(time.monotonic())), error)
            return
        self._lacks.pop(digest, None)
        if held is None or held.digest != digest:
            altered = held is not None
            log.warning("%s: %s", digest.hex()[:8], ALTERED if altered else MISSING)
            self._user.values_refused(digest, Refusal(ALTERED if altered else MISSING, altered))
            with self._lock:
                if not self._closing:
                    self._news.wait(RETRY_SECONDS)  # it may be here when the jobs come again
            return
        with self._lock:
            self._held[digest] = held
            self._confirmed.add(digest)
            for known, missing in list(self.awaited.items()):
                missing.discard(digest)
                if not missing:
                    del self.awaited[known]
        self._user.values_came()

    def _tell(self, line: Line) -> None:
        """Tell the master what is held here, and let go of what nobody needs any more."""
        with self._lock:
            sizes = {digest: held.size for digest, held in self._held.items()}
        asked = time.monotonic()
        unknown = tell_held(line, self._key, self._name, sizes)
        self._confirmed.update(sizes.keys() - set(unknown))
        # A master that has just taken over may be told of them yet.
        gone = [d for d in unknown if d in self._confirmed or asked - self._since > SHARING_SECONDS]
        with self._lock:
            gone = [digest for digest in gone if self._needed[digest] < asked]
            for digest in gone:
                del self._held[digest], self._needed[digest]
                self._confirmed.discard(digest)
            for known in [known for known, needs in self._needs.items() if not set(gone).isdisjoint(needs)]:
                if self._needed[known] < asked:
                    del self._needs[known], self._needed[known]
                    self._stale.add(known)
        if gone:
            self._user.values_gone(gone)
            with self._lock:
                sizes = {digest: held.size for digest, held in self._held.items()}
            tell_held(line, self._key, self._name, sizes)
