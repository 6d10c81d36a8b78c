"""A master over a Dask cluster: ``pip install 'papyros[dask]'``. Papyros has to be installed where its workers run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from typing import Any

from papyros.bookkeeping import ForOneJob
from papyros.delegating import DelegatingMaster, Ticket
from papyros.ending import program_end
from papyros.entries import Entry
from papyros.parcels import run_parcel
from papyros.terms import Terms
from papyros.wire import MAX_PAYLOAD_BYTES

try:
    import distributed
except ImportError as error:
    raise ImportError("a DaskMaster needs Dask: pip install 'papyros[dask]'") from error

__all__ = ["DaskMaster", "open_family"]

#: Children come before the jobs of their parents' generation, so that what is begun is ended before more is begun.
GENERATION = 1_000_000

#: Dask sends priorities as numbers of 64 bits, and loses its workers over larger ones.
MOST_PRIORITY = 1 << 62


class DaskMaster(DelegatingMaster):
    """Has jobs run by the workers of a Dask cluster.

    The `priority` of a job is Dask's `priority` too. Dask starts a job again whose worker died, as often as its
    setting ``allowed-failures`` says; then its outcome is a `SlaveLost`. That it does so cannot be turned off, so a
    job with `at_most_once` is refused. A job that runs is not stopped: when its `timeout` is up, its outcome is a
    `JobTimeout`, but it goes on.

    Args:
        client: a `distributed.Client`, which stays open when this master is closed; or the address of a scheduler,
            as ``HOST:PORT``.
        slaves: how many jobs Dask is given at a time; by default as many as its workers have threads now. The
            `timeout` of a job counts from then.
        max_waiting: at most so many jobs wait.
        max_processed: at most so many processed jobs wait to be popped.
        resources: what each job needs of a worker's resources, as Dask has them.
        max_bytes: the arguments, or the result, of a job may not be larger.
        max_waiting_bytes: `addJob` waits for room while the arguments of waiting jobs take so many bytes or more.
        max_processed_bytes: no more jobs are handed over while results that wait to be popped take so many bytes
            or more; a single result may not be larger.
        echo: refused, if it is true: what jobs print stays with the workers of Dask.

    Raises:
        ConnectionError: no scheduler answers at that address.
        ValueError: prints are asked for, or the client is asynchronous.
    """

    _engine = "Dask"
    _over_executor = True
    _depth = 0  # how many generations of jobs there are above those of this master

    def __init__(
        self,
        client: Any,
        slaves: int | None = None,
        max_waiting: int | None = None,
        max_processed: int | None = None,
        *,
        resources: Mapping[str, float] | None = None,
        max_bytes: int = MAX_PAYLOAD_BYTES,
        max_waiting_bytes: int | None = None,
        max_processed_bytes: int | None = None,
        echo: bool = False,
    ) -> None:
        self._own = isinstance(client, str)
        if not self._own and not isinstance(client, distributed.Client):
            raise TypeError(f"a DaskMaster is made of a distributed.Client, or of an address, not of {client!r}")
        if not self._own and client.asynchronous:
            raise ValueError("a DaskMaster waits for its client, so it needs one that is not asynchronous")
        self._client = _connect(client) if self._own else client
        try:
            super().__init__(
                sum(self._client.nthreads().values()) or None if slaves is None else slaves,
                max_waiting,
                max_processed,
                max_bytes=max_bytes,
                max_waiting_bytes=max_waiting_bytes,
                max_processed_bytes=max_processed_bytes,
                echo=echo,
            )
            self._resources = dict(resources) if resources else None
            program_end.comes_before(self._client)  # which is called back by an executor
        except BaseException:
            if self._own:
                self._client.close()
            raise

    def _terms(self, terms: Terms) -> Terms:
        if terms.once:
            raise ValueError("Dask starts a job again whose worker died: one that may run at most once is not for it")
        return super()._terms(terms)

    def _submit(self, payload: Any, entry: Entry) -> Ticket:
        if self._client.status == "closed":
            raise BrokenExecutor("its client is closed, or has not found its scheduler again for too long")
        digest, blob = payload
        ticket: Ticket = self._client.submit(
            run_parcel,
            self._packer.definitions[digest],
            bytes(blob),
            self._largest,
            (__name__, self._slaves, self._resources, self._largest, self._depth + 1),
            pure=False,
            priority=_fitting(entry.terms.priority + GENERATION * self._depth),
            resources=self._resources,
        )
        return ticket

    def _recall(self, ticket: Ticket) -> None:
        # Not cancelled: what runs would go on, while Dask takes its thread for free, and has other jobs wait for it.
        distributed.fire_and_forget(ticket)

    def _stop(self) -> None:
        super()._stop()
        if self._own:
            self._client.close()


def _fitting(priority: float) -> float:
    return max(-MOST_PRIORITY, min(MOST_PRIORITY, priority))


def _connect(address: str) -> Any:
    try:
        return distributed.Client(address)
    except OSError as error:  # which says that the time is up, or what an address is to be like
        raise ConnectionError(f"no Dask scheduler answers at {address}: {error}") from error


class _InWorker(ForOneJob, DaskMaster):
    """The master that a job sees while it runs in a worker of Dask."""

    def __init__(self, depth: int, *arguments: Any, **options: Any) -> None:
        super().__init__(distributed.get_client(), *arguments, **options)
        self._depth = depth
        # From now on the worker has another thread for other tasks, so that those who wait never take up all of them.
        with contextlib.suppress(KeyError):  # it has seceded, for an earlier master of this job
            distributed.secede()


def open_family(slaves: int, resources: Mapping[str, float] | None, max_bytes: int, depth: int) -> _InWorker:
    """Return a master for the job that runs here."""
    return _InWorker(depth, slaves, resources=resources, max_bytes=max_bytes)
