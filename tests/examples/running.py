"""Runs the examples as their users do: as scripts, from any folder, in a process of their own."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 100

#: A name server that is not there: nobody listens at port 1.
NOWHERE = "127.0.0.1:1"

#: The masters among which most examples let one choose.
KINDS = ["serial", "threads", "processes", "local-cluster"]


def run(name, *arguments, cwd, code=0, **options):
    options = {"stdin": subprocess.DEVNULL, "timeout": TIMEOUT} | options
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert code or "Traceback" not in done.stderr, done.stderr
    return done


def answer(answers, *arguments, cwd, code=0):
    """Run the demo at a terminal on which the answers, and then the end of the input, have been typed."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, "".join(f"{line}\n" for line in answers).encode() + b"\x04")
        return run("demo.py", *arguments, cwd=cwd, code=code, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def summary(output):
    _, _, table = output.partition("\nSummary\n")
    rows = re.findall(r"^  ([a-z -]+?) +([\d.]+)", table, re.MULTILINE)
    return {name: float(number) for name, number in rows}
