"""What tests share: waiting for an event with a deadline, and gates that hold jobs back.

Jobs of process masters cannot see an event of this process, so a gate is a file:
the same tests then run on every master.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from papyros.distributed.security import Security


#: How long a test waits for what must happen. It is only ever used up by a test that fails.
PATIENCE = 30.0


def hear_ctrl_c() -> None:
    """Heed Ctrl-C, also where a shell runs this in the background: all that it starts would ignore it as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def security() -> Security:
    """What a process of these tests proves itself with: all of them have the same key."""
    # Here, since slaves import this module while the time of the job that needs it runs.
    from papyros.distributed.keys import find_key
    from papyros.distributed.security import Security

    return Security(find_key())


def wait_until(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """Return what `condition` returns as soon as that is true; fail when the time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"after {seconds} s still not: {what or condition}")
        time.sleep(0.005)
    return answer


def gone(pid: int) -> bool:
    """Return whether there is no such process any more; one that has ended and was not waited for is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def processed(master: Any, job: Any, seconds: float = PATIENCE) -> Any:
    """Have a master without other jobs process one; return it."""
    master.addJob(job)
    assert master.popProcessedJob(seconds) is job
    return job


class Gate:
    """A file that jobs wait for; see `tests.contract.jobs_for_tests.wait_at`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def open(self) -> None:
        """Let all jobs through that wait, or will wait, at this gate."""
        Path(self.path).touch()

    def pass_through(self) -> None:
        """Be a job: note the arrival, and wait until the gate is open."""
        Path(f"{self.path}.{uuid.uuid4().hex}.arrived").touch()
        wait_until(Path(self.path).exists, f"gate {self.path} open", 2 * PATIENCE)

    def arrivals(self) -> int:
        """How many jobs have come to the gate."""
        path = Path(self.path)
        return len(list(path.parent.glob(f"{path.name}.*.arrived")))

    def wait_for_arrivals(self, number: int = 1) -> None:
        """Wait until so many jobs have come to the gate, that is, run."""
        wait_until(lambda: self.arrivals() >= number, f"{number} jobs at the gate")


class Gates:
    """Makes gates, and opens all of them when a test is over, so that no job outlives it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gates: list[Gate] = []

    def __call__(self) -> Gate:
        gate = Gate(self._folder / f"gate-{len(self._gates)}")
        self._gates.append(gate)
        return gate

    def open_all(self) -> None:
        for gate in self._gates:
            gate.open()


def fork() -> int:
    """Fork, as `os.fork` does, without a debugger or a measurement of coverage in the child.

    These trace calls with locks of their own, which another thread may hold at that
    moment: the child would wait for ever, before it comes to anything that is to be tested.
    """
    trace = sys.gettrace()
    sys.settrace(None)
    with warnings.catch_warnings():
        # From Python 3.12 on a fork beside threads warns; what then happens is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        sys.settrace(trace)
    else:
        threading.settrace(None)
    return child


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Background:
    """A call in a thread of its own, whose result or exception is asked for later."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._function = function
        self._args = args
        self._error: BaseException | None = None
        self._result: Any = None
        self._thread = Thread(target=self._run, name="test-background", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function(*self._args)
        except BaseException as error:
            self._error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self, seconds: float = PATIENCE) -> Any:
        self._thread.join(seconds)
        assert not self.running, f"{self._function} did not return within {seconds} s"
        if self._error is not None:
            raise self._error
        return self._result


class Bug:
    """Breaks a method from the moment on at which it is let loose."""

    TEXT = "a bug that a test has put here"

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.loose = False

    @classmethod
    def put_into(cls, monkeypatch: Any, owner: type, name: str, loose: bool = False) -> Bug:
        """Put a bug into a method of a class."""
        bug = cls(getattr(owner, name))
        bug.loose = loose
        monkeypatch.setattr(owner, name, bug)
        return bug

    def __get__(self, instance: Any, _: Any = None) -> Callable[..., Any]:
        return partial(self._call, instance)

    def _call(self, *args: Any, **kwds: Any) -> Any:
        if self.loose:
            raise AssertionError(self.TEXT)
        return self._method(*args, **kwds)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail when the block takes longer than that."""
    started = time.monotonic()
    yield
    elapsed = time.monotonic() - started
    assert elapsed <= seconds, f"this took {elapsed:.2f} s; at most {seconds} s were promised"


def is_all_sent(client: Any) -> bool:
    """Whether all that was added to a client of a cluster is with its master: a thread sees to that."""
    with client._lock:
        return bool(client._sender.idle and not client._sender._something_to_send())


def none_to_spare(thread: Thread) -> None:
    """Stand in for `Thread.start` where the system has no more threads."""
    raise RuntimeError("can't start new thread")


def refuse_threads(patch: pytest.MonkeyPatch, name: str) -> None:
    """Have the system start no thread of that name."""
    start = Thread.start

    def start_others(thread: Thread) -> None:
        (none_to_spare if thread.name == name else start)(thread)

    patch.setattr(Thread, "start", start_others)
