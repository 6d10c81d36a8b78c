"""A name server that asks for the key, for machines of whose network anybody may be a part."""

from __future__ import annotations

import sys

import pytest
from Pyro5 import api, errors

from papyros import DistributedMaster, KeyRefusedError
from papyros.distributed.keys import make_key_file
from tests.contract.jobs_for_tests import double
from tests.distributed.programs import free_port
from tests.support import PATIENCE

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
