"""A job does what it does whatever runs it: interpreters of slaves are started as that of the program was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import papyros
from tests.support import PATIENCE

PROGRAM = """
import sys
import papyros

@papyros.job
def look():
    kept = [getattr(sys.flags, name) for name in ("optimize", "bytes_warning", "dev_mode")]
    return kept, sys.get_int_max_str_digits(), "error" in sys.warnoptions

with {master} as master:
    master.addJob(look())
    print(master.popProcessedJob().result)
"""

MASTERS = {
    "threads": "papyros.MultiThreadedMaster(1)",
    "processes": "papyros.MultiProcessMaster(1)",
    "cluster": "papyros.LocalCluster(slaves=1) as cluster, cluster.master()",
}

OPTIONS = ("-OO", "-b", "-Werror", "-Xdev", "-Xint_max_str_digits=0")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("master", MASTERS)
def test_slaves_have_the_options_of_the_program(master):
    assert run(sys.executable, *OPTIONS, "-c", PROGRAM.format(master=MASTERS[master])) == "([2, 1, True], 0, True)"


def test_slaves_collect_garbage_unless_python_starts_without(tmp_path):
    program = PROGRAM.replace("return kept", "import gc; return gc.isenabled(), kept")
    assert run(sys.executable, "-c", program.format(master=MASTERS["processes"])).startswith("(True,")
    (tmp_path / "sitecustomize.py").write_text("import gc; gc.disable()")
    path = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(papyros.__file__))])
    environment = {**os.environ, "PYTHONPATH": path}
    assert run(sys.executable, "-c", program.format(master=MASTERS["processes"]), env=environment).startswith("(False,")


ISOLATED = """
import os, sys
sys.path[:0] = {path!r}
import papyros

@papyros.job
def look():
    import snare
    return snare.__file__

with {master} as master:
    master.addJob(look())
    print(type(master.popProcessedJob().exception).__name__)
"""


@pytest.mark.parametrize("master", MASTERS)
@pytest.mark.parametrize("option", ["-I", "-E"])
def test_slaves_of_a_program_that_takes_no_notice_of_variables_take_none(option, master, tmp_path, monkeypatch):
    (tmp_path / "snare.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))
    program = ISOLATED.format(master=MASTERS[master], path=sys.path)
    assert run(sys.executable, option, "-c", program) == "ModuleNotFoundError"


ELSEWHERE = """
import os, sys
import papyros
sys.path.insert(0, "lib")
import near, nearer
os.chdir("/")
with {master} as master:
    for module in (near, nearer):
        master.addJob(module.work())
        print(master.popProcessedJob().result)
"""

MODULE = """
import papyros

@papyros.job
def work():
    return __name__
"""


@pytest.mark.parametrize("master", MASTERS)
def test_modules_are_found_that_were_imported_before_the_program_went_elsewhere(master, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "near.py").write_text(MODULE)
    (tmp_path / "lib" / "nearer.py").write_text(MODULE)
    told = run(sys.executable, "-c", ELSEWHERE.format(master=MASTERS[master]), cwd=tmp_path)
    assert told.split() == ["near", "nearer"]
