"""What the commands say: nobody who serves waits for a reader; no reader, nor a missing character, ends anything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import papyros
from papyros import DistributedMaster
from papyros.distributed.keys import make_key_file
from tests.distributed.programs import CHECKOUT, HOST_UP, PART
from tests.support import PATIENCE, wait_until

#: Standard output has characters for this only where somebody has seen to it.
ODD = "schl\xfcssel"
SPELT = "schl\\xfcssel"


def slaves_at(names, group):
    with DistributedMaster(group, names, host_master=False) as client:
        return len(client.status().slaves)


def test_a_slave_host_at_a_terminal_that_is_held_serves_the_next_master(launch, names, group):
    master = launch.master(group, names)
    host = launch.part(f"--group={group}", f"--nameserver={names}", "--slaves=1", name="host", terminal=True)
    host.wait_for(HOST_UP)
    with host.held():
        master.end()
        launch.master(group, names)
        wait_until(lambda: slaves_at(names, group) == 1, "the slave at the next master")
    wait_until(lambda: host.text.count(HOST_UP) == 2, "what was said meanwhile")
    assert host.end() == 0
    assert "has ended" in host.text


def test_what_standard_output_has_no_characters_for_is_told_with_escapes(launch, tmp_path):
    key = tmp_path / ODD
    made = launch(*PART, f"--new-key={key}", name="new", PYTHONIOENCODING="ascii")
    assert made.ended() == 0
    assert SPELT in made.text
    shown = launch(*PART, "--show-key-fingerprint", f"--key-file={key}", name="shown", PYTHONIOENCODING="ascii")
    assert shown.ended() == 0
    assert SPELT in shown.text


def test_a_slave_host_goes_on_whose_output_has_no_characters_for_what_it_says(launch, names, group, tmp_path):
    """It is told of another key by the path of its own."""
    key = tmp_path / ODD
    make_key_file(key)
    launch.master(group, names)
    arguments = (f"--group={group}", f"--nameserver={names}", "--slaves=1")
    host = launch(*PART, *arguments, f"--key-file={key}", name="host", PYTHONIOENCODING="ascii")
    host.wait_for(SPELT)
    assert host.end() == 0


def closed_pipe():
    """Return the end of a pipe to write to, which nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("option", ["--status", "--doctor", "--show-key-fingerprint"])
def test_an_answer_that_nobody_reads_is_nobodys_fault(launch, names, group, option):
    launch.master(group, names)
    launch.host(group, names)
    nowhere = closed_pipe()
    try:
        command = (*PART, f"--group={group}", f"--nameserver={names}", option)
        asked = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, cwd=launch.cwd, timeout=PATIENCE)
    finally:
        os.close(nowhere)
    assert not asked.stderr
    assert asked.returncode == 0 or option == "--doctor"  # whose slave host may be busy for a while


@pytest.mark.parametrize("module", ["papyros", "papyros.distributed"])
def test_a_version_is_one_line(launch, module):
    asked = launch(sys.executable, "-m", module, "--version", name="version", COLUMNS="12")
    assert asked.ended() == 0
    [line] = asked.text.splitlines()
    assert line.startswith(f"Papyros {papyros.__version__}")
    assert line.endswith(str(CHECKOUT / "papyros")) or module != "papyros"
