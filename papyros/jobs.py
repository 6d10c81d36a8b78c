"""Jobs: calls to be made later, and the decorator that makes them of functions.

A job knows its arguments and, once processed, its outcome. It knows nothing of
masters, slaves or wires; what a master needs to note on a job is `claim`,
`settle` and `release`, and nothing else.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from papyros.errors import NotAJobError, UnprocessedJobError
from papyros.outcome import Outcome
from papyros.terms import DEFAULT_TERMS, Terms

__all__ = ["FunctionJob", "Job", "job"]

P = ParamSpec("P")
R = TypeVar("R")

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxlong = 40

#: What a job keeps for itself; all else in its `__dict__` is the user's and travels with it.
_PRIVATE = frozenset({"_args", "_kwds", "_outcome", "_keeper", "_shared"})


class Job:
    """A call to be made later: subclass it and override `__call__`.

    ``Factorization(12345)`` holds the arguments and runs nothing; a slave calls
    the job with them. Jobs are told apart by identity and can be dictionary keys.
    What a job assigns to itself while it runs stays with the slave: only what
    `__call__` returns comes back.

    Options are class attributes, which an instance may override:

    Attributes:
        priority: jobs of higher priority are assigned first; those of equal priority in the order in
            which they were added.
        timeout: after how many seconds the running job is stopped, by ending its slave, and its outcome is a
            `JobTimeout`; None = never. A thread cannot be stopped: a master of threads gives the outcome on time
            and leaves the thread to itself, a single-threaded one lets the job run to its end.
        retries: how often the job is tried again after an exception.
        retryable: the types of exceptions after which it is; what they do not name is an outcome at once.
        backoff: how many seconds pass before the first retry; each further time twice as many.
        at_most_once: whether the job must not be started again when its slave, its slave host or its master dies,
            because starting it twice does harm. Its outcome is then a `SlaveLost`, and the job may have run.
    """

    priority: int = 0
    timeout: float | None = None
    retries: int = 0
    retryable: tuple[type[BaseException], ...] = (Exception,)
    backoff: float = DEFAULT_TERMS.backoff
    at_most_once: bool = False

    _outcome: Outcome | None = None
    _shared: Sequence[object] = ()  # the handles of shared values in its arguments, as they were when it was added

    def __init__(self, /, *args: Any, **kwds: Any) -> None:
        self._args = args
        if kwds:  # most jobs have none, and there may be a million of them
            self._kwds = kwds

    def __call__(self, /, *args: Any, **kwds: Any) -> Any:  # noqa: ARG002 - a signature to override
        """Do the work; override this."""
        raise NotAJobError(f"{type(self).__name__} does not override __call__: there is nothing to run")

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of the call."""
        return self._args

    @property
    def kwds(self) -> dict[str, Any]:
        """The named arguments of the call."""
        kwds: dict[str, Any] = self.__dict__.setdefault("_kwds", {})
        return kwds

    @property
    def result(self) -> Any:
        """What the job returned.

        Raises:
            UnprocessedJobError: the job has not been processed and popped.
            BaseException: what the job raised, with the text of its traceback as `traceback`.
        """
        return self._require_outcome().get()

    @property
    def exception(self) -> BaseException | None:
        """What the job raised, or None where it returned a result.

        Raises:
            UnprocessedJobError: the job has not been processed and popped.
        """
        return self._require_outcome().exception

    @property
    def slave(self) -> str:
        """Who ran the job: ``HOST/PID`` of a process, or the name of a thread.

        Raises:
            UnprocessedJobError: the job has not been processed and popped.
        """
        return self._require_outcome().slave

    @property
    def seconds(self) -> float:
        """For how many seconds the job ran.

        Raises:
            UnprocessedJobError: the job has not been processed and popped.
        """
        return self._require_outcome().seconds

    def _require_outcome(self) -> Outcome:
        if self._outcome is None:
            raise UnprocessedJobError(
                f"{describe(self)} has no result yet: add it to a master and wait until popProcessedJob() returns it"
            )
        return self._outcome

    def __repr__(self) -> str:
        shown = [_shorten(arg) for arg in self.__dict__.get("_args", ())]
        shown += [f"{name}={_shorten(arg)}" for name, arg in self.__dict__.get("_kwds", {}).items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle of a job is a new job: unprocessed, and pending nowhere.
        state = self.__dict__.copy()
        state.pop("_outcome", None)
        state.pop("_keeper", None)
        state.pop("_shared", None)
        return state


class FunctionJob(Job, Generic[P, R]):
    """The base of the job classes that `job` makes of functions.

    Attributes:
        function: the plain function, for a call here and now.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, /, *args: P.args, **kwds: P.kwargs) -> None:
        super().__init__(*args, **kwds)

    def __call__(self, /, *args: P.args, **kwds: P.kwargs) -> R:
        """Call the function."""
        result: R = type(self).function(*args, **kwds)
        return result

    @property
    def result(self) -> R:
        """What the function returned; see `Job.result`."""
        value: R = self._require_outcome().get()
        return value


@overload
def job(function: Callable[P, R], /) -> type[FunctionJob[P, R]]: ...


@overload
def job(
    *,
    priority: int = 0,
    timeout: float | None = None,
    retries: int = 0,
    retryable: tuple[type[BaseException], ...] = (Exception,),
    backoff: float = 0.1,
    at_most_once: bool = False,
) -> Callable[[Callable[P, R]], type[FunctionJob[P, R]]]: ...


def job(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Make a job class of a plain function.

    Bare, or with options, which become class attributes::

        @papyros.job(priority=1)
        def factorize(number):
            ...

        master.addJob(factorize(12345))

    Args:
        function: the function to make a class of; it stays available as the class's `function`.
        options: the options of `Job`, by name.

    Raises:
        TypeError: `function` cannot be called, or an option is none that `Job` has.
    """
    known = {name for name in Job.__annotations__ if not name.startswith("_")}
    for name in options:
        if name not in known:
            raise TypeError(f"{name!r} is no option of a job; there is {', '.join(sorted(known))}")
    if function is None:
        return lambda function: job(function) if not options else _job_class(function, options)
    return _job_class(function, options)


def _job_class(function: Callable[..., Any], options: dict[str, Any]) -> type[Job]:
    if not callable(function):
        raise TypeError(f"@papyros.job makes a job of a function, not of {function!r}")
    body = {
        "function": staticmethod(function),
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        **options,
    }
    return type(function.__name__, (FunctionJob,), body)


def _shorten(value: object) -> str:
    """Return a short text for any object, also for one that has none to offer."""
    try:
        return _repr.repr(value)
    except Exception:  # noqa: BLE001 - a __repr__ may raise anything, and that of a very large int does
        return f"<{type(value).__name__}>"


def describe(job: object) -> str:
    """Return a job in words, also one whose `__repr__` raises: an error that names it is to be that error."""
    try:
        return repr(job)
    except Exception:  # noqa: BLE001 - a __repr__ of the user's may raise anything
        return f"a {type(job).__name__}"


# What masters do to jobs. ---------------------------------------------------------------

_PRIORITY, _RETRIES, _BACKOFF, _RETRYABLE = Job.priority, Job.retries, Job.backoff, Job.retryable


def check_job(candidate: object) -> None:
    """Refuse, with a `NotAJobError`, what no slave could run."""
    if not isinstance(candidate, Job):
        hint = ""
        if isinstance(candidate, type) and issubclass(candidate, Job):
            hint = f"; did you mean {candidate.__name__}(...)?"
        elif callable(candidate):
            hint = "; @papyros.job makes a job class of a function"
        raise NotAJobError(f"only jobs can be added, and {_shorten(candidate)} is none{hint}")
    abstract = type(candidate).__call__ is Job.__call__
    if abstract or (isinstance(candidate, FunctionJob) and not hasattr(candidate, "function")):
        raise NotAJobError(f"{type(candidate).__name__} does not override __call__: there is nothing to run")
    if "_args" not in candidate.__dict__:
        raise NotAJobError(
            f"{type(candidate).__name__}.__init__ does not call Job.__init__, so the job has no arguments"
        )


def terms_of(job: Job) -> Terms:
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
    return _check_terms(job, Terms(job.priority, job.timeout, job.retries, job.backoff, job.at_most_once))


def _check_terms(job: Job, terms: Terms) -> Terms:
    _check_numbers(job, terms)
    if not isinstance(terms.once, bool):
        raise TypeError(f"the at_most_once of {describe(job)} is {terms.once!r}, neither True nor False")
    if not isinstance(job.retryable, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in job.retryable
    ):
        raise TypeError(f"the retryable of {describe(job)} is {job.retryable!r}, not a tuple of types of exceptions")
    if terms.once and terms.retries:
        raise ValueError(f"{describe(job)} has {terms.retries} retries, but is to run at most once")
    return terms


def _check_numbers(job: Job, terms: Terms) -> None:
    for name in ("priority", "retries"):
        if not _is_number(getattr(terms, name), int):
            raise TypeError(f"the {name} of {describe(job)} is {getattr(terms, name)!r}, not a whole number")
    for name in ("timeout", "backoff"):
        value = getattr(terms, name)
        if not (_is_number(value, int, float) or (value is None and name == "timeout")):
            raise TypeError(f"the {name} of {describe(job)} is {value!r}, not a number of seconds")
    for name in ("priority", "retries", "timeout", "backoff"):
        if _is_huge(getattr(terms, name)):
            raise ValueError(f"the {name} of {describe(job)} is a number of more than 300 digits")
    if terms.timeout is not None and not terms.timeout > 0:
        raise ValueError(f"the timeout of {describe(job)} is {terms.timeout!r}; it is more than 0 seconds, or None")
    if not (0 <= terms.backoff < math.inf and terms.retries >= 0):
        retries = f"{describe(job)} has {terms.retries} retries"
        raise ValueError(f"{retries} and a backoff of {terms.backoff} s; neither is negative")


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_huge(value: float | None) -> bool:
    """Return whether a whole number is beyond all that computes with seconds, or can be written down, elsewhere."""
    return isinstance(value, int) and abs(value) >= 10**300


def wants_retry(job: Job, error: BaseException) -> bool:
    """Return whether `error` is one after which the job is to be tried again, if it has retries left."""
    try:
        return isinstance(error, job.retryable)
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


def forget_outcome(job: Job) -> None:
    """Make a job that was processed before an unprocessed one again."""
    if job._outcome is not None:
        del job._outcome  # what the class says holds again


def settle(job: Job, outcome: Outcome) -> None:
    """Give the job its outcome; nobody keeps it any more."""
    job._outcome = outcome
    job.__dict__.pop("_keeper", None)


def release(job: Job) -> None:
    """Let go of the job without an outcome."""
    job.__dict__.pop("_keeper", None)


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


def user_state(job: Job) -> dict[str, Any] | None:
    """Return the attributes that the user gave the job, or None when there are none."""
    state = job.__dict__
    if _PRIVATE.issuperset(state):
        return None
    return {name: value for name, value in state.items() if name not in _PRIVATE}
