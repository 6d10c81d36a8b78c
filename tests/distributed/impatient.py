"""A program that is interrupted while jobs run that do not want to end; tests run it as a file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import papyros

SLAVES = 2


@papyros.job
def stay(path: str) -> None:
    """Do not end at SIGTERM, and have a child that is in a session of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {child.pid}\n")
    child.wait()


def main(kind: str, path: str) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "cluster":
            cluster = stack.enter_context(papyros.LocalCluster(slaves=SLAVES))
            Path(path).write_text(" ".join(map(str, cluster.pids.values())) + "\n")
            master = stack.enter_context(cluster.master())
        else:
            Path(path).touch()
            master = stack.enter_context(papyros.MultiProcessMaster(SLAVES))
        before = len(Path(path).read_text().splitlines())
        for _ in range(SLAVES):
            master.addJob(stay(path))
        while len(Path(path).read_text().splitlines()) < before + SLAVES:
            time.sleep(0.01)
        print("running", flush=True)
        master.popProcessedJob()


if __name__ == "__main__":
    main(*sys.argv[1:])
