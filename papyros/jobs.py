"""Jobs: calls to be made later, and the decorator that makes them of functions.

A job knows its arguments and, once processed, its outcome. It knows nothing of
masters, slaves or wires; what a master notes on a job is `papyros.keeping`'s affair.
"""

from __future__ import annotations

import copyreg
import functools
import reprlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from papyros.errors import NotAJobError, UnprocessedJobError
from papyros.outcome import Outcome
from papyros.terms import DEFAULT_TERMS, Terms, check_terms

__all__ = ["FunctionJob", "Job", "describe", "job", "result_of", "shorten"]

P = ParamSpec("P")
R = TypeVar("R")

#: `CO_COROUTINE` or `CO_ASYNC_GENERATOR` of `inspect`, and `CO_GENERATOR`; slaves do not import it: it takes a while.
_ASYNC = 0x80 | 0x200
_GENERATOR = 0x20


class _Repr(reprlib.Repr):
    """Short texts that take no long ones to be made: `reprlib` makes all of what is in bytes, and cuts it then."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlong = 40

    def _bytes(self, value: Any, _: int) -> str:
        if len(value) <= self.maxother:
            return repr(value)
        return f"{bytes(value[: self.maxother // 2])!r}... ({len(value):,} bytes)"

    repr_bytes = repr_bytearray = _bytes


def _check_runs(name: str, function: Any) -> None:
    """Refuse what would do nothing when it is called, be it a `functools.partial` or any object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    flags = getattr(code, "co_flags", 0)
    if flags & _ASYNC:
        raise TypeError(
            f"{name} is async, and a call of it would run nothing: have a plain one call asyncio.run({name}(...))"
        )
    if flags & _GENERATOR:
        raise TypeError(
            f"{name} has a yield, and a call of it would run nothing but make a generator, which cannot travel: "
            "have it return a list"
        )


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

    _args: tuple[Any, ...]
    _kwds: dict[str, Any] | None = None
    _outcome: Outcome | None = None
    _shared: Sequence[object] = ()  # the handles of shared values in its arguments, as they were when it was added

    def __init__(self, /, *args: Any, **kwds: Any) -> None:
        try:
            self._args = args
        except AttributeError:  # a class whose instances are frozen
            self.__dict__["_args"] = args
        if kwds:  # most jobs have none, and there may be a million of them
            self.__dict__["_kwds"] = kwds

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_runs(f"{cls.__name__}.__call__", cls.__call__)

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
        return result_of(self._require_outcome())

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
        shown = [shorten(arg) for arg in self.__dict__.get("_args", ())]
        shown += [f"{name}={shorten(arg)}" for name, arg in self.__dict__.get("_kwds", {}).items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> Any:
        # A copy or a pickle of a job is a new job: unprocessed, and pending nowhere.
        state = self.__dict__.copy()
        state.pop("_outcome", None)
        state.pop("_keeper", None)
        state.pop("_shared", None)
        slots = slots_of(self)
        return (state, slots) if slots else state


def result_of(outcome: Outcome) -> Any:
    """Return the result of a job, or raise its exception: here, where a traceback shows the line."""
    if outcome.exception is None:
        return outcome.value
    raise outcome.exception_anew()


def slots_of(job: Job) -> dict[str, Any]:
    """Return what a job has in slots, by the names of these."""
    names = copyreg._slotnames(type(job))  # type: ignore[attr-defined] # as pickle does
    return {name: getattr(job, name) for name in names if hasattr(job, name)}


class FunctionJob(Job, Generic[P, R]):
    """The base of the job classes that `job` makes of functions.

    Attributes:
        function: the plain function, for a call here and now.
    """

    function: ClassVar[Callable[..., Any]]

    if TYPE_CHECKING:  # for type checkers: it does what that of `Job` does, and a call of it would cost as much again

        def __init__(self, /, *args: P.args, **kwds: P.kwargs) -> None: ...

    def __call__(self, /, *args: P.args, **kwds: P.kwargs) -> R:
        """Call the function."""
        result: R = type(self).function(*args, **kwds)
        return result

    @property
    def result(self) -> R:
        """What the function returned; see `Job.result`."""
        value: R = result_of(self._require_outcome())
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
        TypeError: `function` cannot be called, is a job class already, is async or a generator; or an option is none
            that `Job` has, or of the wrong type.
        ValueError: an option is out of bounds, or goes with none of the others.
    """
    known = {name for name in Job.__annotations__ if not name.startswith("_")}
    for name in options:
        if name not in known:
            raise TypeError(f"{name!r} is no option of a job; there is {', '.join(sorted(known))}")
    if options:
        given = {name: options.get(name, getattr(Job, name)) for name in known}
        retryable, once = given.pop("retryable"), given.pop("at_most_once")
        check_terms(Terms(once=once, **given), retryable, lambda: "@papyros.job")
    if function is None:
        return lambda function: job(function) if not options else _job_class(function, options)
    return _job_class(function, options)


def _job_class(function: Callable[..., Any], options: dict[str, Any]) -> type[Job]:
    if not callable(function):
        raise TypeError(f"@papyros.job makes a job of a function, not of {function!r}")
    if isinstance(function, type) and issubclass(function, Job):
        name = function.__name__
        raise TypeError(f"{name} is a class of jobs already: its options are attributes of it, as in timeout = 60")
    _check_runs(getattr(function, "__name__", shorten(function)), function)
    kind = type(function)  # an object that can be called, as a `functools.partial`, need not have a name
    body = {
        "function": staticmethod(function),
        "__doc__": function.__doc__,
        "__module__": getattr(function, "__module__", None) or kind.__module__,
        "__qualname__": getattr(function, "__qualname__", kind.__qualname__),
        **options,
    }
    return type(getattr(function, "__name__", kind.__name__), (FunctionJob,), body)


def shorten(value: object) -> str:
    """Return a short text for any object, also for one that has none to offer."""
    try:
        return _Repr().repr(value)
    except KeyboardInterrupt:
        raise  # the user's
    except BaseException:  # noqa: BLE001 - a __repr__ may raise anything, and that of a very large int does
        return f"<{type(value).__name__}>"


def describe(job: object) -> str:
    """Return a job in words, also one whose `__repr__` raises: an error that names it is to be that error."""
    try:
        return repr(job)
    except KeyboardInterrupt:
        raise  # the user's
    except BaseException:  # noqa: BLE001 - a __repr__ of the user's may raise anything
        return f"a {type(job).__name__}"
