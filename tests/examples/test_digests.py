"""Digests of the files under a folder."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.running import EXAMPLES, KINDS, TIMEOUT, run


@pytest.fixture
def folder(tmp_path):
    """A folder with subfolders, an empty file, odd names, and links that lead out, round, and nowhere."""
    top = tmp_path / "top"
    (top / "b" / "deep").mkdir(parents=True)
    (tmp_path / "outside").write_text("not to be seen")
    for number, name in enumerate(["a.txt", "b/deep/ü ß.bin", "b/empty", "b.txt", "c"]):
        (top / name).write_bytes(b"x" * number * 1000)
    (top / "b" / "empty").write_bytes(b"")
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "round").symlink_to(top)
    (top / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(top / "pipe")
    return top


def expected_rows(folder, algorithm="sha256"):
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    files = sorted(str(path) for path in paths if path.is_file() and not path.is_symlink())
    contents = {path: Path(path).read_bytes() for path in files}
    return [
        [hashlib.new(algorithm, content).hexdigest(), str(len(content)), os.path.relpath(path, folder)]
        for path, content in contents.items()
    ]


def rows(output):
    return [line.split(maxsplit=2) for line in output.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_digests(kind, folder, tmp_path):
    done = run("digests.py", folder, "--master", kind, "--slaves", 2, cwd=tmp_path)
    assert rows(done.stdout) == expected_rows(folder)
    assert len(rows(done.stdout)) == 5
    assert re.fullmatch(r"5 files, 0\.0 MB, [\d.]+ s, [\d.]+ MB/s; 0 unreadable\n", done.stderr)


def test_other_digests_of_a_few_files(folder, tmp_path):
    done = run("digests.py", "top", "--algorithm", "blake2b", "--limit", 3, cwd=tmp_path)
    assert rows(done.stdout) == expected_rows(folder, "blake2b")[:3]


def test_digests_with_a_progress_bar(folder, tmp_path):
    done = run("digests.py", folder, "--progress", cwd=tmp_path)
    assert rows(done.stdout) == expected_rows(folder)
    assert "5/5" in done.stderr


def test_digests_of_the_standard_library(tmp_path):
    done = run("digests.py", "--limit", 20, cwd=tmp_path)
    assert len(rows(done.stdout)) == 20


def test_digests_of_an_empty_folder(tmp_path):
    assert run("digests.py", tmp_path, cwd=tmp_path).stdout == ""


def test_digests_on_a_master_by_its_word(folder, tmp_path):
    assert run("digests.py", folder, "--master", "threads:2", cwd=tmp_path).stdout


def test_wrong_arguments_of_digests(tmp_path):
    assert "is no folder" in run("digests.py", tmp_path / "nothing", cwd=tmp_path, code=2).stderr
    assert "'shake_128' is none of" in run("digests.py", "--algorithm", "shake_128", cwd=tmp_path, code=2).stderr
    told = run("digests.py", "--master", "slow", cwd=tmp_path, code=2).stderr
    assert "'slow' is no master" in told
    assert "local-cluster" in told
    assert "from 1 to" in run("digests.py", "--master", "threads:0", cwd=tmp_path, code=2).stderr


def test_digests_show_what_is_unreadable(folder, monkeypatch, capsys):
    # Permissions would not keep root out, so a file and a folder vanish between the listing and the reading.
    monkeypatch.syspath_prepend(EXAMPLES)
    digests = importlib.import_module("digests")
    vanished = os.path.join(folder, "b", "vanished")
    forbidden = PermissionError(13, "Permission denied", os.path.join(folder, "b.forbidden"))
    listed = digests.files_under

    def list_files(top, complain):
        complain(forbidden)
        yield from [*listed(top, complain), vanished]

    monkeypatch.setattr(digests, "files_under", list_files)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    assert digests.main([str(folder), "--master", "serial", "--no-progress"]) == 1
    output, errors = capsys.readouterr()
    table = output.splitlines()
    assert [line.split()[-1] for line in table] == [
        "a.txt",
        "b.forbidden",
        "b.txt",
        "ß.bin",
        "b/empty",
        "b/vanished",
        "c",
    ]
    assert table[1].split() == ["PermissionError:", "Permission", "denied", "-", "b.forbidden"]
    assert table[5].startswith("FileNotFoundError: No such file or directory  ")
    assert "5 files" in errors
    assert "2 unreadable" in errors


def test_digests_stop_when_nobody_reads_on(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, EXAMPLES / "digests.py", "--limit", "20"]
    try:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
