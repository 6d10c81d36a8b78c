"""The functions that all systems run. Imports nothing that takes time, since every process of every peer imports it."""

from __future__ import annotations

import os
import time
from typing import Any


def noop(value: Any) -> Any:
    """Return the argument."""
    return value


def burn(seconds: float) -> None:
    """Compute until so much processor time of this thread is used, whatever else runs on the machine."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def timed_burn(job: tuple[int, float]) -> tuple[int, int, float, float]:
    """Compute; `job` is a number and seconds. Return the number, who did it, and from when to when."""
    number, seconds = job
    started = time.monotonic()
    burn(seconds)
    return number, os.getpid(), started, time.monotonic()


def timed_nap(job: tuple[int, float]) -> tuple[int, int, float, float]:
    """Sleep; `job` is a number and seconds. Return the number, who did it, and from when to when."""
    number, seconds = job
    started = time.monotonic()
    time.sleep(seconds)
    return number, os.getpid(), started, time.monotonic()
