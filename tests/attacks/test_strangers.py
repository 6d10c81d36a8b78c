"""Attacks of those who have no key, or another one: rows 1 to 4."""

from __future__ import annotations

import contextlib
import json
import logging
import marshal
import socket
import threading
import time

import Pyro5.server
import pytest
from Pyro5.serializers import serializers

import papyros
from papyros.distributed import DistributedMaster
from papyros.distributed import messages as wire_messages
from papyros.distributed.daemon import Daemon, offer
from papyros.distributed.line import CallFailedError, Line, LineRefusedError
from papyros.distributed.names import Names
from papyros.distributed.naming import MASTER_OBJECT, NameServer, ask_status
from papyros.distributed.security import Role
from tests.attacks.conftest import SERIALIZERS, header, hears, own_address, stranger
from tests.faults import jobs
from tests.faults.test_remote_calls import process
from tests.faults.wire import Wire
from tests.support import PATIENCE, security, wait_until


class Watched:
    """Notes whether anything is deserialized."""

    def __init__(self, monkeypatch):
        self.calls = []
        for serializer in {id(one): one for one in serializers.values()}.values():
            for name in ("loads", "loadsCall"):
                monkeypatch.setattr(serializer, name, lambda *_, n=name: self.calls.append(n), raising=False)
        self._json = json.loads
        monkeypatch.setattr(wire_messages.json, "loads", self._loads)
        decode = wire_messages._decode
        monkeypatch.setattr(wire_messages, "_decode", lambda text: self.calls.append("messages") or decode(text))

    def _loads(self, data, *args, **options):
        if threading.current_thread().name in ("papyros-greeter", "papyros-switchboard"):
            self.calls.append("json.loads")
        return self._json(data, *args, **options)


@pytest.mark.parametrize("kind", [1, 4, 6, 9])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_attack_01_without_the_key_nothing_is_deserialized(server, monkeypatch, serializer, kind):
    watched = Watched(monkeypatch)
    body = marshal.dumps({"handshake": "hello", "object": MASTER_OBJECT})
    with socket.create_connection(server.address) as sock:
        sock.sendall(header(kind, SERIALIZERS[serializer], length=len(body)) + body)
        heard = hears(sock)
    assert b"asks for the key of its cluster" in heard
    assert not watched.calls


@pytest.mark.parametrize(
    "what", [b"GET / HTTP/1.1\r\n\r\n", bytes(500), b"PAPYROS\n", b"PAPYROS\n\0\1" + bytes(78), b"P"]
)
def test_attack_01_other_noise_is_not_answered_with_more_than_a_proof(server, what):
    with socket.create_connection(server.address) as sock:
        sock.sendall(what)
        with contextlib.suppress(OSError):  # it may have been hung up on already
            sock.shutdown(socket.SHUT_WR)
        assert len(hears(sock)) <= 200
    assert ask_status(server.uri, security()).clients == 0


@pytest.mark.parametrize("encrypted", [False, True])
def test_attack_02_another_key_is_refused_and_both_sides_say_so(encrypted, caplog):
    daemon = Daemon(own_address() if encrypted else "127.0.0.1", 0, security(), Role.NAME_SERVER, Names())
    daemon.start()
    try:
        uri = f"PYRO:Pyro.NameServer@{daemon.address}:{daemon.port}"
        with caplog.at_level(logging.WARNING), pytest.raises(LineRefusedError) as caught:
            Line(uri, stranger(), Role.CLIENT, Role.NAME_SERVER)
        wait_until(lambda: "a connection was refused" in caplog.text, "a word at the other side")
    finally:
        daemon.close()
    for text, own in ((str(caught.value), stranger()), (caplog.text, security())):
        assert "have different keys" in text
        assert own.key.fingerprint in text
        assert "copy the key file" in text
    assert isinstance(caught.value.__cause__, papyros.KeyRefusedError)


def test_attack_02_a_client_and_a_slave_host_are_told_that_their_key_is_another(server, group, launch, tmp_path):
    other = tmp_path / "other.key"
    other.write_text("papyros-key-1:" + "A" * 43 + "=\n")
    other.chmod(0o600)
    with pytest.raises(papyros.KeyRefusedError, match="have different keys"):
        DistributedMaster(group.name, str(group.names), key_file=other)
    host = launch.part(
        f"--group={group.name}", f"--nameserver={group.names}", "--slaves=1", f"--key-file={other}", name="host"
    )
    host.wait_for("have different keys")
    assert not server.service._desk.hosts


# Row 3 ----------------------------------------------------------------------------------


class _Recorder(socket.socket):
    """Records what is sent."""

    sent = b""

    def sendall(self, data, *flags):
        self.sent += data
        super().sendall(data, *flags)


def test_attack_03_a_handshake_that_is_replayed_is_refused(server, monkeypatch):
    recorders = []

    def connect(address, timeout=None):
        sock = _Recorder()
        sock.settimeout(timeout)
        sock.connect(address)
        recorders.append(sock)
        return sock

    monkeypatch.setattr(socket, "create_connection", connect)
    with Line(server.uri, security(), Role.CLIENT) as line:
        assert line.call("identify")[0]["group"]
        spoken = recorders[0].sent
    monkeypatch.undo()
    with socket.create_connection(server.address) as sock:
        sock.sendall(spoken)  # hello, proof, and the call
        heard = hears(sock)
    assert 0 < len(heard) <= 150, "a reply and a proof, and no answer to the call"


def test_attack_03_what_a_master_says_proves_nothing_when_it_is_sent_back(server):
    with socket.create_connection(server.address) as attacker, socket.create_connection(server.address) as other:
        # A hello of the attacker's own; the proof that comes is sent back as the attacker's.
        from papyros.distributed import security as frames

        hello = frames._Greeting.own(Role.CLIENT, 0).pack() + frames._packed(server.address)
        attacker.sendall(hello)
        reply = frames._receive(attacker, frames._REPLY_BYTES, time.monotonic() + 5)
        proof = frames._receive(attacker, 32, time.monotonic() + 5)
        attacker.sendall(proof)
        assert hears(attacker) == b""
        # The master's own frame is no hello, either: roles are bound.
        other.sendall(reply + frames._packed(server.address) + proof)
        assert len(hears(other)) <= 150


def test_attack_03_encryption_cannot_be_stripped(monkeypatch):
    address = own_address()
    daemon = Daemon(address, 0, security(), Role.NAME_SERVER, Names())
    daemon.start()
    try:
        from papyros.distributed import security as frames

        # Whoever speaks without it is not answered.
        with socket.create_connection((address, daemon.port)) as sock:
            sock.sendall(frames._Greeting.own(Role.CLIENT, 0).pack() + frames._packed((address, daemon.port)))
            heard = hears(sock)
            assert frames._Greeting.unpack(heard).kind == frames._ASKS_FOR_TLS
            assert len(heard) == frames._REPLY_BYTES
    finally:
        daemon.close()
    # And a client begins with it, whatever the other side would like.
    with socket.create_server((address, 0)) as listener:
        thread = threading.Thread(target=_try, args=(address, listener.getsockname()[1]))
        thread.start()
        near, _ = listener.accept()
        with near:
            near.settimeout(5)
            assert near.recv(1) == b"\x16"
            near.sendall(frames._Greeting.own(Role.MASTER, frames._ASKS_FOR_TLS).pack())
        thread.join()


def _try(address, port):
    with pytest.raises(OSError):
        security().connect(address, port, Role.CLIENT, timeout=2.0)


def test_attack_03_somebody_between_on_this_machine_sees_nothing(server, monkeypatch):
    wire = Wire("127.0.0.1", server.address.port)
    seen = []
    forward = socket.socket.sendall
    monkeypatch.setattr(socket.socket, "sendall", lambda sock, data: (seen.append(bytes(data)), forward(sock, data))[1])
    try:
        uri = f"{server.uri.rpartition(':')[0]}:{wire.port}"
        with Line(uri, security(), Role.CLIENT) as line:
            assert line.call("join", "somebody-with-a-known-name")[0]["known"]
            line.call("leave", "somebody-with-a-known-name")
    finally:
        wire.close()
    assert seen
    assert not any(b"known-name" in data for data in seen)


# Row 4 ----------------------------------------------------------------------------------


class Rogue:
    """Says that it is the master of any group, and notes what it is asked."""

    def __init__(self, group):
        self.group = group
        self.asked = []

    @offer(*Role)
    def identify(self):
        self.asked.append("identify")
        return {"group": self.group, "uid": "0", "host": "here", "pid": 1}

    @offer(*Role)
    def join(self, key):
        self.asked.append("join")
        return {"known": True, "stay": "x", "patience": 1, "lease": 1}

    @offer(*Role)
    def enlist(self, key, slaves):
        self.asked.append("enlist")
        return {"known": True, "stay": "x", "uid": "0", "patience": 1, "lease": 1}


@Pyro5.server.expose
class StockRogue:
    """The same, on a daemon of Pyro's that takes everybody."""

    def __init__(self):
        self.asked = []

    def identify(self):
        self.asked.append("identify")
        return {"group": "any"}


def test_attack_04_a_rogue_master_with_another_key_gets_no_job_and_gives_none(server, group, caplog):
    rogue = Rogue(group.name)
    daemon = Daemon("127.0.0.1", 0, stranger(), Role.MASTER, rogue)
    daemon.start()
    try:
        hijack(group, server, f"PYRO:{MASTER_OBJECT}@127.0.0.1:{daemon.port}")
        with caplog.at_level(logging.INFO, "papyros"):
            host = group.host()
            with pytest.raises(papyros.KeyRefusedError):
                DistributedMaster(group.name, str(group.names))
            wait_until(lambda: "waiting for a master of the group" in caplog.text, "the host to have met it")
        assert host._crew.wait_ready(PATIENCE), "it is no slave that it lacks"
        assert not host.wait_ready(0)
        assert rogue.asked == []
    finally:
        daemon.close()


def test_attack_04_a_rogue_master_on_pyros_own_daemon_gets_no_job_and_gives_none(server, group):
    rogue = StockRogue()
    with Pyro5.server.Daemon("127.0.0.1") as daemon:
        hijack(group, server, str(daemon.register(rogue, MASTER_OBJECT)))
        thread = threading.Thread(target=daemon.requestLoop, daemon=True)
        thread.start()
        with pytest.raises(papyros.MasterNotFoundError):
            DistributedMaster(group.name, str(group.names), host_master=False)
        assert rogue.asked == []
        daemon.shutdown()
        thread.join()


def test_attack_04_those_who_are_connected_go_on_when_the_name_is_taken(server, group):
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    rogue = Rogue(group.name)
    daemon = Daemon("127.0.0.1", 0, stranger(), Role.MASTER, rogue)
    daemon.start()
    try:
        hijack(group, server, f"PYRO:{MASTER_OBJECT}@127.0.0.1:{daemon.port}", keep=True)
        assert process(client, [jobs.first(group.folder, "on")]) == ["'on'"]
    finally:
        daemon.close()


def hijack(group, server, uri, keep=False):
    """Put another address into the name server, as anybody can who reaches Pyro's own."""
    if not keep:
        server._names.stay_registered = lambda *_: None
    names = NameServer(group.names, security())
    names._ask("register", f"papyros.master.{group.name}", uri, False)


# Roles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "method"),
    [
        (Role.CLIENT, "fetch"),
        (Role.CLIENT, "report"),
        (Role.SLAVE_HOST, "add"),
        (Role.WATCHER, "join"),
        (Role.WATCHER, "enlist"),
    ],
)
def test_attack_04_a_role_may_do_what_is_its_own_only(server, role, method):
    with Line(server.uri, security(), role) as line:
        with pytest.raises(CallFailedError, match="may not call"):
            line.call(method, "somebody", 1, 1, 1)
        for name in ("sweep", "close", "__init__", "_desk", "identify.__call__", "get_metadata"):
            with pytest.raises(CallFailedError, match="may not call"):
                line.call(name)
        assert line.call("identify")[0]["group"]
