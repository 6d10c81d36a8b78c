"""A name server that asks for the key, for machines of whose network anybody may be a part."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from Pyro5 import api, errors

from papyros import DistributedMaster, KeyRefusedError, NameServerNotFoundError
from papyros.distributed.keys import make_key_file
from tests.contract.jobs_for_tests import double
from tests.distributed.programs import free_port, groups
from tests.support import PATIENCE, wait_until

COMMAND = (sys.executable, "-m", "papyros.distributed.nameserver")


@pytest.fixture
def guarded(launch):
    """The address of such a name server, and the program."""
    program = launch(*COMMAND, "--port=0", name="name server")
    port = program.find(r"is up at localhost:(\d+)")[1]
    return f"localhost:{port}", program


def test_a_cluster_works_with_it(launch, group, guarded):
    names, program = guarded
    launch.master(group, names)
    launch.host(group, names)
    with DistributedMaster(group, names, host_master=False) as client:
        client.addJob(double(21))
        assert client.popProcessedJob(PATIENCE).result == 42
    assert program.end() == 0
    assert "the name server has ended" in program.text


def test_who_has_no_key_learns_nothing_and_changes_nothing(guarded, tmp_path):
    names, _ = guarded
    with pytest.raises(errors.PyroError), api.Proxy(f"PYRO:Pyro.NameServer@{names}") as stranger:
        stranger.list()
    key = tmp_path / "other.key"
    make_key_file(key)
    with pytest.raises(KeyRefusedError):
        DistributedMaster("anything", names, key_file=key, host_master=False)


def test_it_refuses_in_words_what_makes_no_sense(launch, guarded):
    names, _ = guarded
    port = names.rpartition(":")[2]
    for option, code, words in (
        (f"--port={port}", 1, "another name server, perhaps: take another port"),
        ("--port=x", 2, "is no port"),
        ("--key-file=/nobody/has/this", 2, "/nobody/has/this"),
        ("--host=a..b", 2, "is no name of a machine"),
    ):
        program = launch(*COMMAND, f"--port={free_port()}", option, name=option.strip("-").partition("=")[0])
        assert program.ended() == code
        assert words in program.text
        assert "Traceback" not in program.text


def is_served(names):
    try:
        return groups(names) == []
    except NameServerNotFoundError:
        return False


@pytest.mark.parametrize("nobody", ["full", "gone"])
def test_it_serves_also_where_nobody_reads_what_it_says(launch, nobody):
    port = free_port()
    if nobody == "full":
        nowhere = os.open("/dev/full", os.O_WRONLY)
    else:
        read, nowhere = os.pipe()
        os.close(read)
    with subprocess.Popen(
        [*COMMAND, f"--port={port}"], stdout=nowhere, stderr=subprocess.PIPE, cwd=launch.cwd
    ) as program:
        os.close(nowhere)
        try:
            wait_until(lambda: program.poll() is not None or is_served(f"localhost:{port}"), "a name server")
        finally:
            program.terminate()
        assert program.communicate(timeout=PATIENCE) == (None, b"")
    assert program.returncode == 0


def test_what_pyro_refuses_of_the_environment_is_said_in_words(launch):
    program = launch(*COMMAND, "--port=0", PYRO_THREADPOOL_SIZE="abc")
    assert program.ended() == 2
    [line] = program.text.splitlines()
    assert line.startswith("python -m papyros.distributed.nameserver: Pyro refuses what the environment says")


def test_an_interrupt_while_modules_are_imported_shows_no_traceback(launch, tmp_path):
    (tmp_path / "Pyro5.py").write_text("raise KeyboardInterrupt\n")
    program = launch(*COMMAND, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    assert program.ended() == 130
    assert not program.text
