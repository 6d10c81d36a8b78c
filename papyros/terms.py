"""The terms on which a job is processed: its options, as they travel with it, and the check of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

__all__ = ["DEFAULT_TERMS", "Terms", "check_terms"]


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


#: Beyond this, a whole number has no float.
HUGE: Final = 10**300

#: The terms of a job that says nothing else: those of the class `Job`.
DEFAULT_TERMS: Final = Terms()


# What is checked may be of any type, and is to be refused in our words: where this is compiled, types are kept to.


def check_terms(terms: Any, retryable: Any, whose: Callable[[], str]) -> None:
    """Refuse options that no job can have.

    Args:
        terms: what they are said to be.
        retryable: the one of them that does not travel.
        whose: says in words whose they are, if that is asked for.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option is out of bounds, or goes with none of the others.
    """
    _check_numbers(terms, whose)
    if not isinstance(terms.once, bool):
        raise TypeError(f"the at_most_once of {whose()} is {terms.once!r}, neither True nor False")
    if not isinstance(retryable, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in retryable
    ):
        raise TypeError(f"the retryable of {whose()} is {retryable!r}, not a tuple of types of exceptions")
    if terms.once and terms.retries:
        raise ValueError(f"{whose()} has {terms.retries} retries, but is to run at most once")


def _check_numbers(terms: Any, whose: Callable[[], str]) -> None:
    for name in ("priority", "retries"):
        if not _is_number(getattr(terms, name), int):
            raise TypeError(f"the {name} of {whose()} is {getattr(terms, name)!r}, not a whole number")
    for name in ("timeout", "backoff"):
        value = getattr(terms, name)
        if not (_is_number(value, int, float) or (value is None and name == "timeout")):
            raise TypeError(f"the {name} of {whose()} is {value!r}, not a number of seconds")
    for name in ("priority", "retries", "timeout", "backoff"):
        if _is_huge(getattr(terms, name)):
            raise ValueError(f"the {name} of {whose()} is a number of more than 300 digits")
    if terms.timeout is not None and not terms.timeout > 0:
        raise ValueError(f"the timeout of {whose()} is {terms.timeout!r}; it is more than 0 seconds, or None")
    if terms.retries < 0:
        raise ValueError(f"the retries of {whose()} are {terms.retries}; they are 0 or more")
    if not 0 <= terms.backoff < math.inf:
        raise ValueError(f"the backoff of {whose()} is {terms.backoff!r}; it is 0 or more seconds")


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_huge(value: Any) -> bool:
    """Return whether a whole number is beyond all that computes with seconds, or can be written down, elsewhere."""
    return isinstance(value, int) and abs(value) >= HUGE
