"""Where a client's master is: found through the name server, or hosted by the client itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from papyros.checks import check_port, check_silence
from papyros.deadlines import Deadline
from papyros.distributed.line import SILENCE_SECONDS, Line, LineBrokenError, LineRefusedError
from papyros.distributed.naming import Address, start_command
from papyros.distributed.security import Role, Security
from papyros.distributed.seeker import Seeker, delays
from papyros.errors import ClusterError, GroupTakenError, MasterNotFoundError, NameServerNotFoundError, PapyrosError
from papyros.logs import logger_of

if TYPE_CHECKING:
    from papyros.distributed.server import MasterServer

__all__ = ["Hosting", "MasterFinder"]

log = logger_of(__name__)

#: A master that has taken its name back from one that was hosted here is let alone for so long, though it may not be
#: reached from here: others reach it.
YIELD_SECONDS = 60.0


@dataclass(frozen=True)
class Hosting:
    """How a client hosts the master where none is registered.

    Attributes:
        host: the address on which it listens.
        port: the port on which it listens; 0 = any free one.
        publish: the address by which others reach it, as ``HOST[:PORT]``, if that is another one.
        after: a master that goes away has so many seconds to come back before one is hosted here.
        lease: after how many seconds of silence it gives up a slave host; None = the default.
        grace: after how many seconds of silence it gives up a client; None = the default.
    """

    host: str
    port: int
    publish: str | None
    after: float
    lease: float | None
    grace: float | None

    def __post_init__(self) -> None:
        check_port(self.port)
        check_silence("lease", self.lease)
        check_silence("grace", self.grace)


class MasterFinder:
    """Finds the master of a group for a client.

    Args:
        group: which group.
        nameserver: where its master is registered.
        security: what the client proves itself with, and checks the master by.
        stop: when set, finding ends.
        hosting: how to host the master here where none is registered; None = not at all.
    """

    def __init__(
        self,
        group: str,
        nameserver: Address,
        security: Security,
        stop: threading.Event,
        hosting: Hosting | None,
    ) -> None:
        self._group = group
        self._nameserver = nameserver
        self._security = security
        self._stop = stop
        self._hosting = hosting
        self._seeker = Seeker(group, nameserver, security, Role.CLIENT, stop, log.warning)
        self._server: MasterServer | None = None
        self._reached: set[str] = set()  # the masters that this client has talked to
        self._yielded: dict[str, float] = {}  # until when those are let alone to which one here gave way
        self._told: type[BaseException] | None = None  # why no master is hosted here

    def first(self, deadline: Deadline) -> Line:
        """Return a line to the master; what is not there, in time, is an error. Says once what it waits for.

        Raises:
            NameServerNotFoundError: no name server answers.
            MasterNotFoundError: no master is registered, and none is to be hosted.
            ClusterError: the one that is registered cannot be reached, or none can be hosted here.
            KeyRefusedError: the master has another key.
            VersionMismatchError: the master has a version that does not go with this one.
        """
        told: type[BaseException] | None = None
        for delay in delays():
            try:
                line = self._seeker.find()
                if line is None and self._hosting is not None:
                    line = self._host_first(self._hosting)
                if line is not None:
                    return self._found(line)
                missing: BaseException = self._no_master()
            except LineRefusedError as error:
                missing = error.__cause__ or error
            except (ClusterError, NameServerNotFoundError, LineBrokenError) as error:
                missing = error
            if deadline.expired():
                raise missing
            if type(missing) is not told:  # who else is registered may change meanwhile, and does not matter
                told = type(missing)
                log.warning("waiting for the master of the group %r: %s", self._group, missing)
            remaining = deadline.remaining()
            self._stop.wait(delay if remaining is None else min(delay, remaining))
        raise AssertionError("there is always another try")

    def again(self) -> Line:
        """Return a line to the master after one was lost, for which it may be necessary to wait.

        Raises:
            LineBrokenError: it was to stop before it was found.
        """
        while not self._stop.is_set():
            hosting = self._hosting
            line = self._seeker.seek(hosting.after if hosting is not None else None)
            if line is None and hosting is not None and not self._stop.is_set():
                line = self._host_again(hosting)
            if line is not None:
                return self._found(line)
        raise LineBrokenError("this master is being closed")

    def _found(self, line: Line) -> Line:
        self._reached.add(line.uri)
        self._yielded.pop(line.uri, None)
        self._told = None
        return line

    def _host_first(self, hosting: Hosting) -> Line | None:
        try:
            line = self._host_here(hosting)
        except ClusterError as error:
            raise ClusterError(
                f"no master of the group {self._group!r} answers that is registered at {self._nameserver}, and none "
                f"can be hosted here: {error}; or start one with {self.start_command}"
            ) from error
        self._name_others()
        return line

    def _host_again(self, hosting: Hosting) -> Line | None:
        try:
            return self._host_here(hosting)
        except (OSError, PapyrosError, RuntimeError, MemoryError) as error:  # a shortage, also of threads, may pass
            if type(error) is not self._told:
                self._told = type(error)
                log.warning("no master is hosted here for now: %s", error or "there is no memory for it")
            return None

    def _may_replace(self, uri: str, silent: bool) -> bool:
        """Whether a master may be hosted in the place of one that does not answer.

        Nobody can tell one that is gone from one that others reach, and this client does not, for want of a way to it.
        So who has never reached it leaves it alone; and so does who has replaced it, and heard from it after that.
        """
        if time.monotonic() < self._yielded.get(uri, 0.0):
            return False
        return not silent or uri in self._reached

    def _gave_way(self, server: MasterServer, error: PapyrosError) -> None:
        """End the master that is hosted here, since another one has its name, or for a bug."""
        if isinstance(error, GroupTakenError):
            self._yielded[error.uri] = time.monotonic() + YIELD_SECONDS
        server.close()

    def line(self, uri: str, silence: float = SILENCE_SECONDS) -> Line:
        """Return a line to the master at a URI; see `Line`."""
        return self._seeker.line(uri, silence)

    def close(self) -> None:
        """End the master, if it is hosted here."""
        if self._server is not None:
            self._server.close()

    def close_in_child(self) -> None:
        """Keep no descriptor, in a forked process, of a master that the other one hosts."""
        if self._server is not None:
            self._server.close_in_child()

    def _host_here(self, hosting: Hosting) -> Line | None:
        """Host the master in this process; None when somebody else was quicker."""
        if self._server is not None:
            self._server.close()
        # One that gives way to another ends all connections to it, so that everybody goes to that other one.
        # Here, since few clients host a master, and none of the slaves whose jobs add jobs: they have to be quick.
        from papyros.distributed.desk import GRACE_SECONDS, LEASE_SECONDS
        from papyros.distributed.server import MasterServer

        server = MasterServer(
            self._group,
            self._nameserver,
            self._security,
            hosting.host,
            hosting.port,
            publish=hosting.publish,
            lease=hosting.lease or LEASE_SECONDS,
            grace=hosting.grace or GRACE_SECONDS,
            on_over=lambda error: self._gave_way(server, error),
            hosted=True,
            may_replace=self._may_replace,
        )
        try:
            server.register()
        except GroupTakenError:
            server.close()
            return self._seeker.find()  # which says what is wrong, where that one cannot be reached
        except BaseException:
            server.close()
            raise
        log.info("hosting the master of the group %r at %s", self._group, server.address)
        self._server = server
        if self._stop.is_set():  # whoever closes the client was interrupted, perhaps, and has not waited for this
            server.close()
            return None
        return self.line(server.uri)

    def _name_others(self) -> None:
        """Say which groups there are, if the only master of this one is hosted here: its name may be a slip."""
        others = self._seeker.names.others(self._group) if self._server is not None else ""
        if others:
            log.warning(
                "no master of the group %r was registered at %s, so this program hosts it; groups that have one: %s",
                self._group,
                self._nameserver,
                others,
            )

    @property
    def start_command(self) -> str:
        """What starts a master of the group, and with ``--slaves`` slaves."""
        return start_command(self._group, self._nameserver)

    def _no_master(self) -> MasterNotFoundError:
        known = ", ".join(self._seeker.names.groups()) or "none"
        return MasterNotFoundError(
            f"no master of the group {self._group!r} answers that is registered at {self._nameserver}; "
            f"groups that have one registered: {known}; start one with {self.start_command}"
        )
