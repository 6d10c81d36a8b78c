"""Ends what jobs have started and left behind; also a process of its own, the sweeper.

A crew sweeps up after each of its slaves. What it cannot do is to sweep after its own
death, so a *sweeper* does: a process that waits until the crew's process is gone, ends all that carries
the crew's mark, and goes. It is run as a file, and imports next to nothing, so that it costs little.
"""

import os
import select
import signal
import sys
import time

__all__ = ["BYE", "MARK", "main", "sweep", "sweep_thoroughly"]

#: The environment variable that marks a slave and all that it starts.
MARK = "PAPYROS_SLAVE"

#: What a crew says that has swept up itself.
BYE = b"bye\n"

#: For so long, at most, is swept what goes on starting processes.
SWEEP_SECONDS = 10.0

#: A process that has just put another program in its place has no environment yet. It is looked at so often, ...
LOOKS = 50

#: ... and so long after one another: that takes no time but until the system lets it go on.
BEGIN_SECONDS = 0.005

#: So long is waited for those that were killed to be gone.
PAUSE_SECONDS = 0.05


def sweep(mark: str) -> int:
    """Kill the processes that carry a mark, wherever they went; return how many (Linux only).

    Args:
        mark: that of a slave; or that of a crew, with which the marks of its slaves begin.
    """
    begin = f"{MARK}={mark}".encode()
    swept = 0
    names = [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []
    for _ in range(LOOKS):
        beginners = []
        for name in names:
            variables = _variables_of(name)
            if variables is None:
                beginners.append(name)
            elif _carries(variables, begin):
                swept += _kill(name)
        names = beginners
        if not names:
            break
        time.sleep(BEGIN_SECONDS)
    return swept


def _variables_of(name: str) -> bytes | None:
    """Return the environment of a process; None, if it has just put another program in its place, and none yet."""
    variables = _read(name, "environ")
    if variables or not _is_alive(name):
        return variables
    begins = not _read(name, "cmdline")
    return _read(name, "environ") or (None if begins else b"")  # that comes a moment after the command line


def _carries(environ: bytes, begin: bytes) -> bool:
    variables = environ.split(b"\0")
    return any(variable == begin or variable.startswith(begin + b".") for variable in variables)


def _kill(name: str) -> bool:
    try:
        os.kill(int(name), signal.SIGKILL)
    except OSError:  # it has ended meanwhile
        return False
    return True


def _is_alive(name: str) -> bool:
    """Whether a process of this user has a program: what has ended has none, nor have threads of the system."""
    try:
        os.readlink(f"/proc/{name}/exe")
    except OSError:
        return False
    return True


def _read(name: str, what: str) -> bytes:
    try:
        with open(f"/proc/{name}/{what}", "rb") as file:
            return file.read()
    except OSError:  # it has ended, or belongs to somebody else
        return b""


def sweep_thoroughly(mark: str, seconds: float = SWEEP_SECONDS) -> None:
    """Sweep until two looks in a row find nothing: what is being started, or replaces itself, escapes a single one."""
    deadline = time.monotonic() + seconds
    clean = 0
    while clean < 2 and time.monotonic() < deadline:
        clean = 0 if sweep(mark) else clean + 1
        time.sleep(PAUSE_SECONDS)


def wait_for_end(bye: int, crew: int) -> bool:
    """Wait until a process has ended, or has said goodbye; return whether it ended without a word.

    Args:
        bye: the file descriptor of a pipe that it writes to.
        crew: the number of the process, whose child this one is.
    """
    poll = select.poll()
    poll.register(bye, select.POLLIN)
    try:  # the pipe alone may stay open: whatever the crew's process has forked holds it, too
        death = os.pidfd_open(crew)
    except (AttributeError, OSError):
        death = -1  # it is gone, or the system is an old one
    else:
        poll.register(death, select.POLLIN)
    gone = os.getppid() != crew  # before it could be watched
    ended = gone or not any(fd == bye and os.read(bye, len(BYE)) for fd, _ in poll.poll())
    if death >= 0:
        os.close(death)
    return ended


def main(arguments: list[str]) -> None:
    """Be the sweeper of the crew with this mark, in the process with this number, that is at the other end of stdin."""
    mark, crew = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends soon after its crew, and not before
    if wait_for_end(sys.stdin.fileno(), int(crew)):
        sweep_thoroughly(mark)


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # there is nothing to tidy up
