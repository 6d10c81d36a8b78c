"""What nobody can have meant on a command line is refused in words, never in a traceback; row 15."""

from __future__ import annotations

import pytest

from papyros.distributed.cli import main
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
    ],
)
def test_what_cannot_be_is_refused_in_words(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "nameserver"), [("0.0.0.0", "nosuch.invalid"), ("0.0.0.0", "[::1]:9090"), ("::", "10.9.9.9")]
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


def test_to_show_a_fingerprint_makes_no_key(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("PAPYROS_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["--show-key-fingerprint"])
    assert "there is no key on this machine yet" in capsys.readouterr().err
    assert not (tmp_path / "papyros").exists()
