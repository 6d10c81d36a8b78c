"""The master that a job sees in a slave of a cluster: the slave becomes a client of the group's master.

It is a `DistributedMaster` like any other, so what holds for clients holds for it: nothing
gets lost, and another master may take over. But its session belongs to a job, its *parent*:
the master opens it only while that job is there, charges all of it to the job's
own client, and drops it as soon as the job has an outcome, or is given to somebody else.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from papyros.current import Lending
from papyros.deadlines import Deadline
from papyros.distributed.client import DistributedMaster
from papyros.distributed.config import apply_pyro_items
from papyros.distributed.keys import ClusterKey
from papyros.distributed.line import Line, LineBrokenError
from papyros.distributed.naming import Address
from papyros.distributed.security import Role, Security
from papyros.errors import ClusterError, MasterClosedError, MasterNotFoundError, NameServerNotFoundError
from papyros.relay import InSlave, Link, pack_words, unpack_words

__all__ = ["FamilyClient", "Plea", "open_family"]

#: How long a master may not know the parent: its client, or its slave host, has not come to a new master yet.
PARENT_SECONDS = 30.0

#: How often to ask again whether it does.
AGAIN_SECONDS = 0.1

#: A slave that has asked to be stopped is, before this is over.
STOP_SECONDS = 10.0


class Plea:
    """What a job asks of its slave host when it cannot go on here: to be stopped, and to run again where it can.

    Args:
        link: what the slave offers.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._ended = False

    def end(self) -> None:
        """The job has ended: what is asked from now on would stop the next one that runs here."""
        with self._lock:
            self._ended = True

    def stop(self, reason: str) -> None:
        """Have the slave host stop the job that runs here, and give it back; returns if that has ended meanwhile.

        Raises:
            MasterClosedError: it did not stop.
        """
        with self._lock:
            if self._ended:
                return
            self._link.say(pack_words(["stop", reason]))
        time.sleep(STOP_SECONDS)
        raise MasterClosedError(reason)


class FamilyClient(InSlave, DistributedMaster):
    """A master for one job that runs on a cluster.

    Args:
        link: what the slave offers.
        group: the group of its master.
        nameserver: where that is registered.
        parent: the session and the number of the job.
        uri: where the master was, when the slave host was last asked.
    """

    def __init__(self, link: Link, group: str, nameserver: str, parent: tuple[str, int], uri: str) -> None:
        assert link.family is not None
        self._link = link
        self._handed_over = ClusterKey.handed_over(link.family["key"], "its slave host")
        self._parent = parent
        self._known_uri = uri
        self._refused_since: float | None = None
        self._lending = Lending(link.lend)
        self._plea = Plea(link)
        super().__init__(
            group, nameserver, host_master=False, timeout=PARENT_SECONDS, max_bytes=link.max_bytes, echo=link.echo
        )
        self._pack_by(link.packer)

    def end(self) -> None:
        """Leave the master, which drops what is left by itself, too, when it hears the outcome of the job."""
        self._lending.end()
        self._plea.end()
        threading.Thread(target=self.close, name="papyros-leave", daemon=True).start()

    def _find_security(self, key_file: str | os.PathLike[str] | None, names: Address) -> Security:  # noqa: ARG002 - it is known
        return Security(self._handed_over)

    def _connect(self, deadline: Deadline) -> Line:
        if self._known_uri:
            try:
                line = Line(self._known_uri, self._security, Role.CLIENT)
                if self._join(line):
                    return line
                line.close()
            except LineBrokenError:
                pass  # there may be another one by now
        return super()._connect(deadline)

    _is_told_always = True  # others may wait for nothing (`InSlave`)

    def _send_work(self) -> None:
        DistributedMaster._work_came(self)

    def _introduction(self) -> tuple[Any, ...]:
        return (self._key, self._parent)

    def _refused(self, answer: dict[str, Any]) -> None:
        """The master does not know the parent: not yet, or not any more."""
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if answer.get("over") or now - self._refused_since > PARENT_SECONDS:
            self._plea.stop("its children could not be given to the master, which does not know it")
        self._stop_event.wait(AGAIN_SECONDS)

    def _join(self, line: Line) -> bool:
        joined = super()._join(line)
        if joined:
            self._refused_since = None
        return joined


def open_family(link: Link, number: int) -> FamilyClient:
    """Return a master for the job that runs in a slave; none before had that number there."""
    assert link.family is not None
    apply_pyro_items(link.family["pyro"])
    link.say(pack_words(["who", number]))
    asked = 0
    while asked != number:  # an alarm may have kept the job before from hearing its answer: this is somebody else
        answer = link.hear()
        assert answer is not None
        asked, session, job, uri = unpack_words(answer)[0]
    try:
        return FamilyClient(link, link.family["group"], link.family["nameserver"], (session, job), uri)
    except (ClusterError, MasterNotFoundError, NameServerNotFoundError) as error:
        Plea(link).stop(f"no master could be found for its children: {error}")
        raise
