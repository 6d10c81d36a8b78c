"""The line between the parts of a local cluster and the program that started them.

A part is told through it what it needs to know, says through it that it is
ready, and ends when it breaks, since then the program is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from papyros.deaths import cause_of
from papyros.distributed.config import changed_pyro_items
from papyros.environment import python_command, python_environment, search_path
from papyros.errors import ClusterError

__all__ = ["Lifeline", "Part"]

#: How long a part may take to end when it is asked to, before it is killed.
END_SECONDS = 8.0


class Lifeline:
    """A part's end of the line.

    Args:
        fd: the file descriptor of a stream socket.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._parent = os.getppid()
        self._sock = socket.socket(fileno=fd)
        self._file = self._sock.makefile("rb")

    def hello(self) -> dict[str, Any]:
        """Return what the program has to say first."""
        hello: dict[str, Any] = json.loads(self._file.readline() or b"{}")
        return hello

    def ready(self, **facts: Any) -> None:
        """Say that this part is ready, and what there is to know of it."""
        with contextlib.suppress(OSError):  # the program is gone, which `watch` notices
            self._sock.sendall(json.dumps(facts).encode() + b"\n")

    def watch(self, end: Callable[[], None]) -> None:
        """Call `end`, from another thread, when the program is gone or wants this part to end."""

        def wait() -> None:
            with contextlib.suppress(OSError):
                self._wait_for_end()
            self._file.close()
            self._sock.close()
            end()

        threading.Thread(target=wait, name="papyros-lifeline", daemon=True).start()

    def _wait_for_end(self) -> None:
        # Of those that take no file descriptor: there may be none left.
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            death = None
            with contextlib.suppress(AttributeError, OSError):  # not all systems have it
                # The line alone may stay open: whatever the program has forked holds it, too.
                death = os.pidfd_open(self._parent)
            if death is not None:
                selector.register(death, selectors.EVENT_READ)
            if os.getppid() == self._parent:  # else it was gone before it could be watched
                selector.select()  # nothing more is to be said; only the end matters
            if death is not None:
                os.close(death)


class Part:
    """A part of a local cluster, as the program that started it sees it.

    Args:
        name: what it is, in words.
        module: the module to run.
        arguments: its arguments.
        key_file: where the key of the cluster is; it is not among the arguments, which everybody can see.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], key_file: str | None = None) -> None:
        self.name = name
        #: Whether it was asked to end.
        self.asked = False
        #: Whether it ended by itself, and not in order.
        self.failed = False
        hello = {"path": search_path(sys.path), "pyro": changed_pyro_items(), "key_file": key_file}
        command = python_command("-m", module, *arguments, "--lifeline")
        self._sock, theirs = socket.socketpair()
        # Whatever the program has made of `socket.setdefaulttimeout`; and gevent's sockets leave a descriptor as it is.
        self._sock.setblocking(True)
        os.set_blocking(theirs.fileno(), True)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self._sock.close)
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=python_environment(),
                start_new_session=True,  # Ctrl-C is for the program, which ends its parts in order
            )
            undo.pop_all()
        with contextlib.suppress(OSError):  # it has ended already, which `wait_ready` notices
            self._sock.sendall(json.dumps(hello).encode() + b"\n")

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def wait_ready(self, timeout: float) -> dict[str, Any]:
        """Wait until the part is ready; return what it says.

        Raises:
            ClusterError: it ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout
        heard = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            while not heard.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ClusterError(f"the {self.name} of the local cluster is not ready after {timeout:g} s")
                chunk = b""
                with contextlib.suppress(ConnectionResetError):  # it ended before it read what it was told
                    chunk = self._sock.recv(4096)
                if not chunk:
                    raise ClusterError(
                        f"the {self.name} of the local cluster {_cause_of(self._code())} before it was ready; "
                        "what it printed says why"
                    )
                heard += chunk
        facts: dict[str, Any] = json.loads(heard)
        return facts

    def fileno(self) -> int:
        """Return the file descriptor on which nothing more comes, once the part is ready, but its end."""
        return self._sock.fileno()

    def ended_by_itself(self) -> str:
        """Take note of that, and return in words how the part has ended."""
        try:
            code = self._code()
            self.failed = code != 0
            return _cause_of(code)
        except subprocess.TimeoutExpired:
            return "has left"

    def _code(self) -> int | None:
        """Wait for the end; return the exit code, or None where the system keeps none for this program."""
        code = self._process.wait(END_SECONDS)
        # `subprocess` makes a 0 of what it cannot know; and whoever started this program may have SIGCHLD ignored.
        return None if code == 0 and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN else code

    def drain(self, timeout: float) -> None:
        """Have the part end when what it runs has ended; wait for that."""
        self.asked = True
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def end(self) -> None:
        """Ask the part to end; returns at once."""
        self.asked = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def wait(self) -> None:
        """Wait until the part has ended; kill it if it does not."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Let go of the line to a part that has ended."""
        self._sock.close()


def _cause_of(code: int | None) -> str:
    if code is None:
        return "has ended (how is not known, since this program ignores SIGCHLD)"
    return cause_of(code)
