"""What is compiled where Papyros is installed: all of the list in `setup.py`, and nothing in a tree that one edits."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = next(
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "setup.py").read_text()).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPILED"
)

#: Whether this is the tree that `make compiled` makes.
IS_COMPILED = (ROOT / ".built").exists()


@pytest.mark.parametrize("module", MODULES)
def test_what_runs_is_compiled_in_the_tree_that_is_and_only_there(module):
    found = importlib.import_module(f"papyros.{module.replace('/', '.')}").__file__
    assert Path(found).is_relative_to(ROOT)
    assert found.endswith(".py") is not IS_COMPILED


def build(tmp_path, **environment):
    """Build the package as pip does; return what was said, and the compiled files."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "papyros", tmp_path / "papyros", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build"],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    built = next((tmp_path / "build").glob("lib*"))
    assert (built / "papyros" / "ledger.py").exists()
    return done.stderr, [path.name for path in built.rglob("*.so")]


@pytest.mark.pure
def test_who_wants_pure_python_gets_it(tmp_path):
    told, compiled = build(tmp_path, PAPYROS_PURE="1")
    assert not compiled
    assert "without compiled parts" not in told


@pytest.mark.pure
def test_without_a_compiler_papyros_is_installed_as_it_is_and_says_so(tmp_path):
    told, compiled = build(tmp_path, CC="no-such-compiler")
    assert not compiled
    assert "papyros is installed without compiled parts, which costs speed and nothing else" in told
    assert "no-such-compiler" in told
