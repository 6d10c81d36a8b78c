"""Seeking the master of a group, again and again, for those who outlive it."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator

from papyros.distributed.line import CONNECT_SECONDS, SILENCE_SECONDS, Line, LineBrokenError, LineRefusedError
from papyros.distributed.naming import Address, NameServer, check_reachable, start_command, who_is
from papyros.distributed.security import Role, Security
from papyros.errors import KeyRefusedError, NameServerNotFoundError, PapyrosError, VersionMismatchError
from papyros.logs import logger_of

__all__ = ["Pauses", "Seeker", "delays"]

log = logger_of(__name__)

FIRST_DELAY, LAST_DELAY = 0.02, 1.0

#: What has not broken for so long was mended.
CALM_SECONDS = 5.0


class Seeker:
    """Finds the master of a group through the name server.

    Args:
        group: which group.
        nameserver: where to ask.
        security: what this side proves itself with, and checks the master by.
        role: what this side is.
        stop: when set, seeking ends.
        tell: is told in words what is waited for, once for each thing.
    """

    def __init__(
        self,
        group: str,
        nameserver: Address,
        security: Security,
        role: Role,
        stop: threading.Event,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self.group = group
        self.names = NameServer(nameserver, security)
        self._security = security
        self._role = role
        self._stop = stop
        self._tell = tell
        self._told: object = None  # what is waited for, as it was told last
        self._registered = False

    def find(self) -> Line | None:
        """Return a line to the master; None when none is registered, or who is there does not say that it is that one.

        Raises:
            NameServerNotFoundError: no name server answers.
            KeyRefusedError, VersionMismatchError: one does, with another key than this process, or another version.
            LineRefusedError: who is registered has another key than this process, or another version.
            ClusterError: the master is registered with an address that cannot be reached from here, or does not answer
                there.
        """
        uri = self.names.lookup(self.group)
        self._registered = uri is not None
        if uri is not None:
            check_reachable(uri, self.names.address)
        if uri is None or (who_is(uri, self._security) or {}).get("group") != self.group:
            return None  # also where another group's master listens on the port of one that was killed
        try:
            return self.line(uri)
        except LineRefusedError:
            raise
        except LineBrokenError as error:
            log.debug("%s", error)
            return None

    def _lacking(self, error: Exception | None) -> str:
        """Return in words what is waited for."""
        if isinstance(error, NameServerNotFoundError):
            return f"a name server at {self.names.address}: {error}"
        if isinstance(error, LineRefusedError):
            return f"a master of the group {self.group!r} with the same key and version; {error}"
        if isinstance(error, KeyRefusedError | VersionMismatchError):
            return f"a name server at {self.names.address} with the same key and version; {error}"
        if error is not None:
            return f"a master of the group {self.group!r} that can be reached; {error}"
        return f"{self._absent()}{self._others()}"

    def _absent(self) -> str:
        if self._registered:  # it was killed, perhaps, and nobody has taken its name yet
            absent = f"; the one registered at {self.names.address} does not answer"
        else:
            absent = f", of which {self.names.address} knows none yet"
        return (
            f"a master of the group {self.group!r}{absent} ({start_command(self.group, self.names.address)} starts one)"
        )

    def _others(self) -> str:
        """Return which groups there are where none of this name is registered, since it may be a slip."""
        others = self.names.others(self.group) if not self._registered else ""
        return f"; groups that have one: {others}" if others else ""

    def line(self, uri: str, silence: float = SILENCE_SECONDS, connect_timeout: float = CONNECT_SECONDS) -> Line:
        """Return a line to the master at a URI; see `Line`."""
        return Line(uri, self._security, self._role, silence=silence, connect_timeout=connect_timeout)

    def seek(self, patience: float | None = None) -> Line | None:
        """Seek until the master is found; None when it was not within `patience` seconds, or is to stop."""
        deadline = None if patience is None else time.monotonic() + patience
        for delay in delays():
            line, lacks = None, None
            try:
                line = self.find()
            except (PapyrosError, LineRefusedError) as error:
                lacks = error
            if line is not None:
                self._told = None
                return line
            # Not each time that the reason is another one: of a machine that is gone, it is now this and now that.
            kind = type(lacks), self._registered
            if kind != self._told:
                self._told = kind
                self._tell(f"waiting for {self._lacking(lacks)}")
            if deadline is not None and time.monotonic() + delay > deadline:
                return None
            if self._stop.wait(delay):
                return None
        return None


class Pauses:
    """How long to wait before what broke is tried again: the longer, the more often it breaks within a while."""

    def __init__(self) -> None:
        self._broke = -math.inf
        self._delays = delays()

    def next(self) -> float:
        """Take note that it broke; return for how many seconds to wait."""
        now = time.monotonic()
        if now - self._broke > CALM_SECONDS:
            self._delays = delays()
        self._broke = now
        return next(self._delays)


def delays() -> Iterator[float]:
    """Growing delays, spread so that those who lost a master do not come back all at once."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        delay = min(LAST_DELAY, delay * 2)
