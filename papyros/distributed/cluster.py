"""A whole cluster on this machine: name server, master and slave host, as processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papyros.checks import check_port, check_slaves
from papyros.distributed.client import DistributedMaster
from papyros.distributed.keys import NoPlaceForKeyError, find_key, make_key_file
from papyros.distributed.lifeline import Part
from papyros.distributed.naming import DEFAULT_GROUP, LOOPBACK, Address, check_group
from papyros.errors import MasterClosedError
from papyros.logs import logger_of

if TYPE_CHECKING:
    from typing import Self

__all__ = ["LocalCluster"]

log = logger_of(__name__)

#: What follows from the end of a part.
WITHOUT = {
    "name server": "those who are connected go on, and nobody else can join",
    "master": "one of its clients hosts the next one, unless they were told not to",
    "slave host": "jobs wait until other slaves come",
}

#: How long all parts may take to be ready.
READY_SECONDS = 60.0

MODULE = "papyros.distributed"


class LocalCluster:
    """Name server, master and slaves on this machine, ready when the constructor returns.

    All of them are real processes on free ports, and end with the program
    that started them, however that ends.

    Args:
        slaves: how many slaves there are.
        group: the name of the group.
        host: the address on which name server and master listen.
        port: the port of the name server; 0 = any free one.
        key_file: the file with the cluster's key; else the one that ``PAPYROS_KEY_FILE`` names, else the user's own.
            Where that cannot be made, as in a container without a home, the cluster has a key that goes with it.
        options: further options of the command line for master and slave host, as ``["--lease=2"]``.

    Raises:
        ClusterError: a part cannot be started; what it printed says why.
        KeyFileError: the file of the key is not fit to hold one; the text says how to mend it.
        TypeError: `options` is a string, and not a list of them.
    """

    def __init__(
        self,
        slaves: int | None = 2,
        *,
        group: str = DEFAULT_GROUP,
        host: str = LOOPBACK,
        port: int = 0,
        key_file: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.group = check_group(group)
        self.slaves = check_slaves(slaves)
        check_port(port)
        if isinstance(options, str):
            raise TypeError(f"options are a list of strings, as [{options!r}], not a string")
        self._pid = os.getpid()
        self._key_folder = ""  # of a key that goes with this cluster
        self._closed = False
        self._ended = False  # all that was to be let go of is; an interrupt may have come before that
        self._parts: list[Part] = []
        self._watch: threading.Thread | None = None
        self._watched = selectors.DefaultSelector()  # the parts whose end is to be told of
        #: Those that are closed may go; those that are not, the end of the program knows.
        self._clients: weakref.WeakSet[DistributedMaster] = weakref.WeakSet()
        self._lock = threading.Lock()  # so that nobody adds one while they are gone through
        deadline = time.monotonic() + READY_SECONDS
        atexit.register(self.close)
        try:
            self._key_file = self._find_key_file(key_file)  # refused, if need be, before anything is started
            names = self._start("name server", f"{MODULE}.nameserver", "--host", host, "--port", str(port))
            facts = names.wait_ready(deadline - time.monotonic())
            self._names = Address(host, facts["port"])
            common = ("--group", group, "--nameserver", str(self._names), *options)
            master = self._start("master", MODULE, *common, "--host", host)
            crew = self._start("slave host", MODULE, *common, "--slaves", str(self.slaves))
            #: Where the master listens, as ``HOST:PORT``.
            self.address: str = master.wait_ready(deadline - time.monotonic())["address"]
            crew.wait_ready(deadline - time.monotonic())
            for part in self._parts:
                self._watched.register(part, selectors.EVENT_READ, part)
            self._watch = threading.Thread(target=self._watch_parts, name="papyros-parts", daemon=True)
            self._watch.start()
        except BaseException:
            self.close()
            raise

    def _find_key_file(self, named: str | os.PathLike[str] | None) -> str | None:
        """Return the file of the key, which is made, if need be; None = the one that all find."""
        try:
            find_key(named)
        except NoPlaceForKeyError as error:
            with contextlib.suppress(OSError):
                self._key_folder = tempfile.mkdtemp(prefix="papyros-key-")
                key = make_key_file(Path(self._key_folder, "key"))
                log.warning("this local cluster has a key that goes with it, %s, since %s", key.source, error)
                return key.source
            self._forget_key()
            raise
        return os.path.abspath(os.path.expanduser(named)) if named is not None else None

    def _forget_key(self) -> None:
        if self._key_folder:
            shutil.rmtree(self._key_folder, ignore_errors=True)

    @property
    def nameserver(self) -> str:
        """Where the name server is, as ``HOST:PORT``."""
        return str(self._names)

    @property
    def pids(self) -> dict[str, int]:
        """The numbers of the parts' processes: ``name server``, ``master`` and ``slave host``."""
        return {part.name: part.pid for part in self._parts}

    @property
    def failed_parts(self) -> list[str]:
        """The parts that died, or could not go on, by the names that `pids` has; they are not started anew."""
        return [part.name for part in self._parts if part.failed]

    def master(self, **options: Any) -> DistributedMaster:
        """Return a new client of the cluster; several are fine.

        Should the cluster's master die, one of its clients hosts the next one,
        as every `DistributedMaster` does that is not told otherwise.

        Args:
            options: those of `DistributedMaster`, but for the group and the name server.
        """
        if self._closed:
            raise MasterClosedError("this LocalCluster is closed")
        client = DistributedMaster(self.group, self.nameserver, **{"key_file": self._key_file, **options})
        with self._lock:
            self._clients.add(client)
        return client

    def drain(self, timeout: float = 60.0) -> None:
        """Take no more jobs, and wait until those that run have ended, for at most `timeout` seconds.

        The slave host itself waits no longer than its ``--drain`` says, which is 60 seconds unless `options` has it.
        """
        if not self._closed:
            self._parts[-1].drain(timeout)

    def close(self) -> None:
        """Close its clients and end all parts, in bounded time. To close twice is harmless."""
        if self._ended or self._pid != os.getpid():
            return
        self._closed = True
        with contextlib.ExitStack() as stack:  # whatever one of them raises, or Ctrl-C does, the others are closed
            stack.callback(self._forget_key)
            stack.callback(self._end_parts)
            with self._lock:
                for client in self._clients:
                    stack.callback(client.close)
        self._ended = True
        atexit.unregister(self.close)

    def _end_parts(self) -> None:
        # Slaves first, so that they can say goodbye; the name server last, so that the name can be taken back.
        try:
            for part in reversed(self._parts):
                part.end()
                part.wait()
        except BaseException:  # Ctrl-C: nobody waits any longer, but none of them is to stay
            for part in self._parts:
                part.end()
            raise
        if self._watch is not None and self._watch.is_alive():  # it is not where it could not even be started
            self._watch.join()
        self._watched.close()
        for part in self._parts:
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _watch_parts(self) -> None:
        """Tell of each part that ends though nobody has asked it to. Ends when all of them have."""
        while self._watched.get_map():
            for key, _ in self._watched.select():
                part = key.data
                self._watched.unregister(part)
                if not part.asked:
                    told = (part.name, part.ended_by_itself(), WITHOUT[part.name])
                    log.warning("the %s of the local cluster %s, and is not started anew: %s", *told)

    def _start(self, name: str, module: str, *arguments: str) -> Part:
        part = Part(name, module, arguments, self._key_file)
        self._parts.append(part)
        return part
