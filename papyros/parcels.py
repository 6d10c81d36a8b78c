"""Jobs in parcels: what is handed to engines that are not of this package, and runs wherever these like.

A parcel is bytes, all that it takes to run a job: so jobs of a script, and lambdas, go where the engine's own pickling
would not take them, and whatever a job does there, what comes back can be unpickled here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from papyros.current import FamilyMaster, Place
from papyros.encoded import encode_outcome, encode_refusal
from papyros.errors import PayloadError
from papyros.jobs import Job
from papyros.logs import logger_of
from papyros.outcome import Outcome
from papyros.running import leave_fork, run_job
from papyros.wire import Buffer, build_job, load_definition

__all__ = ["Answer", "run_parcel"]

log = logger_of(__name__)

#: How a job gets a master for jobs of its own: a module that has an `open_family`, with what that one is called with.
Family = tuple[Any, ...]

#: So many job classes are kept by each process that opens parcels, and so few that are larger than so many bytes.
KEPT_CLASSES = 256
KEPT_LARGE_CLASSES = 4
LARGE_BYTES = 1 << 20


class Answer(NamedTuple):
    """What comes back for a parcel.

    Attributes:
        outcome: the outcome, encoded.
        slave: who ran the job, as ``HOST/PID``.
        seconds: for how long.
    """

    outcome: bytes
    slave: str
    seconds: float


def run_parcel(
    definition: bytes,
    blob: Buffer,
    max_bytes: int,
    family: Family = ("papyros.nested",),
    ends: Callable[[BaseException], bool] | None = None,
) -> Answer:
    """Run the job in a parcel. Always answers, whatever the job does, if this process survives it.

    Args:
        definition: the job's class, packed.
        blob: what else is in the job, packed.
        max_bytes: its result may not be larger.
        family: how it gets a master for jobs of its own.
        ends: says of what was raised in the job whether it is the engine's, to end this process: that is raised again.
    """
    pid = os.getpid()
    slave = f"{socket.gethostname()}/{pid}"
    try:
        job = build_job(_load(definition), blob)
    except PayloadError as error:
        return Answer(encode_refusal(error), slave, 0.0)
    except BaseException as error:  # noqa: BLE001 - what is imported may raise anything, SystemExit too
        refusal = PayloadError(f"a job cannot be loaded: {type(error).__name__}: {error}")
        return Answer(encode_refusal(refusal), slave, 0.0)
    outcome = _run(job, slave, family)
    if os.getpid() != pid:
        leave_fork(outcome)  # else it would go on as another one of the engine's, on the connections of this one
    if ends is not None and outcome.exception is not None and ends(outcome.exception):
        raise outcome.exception
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it is none, or a job has closed it, or nobody reads it any more
            stream.flush()
    try:
        encoded = encode_outcome(outcome, job, max_bytes)
    except BaseException as error:  # noqa: BLE001 - the job may not even have a text by which it could be named
        refusal = PayloadError(f"the outcome of a {type(job).__name__} cannot be told: {type(error).__name__}")
        encoded = encode_refusal(refusal)
    return Answer(encoded, slave, outcome.seconds)


def _run(job: Job, slave: str, family: Family) -> Outcome:
    def open_family() -> FamilyMaster:
        opened: FamilyMaster = importlib.import_module(family[0]).open_family(*family[1:])
        return opened

    place = Place(open_family)
    token = place.enter()
    try:
        return run_job(job, slave)
    finally:
        try:
            place.close(token)
        except Exception:
            log.exception("the master of a job could not be let go of")


def _load(definition: bytes) -> type[Job]:
    return (_load_large if len(definition) > LARGE_BYTES else _load_small)(definition)


_load_small = lru_cache(KEPT_CLASSES)(load_definition)
_load_large = lru_cache(KEPT_LARGE_CLASSES)(load_definition)
