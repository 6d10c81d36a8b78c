"""The arrow of knowledge: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import papyros

HOUSE = Path(papyros.__file__).parent

#: From those who know nobody to those who know all others. A module may import what is further up.
STOREYS = [
    {"courtesy", "digests", "echo", "ending", "logs", "memory", "prints"},
    {
        "errors",
        "cpus",
        "deadlines",
        "deaths",
        "environment",
        "forensics",
        "frames",
        "listing",
        "loop",
        "screen",
        "sharing",
        "status",
    }
    | {"protocol", "slate", "store", "story", "streams", "sweeping", "terms", "threads"},
    {"briefing", "bundles", "byvalue", "checks", "outcome", "progress", "saying", "sources", "sweeper", "tasks"},
    {"jobs", "pickling"},
    {"keeping", "waiting", "turns", "delays", "shares"},
    {"entries"},
    {"mending"},
    {"ledger"},
    {"master"},
    {"current", "running", "wire", "execution", "calls", "leftovers", "mapped"},
    {"encoded", "preparing"},
    {"books"},
    {"lanes"},
    {"bookkeeping", "jobfuture", "parcels"},
    {"futurelane"},
    {"courier", "family", "jobclasses", "pace", "packing", "staff", "telling"},
    {"delegating"},
    {"executormaster"},
    {"executor"},
    {"singlethreaded", "multithreaded"},
    {"nested"},
    {"slave", "relay"},
    {"process"},
    {"hiring", "limits"},
    {"feeding"},
    {"aftermath"},
    {"crew", "families", "ledgersource"},
    {"multiprocess"},
    {"futures", "engines", "choosing"},
    {"joblib"},
    {"distributed"},
]
STOREY = {module: number for number, modules in enumerate(STOREYS) for module in modules}

SOURCES = sorted(HOUSE.rglob("*.py"))
MODULES = [path for path in SOURCES if path.parent == HOUSE and path.name not in ("__init__.py", "__main__.py")]


def name_of(path):
    return ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """The modules that a source file imports, wherever in it, but for what only type checkers read."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute, so that they can be read here"
            if node.module == "papyros":
                yield from (f"papyros.{alias.name}" for alias in node.names)
            else:
                yield node.module


def roots(path):
    return {module.partition(".")[0] for module in imports(path)}


def ours(path):
    """Which parts of this package a module imports, by the first word after ``papyros.``."""
    found = {module.split(".")[1] for module in imports(path) if module.startswith("papyros.")}
    return found & (set(STOREY) | {p.stem for p in MODULES})


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_module_has_its_place_in_the_house(path):
    assert path.stem in STOREY, f"give {path.stem} a place in STOREYS"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_know_only_what_is_before_them(path):
    mine = STOREY.get(path.stem, 0)
    wrong = {module for module in ours(path) if STOREY.get(module, 99) >= mine and module != path.stem}
    assert not wrong, f"{path.stem} imports {sorted(wrong)}"


def test_errors_import_nothing():
    assert roots(HOUSE / "errors.py") <= {"__future__"}


def test_the_ledger_has_no_lock_thread_socket_file_or_clock():
    for module in ("ledger", "entries", "waiting", "turns", "delays", "shares", "terms"):
        assert roots(HOUSE / f"{module}.py").isdisjoint(
            {"threading", "socket", "time", "os", "pathlib", "io", "queue", "multiprocessing", "logging", "random"}
        )
        names = {n.id for n in ast.walk(ast.parse((HOUSE / f"{module}.py").read_text())) if isinstance(n, ast.Name)}
        assert names.isdisjoint({"open", "print", "input"})


def test_jobs_know_no_masters():
    assert ours(HOUSE / "jobs.py") <= {"errors", "outcome", "terms"}


def test_a_status_can_be_read_where_nothing_else_of_this_package_is():
    """A program that watches needs no masters; and what is told to people needs none either."""
    for name in ("status", "story", "forensics", "terms"):
        assert not ours(HOUSE / f"{name}.py")


def test_only_the_distributed_part_imports_pyro():
    for path in SOURCES:
        if "distributed" not in path.parts:
            assert roots(path).isdisjoint({"Pyro5", "serpent"}), path


def test_the_sweeper_starts_fast():
    """It is run as a file beside each crew, and everything that it imports is a price for nothing."""
    assert roots(HOUSE / "sweeping.py") <= {"os", "select", "signal", "sys", "time"}


def test_nobody_imports_the_distributed_part():
    for path in SOURCES:
        if "distributed" not in path.parts:
            assert "papyros.distributed" not in {".".join(m.split(".")[:2]) for m in imports(path)}, path


def test_only_the_wire_pickles_for_a_trip():
    for path in SOURCES:
        if path.name not in ("wire.py", "encoded.py", "pickling.py", "byvalue.py"):
            assert roots(path).isdisjoint({"pickle", "cloudpickle", "marshal", "shelve"}), path


def test_the_crew_hands_bytes_on_and_never_looks_into_them():
    for name in ("aftermath", "briefing", "crew", "feeding", "process", "progress", "tasks", "frames", "store"):
        assert ours(HOUSE / f"{name}.py").isdisjoint({"wire", "encoded", "pickling"})


def test_importing_the_package_is_cheap():
    """Neither Pyro5 nor cloudpickle nor any master is loaded before its name is used."""
    program = (
        "import sys\n"
        "before = set(sys.modules)  # of those who measure coverage\n"
        "import papyros\n"
        "heavy = {'Pyro5', 'serpent', 'cloudpickle', 'tqdm', 'subprocess', 'socket', 'papyros.distributed',"
        " 'papyros.singlethreaded', 'papyros.multithreaded', 'papyros.multiprocess', 'papyros.wire', 'papyros.encoded',"
        " 'papyros.executor', 'concurrent.futures', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_each_module_says_what_it_is_for_and_what_it_offers(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no docstring"
    if path.name != "__main__.py":
        names = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__all__" in names


def objects_of_modules(path):
    """The names that a module gives, once for all, to what can change: objects of its own classes, lists, sets, ..."""
    tree = ast.parse(path.read_text())
    changing = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} | {"set", "list", "dict", "deque"}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        match node.value:
            case ast.Call(func=ast.Name(id=name)) if name in changing:
                yield ast.unparse(target)
            case ast.Set() | ast.List() | ast.Dict() if not ast.unparse(target).strip("_").isupper():
                yield ast.unparse(target)


def test_what_a_module_keeps_for_the_whole_process_has_a_reason_where_it_stands():
    """Whoever makes masters knows all that they share: there is no more of it than this."""
    kept = {(path.stem, name) for path in SOURCES for name in objects_of_modules(path) if name != "__all__"}
    constants = {("deadlines", "FOREVER"), ("deadlines", "AT_ONCE"), ("terms", "DEFAULT_TERMS")}
    assert kept - constants == {
        ("bookkeeping", "_FORKS"),
        ("ending", "program_end"),
        ("logs", "_UNREAD"),
        ("ray", "_connection"),
    }
    assert not [
        path for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Global)
    ]
