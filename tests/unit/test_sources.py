"""Which modules a job class needs, and that none is taken for another one of its name."""

from __future__ import annotations

import importlib
import pickle
import sys
import textwrap

import cloudpickle
import pytest

import papyros
from papyros import sources
from papyros.jobs import result_of
from papyros.pickling import dumps_by_value
from papyros.tasks import Task
from papyros.wire import Packer, build_job, definition_digest, load_definition
from tests.unit.crews import FakeSource, crew_of

JOBS = """
    import papyros
    import helper_of_sources
    class Job1(papyros.Job):
        def __call__(self): return helper_of_sources.value()
"""
HELPER = "def value(): return {value}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the search path, and an interpreter that forgets what was imported from it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files here change within the resolution of their times
    yield tmp_path
    forget()


def forget():
    for name in [name for name in sys.modules if "of_sources" in name]:
        del sys.modules[name]
    importlib.invalidate_caches()


def write(folder, **modules):
    folder.mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def definition_of(job):
    packer = Packer()
    return packer.definitions[packer.pack(job).definition]


def definition_in(folder, name="jobs_of_sources", kind="Job1"):
    """The definition of a class, as a program with this folder sends it."""
    sys.path.insert(0, str(folder))
    definition = definition_of(getattr(importlib.import_module(name), kind)())
    sys.path.remove(str(folder))
    forget()
    return definition


def run(definition):
    packer = Packer()
    blob = packer.pack(papyros.job(lambda: None)()).blob
    return build_job(load_definition(definition), blob)()


def programs(folder, first, second):
    """The definitions of the same class in two programs with folders of their own."""
    write(folder / "first", jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=first))
    write(folder / "second", jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=second))
    return definition_in(folder / "first"), definition_in(folder / "second")


def test_a_helper_of_the_same_name_in_another_program_is_not_taken_for_it(folder):
    first, second = programs(folder, 1, 2)
    sys.path.insert(0, str(folder / "first"))
    assert run(first) == 1
    with pytest.raises(papyros.PayloadError) as caught:
        run(second)
    assert "needs the module helper_of_sources" in str(caught.value)
    assert str(folder / "first" / "helper_of_sources.py") in str(caught.value)
    assert str(folder / "second" / "helper_of_sources.py") in str(caught.value)
    assert run(first) == 1  # which goes on


def test_a_module_that_would_be_found_in_the_place_of_the_other_is_refused_before_it_is_imported(folder):
    _, second = programs(folder, 1, 2)
    sys.path.insert(0, str(folder / "first"))
    with pytest.raises(papyros.PayloadError, match="helper_of_sources"):
        load_definition(second)
    assert "helper_of_sources" not in sys.modules


def test_slaves_that_have_another_module_leave_their_jobs_to_fresh_ones(folder, monkeypatch, caplog):
    source = FakeSource()
    definitions = []
    for value, name in enumerate(("first", "second"), 1):
        write(folder / name, jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=value))
        monkeypatch.chdir(folder / name)
        definition = definition_in(folder / name)
        definitions.append(definition_digest(definition))
        source.packer.definitions[definitions[-1]] = definition
    monkeypatch.setattr("papyros.aftermath.OFTEN", frozenset({3}))
    blob = Packer().pack(papyros.job(lambda: None)()).blob
    with crew_of(source, 1) as crew:
        with source.lock:
            source.jobs = dict.fromkeys(range(5))
            source.waiting.extend(Task(number, definitions[number % 2], blob) for number in range(5))
        crew.poke()
        source.wait_for_outcomes(5)
    assert [result_of(source.outcomes[number]) for number in range(5)] == [1, 2, 1, 2, 1]
    assert source.deaths == []
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith(
        "3 slaves were replaced by fresh ones, the last since the job class Job1 could not be loaded"
    )


def test_the_same_module_in_another_folder_is_the_same(folder):
    first, second = programs(folder, 1, 1)
    sys.path.insert(0, str(folder / "first"))
    assert (run(first), run(second)) == (1, 1)


def test_a_module_that_was_changed_after_the_slave_has_imported_it_is_refused(folder):
    write(folder, jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=1))
    old = definition_in(folder)
    write(folder, helper_of_sources=HELPER.format(value=2))
    new = definition_in(folder)
    write(folder, helper_of_sources=HELPER.format(value=1))
    sys.path.insert(0, str(folder))
    assert run(old) == 1
    write(folder, helper_of_sources=HELPER.format(value=2))
    with pytest.raises(papyros.PayloadError, match=r"was changed after it was imported .* start it again"):
        run(new)
    assert run(old) == 1


def test_a_program_that_runs_for_long_is_not_troubled_by_what_is_written_meanwhile(folder):
    write(folder, jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=1))
    old = definition_in(folder)
    write(folder, helper_of_sources=HELPER.format(value=2))  # and then one of its slaves is replaced
    sys.path.insert(0, str(folder))
    assert run(old) == 2


def test_what_a_module_was_when_the_master_was_made_counts(folder):
    write(folder, jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=1))
    sys.path.insert(0, str(folder))
    module = importlib.import_module("jobs_of_sources")
    packer = Packer()
    write(folder, helper_of_sources=HELPER.format(value=2))
    definition = packer.definitions[packer.pack(module.Job1()).definition]
    assert run(definition) == 1  # a slave that has imported what the program has


def test_a_module_that_is_loaded_again_is_looked_at_again(folder):
    write(folder, jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=1))
    sys.path.insert(0, str(folder))
    module = importlib.import_module("jobs_of_sources")
    before = definition_of(module.Job1())
    assert definition_of(module.Job1()) == before
    write(folder, helper_of_sources=HELPER.format(value=2))
    importlib.reload(module.helper_of_sources)
    assert definition_of(module.Job1()) != before


@pytest.mark.parametrize(
    "statement",
    [
        "import helper_of_sources",
        "import os, helper_of_sources as h",
        "from helper_of_sources import (\n    value,\n)",
        "from helper_of_sources import \\\n    value",
        "def late():\n    from helper_of_sources import value",
        "from package_of_sources import inner_of_sources",
        "import package_of_sources.inner_of_sources",
    ],
)
def test_modules_are_found_however_they_are_imported(folder, statement):
    write(folder, helper_of_sources=HELPER.format(value=1), jobs_of_sources=f"{statement}\nclass Kind: pass\n")
    write(folder / "package_of_sources", __init__="", inner_of_sources="import helper_of_sources")
    sys.path.insert(0, str(folder))
    importlib.import_module("helper_of_sources")
    importlib.import_module("package_of_sources.inner_of_sources")
    kind = importlib.import_module("jobs_of_sources").Kind
    found = set(sources.sources_of([kind], ()))
    inner = {"package_of_sources", "package_of_sources.inner_of_sources"} if "package" in statement else set()
    assert found == {"jobs_of_sources", "helper_of_sources", *inner}


def test_what_a_function_that_travels_by_value_imports_is_found(folder):
    write(folder, helper_of_sources=HELPER.format(value=1))
    sys.path.insert(0, str(folder))
    helper = importlib.import_module("helper_of_sources")

    def early():
        return helper.value()

    def late():
        import helper_of_sources

        return helper_of_sources.value()

    for function in early, late:
        function.__module__ = "__main__"
        met = []
        dumps_by_value(function, met=met)
        assert set(sources.sources_of(met, ())) == {"helper_of_sources"}


def test_a_module_that_travels_by_value_is_not_compared_but_those_are_that_it_imports(folder):
    write(folder, jobs_of_sources=JOBS, helper_of_sources=HELPER.format(value=1))
    sys.path.insert(0, str(folder))
    module = importlib.import_module("jobs_of_sources")
    cloudpickle.register_pickle_by_value(module)
    try:
        definition = definition_of(module.Job1())
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert set(pickle.loads(definition)[3]) == {"helper_of_sources"}


def test_what_is_installed_or_standard_or_of_this_package_is_not_looked_at():
    import json

    assert sources.sources_of([json, json.JSONDecoder, cloudpickle, papyros.Job, pytest.fixture], ()) == {}
