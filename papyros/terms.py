"""The terms on which a job is processed: its options, as they travel with it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DEFAULT_TERMS", "Terms"]


class Terms(NamedTuple):
    """The options of a job that matter to those who keep it or run it.

    Attributes:
        priority: higher ones are assigned first.
        timeout: after how many seconds a running job is stopped; None = never.
        retries: how often it is tried again after an exception.
        backoff: how many seconds pass before the first retry; each further time twice as many.
        once: whether it may be started at most once, whatever happens.
        echo: whether its client wants to see what it prints and logs. No option of the job, but of its master.
        jobs: of how many jobs it is a bundle, if more than 1 (`papyros.bundles`). No option either.
        deaths: how many slaves have died while they ran it, before it was sent this time. Nor is this.
    """

    priority: int = 0
    timeout: float | None = None
    retries: int = 0
    backoff: float = 0.1
    once: bool = False
    echo: bool = False
    jobs: int = 1
    deaths: int = 0


#: The terms of a job that says nothing else: those of the class `Job`.
DEFAULT_TERMS = Terms()
