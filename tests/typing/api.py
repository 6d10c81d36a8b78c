"""What a type checker knows of the public API; mypy reads this file, and nothing runs it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, assert_type

import papyros
from papyros import (
    Job,
    Master,
    MultiProcessMaster,
    MultiThreadedMaster,
    SingleThreadedMaster,
    job,
)
from papyros.status import Status


@job
def factorize(number: int, limit: float = 1.0) -> list[int]:
    return [number, int(limit)]


@job(priority=3)
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@job(timeout=2.5, retries=3, retryable=(ValueError, OSError), backoff=0.5)
def fetch(address: str) -> bytes:
    return address.encode()


@job(at_most_once=True, timeout=None)
def pay(amount: int) -> int:
    return amount


@job()
def nothing() -> None: ...


class Scale(Job):
    factor = 2

    def __call__(self, number: int) -> int:
        return self.factor * number


# The decorator keeps the types of the parameters and of the result. ---------------------------

assert_type(factorize(12).result, list[int])
assert_type(greet("a", loud=True).result, str)
factorize("12")  # type: ignore[arg-type]
factorize()  # type: ignore[call-arg]
greet("a", True)  # type: ignore[call-arg]
greet(name=1)  # type: ignore[arg-type]
job(priority="high")  # type: ignore[call-overload]
job(speed=1)  # type: ignore[call-overload]
assert_type(fetch("a").result, bytes)
assert_type(pay(3).result, int)
job(timeout="soon")  # type: ignore[call-overload]
job(retryable=ValueError)  # type: ignore[call-overload]
job(retryable=(ValueError, 1))  # type: ignore[arg-type]
job(5)  # type: ignore[call-overload]

# Of a job in general less is known. -----------------------------------------------------------

assert_type(Scale(3).result, Any)
assert_type(Scale(3).exception, BaseException | None)
assert_type(Scale(3).slave, str)
assert_type(Scale(3).seconds, float)
assert_type(Scale(3).args, tuple[Any, ...])
assert_type(Scale(3).kwds, dict[str, Any])
Scale(3).result = 5  # type: ignore[misc]


def use_any_master(master: Master) -> None:
    assert_type(master.addJob(factorize(1)), None)
    assert_type(master.addJob(Scale(1), timeout=0), None)
    assert_type(master.popProcessedJob(), Job | None)
    assert_type(master.popProcessedJob(timeout=1.5), Job | None)
    assert_type(master.processedJobs(timeout=None), list[Job])
    assert_type(master.cancelJob(Scale(1)), bool)
    assert_type(master.cancelAllJobs(), None)
    assert_type(master.numPendingJobs(), int)
    assert_type(master.status(), Status)
    assert_type(master.status().waiting, int)
    assert_type(master.status().stalled, str)
    assert_type([slave.seconds for slave in master.status().slaves], list[float])
    master.status().waiting = 5  # type: ignore[misc]
    assert_type(master.close(), None)
    master.addJob(5)  # type: ignore[arg-type]
    master.addJob(Scale)  # type: ignore[arg-type]
    master.popProcessedJob(timeout="1")  # type: ignore[arg-type]
    master.execute([1, 2])  # type: ignore[type-var]


def execute_keeps_the_type_of_the_jobs(master: Master) -> None:
    for scaled in master.execute(Scale(number) for number in itertools.count()):
        assert_type(scaled, Scale)
    assert_type(master.execute([Scale(1)], ordered=True, timeout=2, progress=True), Iterator[Scale])
    for factorized in master.execute([factorize(1), factorize(2)]):
        assert_type(factorized.result, list[int])


def every_master_is_a_master() -> None:
    masters: list[Master] = [
        SingleThreadedMaster(max_waiting=5, max_processed=None),
        MultiThreadedMaster(2, max_waiting=5),
        MultiProcessMaster(slaves=2, max_processed=5, max_waiting_bytes=1, max_processed_bytes=None, echo=True),
    ]
    for master in masters:
        use_any_master(master)
    with SingleThreadedMaster() as single:
        assert_type(single, SingleThreadedMaster)
    with MultiThreadedMaster() as threaded:
        assert_type(threaded, MultiThreadedMaster)
    with MultiProcessMaster() as processes:
        assert_type(processes, MultiProcessMaster)
    MultiThreadedMaster(slaves="2")  # type: ignore[arg-type]
    Master()  # type: ignore[abstract]


def errors_are_what_one_would_catch() -> None:
    type_error: type[TypeError] = papyros.NotAJobError
    value_error: type[ValueError] = papyros.PayloadError
    timeout_error: type[TimeoutError] = papyros.JobTimeout
    assert_type(papyros.RemoteError("text").type_name, str)
    del type_error, value_error, timeout_error
