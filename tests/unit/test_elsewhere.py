"""Where the system is no POSIX one, masters of threads work, and the others say that they do not.

Such a system is not at hand: here, a fresh interpreter lacks what Python has on POSIX systems only.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import PATIENCE

PRELUDE = """
import asyncio, ctypes, importlib.abc, multiprocessing, os, signal, socket, subprocess, sys, tempfile  # need them

LACKING = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}

class Lacks(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in LACKING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacks())
for name in LACKING:
    sys.modules.pop(name, None)
for module, names in {
    os: "fork forkpty getuid geteuid killpg getpgid memfd_create pidfd_open register_at_fork sched_getaffinity setsid "
    "sysconf waitid",
    signal: "SIGALRM SIGBUS SIGCHLD SIGHUP SIGKILL SIGPIPE SIGPROF SIGQUIT SIGUSR1 SIGUSR2 SIGVTALRM SIGXCPU alarm "
    "getitimer pthread_kill pthread_sigmask setitimer siginterrupt sigtimedwait sigwait",
    __import__("select"): "epoll poll",
    socket: "AF_UNIX",
}.items():
    for name in names.split():
        vars(module).pop(name, None)
sys.platform = "win32"

import papyros

@papyros.job(priority=1)
def square(number):
    return number * number
"""


def run(program):
    """Run a program there, and return what it tells."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{program}"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("master", ["SingleThreadedMaster()", "MultiThreadedMaster(2)", "open_master('threads')"])
def test_a_master_of_threads_works(master):
    told = run(
        f"""
with papyros.{master} as master, master.executor() as executor:
    master.addJob(square(3))
    popped = master.popProcessedJob().result
    executed = sorted(job.result for job in master.execute(map(square, range(5))))
    called = list(executor.map(pow, range(4), range(4)))
    idle = master.status().waiting
import json
print(json.dumps([popped, executed, called, idle]))
"""
    )
    assert told == [9, [0, 1, 4, 9, 16], [1, 1, 4, 27], 0]


@pytest.mark.parametrize("name", ["MultiProcessMaster", "DistributedMaster", "LocalCluster"])
def test_what_needs_a_posix_system_says_so(name):
    told = run(
        f"""
os.name = "nt"  # not before: paths are of another kind then, which there are none of here
try:
    papyros.{name}
except ImportError as error:
    import json
    print(json.dumps(str(error)))
"""
    )
    assert told.startswith(f"papyros.{name} needs a POSIX system")
    assert "MultiThreadedMaster" in told
