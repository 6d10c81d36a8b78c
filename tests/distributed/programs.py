"""Real programs for tests: started, listened to, and ended by their numbers.

What a program prints goes to a file, which a test waits for words in and which is
shown when the test fails. Every process of a test, however far down, carries
the test's mark in its environment: so those that were left behind are found.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from papyros.distributed.cli import main
from papyros.distributed.naming import NameServer, parse_address
from tests.support import PATIENCE, security, wait_until

#: The environment variable that all processes of a test have.
MARK = "PAPYROS_TEST_MARK"

PART = (sys.executable, "-m", "papyros.distributed")

CHECKOUT = Path(__file__).resolve().parents[2]

#: What a part prints when it is up.
MASTER_UP = "is up at"
HOST_UP = "whose master is at"
STANDALONE_UP = "is up: name server at"

CTRL_C = b"\x03"

TICKS = os.sysconf("SC_CLK_TCK")

#: Becomes a part, after the system was told to let it have so much of something, and no more.
_BOUNDED = """
import os, resource, sys
what, most = getattr(resource, f"RLIMIT_{sys.argv[1]}"), int(sys.argv[2])
resource.setrlimit(what, (most, most))
os.execv(sys.executable, [sys.executable, "-m", "papyros.distributed", *sys.argv[3:]])
"""

#: Becomes another program, after the terminal that it was given has become the one that controls it.
_AT_TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"


class Program:
    """A process, with what it prints."""

    def __init__(self, command: Sequence[str], name: str, folder: Path, cwd: Path, **env: str) -> None:
        self.name = name
        self._output = folder / f"{name}.output"
        with self._output.open("wb") as file:
            self._popen = self._start(command, file, cwd, os.environ | env)

    def _start(self, command: Sequence[str], file: Any, cwd: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, cwd=cwd, env=env
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def text(self) -> str:
        """All that it has printed."""
        return self._output.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, words: str, seconds: float = PATIENCE) -> str:
        """Wait until it has printed these words; return all that it has printed."""

        def printed() -> bool:
            ended = not self.running
            if words in self.text:
                return True
            assert not ended, f"{self.name} ended with {self._popen.returncode}, without {words!r}:\n{self.text}"
            return False

        wait_until(printed, f"{words!r} printed by {self.name}", seconds)
        return self.text

    def find(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait until it has printed what matches the pattern; return the match."""
        return wait_until(lambda: re.search(pattern, self.text), f"{pattern!r} printed by {self.name}", seconds)

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def stop(self) -> None:
        """Put it to sleep, and wait until all of its threads do."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait until it has ended; return its exit code."""
        return self._popen.wait(seconds)

    def end(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Send a signal, and wait until it has ended; return its exit code."""
        self.send(number)
        return self.ended(seconds)

    def clean_up(self) -> None:
        """End it, whatever it is doing."""
        if self.running:
            self.send(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(2)
        if self.running:
            self._popen.kill()
            self._popen.wait()


class AtTerminal(Program):
    """A program at a terminal of its own, of which it is the foreground."""

    def _start(self, command: Sequence[str], file: Any, cwd: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        self._keyboard, screen = os.openpty()
        os.set_blocking(self._keyboard, False)
        popen = subprocess.Popen(
            [sys.executable, "-c", _AT_TERMINAL, *command],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        os.close(screen)
        return popen

    @property
    def text(self) -> str:
        with contextlib.suppress(BlockingIOError, OSError), self._output.open("ab") as file:
            while chunk := os.read(self._keyboard, 1 << 16):
                file.write(chunk)
        return super().text.replace("\r\n", "\n")

    def press(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def ended(self, seconds: float = PATIENCE) -> int:
        # What nobody reads fills the terminal, and then holds up whoever writes.
        wait_until(lambda: (self.text, not self.running)[1], f"the end of {self.name}", seconds)
        return super().ended()

    def hang_up(self) -> None:
        """Have the terminal go, as when its window is closed."""
        self.text  # read what is there
        os.close(self._keyboard)
        self._keyboard = os.open(os.devnull, os.O_RDWR)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold what is shown, as Ctrl-S does, and let it go on in the end, as Ctrl-Q does."""
        screen = os.open(f"/proc/{self.pid}/fd/1", os.O_RDWR | os.O_NOCTTY)
        try:
            termios.tcflow(screen, termios.TCOOFF)
            yield
            termios.tcflow(screen, termios.TCOON)
        finally:
            os.close(screen)

    def clean_up(self) -> None:
        super().clean_up()
        self.text  # read what is left
        with contextlib.suppress(OSError):
            os.close(self._keyboard)


class NameServerProgram(Program):
    """Pyro's own name server."""

    @property
    def address(self) -> str:
        return self.find(r"URI = PYRO:Pyro.NameServer@(\S+)")[1]


class Programs:
    """Starts programs for a test, and ends them when it is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Where programs are started: nothing is to be found there, and nothing to be left.
        self.cwd = folder / "elsewhere"
        self.cwd.mkdir()
        self._started: list[Program] = []

    def __call__(
        self, *command: str, name: str = "", cwd: Path | None = None, terminal: bool = False, **env: str
    ) -> Program:
        kind = AtTerminal if terminal else Program
        return self._add(kind(command, self._name(name or command[-1]), self.folder, cwd or self.cwd, **env))

    def nameserver(self, port: int = 0) -> NameServerProgram:
        """Start the name server that Pyro brings along, and wait until it is up."""
        command = [str(Path(sys.executable).parent / "pyro5-ns"), "--host", "localhost", "--port", str(port), "--nobc"]
        program = NameServerProgram(command, self._name("names"), self.folder, self.cwd, PYTHONUNBUFFERED="1")
        self._add(program)
        assert program.address
        return program

    def part(self, *arguments: str, name: str = "part", terminal: bool = False, cwd: Path | None = None) -> Program:
        """Start ``python -m papyros.distributed``."""
        return self(*PART, *arguments, name=name, terminal=terminal, cwd=cwd)

    def bounded(self, what: str, most: int, *arguments: str) -> Program:
        """Start ``python -m papyros.distributed`` with a bound on something, by the name of that in `resource`."""
        return self(sys.executable, "-c", _BOUNDED, what, str(most), *arguments, name="bounded")

    def master(self, group: str, names: str, *more: str) -> Program:
        """Start a master, and wait until it is up."""
        program = self.part(f"--group={group}", f"--nameserver={names}", *more, name="master")
        program.wait_for(MASTER_UP)
        return program

    def host(self, group: str, names: str, slaves: int = 1, *more: str) -> Program:
        """Start a slave host, and wait until it serves a master."""
        program = self.part(f"--group={group}", f"--nameserver={names}", f"--slaves={slaves}", *more, name="host")
        program.wait_for(HOST_UP)
        return program

    def script(
        self,
        source: str,
        *arguments: str,
        name: str = "script",
        folder: Path | None = None,
        terminal: bool = False,
        alone: bool = False,
    ) -> Program:
        """Start a Python program, of which the text is given, in a folder of its own; alone, it finds no tests."""
        env = {"PYTHONPATH": ""} if alone else {}
        home = folder or self.folder / self._name("home")
        home.mkdir(exist_ok=True)
        path = home / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        return self(sys.executable, str(path), *arguments, name=name, terminal=terminal, **env)

    def end_all(self) -> None:
        for program in self._started:
            if program.running:
                program.send(signal.SIGCONT)
        for program in reversed(self._started):
            program.clean_up()

    def show(self) -> None:
        """Print what all programs have printed: it is shown when the test has failed."""
        for program in self._started:
            print(f"--- {program.name} (process {program.pid}) printed:\n{program.text}")

    def _add(self, program: Any) -> Any:
        self._started.append(program)
        return program

    def _name(self, name: str) -> str:
        safe = re.sub(r"[^A-Za-z0-9]+", "-", name)[-40:]
        return f"{len(list(self.folder.iterdir()))}-{safe}"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the line with which the command line refuses its arguments."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line, *rest = captured.err.splitlines()
    assert rest in ([], ["Try --help."]), captured.err
    assert line.isprintable()
    assert line.startswith("python -m papyros.distributed: ")
    return line


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("localhost", 0)) as sock:
        return int(sock.getsockname()[1])


def groups(names: str) -> list[str]:
    """Return the groups that have a master registered at a name server."""
    return NameServer(parse_address(names), security()).groups()


def uri_of(names: str, group: str) -> str | None:
    """Return where a name server says that the master of a group is."""
    return NameServer(parse_address(names), security()).lookup(group)


def processes(mark: str) -> dict[int, str]:
    """Return the processes that carry a mark, with their command lines; none that have ended."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found[int(folder.name)] = command
    return found


def alive(pid: int) -> bool:
    """Return whether there is such a process, and it has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def slaves_of(pid: int) -> list[int]:
    """Return the numbers of the slave processes that a process has started."""
    return children_of(pid, "papyros.slave")


def children_of(pid: int, *words: str) -> list[int]:
    """Return the numbers of the processes that a process has started, with these words in their command lines.

    A process that does not run its own program yet has the command line of the one that starts it.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
            if parent == pid and all(word.encode() in command for word in words):
                found.append(int(folder.name))
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return how long the processes have computed, all of them together."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def wait_until_gone(pids: Sequence[int], seconds: float) -> None:
    """Wait until none of these processes is left; fail when the time is up."""
    wait_until(lambda: not any(map(alive, pids)), f"an end to the processes {pids}", seconds)


def elapsed(since: float) -> float:
    return time.monotonic() - since
