"""Attacks on the key and on where things listen: rows 10 and 11; and the key as a thing."""

from __future__ import annotations

import base64
import copy
import errno
import os
import pickle
import pwd
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import pytest

import papyros
from papyros.distributed import keys
from papyros.distributed.cli import main
from papyros.distributed.keys import (
    ENVIRONMENT,
    ClusterKey,
    NoPlaceForKeyError,
    default_key_file,
    find_key,
    make_key_file,
    read_key_file,
)
from papyros.distributed.naming import ask_status, parse_address
from papyros.distributed.server import MasterServer
from papyros.distributed.tls import identity_of
from papyros.errors import ClusterError, KeyFileError
from tests.attacks.conftest import own_address
from tests.distributed.conftest import group as group_name  # noqa: F401 - a fixture
from tests.distributed.programs import processes, uri_of
from tests.support import PATIENCE, security

GOOD = "papyros-key-1:" + base64.urlsafe_b64encode(b"thirty-two bytes, of which all c").decode() + "\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "key"
    path.write_text(GOOD)
    path.chmod(0o600)
    return path


BAD = {
    "readable by the group": (lambda p: p.chmod(0o640), r"mode is 0640.*chmod 600 "),
    "readable by all": (lambda p: p.chmod(0o604), r"mode is 0604.*chmod 600 "),
    "writable by all": (lambda p: p.chmod(0o602), r"mode is 0602.*chmod 600 "),
    "empty": (lambda p: p.write_text(""), "is empty.*--new-key"),
    "white": (lambda p: p.write_text(" \n\n"), "is empty.*--new-key"),
    "cut": (lambda p: p.write_text(GOOD[:40]), "only a part of a key.*copy"),
    "no text": (lambda p: p.write_bytes(b"\xff\xfe" * 30), "holds no text.*--new-key"),
    "a short passphrase": (lambda p: p.write_text("open sesame"), "too easy to guess.*20 characters"),
    "a dull passphrase": (lambda p: p.write_text("aaaabbbbaaaabbbbaaaabbbb"), "too easy to guess"),
    "huge": (lambda p: p.write_bytes(b"x" * 100_000), "which no key has"),
    "missing": (lambda p: p.unlink(), "there is no key file .*--new-key"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is no file"),
    "a pipe": (lambda p: (p.unlink(), os.mkfifo(p, 0o600)), "is no file"),
    "a link": (lambda p: (p.rename(p.with_name("k")), p.symlink_to(p.with_name("k"))), "is a link to .*--key-file"),
    "a link to nowhere": (lambda p: (p.unlink(), p.symlink_to("/nowhere")), "is a link to /nowhere"),
}


@pytest.mark.parametrize("what", BAD)
def test_attack_10_a_key_file_that_is_not_fit_is_refused_with_what_mends_it(path, what):
    spoil, words = BAD[what]
    spoil(path)
    with pytest.raises(KeyFileError, match=words) as caught:
        read_key_file(path)
    assert GOOD.strip()[14:] not in str(caught.value)


@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
def test_a_key_file_that_cannot_even_be_looked_at_is_told_in_words(path, monkeypatch, named):
    """It is not one that is missing, in whose place another key may be made."""
    really = os.lstat

    def lstat(looked_at, **kwds):
        if os.fspath(looked_at) == os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied")  # as its folder would; root may look everywhere
        return really(looked_at, **kwds)

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(keys, "default_key_file", lambda: path)
    with pytest.raises(KeyFileError, match="cannot be read: Permission denied"):
        find_key(path if named else None)


def test_attack_10_the_key_file_of_another_user_is_refused(path):
    if os.geteuid() != 0:
        pytest.skip("SKIPPED LOUDLY: only root can give files to others")
    os.chown(path, 12345, -1)
    with pytest.raises(KeyFileError, match=r"belongs to another user.*chown 0 "):
        read_key_file(path)


@pytest.mark.parametrize("how", ["option", "environment", "file"])
def test_attack_10_no_part_starts_with_a_key_file_that_others_can_read(path, launch, how, tmp_path):
    path.chmod(0o644)
    if how == "option":
        part = launch.part(f"--key-file={path}")
    elif how == "file":
        (tmp_path / "lab.toml").write_text(f'key_file = "{path}"\n')
        part = launch.part(f"--config={tmp_path / 'lab.toml'}")
    else:
        part = launch(
            sys.executable, "-m", "papyros.distributed", "--slaves=1", name="part", PAPYROS_KEY_FILE=str(path)
        )
    assert part.ended(PATIENCE) == 2
    assert f"chmod 600 {path}" in part.text
    for start in (lambda: papyros.LocalCluster(key_file=path), lambda: papyros.DistributedMaster(key_file=path)):
        with pytest.raises(KeyFileError, match="chmod 600"):
            start()


def test_attack_10_a_file_that_was_asked_for_is_never_replaced_by_another_key(tmp_path, monkeypatch):
    missing = tmp_path / "missing"
    with pytest.raises(KeyFileError, match="there is no key file"):
        find_key(missing)
    monkeypatch.setenv("PAPYROS_KEY_FILE", str(missing))
    with pytest.raises(KeyFileError, match="there is no key file"):
        find_key()
    assert not missing.exists()


def test_attack_10_the_key_is_nowhere_to_be_seen(launch, mark, tmp_path, group_name):  # noqa: F811
    path = tmp_path / "secret.key"
    key = make_key_file(path)
    path_text = path.read_text().strip().removeprefix("papyros-key-1:")
    names = launch.nameserver().address
    master = launch.master(group_name, names, "--logging", f"--key-file={path}")
    launch.host(group_name, names, 1, "--logging", f"--key-file={path}")
    with (
        papyros.LocalCluster(1, key_file=path) as cluster,
        papyros.DistributedMaster(group_name, names, key_file=path) as client,
        cluster.master() as other,
    ):
        status = f"{client.status()} {other.status()}"
        seen = [
            status,
            repr(key),
            str(key),
            f"{key!s}",
            repr(vars(client)),
            repr(vars(cluster)),
            repr(client._security),
        ]
        for folder in Path("/proc").glob("[0-9]*"):
            if int(folder.name) in processes(mark):
                seen += [(folder / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ")]
        seen += [program.text for program in launch._started]
        seen.append(refusal(group_name, names))
    assert master.running
    for text in (path_text, default_key_file().read_text().strip().removeprefix("papyros-key-1:")):
        secret = base64.urlsafe_b64decode(text)
        for form in (text, text.rstrip("="), secret.hex(), repr(secret)[2:-1], str(list(secret))[1:-1]):
            assert not [each for each in seen if form in each]


def refusal(group, names):
    """Return the traceback, with all variables in it, of somebody with another key."""
    try:
        papyros.DistributedMaster(group, names, timeout=0.1).close()
    except papyros.KeyRefusedError:
        return "".join(traceback.TracebackException(*sys.exc_info(), capture_locals=True).format())
    return pytest.fail("another key was accepted")


def test_attack_10_a_key_cannot_be_pickled_and_is_the_same_when_copied(path):
    key = read_key_file(path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="copy its file instead"):
            pickle.dumps(key, protocol)
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    assert not hasattr(key, "__dict__")
    assert "private_key" not in repr(identity_of(key.derive("x")))


# The key as a thing ---------------------------------------------------------------------


def test_a_key_is_made_on_first_use_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    key = find_key()
    path = default_key_file()
    assert path == tmp_path / "config" / "papyros" / "key"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert key.fresh
    assert find_key() == key
    assert not find_key().fresh
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


@pytest.fixture
def homeless(monkeypatch):
    """Make this a user whom the system does not know, as in a container that is run under a number."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ENVIRONMENT, "HOME", "XDG_CONFIG_HOME":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_who_has_no_home_is_told_how_to_name_another_place_for_the_key(homeless, path, monkeypatch, capsys):
    for make in (True, False):
        with pytest.raises(NoPlaceForKeyError, match=f"no home folder.*{ENVIRONMENT}=FILE"):
            find_key(make=make)
    for arguments in (["--slaves", "--nameserver=10.9.9.9"], ["--status"]):
        assert main(arguments) == 1
        assert "no home folder" in capsys.readouterr().err
    monkeypatch.setenv(ENVIRONMENT, str(path))
    assert find_key() == read_key_file(path)


def test_a_local_cluster_of_who_has_no_home_has_a_key_that_goes_with_it(homeless, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with papyros.LocalCluster(slaves=1) as cluster:
        assert "since this user has no home folder" in caplog.text
        assert cluster.pids
    assert not list(tmp_path.glob("*/key"))


def test_who_only_asks_makes_no_key(tmp_path):
    """There can be no cluster that has it."""
    environment = os.environ | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    for question in ("--status", "--doctor", "--show-key-fingerprint"):
        command = [sys.executable, "-m", "papyros.distributed", question, "--nameserver=localhost:1"]
        asked = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert asked.returncode == 1
        assert "there is no key on this machine yet" in asked.stdout + asked.stderr
    assert not (tmp_path / "config").exists()


def test_processes_that_make_the_first_key_at_the_same_time_have_the_same(tmp_path):
    program = "from papyros.distributed.keys import find_key; input(); print(find_key().fingerprint)"
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(4)
    ]
    assert len({racer.communicate("\n")[0] for racer in racers}) == 1


def test_threads_that_make_the_first_key_at_the_same_time_have_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found, barrier = [], threading.Barrier(20)
    threads = [threading.Thread(target=lambda: (barrier.wait(), found.append(find_key()))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 20
    assert sum(key.fresh for key in found) == 1


def test_a_passphrase_is_stretched_to_the_same_key_everywhere(path):
    path.write_text("correct horse battery staple\n")
    key = read_key_file(path)
    path.write_text("  correct horse battery staple")
    assert read_key_file(path) == key
    path.write_text("correct horse battery stapler")
    assert read_key_file(path) != key


def test_what_is_derived_differs_by_purpose_and_context():
    key = ClusterKey(bytes(32), "test")
    derived = [key.derive(*each) for each in (("a",), ("b",), ("a", b""), ("a", b"b"), ("a", b"", b"b"), ("ab",))]
    assert len(set(derived)) == len(derived)
    assert identity_of(key.derive("a")) == identity_of(key.derive("a"))


def test_new_key_and_fingerprint(launch, tmp_path):
    path = tmp_path / "new.key"
    made = launch.part("--new-key", str(path), name="made")
    assert made.ended() == 0
    fingerprint = read_key_file(path).fingerprint
    assert fingerprint in made.text
    shown = launch.part("--show-key-fingerprint", f"--key-file={path}", name="shown")
    assert shown.ended() == 0
    assert shown.text == f"{fingerprint}  {path}\n"
    again = launch.part("--new-key", str(path), name="again")
    assert again.ended() == 2
    assert "already" in again.text
    assert read_key_file(path).fingerprint == fingerprint


# Row 11 ---------------------------------------------------------------------------------


def listening(pids):
    """Return the addresses on which processes listen, by TCP."""
    inodes = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(fd)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for name, size in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0] if size == 32 else hexed(fields[1].partition(":")[0]))
    return found


def hexed(text):
    return ".".join(str(byte) for byte in bytes.fromhex(text)[::-1])


def test_attack_11_everything_listens_on_the_loopback_address_unless_told_otherwise(mark):
    with papyros.LocalCluster(1) as cluster, cluster.master():
        found = listening([*processes(mark), os.getpid()])
    assert found == {"127.0.0.1"}


def test_attack_11_what_is_told_otherwise_listens_there_and_encrypts(mark):
    address = own_address()
    with papyros.LocalCluster(1, host=address) as cluster, cluster.master() as client:
        assert listening(list(processes(mark))) == {address}
        assert client.status().slaves
        connections = [client._sender.line._sock]
        assert all(connection.version() == "TLSv1.3" for connection in connections)


@pytest.mark.parametrize("address", ["127.0.1.1", "::1"])
def test_attack_11_a_name_that_only_this_machine_knows_is_explained(monkeypatch, names, address):
    import socket

    resolve = socket.getaddrinfo

    def debian(host, *arguments, **options):
        return resolve(address if host == "lab1" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", debian)
    with pytest.raises(
        ClusterError, match=rf"'lab1' stands for {address}, which other machines cannot reach.*/etc/hosts"
    ):
        MasterServer("lab", names, security(), host="lab1")


def test_attack_11_the_address_to_publish_may_be_another_one(launch, group_name, names):  # noqa: F811
    address = own_address()
    master = launch.master(group_name, str(names), f"--host={address}", "--publish=localhost:12345")
    assert uri_of(str(names), group_name).endswith("@localhost:12345")
    master.end()
    master = launch.master(group_name, str(names), "--host=127.0.0.1", "--publish=127.0.0.1")
    assert ask_status(uri_of(str(names), group_name), security()).clients == 0
    assert parse_address(uri_of(str(names), group_name).partition("@")[2]).host == "127.0.0.1"


def no_links(*_):
    raise OSError(errno.EPERM, "no links here")


def test_a_key_that_cannot_be_written_leaves_no_file_behind_also_where_there_are_no_links(tmp_path, monkeypatch):
    """An empty one would be found, and refused, by all who come later."""
    folder = tmp_path / "keys"
    folder.mkdir()
    write, written = os.write, []

    def write_once(fd, data):
        if written:
            raise OSError(errno.ENOSPC, "no space left")
        written.append(data)
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        patch.setattr(os, "write", write_once)
        with pytest.raises(OSError, match="no space left"):
            make_key_file(folder / "key")
    assert written
    assert not list(folder.iterdir())


def test_a_key_that_is_written_in_pieces_is_whole(tmp_path, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        key = make_key_file(tmp_path / "key")
    assert read_key_file(tmp_path / "key").fingerprint == key.fingerprint
