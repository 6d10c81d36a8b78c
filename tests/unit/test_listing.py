"""Lines that travel with code: whoever lacks the file of that name has them in tracebacks all the same."""

from __future__ import annotations

import linecache
from types import CodeType

import pytest

from papyros import listing
from papyros.listing import code_with_lines, lines_of

CELL = "<a cell>"
SOURCE = """
def first(x):
    return [y / 0 for y in x]


def second():
    def inner():
        return 1
    return inner
"""


@pytest.fixture
def cell(monkeypatch):
    """The functions of a cell of a notebook, the lines of which only `linecache` knows."""
    monkeypatch.setattr(linecache, "cache", {CELL: (len(SOURCE), None, SOURCE.splitlines(keepends=True), CELL)})
    functions = {}
    exec(compile(SOURCE, CELL, "exec"), functions)
    return functions


def same(code):
    return lambda: code


def test_code_has_its_own_lines_and_those_of_what_is_defined_in_it(cell):
    assert lines_of(cell["first"].__code__) == SOURCE.splitlines(keepends=True)[1:3]
    assert lines_of(cell["second"].__code__) == SOURCE.splitlines(keepends=True)[5:9]


def test_code_has_none_where_nobody_knows_them():
    assert lines_of(compile("1 / 0", "<nowhere>", "exec")) == []
    assert lines_of(compile("1 / 0", "/no/such/file.py", "exec")) == []


def test_code_that_is_too_long_takes_none_along(cell, monkeypatch):
    monkeypatch.setattr(listing, "MOST_CHARACTERS", 20)
    assert lines_of(cell["first"].__code__) == []


def test_lines_that_arrive_are_found_in_their_places(cell):
    codes = [cell[name].__code__ for name in ("second", "first")]
    lines = {code: lines_of(code) for code in codes}
    linecache.cache.clear()
    for code in codes:
        assert code_with_lines(same(code), (), lines[code]) is code
    linecache.checkcache()  # as each traceback has it do
    for number, line in enumerate(SOURCE.splitlines(keepends=True), 1):
        assert linecache.getline(CELL, number) == (line if line.strip() else "")
    assert linecache.getline(CELL, 10) == ""


def test_a_file_that_is_there_is_read_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(linecache, "cache", {})
    path = tmp_path / "script.py"
    path.write_text("what = 'is there'\n")
    code = compile("1 / 0", str(path), "exec")
    assert isinstance(code_with_lines(same(code), (), ["1 / 0\n"]), CodeType)
    assert linecache.getline(str(path), 1) == "what = 'is there'\n"
