"""Configuration files: what they set, and how what is wrong in them is named."""

from __future__ import annotations

import time

import Pyro5
import pytest

from papyros import DistributedMaster
from tests.contract.jobs_for_tests import double
from tests.distributed.programs import (
    HOST_UP,
    STANDALONE_UP,
    free_port,
    refusal,
)
from tests.support import PATIENCE, wait_until

pytestmark = pytest.mark.measured


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "papyros.toml"
        path.write_text(text)
        return path

    return write


def test_a_configuration_file_sets_what_the_command_line_does_not(launch, names, group, config):
    path = config(f'group = "{group}"\nnameserver = "{names}"\nslaves = 2\n\n[pyro]\nMAX_RETRIES = 1\n')
    launch.master(group, names)
    host = launch.part(f"--config={path}")
    host.wait_for(f"2 slaves serve the group '{group}'")
    launch.master(f"{group}.other", names)
    other = launch.part(f"--config={path}", f"--group={group}.other", "--slaves=1")
    other.wait_for(f"1 slave serves the group '{group}.other'")


def test_a_configuration_file_sets_items_of_pyro(launch, config):
    path = config('[pyro]\nSERVERTYPE = "multiplex"\n')
    program = launch.part(f"--config={path}")
    assert program.ended() == 2
    assert "SERVERTYPE" in program.text
    assert "'multiplex'" in program.text
    assert "Traceback" not in program.text


def test_items_of_pyro_hold_for_a_standalone_cluster_too(launch, config):
    path = config('[pyro]\nSERVERTYPE = "multiplex"\n')
    program = launch.part(f"--config={path}", "--standalone", "--slaves=1", f"--nameserver=localhost:{free_port()}")
    wait_until(lambda: STANDALONE_UP in program.text or not program.running, "a beginning or an end")
    assert "SERVERTYPE" in program.text


def test_a_bound_on_messages_of_pyro_is_none_on_payloads(cluster, monkeypatch):
    """A program may have its reasons for it where it uses Pyro itself."""
    monkeypatch.setattr(Pyro5.config, "MAX_MESSAGE_SIZE", 100_000)
    with cluster.master() as client:
        client.addJob(double("x" * 300_000))
        assert client.popProcessedJob(PATIENCE).result == "x" * 600_000


def test_pyro_items_may_make_connections_impatient(launch, names, group, config):
    """Pyro's COMMTIMEOUT is no reason to break a call that waits for work."""
    path = config("[pyro]\nCOMMTIMEOUT = 0.3\n")
    master = launch.master(group, names, f"--config={path}")
    host = launch.host(group, names, 1, f"--config={path}", "--logging")
    with DistributedMaster(group, names, host_master=False) as client:
        time.sleep(1.0)  # several times as long as a connection may be silent, by that item
        client.addJob(double(1))
        assert client.popProcessedJob(10).result == 2
    assert master.running
    assert host.text.count(HOST_UP) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('group = "lab\n', ["line 1"]),
        ("group = 1\ngroup = 2\n", ["line 2"]),
        ('\n\ngruop = "lab"\n', ["line 3", "'gruop'", "did you mean 'group'"]),
        ("[papyros]\nslaves = 3\n", ["line 1", "'papyros'", "there are "]),
        ('slaves = "three"\n', ["line 1", "'slaves'", "whole number", "'three'"]),
        ("slaves = 1.5\n", ["line 1", "'slaves'", "whole number"]),
        ("slaves = true\n", ["line 1", "'slaves'", "whole number"]),
        ("slaves = 0\n", ["'slaves'"]),
        ("slaves = -4\n", ["'slaves'"]),
        ("\ngroup = 7\n", ["line 2", "'group'", "text"]),
        ('logging = "yes"\n', ["line 1", "'logging'", "true or false"]),
        ("[pyro]\n\nCOMMTIMOUT = 3.0\n", ["line 3", "'COMMTIMOUT'", "did you mean 'COMMTIMEOUT'"]),
        ('[pyro]\nCOMMTIMEOUT = "soon"\n', ["line 2", "'COMMTIMEOUT'", "a number"]),
        ("pyro = 3\n", ["line 1", "'pyro'", "table"]),
    ],
)
def test_what_is_wrong_in_a_configuration_file_is_named(text, told, config, capsys):
    path = config(text)
    line = refusal(capsys, f"--config={path}")
    for words in (str(path), *told):
        assert words in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nslaves = 0\n", ["line 2", "'slaves'"]),
        ("\nslaves = 10001\n", ["line 2", "'slaves'"]),
        ("\nport = 70000\n", ["line 2", "'port'"]),
        ("\nport = -1\n", ["line 2", "'port'"]),
        ("\nnameserver = 'two words'\n", ["line 2", "'nameserver'"]),
        ("\nnameserver = ''\n", ["line 2", "'nameserver'"]),
    ],
)
def test_a_wrong_value_in_a_configuration_file_is_named_with_its_line(text, told, config, capsys):
    # A wrong group comes second, so that nothing is started where the first is not noticed.
    path = config(text + "group = 'no/group'\n")
    line = refusal(capsys, f"--config={path}")
    for words in (str(path), *told):
        assert words in line


@pytest.mark.parametrize("item", ['SERIALIZER = "nonsense"', "THREADPOOL_SIZE = 1", "SSL = true"])
def test_a_value_that_pyro_refuses_is_named(item, config, launch):
    path = config(f"[pyro]\n{item}\n")
    program = launch.part(f"--config={path}", f"--nameserver=localhost:{free_port()}")
    assert program.ended() == 2
    assert item.partition(" ")[0] in program.text
    assert "Traceback" not in program.text


def test_a_configuration_file_that_cannot_be_read_is_named(tmp_path, capsys):
    missing = tmp_path / "missing.toml"
    assert str(missing) in refusal(capsys, f"--config={missing}")
    assert str(tmp_path) in refusal(capsys, f"--config={tmp_path}")
    latin = tmp_path / "latin.toml"
    latin.write_bytes('group = "gruppe-ä"'.encode("latin-1"))
    assert str(latin) in refusal(capsys, f"--config={latin}")


def test_a_file_that_is_nested_too_deeply_is_refused_in_words(config, capsys):
    line = refusal(capsys, f"--config={config('slaves = ' + '[' * 10_000)}")
    assert "the configuration file" in line
