"""The way from a second machine: what the parts, and ``--doctor``, say without the key, with a wrong one, with it."""

from __future__ import annotations

import dataclasses
import socket
import threading

import pytest

from papyros.distributed import doctor as doctor_module
from papyros.distributed.keys import default_key_file, make_key_file
from papyros.distributed.naming import NameServer, parse_address
from papyros.status import SlaveStatus, Status
from tests.distributed.conftest import _shared_names, group, launch, mark, names, standing  # noqa: F401 - fixtures  # noqa: F401 - the same
from tests.distributed.programs import free_port
from tests.support import PATIENCE, security, wait_until


def doctor(launch, group, names, *more):  # noqa: F811
    part = launch.part("--doctor", f"--group={group}", f"--nameserver={names}", *more, name="doctor")
    return part.ended(PATIENCE), part.text


def doctor_who_is_answered(launch, group, names):  # noqa: F811
    """The same, once the slave host answers him: one that is too busy to do so within a second is silent to him."""
    found = []

    def answered():
        found[:] = doctor(launch, group, names)
        return "their slave hosts are silent" not in found[1]

    wait_until(answered, "an answer of the slave host")
    return found


def test_the_doctor_finds_nothing_where_all_of_it_works(launch, group, names):  # noqa: F811
    launch.master(group, names)
    launch.host(group, names, 1)
    code, text = doctor_who_is_answered(launch, group, names)
    assert code == 0
    for words in (
        "the key, ",
        "the name server at",
        "a master is registered",
        "can be reached",
        "go together",
        "1 slave is connected, on 1 machine",
    ):
        assert words in text
    assert "all of it works" in text
    assert "does not work" not in text


def failing(launch, group, names, *more):  # noqa: F811
    code, text = doctor(launch, group, names, *more)
    assert code == 1
    [line] = [line for line in text.splitlines() if "does not work" in line]
    assert text.splitlines()[-1] == line, "it stops at the first thing that does not work"
    return line


def test_the_doctor_finds_each_thing_that_does_not_work(launch, group, names, tmp_path):  # noqa: F811
    assert "was pyro5-ns started" in failing(launch, group, f"localhost:{free_port()}")
    assert "no master of the group" in failing(launch, group, names)
    register = NameServer(parse_address(names), security())._ask
    name = f"papyros.master.{group}"
    register("register", name, f"PYRO:papyros.master@localhost:{free_port()}", False)
    assert "the master at localhost" in failing(launch, group, names)
    register("register", name, f"PYRO:papyros.master@{'a' * 64}:4321", False)
    assert "is no name of a machine" in failing(launch, group, names)
    with socket.create_server(("localhost", 0)) as listener:
        thread = threading.Thread(target=_hang_up_on_all, args=(listener,), daemon=True)
        thread.start()
        register("register", name, f"PYRO:papyros.master@localhost:{listener.getsockname()[1]}", False)
        assert "does not answer as a master does" in failing(launch, group, names)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    register("remove", name)
    launch.master(group, names)
    assert "no slave is connected" in failing(launch, group, names)
    other = tmp_path / "other"
    make_key_file(other)
    assert "have different keys" in failing(launch, group, names, f"--key-file={other}")
    other.chmod(0o666)
    assert f"chmod 600 {other}" in failing(launch, group, names, f"--key-file={other}")


def _hang_up_on_all(listener):
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_a_second_machine_is_told_what_it_lacks(launch, group, names, tmp_path, monkeypatch):  # noqa: F811
    master = launch.master(group, names)
    home = tmp_path / "config"
    key = default_key_file().read_bytes()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    # Without the key. The name server is told to be elsewhere; nobody is asked.
    part = launch.part("--slaves=1", f"--group={group}", "--nameserver=192.0.2.77", name="without")
    assert part.ended(PATIENCE) == 1
    assert "there is no key on this machine yet" in part.text
    assert f"to {home}/papyros/key" in part.text
    assert not home.exists()
    # With a wrong one.
    (home / "papyros").mkdir(parents=True, mode=0o700)
    make_key_file(home / "papyros" / "key")
    part = launch.part("--slaves=1", f"--group={group}", f"--nameserver={names}", name="wrong")
    part.wait_for("have different keys")
    master.wait_for("have different keys")
    part.end()
    # With the right one.
    (home / "papyros" / "key").write_bytes(key)
    launch.host(group, names, 1)


@pytest.mark.parametrize("what", ["Python", "protocol"])
def test_versions_that_do_not_go_together_are_named_in_one_sentence(what, monkeypatch):
    import time

    from papyros.distributed import security as frames
    from papyros.distributed.security import Role
    from papyros.errors import VersionMismatchError

    told = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            sock, _ = listener.accept()
            try:
                security().accept(sock, Role.MASTER, False, time.monotonic() + 5)
            except (VersionMismatchError, OSError) as error:
                told.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        own = frames._Greeting.own
        pack = frames._Greeting.pack
        if what == "Python":
            monkeypatch.setattr(
                frames._Greeting,
                "own",
                lambda role, kind: own(role, kind)._replace(python=(3, 99 if role is Role.CLIENT else 11)),
            )
        else:
            monkeypatch.setattr(
                frames._Greeting,
                "pack",
                lambda self: pack(self)[:8] + bytes([0, 7 if self.role == Role.MASTER else 1]) + pack(self)[10:],
            )
        with pytest.raises(VersionMismatchError) as caught:
            security().connect("127.0.0.1", listener.getsockname()[1], Role.CLIENT).close()
        thread.join()
    if what == "Python":
        assert "runs Python 3.11" in str(caught.value)
        assert "this process Python 3.99" in str(caught.value)
        assert "runs Python 3.99" in str(told[0])
    else:
        assert "speaks version 7" in str(caught.value)
        assert "install the same Papyros on all machines" in str(caught.value)


def test_the_doctor_asks_again_when_no_slave_host_answers_at_once(monkeypatch):
    """One that is busy for more than a second is silent to who asks it then."""
    slave = SlaveStatus("host/1")
    looks = [Status("a master", (dataclasses.replace(slave, silent=2.0),)), Status("a master", (slave,))]
    monkeypatch.setattr(doctor_module, "ask_status", lambda *_: looks.pop(0))
    assert list(doctor_module._slaves("", security(), "group", parse_address("host"))) == [
        "1 slave is connected, on 1 machine"
    ]
    assert not looks


def test_of_a_master_that_is_stopped_the_doctor_says_so_and_refers_to_nobody(launch, group, names):  # noqa: F811
    launch.master(group, names).stop()
    line = failing(launch, group, names)
    assert "takes connections, but does not answer" in line
    assert "--doctor" not in line


def test_of_what_listens_in_the_place_of_a_name_server_the_doctor_does_not_say_that_it_is_missing(launch, group):  # noqa: F811
    with socket.create_server(("localhost", 0)) as silent:
        line = failing(launch, group, f"localhost:{silent.getsockname()[1]}")
    assert "though something listens there" in line
    assert "pyro5-ns" not in line
