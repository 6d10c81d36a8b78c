"""What nobody can have meant on a command line is refused in words, never in a traceback; row 15."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest

from papyros.distributed.cli import main
from papyros.distributed.host import SlaveHost
from papyros.distributed.keys import find_key
from papyros.distributed.naming import parse_address
from papyros.distributed.server import MasterServer
from papyros.errors import ClusterError, ConfigError, KeyFileError
from tests.support import security


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--new-key", "."], "no name of a file"),
        (["--new-key", ""], "no name of a file"),
        (["--new-key", "/"], "no name of a file"),
        (["--key-file", "~nosuchuser/x"], "home folder"),
        (["--key-file", ""], "is empty"),
        (["--host", "a..b"], "no name of a machine"),
        (["--host", "a" * 100], "no name of a machine"),
        (["--nameserver", "a..b", "--status"], "no name of a machine"),
        (["--nameserver", "a" * 100, "--doctor"], "no name of a machine"),
        (["--publish", "x:y"], "no address of a master"),
        (["--nameserver", "x:y"], "no address of a name server"),
        (["--new-key", "/nowhere/at all/key"], "mkdir -p '/nowhere/at all'"),
        (["--status", "--doctor"], "--status and --doctor do not go together"),
        (["--status", "--standalone"], "--status and --standalone do not go together"),
        (["--doctor", "--slaves"], "--doctor and --slaves do not go together"),
    ],
)
def test_what_cannot_be_is_refused_in_words(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "nameserver"),
    [
        ("0.0.0.0", "nosuch.invalid"),
        ("0.0.0.0", "[::1]:9090"),
        ("::", "10.9.9.9"),
        ("0.0.0.0", "localhost"),
        ("0.0.0.0", "0.0.0.0"),
        ("::", "[::]:9090"),
    ],
)
def test_a_master_that_cannot_find_its_address_says_what_to_do(host, nameserver):
    with pytest.raises(ClusterError, match="--publish ADDRESS"):
        MasterServer("group", parse_address(nameserver), security(), host)


@pytest.mark.parametrize("host", ["lab1", "lab1.example.org", "127.0.0.1", "bücher.example", "fe80::1%eth0"])
def test_names_and_addresses_of_machines_are_taken(host):
    assert parse_address(f"[{host}]" if ":" in host else host).host == host


def test_a_part_of_a_name_has_a_most():
    with pytest.raises(ConfigError, match="1 to 63"):
        parse_address("x" * 64)


def test_an_empty_name_of_a_key_file_is_not_the_default_one(monkeypatch):
    with pytest.raises(KeyFileError, match="is empty"):
        find_key("")
    monkeypatch.setenv("PAPYROS_KEY_FILE", "")
    with pytest.raises(KeyFileError, match="is empty"):
        find_key()


@pytest.mark.parametrize("question", ["--show-key-fingerprint", "--doctor"])
def test_a_question_makes_no_key(monkeypatch, tmp_path, capsys, question):
    monkeypatch.delenv("PAPYROS_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with contextlib.suppress(SystemExit):
        main([question])
    told = capsys.readouterr()
    assert "there is no key on this machine yet" in told.out + told.err
    assert not (tmp_path / "papyros").exists()


@pytest.mark.parametrize("variable", ["PYRO_FOO", "PYRO_THREADPOOL_SIZE"])
def test_what_pyro_does_not_understand_in_the_environment_is_told_in_words(variable):
    environment = {**os.environ, variable: "nonsense"}
    command = [sys.executable, "-m", "papyros.distributed", "--status"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.startswith("python -m papyros.distributed: Pyro refuses what the environment says")
    assert variable in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_holds_the_key_for_slaves_does_not_show_it():
    host = SlaveHost("group", parse_address("127.0.0.1:1"), security(), 1)
    try:
        family = host._crew._options.family
        assert family["key"] == security().key.hand_over()
        for shown in (repr(family), str(family), f"{family}", repr(host._crew._options), repr({"family": family})):
            assert family["key"] not in shown
        assert json.loads(json.dumps({"family": family}))["family"]["key"] == family["key"]
    finally:
        host._crew.close()
