"""The manual says what is: its programs run, its commands exist, its links lead somewhere, its lists are complete."""

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import papyros
from papyros.distributed.config import OPTIONS
from tests.docs.pages import PAGES, ROOT, blocks, headings, links, prose

DOCS = ROOT / "docs"
WITH_PROGRAMS = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
TIMEOUT = 100
THREADS = "Threads and locks: who owns what"

#: Commands whose options are checked, with what to run to see them.
PROGRAMS = {
    "python -m papyros.distributed": ["-m", "papyros.distributed"],
    "pyro5-ns": ["-m", "Pyro5.nameserver"],
    "python examples/demo.py": ["examples/demo.py"],
    "python examples/digests.py": ["examples/digests.py"],
    "python examples/mandelbrot.py": ["examples/mandelbrot.py"],
    "python -m benchmarks.profile_legs": ["-m", "benchmarks.profile_legs"],
    "python -m benchmarks.capacity": ["-m", "benchmarks.capacity"],
    "python -m benchmarks.growth": ["-m", "benchmarks.growth"],
    "python -m benchmarks": ["-m", "benchmarks"],
}
#: Commands that are other people's, and programs that the reader is to write.
OTHERS = ("pip install", ".venv/bin/pip install", "scp ", "ssh ", "head=", "python my_program.py")


def name_of(path):
    return path.name


def the_shell_commands():
    """Yield page, line and text of each command in the manual, without comments."""
    for page in PAGES:
        for block in blocks(page):
            if block.language in {"sh", "bash"}:
                for number, line in enumerate(block.text.splitlines(), block.line):
                    if command := re.sub(r"(^|\s)#.*", "", line).strip():
                        yield pytest.param(command, id=f"{page.name}:{number}")


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **options,
    )


# Programs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=name_of
)
def test_the_programs_of_a_page_run(page):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = run("-W", "error", ROOT / "tests" / "docs" / "run_page.py", page, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_hardly_any_program_is_skipped_and_always_for_a_reason():
    skipped = [block.markers["skip"] for page in PAGES for block in blocks(page) if "skip" in block.markers]
    assert all(skipped)
    assert len(skipped) <= 3


def test_blocks_say_what_they_are():
    known = {"python", "sh", "text", "toml"}
    for page in PAGES:
        for block in blocks(page):
            assert block.language in known or block.language.startswith("{"), f"{page.name}, line {block.line}"


# Commands -------------------------------------------------------------------------------


@cache
def usage(program):
    done = run(*PROGRAMS[program], "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", list(the_shell_commands()))
def test_a_command_exists_and_has_these_options(command):
    # Variables and commands in front, and what the shell does with the command.
    command = re.sub(r"^([A-Z]+=\S+ |srun )+", "", command).removesuffix("&").strip()
    if command.startswith(OTHERS):
        return
    if command.startswith("make "):
        assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    program = next((program for program in PROGRAMS if command.startswith(program)), None)
    assert program is not None, f"nobody knows the command {command!r}"
    # What the shell puts in for a variable is some word.
    arguments = shlex.split(re.sub(r"\$\w+", "word1", command.removeprefix(program)))
    options = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    known = set(re.findall(r"(?<![\w-])--?\w[\w-]*", usage(program)))
    assert options <= known, f"{program} has no {', '.join(sorted(options - known))}"
    # The values, too, as far as the program looks at them before it shows its help.
    done = run(*PROGRAMS[program], *arguments, "--help")
    assert done.returncode == 0, done.stderr


# Links and names ------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        if link.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{page.name}: {link}"
        if anchor:
            assert anchor in headings(target), f"{page.name}: {link}; there are {sorted(headings(target))}"


def test_every_page_is_in_the_table_of_contents():
    listed = {
        line.strip()
        for block in blocks(DOCS / "index.md")
        if block.language == "{toctree}"
        for line in block.text.splitlines()
        if line and not line.startswith(":")
    }
    assert listed == {page.stem for page in DOCS.glob("*.md")} - {"index"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_text_exist(page):
    for name in re.findall(r"`(papyros(?:\.\w+)+)", prose(page)):
        module, attributes = papyros, name.split(".")[1:]
        for position, attribute in enumerate(attributes):
            if inspect.ismodule(module) and not hasattr(module, attribute):
                importlib.import_module(".".join(["papyros", *attributes[: position + 1]]))
            module = getattr(module, attribute)


def test_files_in_the_text_exist():
    for page in PAGES:
        for name in re.findall(r"`((?:tests|examples|docs|benchmarks)/[\w/.-]+)`", prose(page)):
            if not name.startswith("docs/_build"):
                assert (ROOT / name).exists(), f"{page.name}: {name}"


# Lists ----------------------------------------------------------------------------------


def modules_in_the_tree(text):
    """Return the paths of the files that a drawn tree shows, by their indentation."""
    folders, found = [], []
    for line in text.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.append("".join([*folders, name]))
    return found


def test_the_tree_shows_the_modules_that_there_are():
    [tree] = [b.text for b in blocks(DOCS / "architecture.md") if b.text.startswith("papyros/\n")]
    shown = modules_in_the_tree(tree)
    package = Path(papyros.__file__).parent
    existing = {str(path.relative_to(package.parent)) for path in package.rglob("*.py")} | {"papyros/py.typed"}
    assert len(shown) == len(set(shown))
    assert set(shown) == existing


def test_the_tree_is_ordered_by_who_imports_whom():
    [tree] = [b.text for b in blocks(DOCS / "architecture.md") if b.text.startswith("papyros/\n")]
    names = [path.removesuffix(".py").replace("/", ".") for path in modules_in_the_tree(tree)]
    order = {name: position for position, name in enumerate(names)}
    for name in names:
        if name.endswith(("__init__", "__main__", "py.typed")):
            continue
        source = re.split(r"^if TYPE_CHECKING:\n(?:    .*\n|\n(?=    ))+", module_source(name), flags=re.MULTILINE)
        for known in re.findall(r"^ *(?:from|import) (papyros\.[\w.]+)", "".join(source), re.MULTILINE):
            if known in order and known != name:
                assert order[known] < order[name], f"{name} imports {known}, which the tree shows below it"


def module_source(name):
    return (ROOT / (name.replace(".", "/") + ".py")).read_text()


def rows(page, heading):
    """Return the rows of the first table below a heading of the same page, as lists of cells."""
    _, found, text = (DOCS / page).read_text().partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_all_options_of_the_command_line_are_documented():
    documented = {re.match(r"`(--[\w-]+)", row[0])[1] for row in rows("configuration.md", "The command line")}
    assert documented == set(re.findall(r"--[\w-]+", usage("python -m papyros.distributed").partition("options:")[2]))


def test_all_options_of_a_file_are_in_the_example_or_excluded():
    documented = {row[0] for row in rows("configuration.md", "The command line")}
    names = {re.match(r"`--([\w-]+)", cell)[1].replace("-", "_") for cell in documented}
    assert set(OPTIONS) == names - {"config", "status", "version", "help", "doctor", "new_key", "show_key_fingerprint"}


def test_the_example_of_a_file_is_understood(tmp_path):
    from papyros.distributed.config import read_config

    [example] = [block.text for block in blocks(DOCS / "configuration.md") if block.language == "toml"]
    path = tmp_path / "lab.toml"
    path.write_text(re.sub(r"^# (?=\w+ =)", "", example, flags=re.MULTILINE))
    options, items = read_config(path)
    assert set(options) == set(OPTIONS)
    assert items


def test_all_arguments_of_constructors_are_documented():
    documented = {}
    for name, classes, *_ in rows("configuration.md", "Constructor arguments"):
        for of in re.findall(r"`(\w+)`", classes) or ["*"]:
            documented.setdefault(of, set()).add(name.strip("`"))
    masters = ["SingleThreadedMaster", "MultiThreadedMaster", "MultiProcessMaster", "DistributedMaster"]
    for name in [*masters, "LocalCluster"]:
        existing = set(inspect.signature(getattr(papyros, name)).parameters)
        everywhere = documented["*"] if name in masters else set()
        assert documented.get(name, set()) | everywhere == existing, name


def test_all_options_of_jobs_are_documented_with_their_defaults():
    documented = {row[0].strip("`"): row[2].strip("`") for row in rows("configuration.md", "Options of jobs")}
    assert set(documented) == {name for name in papyros.Job.__annotations__ if not name.startswith("_")}
    for name in ("priority", "retries", "backoff"):
        assert documented[name] == str(getattr(papyros.Job, name))


def sources():
    return "".join(path.read_text() for path in Path(papyros.__file__).parent.rglob("*.py"))


def test_all_variables_of_the_environment_are_documented():
    documented = {name for row in rows("configuration.md", "Environment") for name in re.findall(r"`(\w+)`", row[0])}
    found = set(re.findall(r"PAPYROS_[A-Z_]+", sources()))
    assert found - {"PAPYROS_SLAVE"} <= documented, "PAPYROS_SLAVE is a mark of what jobs start, and is not to be set"


def test_the_table_of_threads_shows_all_that_there_are():
    documented = re.findall(r"`(papyros-[a-z-]+[a-z])", " ".join(map(str, rows("architecture.md", THREADS))))
    assert set(re.findall(r"""(?:name=|worker\(|name = )f?"(papyros-[a-z-]+[a-z])""", sources())) == set(documented)


def test_the_defaults_of_the_command_line_are_as_documented():
    from papyros.distributed.desk import GRACE_SECONDS, LEASE_SECONDS
    from papyros.distributed.options import DRAIN_SECONDS

    documented = {row[0].strip("`"): row[2] for row in rows("configuration.md", "The command line")}
    for option, seconds in {"--lease S": LEASE_SECONDS, "--grace S": GRACE_SECONDS, "--drain S": DRAIN_SECONDS}.items():
        assert documented[option] == f"{seconds:g}"


def test_the_numbers_in_the_text_are_those_of_the_sources():
    """Those that have been changed now and then; each pattern has one number in it."""
    from papyros import bookkeeping, bundles, feeding, pace, shares, slave, staff, telling
    from papyros.distributed import bundling, client, daemon, desk, exchange, security

    handshake = security._HELLO_BYTES + security._REPLY_BYTES + 2 * security._PROOF_BYTES
    for page, pattern, number in [
        ("architecture.md", r"up to (\S+) jobs in a message", exchange.SEND_JOBS),
        ("architecture.md", r"\*bundles\*: up to (\S+) of one class", bundles.MOST_JOBS),
        ("architecture.md", r"take about (\S+) milliseconds together", 1000 * bundling.BUNDLE_SECONDS),
        ("architecture.md", r"has run for (\S+) milliseconds, and when", 1000 * feeding.SLOW_SECONDS),
        ("architecture.md", r"as many as take (\S+) seconds at", shares.AHEAD_SECONDS),
        ("architecture.md", r"keeps (\S+) seconds' worth of jobs", pace.AHEAD_SECONDS),
        ("architecture.md", r"no more than (\S+) MiB of them", pace.AHEAD_BYTES >> 20),
        ("architecture.md", r"these take less than (\S+) milliseconds", 1000 * slave.LEFT_SECONDS),
        ("architecture.md", r"after (\S+) outcomes;", telling.GATHER_JOBS),
        ("architecture.md", r"after (\S+) milliseconds, even while", 1000 * telling.GATHER_SECONDS),
        ("architecture.md", r"compared and not parsed, (\S+) bytes in all", handshake),
        ("contract.md", r"a few at a time, within (\S+) milliseconds", 1000 * telling.GATHER_SECONDS),
        ("contract.md", r"keeps at most (\S+) jobs in flight", bookkeeping.EXECUTE_WINDOW),
        ("families.md", r"kept for (\S+) seconds after it was last needed", staff.SPARE_SECONDS),
        ("robustness.md", r"after `host_after`, (\S+) seconds", client.HOST_AFTER_SECONDS),
        ("robustness.md", r"256 MiB or (\S+) of waiting jobs", desk.SESSION_JOBS),
        ("security.md", r"They have (\S+) seconds and", security.HANDSHAKE_SECONDS),
        ("security.md", r"They have \S+ seconds and (\S+) places", daemon.MAX_STRANGERS),
    ]:
        [stated] = re.findall(pattern, re.sub(r"\s+", " ", (DOCS / page).read_text()))
        assert float(stated.replace(",", "")) == number, f"{page}: {pattern}"


def test_the_contract_of_delivery_is_stated_in_the_words_that_were_agreed():
    words = (
        "execution at least once, bounded; exactly one outcome delivered per job; "
        "`at_most_once = True` on a job class turns re-execution off"
    )
    for page in ("README.md", "docs/contract.md", "docs/robustness.md"):
        assert words in re.sub(r"\s*\n(?:> )?", " ", (ROOT / page).read_text()), page


def test_the_api_reference_is_complete():
    page = (DOCS / "api.md").read_text()
    documented = re.findall(r"\.\. auto\w+:: ([\w.]+)", page)
    further = {name for name in documented if "." in name}  # of modules that may need what is not installed
    assert sorted(set(documented) - further) == sorted([*papyros.__all__, *papyros.status.__all__])
    for name in ("engines/dask", "engines/ray", "joblib", "futures"):
        defined = re.findall(r"^class ([A-Z]\w+)", (ROOT / "papyros" / f"{name}.py").read_text(), re.MULTILINE)
        assert {f"papyros.{name}.{kind}".replace("/", ".") for kind in defined} <= further
    assert len(documented) == len(set(documented))


def test_the_contract_lists_all_calls_of_a_master():
    page = rows("contract.md", "The calls")
    documented = {name for row in page for name in re.findall(r"`(\w+)\(", row[0])}
    existing = {name for name, value in vars(papyros.Master).items() if callable(value) and not name.startswith("_")}
    assert documented == existing


def test_the_contract_shows_the_signatures_as_they_are():
    for row in rows("contract.md", "The calls"):
        for name, arguments in re.findall(r"`(\w+)\((.*?)\)`", row[0]):
            parameters = list(inspect.signature(getattr(papyros.Master, name)).parameters.values())[1:]
            shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
            assert arguments == ", ".join(shown)
