"""The sweeper of a crew, as the crew sees it: a small process that sweeps up should the crew's own one be killed.

What it does is in `papyros.sweeping`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import uuid
from collections.abc import Callable

from papyros import sweeping
from papyros.deaths import DeathWatch

__all__ = ["Sweeper"]

#: How long one that was told goodbye may take to end.
END_SECONDS = 1.0

#: So many are started at most, should somebody kill them, or should they be unable to start.
MOST_STARTS = 10


class Sweeper:
    """Starts the process, starts it again if it ends too early, and tells it goodbye.

    On systems other than Linux there is none, since they do not tell what processes carry which mark.

    Attributes:
        mark: that of the crew, with which the marks of its slaves begin.
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._popen: subprocess.Popen[bytes] | None = None
        self._death: DeathWatch | None = None
        self._starts = 0

    @property
    def pid(self) -> int | None:
        """The number of the process; None if there is none."""
        return self._popen.pid if self._popen is not None else None

    def start(self, selector: selectors.BaseSelector) -> None:
        """Start the process, and have a selector watch it, whose keys hold what to call."""
        if sys.platform != "linux" or self._starts >= MOST_STARTS:
            return
        self._starts += 1
        # Without the mark of a slave that this process may run in: whoever sweeps up after that one, this is not his.
        environment = {name: value for name, value in os.environ.items() if name != sweeping.MARK}
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-S", "-P", "-E", sweeping.__file__, self.mark, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                start_new_session=True,  # signals to the terminal's, or the slave's, group are not for it
            )
            self._death = DeathWatch(self._popen)
        except OSError:  # no room for one more process: slaves matter more
            self._forget()
            return
        again: Callable[[], None] = lambda: self._restart(selector)  # noqa: E731 - to give it a type
        selector.register(self._death.fd, selectors.EVENT_READ, again)

    def _restart(self, selector: selectors.BaseSelector) -> None:
        if self._death is not None:
            selector.unregister(self._death.fd)
        self._forget()
        self.start(selector)

    def close(self) -> None:
        """Tell the process goodbye, since nothing is left to be swept up; wait until it is gone."""
        if self._popen is not None and self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self._popen.stdin.fileno(), sweeping.BYE)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(END_SECONDS)
        self._forget()

    def _forget(self) -> None:
        if self._popen is not None:
            if self._popen.stdin is not None:
                self._popen.stdin.close()
            self._popen.kill()
            self._popen.wait()
            self._popen = None
        if self._death is not None:
            self._death.close()
            self._death = None
