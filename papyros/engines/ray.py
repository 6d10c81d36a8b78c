"""A master over a Ray cluster: ``pip install 'papyros[ray]'``. Papyros has to be installed where its workers run."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from functools import partial
from typing import Any, NamedTuple, cast

from papyros.bookkeeping import ForOneJob
from papyros.delegating import DelegatingMaster, Ticket
from papyros.entries import Entry
from papyros.parcels import Answer, Family, run_parcel
from papyros.wire import MAX_PAYLOAD_BYTES, Buffer

try:
    import ray
    from ray.exceptions import (
        LocalRayletDiedError,
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
        RayTaskError,
        TaskCancelledError,
        WorkerCrashedError,
    )
except ImportError as error:
    raise ImportError("a RayMaster needs Ray: pip install 'papyros[ray]'") from error

__all__ = ["RayMaster", "open_family"]

#: What Ray says of a job whose worker is gone, alone, for want of memory or with its machine; or whose result is,
#: which was kept there.
LOSSES = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, LocalRayletDiedError, ObjectLostError)

#: How an address begins that is one of Ray Client, by which programs outside of a cluster connect to it.
CLIENT_SCHEME = "ray://"

#: How long a machine may take to say that somebody listens.
LISTENING_SECONDS = 10.0


#: How often to look, while Ray has jobs, whether the program is connected still: Ray drops them without a word.
LOOK_SECONDS = 1.0

DISCONNECTED = "the program is not connected to Ray any more: somebody has called ray.shutdown()"


class RayMaster(DelegatingMaster):
    """Has jobs run by the workers of a Ray cluster.

    A job whose worker died, by itself, for want of memory or with its machine, is tried again, three times in all, and
    one that runs can be stopped, as with a `papyros.MultiProcessMaster`. Jobs wait here, where their `priority`
    counts, until Ray has room for them.

    Args:
        address: of a cluster, as ``ray.init`` has it: ``ray://HOST:PORT`` is a Ray Client server, with 10001 as its
            usual port, for programs that run elsewhere; ``HOST:PORT`` is the cluster itself, with 6379 as its usual
            port, for programs that run on one of its machines. None = the one that this program is connected to;
            otherwise what ``RAY_ADDRESS`` says; otherwise one that ``ray start`` has started on this machine, or
            that is started for this program. A program is
            connected to one cluster at a time. What masters have connected or started ends with the last of them.
        slaves: how many jobs Ray is given at a time; by default as many as its CPUs allow. The `timeout` of a job
            counts from then.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        num_cpus: how many CPUs each job needs.
        num_gpus: how many GPUs each job needs.
        resources: what else each job needs, as Ray has it.
        max_bytes: the arguments, or the result, of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of waiting jobs take so many bytes or more.
        max_processed_bytes: no more jobs are handed over while results that wait to be popped take so many bytes
            or more; a single result may not be larger.
        echo: refused, if it is true: what jobs print stays with the workers of Ray.

    Raises:
        ConnectionError: no cluster answers there.
        ValueError: this program is connected to another one; or prints are asked for.
    """

    _engine = "Ray"
    _can_stop = True
    _looking = False  # whether somebody will look

    def __init__(
        self,
        address: str | None = None,
        slaves: int | None = None,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        echo: bool = False,
    ) -> None:
        self._connected = _connection.enter(address)
        try:
            if slaves is None:
                slaves = max(1, int(ray.cluster_resources().get("CPU", 1) / (num_cpus or 1)))
            super().__init__(
                slaves,
                max_waiting,
                max_processed,
                max_bytes=max_bytes,
                max_waiting_bytes=max_waiting_bytes,
                max_processed_bytes=max_processed_bytes,
                echo=echo,
            )
            # What died is tried again by this master, which tells how, and knows what may run at most once.
            self._run = ray.remote(_run).options(
                num_cpus=num_cpus, num_gpus=num_gpus, resources=dict(resources or {}), max_retries=0
            )
            # What a job holds while it waits for its children might be what they wait for: then they run in its place.
            self._family: Family = (__name__, self._slaves, self._largest)
            if num_gpus or resources:
                self._family = ("papyros.nested",)
        except BaseException:
            _connection.leave(self._connected)
            raise

    def _submit(self, payload: Any, entry: Entry) -> Ticket:  # noqa: ARG002 - Ray has no priorities
        if not ray.is_initialized():  # Ray would start another cluster, unasked
            raise BrokenExecutor(DISCONNECTED)
        self._look_later()
        digest, blob = payload
        definition = self._packer.definitions[digest]
        return _RayTicket(self._run.remote(definition, bytes(blob), self._largest, self._family))

    def _look_later(self) -> None:
        with self._lock:
            if not self._looking:
                self._looking = True
                self._alarm.set(time.monotonic() + LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Give jobs an outcome that Ray has forgotten, since the program has left it."""
        with self._lock:
            self._looking = False
            flying = list(self._flying)
        if not _is_connected(self._connected):
            for entry in flying:
                self._fail(entry, BrokenExecutor(DISCONNECTED))
        elif flying:
            self._look_later()

    def _lost_slave(self, error: BaseException) -> bool:
        return isinstance(error, LOSSES)

    def _stop_running(self, entries: Sequence[Entry]) -> None:
        # Not here, with the lock held: to a Ray Client server it is a call over the network.
        for ticket in [self._tickets[entry] for entry in entries if entry in self._tickets]:
            self._alarm.set(time.monotonic(), partial(self._drop, ticket))

    def _stop(self) -> None:
        super()._stop()
        _connection.leave(self._connected)


class _InWorker(ForOneJob, RayMaster):
    """The master that a job sees while it runs in a worker of Ray."""


def _run(definition: bytes, blob: Buffer, max_bytes: int, family: Family) -> Answer:
    """Run a parcel in a worker; one that is to end does so, and is no affair of the job that it runs."""
    return run_parcel(definition, blob, max_bytes, family, _is_end)


def _is_end(error: BaseException) -> bool:
    """Whether Ray has raised this to end a worker, as it does at SIGTERM, wherever in a job that is."""
    return isinstance(error, SystemExit) and hasattr(error, "ray_terminate_msg")


def open_family(slaves: int, max_bytes: int) -> _InWorker:
    """Return a master for the job that runs here.

    Its children ask for no CPU, since their parents keep theirs while they wait for them.
    """
    return _InWorker(slaves=slaves, num_cpus=0, max_bytes=max_bytes)


class _Session(NamedTuple):
    """What tells a connection of this program from all others: each cluster numbers those that it has from one."""

    node: str
    job: str


def _session_now() -> _Session:
    context = ray.get_runtime_context()
    return _Session(context.get_node_id(), context.get_job_id())


def _is_connected(session: _Session) -> bool:
    """Whether the program is connected as it was then, be it to a cluster that does not answer any more."""
    if not ray.is_initialized():
        return False
    try:
        return _session_now() == session
    except ConnectionError:
        return True


class _Connection:
    """The one connection that a program has to Ray, which masters share: made by the first, ended after the last.

    The program may end it before, and make another one, which is no affair of those masters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin(None, ours=False, address=None)

    def _begin(self, session: _Session | None, ours: bool, address: str | None) -> None:
        self._session = session
        self._ours = ours  # whether it was a master that connected, and not the program
        self._address = address
        self._masters = 0

    def enter(self, address: str | None) -> _Session:
        """Be connected for one more master."""
        with self._lock:
            if not ray.is_initialized():
                _connect(address)
                self._begin(_session_now(), ours=True, address=address)
            elif (now := _session_now()) != self._session:
                self._begin(now, ours=False, address=None)
            if address is not None and address != self._address:
                _check_connected(address)
            self._masters += 1
            return cast(_Session, self._session)

    def leave(self, session: _Session) -> None:
        """Be connected for one master less."""
        with self._lock:
            if session != self._session:
                return
            self._masters -= 1
            if self._masters == 0 and self._ours:
                self._begin(None, ours=False, address=None)
                if _is_connected(session):
                    ray.shutdown()


#: Ray has one for each process, and so has this module: two masters that know nothing of each other share it.
_connection = _Connection()


def _connect(address: str | None) -> None:
    if address is None and not os.environ.get("RAY_ADDRESS") and _is_dead_here():
        address = "local"
    client = address is not None and address.startswith(CLIENT_SCHEME)
    if address is not None and address not in ("auto", "local"):
        _check_listening(address.removeprefix(CLIENT_SCHEME))
    # A client server has a dashboard or not, whatever its clients say.
    options: dict[str, Any] = {} if address not in (None, "local") else {"include_dashboard": False}
    try:
        ray.init(address, log_to_driver=False, **options)
    except ConnectionError as error:
        if not client or isinstance(error, ConnectionAbortedError):
            raise  # a server that answers, but could not do what is its own to do, says what
        raise ConnectionError(
            f"no Ray Client server answers at {address} ({error}). That is what ray:// means to Ray: its port is "
            "10001, unless ray start --ray-client-server-port said otherwise. A program on a machine of the cluster "
            "itself makes a RayMaster of the address without ray://, which has the port 6379"
        ) from error


def _is_dead_here() -> bool:
    """Whether the cluster is gone that Ray has noted as that of this machine: Ray would try for minutes."""
    with contextlib.suppress(ImportError, AttributeError, OSError, TypeError):  # how it is noted is Ray's own affair
        from ray._private.utils import read_ray_address

        if noted := read_ray_address():
            try:
                _check_listening(noted)
            except (ConnectionError, ValueError):
                return True
    return False


def _check_listening(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for half a minute, or for many."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTENING_SECONDS).close()
    except ValueError as error:
        raise ValueError(f"{address!r} is no address of a Ray cluster: write HOST:PORT, or ray://HOST:PORT") from error
    except OSError as error:
        raise ConnectionError(f"no Ray cluster listens at {address}: {error}") from error


def _check_connected(address: str) -> None:
    """Refuse another cluster than the one that this program is connected to: Ray knows one at a time."""
    connected = ray.get_runtime_context().gcs_address
    if address not in (connected, "auto"):
        raise ValueError(
            f"this program is connected to the Ray cluster at {connected}, and cannot be to the one at {address} as "
            "well: call ray.shutdown() before, or let the address be None"
        )


class _RayTicket:
    """What Ray gives for a job."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        self._future: Future[Any] = reference.future()

    def add_done_callback(self, call: Callable[[Any], Any], /) -> None:
        """Have `call` called when there is an answer."""
        self._future.add_done_callback(lambda _: call(self))

    def result(self) -> Any:
        """Return the answer."""
        try:
            return self._future.result()
        except (TaskCancelledError, RayTaskError) as error:
            if isinstance(error, TaskCancelledError):
                raise CancelledError from error
            raise

    def cancel(self) -> None:
        """Stop the job, by ending the process that runs it."""
        ray.cancel(self._reference, force=True)
