"""An ExecutorMaster over mpi4py's executor, executorlib's and ipyparallel's, each in a program of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE

# Open MPI will not start as root, nor more processes than there are CPUs, unless it is told to.
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
PROGRAM = ["-m", "tests.engines.program"]


def run(command, folder):
    """Run a program in a session of its own, and end what it may have left of that."""
    environment = {**os.environ, **MPI, "IPYTHONDIR": str(folder)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        told, errors = process.communicate(timeout=4 * PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "all is well" in told, errors


def needs(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def mpiexec():
    """Return the program that starts others with MPI: that of this environment, or the system's."""
    needs("mpi4py")
    here = Path(sys.executable).with_name("mpiexec")
    found = str(here) if here.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpi4py needs mpiexec, which is not installed")
    return found


def test_workers_of_mpi_that_were_started_with_the_program(tmp_path):
    run([mpiexec(), "-n", "3", sys.executable, "-m", "mpi4py.futures", *PROGRAM, "mpi4py"], tmp_path)


def test_workers_of_mpi_that_the_program_starts(tmp_path):
    run([mpiexec(), "-n", "1", sys.executable, *PROGRAM, "mpi4py"], tmp_path)


@pytest.mark.parametrize("module", ["executorlib", "ipyparallel"])
def test_workers_of(module, tmp_path):
    needs(module)
    run([sys.executable, *PROGRAM, module], tmp_path)
