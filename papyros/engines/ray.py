"""A master over a Ray cluster: ``pip install 'papyros[ray]'``. Papyros has to be installed where its workers run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from papyros.delegating import DelegatingMaster, Ticket
from papyros.entries import Entry
from papyros.parcels import Family, run_parcel
from papyros.wire import MAX_PAYLOAD_BYTES

try:
    import ray
    from ray.exceptions import RayTaskError, TaskCancelledError, WorkerCrashedError
except ImportError as error:
    raise ImportError("a RayMaster needs Ray: pip install 'papyros[ray]'") from error

__all__ = ["RayMaster", "open_family"]


class RayMaster(DelegatingMaster):
    """Has jobs run by the workers of a Ray cluster.

    A job whose worker died is tried again, three times in all, and one that runs can be stopped, as with a
    `papyros.MultiProcessMaster`. Jobs wait here, where their `priority` counts, until Ray has room for them.

    Args:
        address: of a cluster, as ``HOST:PORT``; None = the one that this program is connected to, or one that is
            started on this machine and ends with this master. A program is connected to one cluster at a time.
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
    """

    _engine = "Ray"
    _can_stop = True

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
    ) -> None:
        self._own = not ray.is_initialized()
        if self._own:
            ray.init(address, include_dashboard=None if address else False, log_to_driver=False)
        elif address is not None:
            _check_connected(address)
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
            )
            # What died is tried again by this master, which tells how, and knows what may run at most once.
            self._run = ray.remote(run_parcel).options(
                num_cpus=num_cpus, num_gpus=num_gpus, resources=dict(resources or {}), max_retries=0
            )
            # What a job holds while it waits for its children might be what they wait for: then they run in its place.
            self._family: Family = (__name__, self._slaves, self._largest)
            if num_gpus or resources:
                self._family = ("papyros.nested",)
        except BaseException:
            if self._own:
                ray.shutdown()
            raise

    def _submit(self, payload: Any, entry: Entry) -> Ticket:  # noqa: ARG002 - Ray has no priorities
        digest, blob = payload
        definition = self._packer.definitions[digest]
        return _RayTicket(self._run.remote(definition, bytes(blob), self._largest, self._family))

    def _lost_slave(self, error: BaseException) -> bool:
        return isinstance(error, WorkerCrashedError)

    def _stop_running(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if (ticket := self._tickets.get(entry)) is not None:
                self._recall(ticket)

    def _stop(self) -> None:
        super()._stop()
        if self._own:
            ray.shutdown()


class _InWorker(RayMaster):
    """The master that a job sees while it runs in a worker of Ray."""

    @property
    def closed(self) -> bool:
        """Whether the job has closed it."""
        return self._closed

    def end(self) -> None:
        """Drop the children that are left."""
        self.close()


def open_family(slaves: int, max_bytes: int) -> _InWorker:
    """Return a master for the job that runs here.

    Its children ask for no CPU, since their parents keep theirs while they wait for them.
    """
    return _InWorker(slaves=slaves, num_cpus=0, max_bytes=max_bytes)


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
