"""What masters and slaves note on jobs, and ask of them: whose they are, on which terms, and what is in them.

All that is private in a job is read and written here, and in `papyros.jobs`. Nothing in here runs or packs a job.
"""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

from papyros.errors import NotAJobError
from papyros.jobs import FunctionJob, Job, describe, shorten, slots_of
from papyros.outcome import Outcome
from papyros.terms import DEFAULT_TERMS, Terms, check_terms

__all__ = [
    "arguments_of",
    "check_job",
    "check_travels",
    "claim",
    "forget_outcome",
    "keep_handles",
    "keeper_of",
    "named_arguments",
    "only_has_arguments",
    "put_outcome",
    "rebuild",
    "release",
    "settle",
    "terms_of",
    "travels_plainly",
    "user_state",
    "wants_retry",
]

#: What a job keeps for itself; all else in its `__dict__` is the user's and travels with it.
_PRIVATE = frozenset({"_args", "_kwds", "_outcome", "_keeper", "_shared"})

# The objects themselves, also where this is compiled: they are told apart by identity (see `terms_of`).
_ARGS: Final[Any] = vars(Job)["args"]
_PRIORITY: Final[Any] = vars(Job)["priority"]
_RETRIES: Final[Any] = vars(Job)["retries"]
_BACKOFF: Final[Any] = vars(Job)["backoff"]
_RETRYABLE: Final[Any] = vars(Job)["retryable"]


def check_job(candidate: object, known: bool = False) -> None:
    """Refuse, with a `NotAJobError`, what no slave could run; its class may be `known` to be one of jobs."""
    if not known:
        _check_class(candidate)
    if "_args" not in candidate.__dict__:
        raise NotAJobError(
            f"{type(candidate).__name__}.__init__ does not call Job.__init__, so the job has no arguments"
        )


def _check_class(candidate: object) -> None:
    if not isinstance(candidate, Job):
        hint = ""
        if isinstance(candidate, type) and issubclass(candidate, Job):
            hint = f"; did you mean {candidate.__name__}(...)?"
        elif callable(candidate):
            hint = "; @papyros.job makes a job class of a function"
        raise NotAJobError(f"only jobs can be added, and {shorten(candidate)} is none{hint}")
    abstract = type(candidate).__call__ is Job.__call__
    if abstract or (isinstance(candidate, FunctionJob) and not hasattr(candidate, "function")):
        raise NotAJobError(f"{type(candidate).__name__} does not override __call__: there is nothing to run")


def terms_of(job: Any) -> Terms:
    """Return the options of a job.

    Raises:
        TypeError: an option is of the wrong type.
        ValueError: an option is out of bounds, or goes with none of the others.
    """
    # By identity: False equals 0, but is no number of retries. Written out, since each job that is added comes by.
    if (
        job.priority is _PRIORITY
        and job.timeout is None
        and job.retries is _RETRIES
        and job.at_most_once is False
        and job.backoff is _BACKOFF
        and job.retryable is _RETRYABLE
    ):
        return DEFAULT_TERMS
    terms = Terms(job.priority, job.timeout, job.retries, job.backoff, job.at_most_once)
    check_terms(terms, job.retryable, partial(describe, job))
    return terms


def wants_retry(job: Any, error: BaseException) -> bool:
    """Return whether `error` is one after which the job is to be tried again, if it has retries left."""
    try:
        return issubclass(type(error), job.retryable)
    except TypeError:  # the job has spoilt its own options while it ran
        return False


def claim(job: Job, keeper: object) -> bool:
    """Note who keeps the job from now on; return False if somebody does already.

    One atomic step, so that of two masters that are given the same job at the
    same moment only one takes it. Each claim is an object of its own.
    """
    return job.__dict__.setdefault("_keeper", keeper) is keeper


def keeper_of(job: object) -> object | None:
    """Return what `claim` noted, or None when nobody keeps the job."""
    return job.__dict__.get("_keeper") if isinstance(job, Job) else None


def put_outcome(job: Job, outcome: Outcome) -> None:
    """Give the job its outcome."""
    job.__dict__["_outcome"] = outcome  # by no means that the job's class may have other ideas of


def forget_outcome(job: Job) -> None:
    """Make a job that was processed before an unprocessed one again."""
    job.__dict__.pop("_outcome", None)


def settle(job: Job, outcome: Outcome) -> None:
    """Give the job its outcome; nobody keeps it any more."""
    put_outcome(job, outcome)
    release(job)


def keep_handles(job: Job, handles: Sequence[object]) -> None:
    """Have the shared values in the arguments of a job be there for as long as it is pending."""
    job.__dict__["_shared"] = handles


def release(job: Job) -> None:
    """Let go of the job without an outcome."""
    job.__dict__.pop("_keeper", None)


def arguments_of(job: Any) -> Any:
    """Return the positional arguments of a job: a tuple, unless its class has other ideas of what `args` is."""
    return job._args if type(job).args is _ARGS else job.args  # a property of Python's own costs a call


def only_has_arguments(job: Job) -> bool:
    """Return whether a job consists of its positional arguments: no named ones, no attributes of the user's."""
    # Asked of each job that is added, most of which have just these two entries.
    state = job.__dict__
    if len(state) == 2 and "_args" in state and "_keeper" in state:
        return True
    return len(state) <= len(_PRIVATE) and "_kwds" not in state and _PRIVATE.issuperset(state)


def named_arguments(job: Job) -> dict[str, Any] | None:
    """Return the named arguments of a job, or None when it has none; makes no dictionary for a job that has none."""
    return job.__dict__.get("_kwds") or None


def check_travels(job_class: type[Job]) -> None:
    """Refuse a class whose jobs have contents that cannot be had at all, as those of a `dict` that is a job, too.

    Raises:
        TypeError: it is one.
    """
    if not hasattr(job_class, "__del__"):  # which is not to see what has no arguments
        try:
            object.__new__(job_class)
        except TypeError as error:
            raise TypeError(f"what its jobs are beside jobs does not travel, keep it in attributes ({error})") from None


def travels_plainly(job_class: type[Job]) -> bool:
    """Return whether all that jobs of a class are is in their `__dict__`: it has no slots, nor a state of its own."""
    own_state = job_class.__getstate__ is not Job.__getstate__ or hasattr(job_class, "__setstate__")
    return not own_state and not copyreg._slotnames(job_class)  # type: ignore[attr-defined] # as pickle does


def user_state(job: Job) -> Any:
    """Return the attributes that the user gave the job, or None when there are none; see `rebuild`.

    Where its class has a `__getstate__`, what that returns, without what is ours.
    """
    job_class = type(job)
    if job_class.__getstate__ is not Job.__getstate__:
        state = job.__getstate__()
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
            return _users(state[0]), state[1]
        return _users(state) if isinstance(state, dict) else state
    state = _users(job.__dict__)
    slots = slots_of(job)
    if slots:
        return state, slots
    return state if state or hasattr(job_class, "__setstate__") else None


def _users(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in _PRIVATE}


def rebuild(job_class: type[Job], args: Any, kwds: dict[str, Any] | None, state: Any) -> Job:
    """Return the job of which these are the arguments, and the state as `user_state` returned it.

    As with `pickle`, that goes to the `__setstate__` of the class, where it has one, which may raise anything.
    """
    job: Job = object.__new__(job_class)
    try:
        job._args = args  # which makes no dictionary; most jobs that come to a slave need none
    except Exception:  # noqa: BLE001 - a class whose instances are frozen
        job.__dict__["_args"] = args
    if kwds:
        job.__dict__["_kwds"] = kwds
    if state is None:
        return job
    if hasattr(job_class, "__setstate__"):
        cast(Any, job).__setstate__(state)
        job.__dict__.setdefault("_args", args)  # it may have put another dictionary in place of that one
        if kwds:
            job.__dict__.setdefault("_kwds", kwds)
        return job
    slots: dict[str, Any] = {}
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    job.__dict__.update(state or {})
    for name, value in slots.items():
        object.__setattr__(job, name, value)
    return job
