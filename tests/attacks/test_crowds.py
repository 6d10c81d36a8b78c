"""Attacks by number and by size: rows 5 and 6."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import ssl
import struct
import threading
import time
import zlib
from pathlib import Path

import pytest

from papyros.distributed import security as security_module
from papyros.distributed.line import Line
from papyros.distributed.naming import ask_status, parse_address
from papyros.distributed.security import HANDSHAKE_SECONDS, Role
from tests.attacks.conftest import header, hears, own_address
from tests.faults import jobs
from tests.faults.test_remote_calls import process
from tests.support import PATIENCE, Background, at_most, security, wait_until

MB = 1 << 20
RESET = struct.pack("ii", 1, 0)

#: The first byte of those who want to encrypt.
TLS = b"\x16"


@pytest.fixture
def crowded():
    """Allow as many connections as the tests of a crowd need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 2500:
        pytest.skip(f"SKIPPED LOUDLY: no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Strangers who say nothing, or a byte at a time, or begin TLS; whoever is hung up on comes again."""

    def __init__(self, address, silent, dripping, encrypting):
        self._address = address
        self._closing = threading.Event()
        self.came = 0
        self._threads = [
            threading.Thread(target=self._be, args=(silent, b""), name="test-silent"),
            threading.Thread(target=self._be, args=(dripping, b"PAPYROS\n"), name="test-dripping"),
            threading.Thread(target=self._be, args=(encrypting, b""), kwargs={"first": TLS}, name="test-encrypting"),
        ]
        for thread in self._threads:
            thread.start()

    def _be(self, number, drops, first=b""):
        said = {}
        with selectors.DefaultSelector() as selector:
            while not self._closing.is_set():
                while len(said) < number and not self._closing.is_set():
                    sock = socket.create_connection(self._address)
                    selector.register(sock, selectors.EVENT_READ)
                    said[sock] = 0
                    with contextlib.suppress(OSError):
                        sock.send(first)
                    self.came += 1
                for key, _ in selector.select(0.05):
                    selector.unregister(key.fileobj)
                    said.pop(key.fileobj)
                    key.fileobj.close()
                for sock in said:
                    with contextlib.suppress(OSError):
                        sock.send(drops[said[sock] % 8 : said[sock] % 8 + 1] if drops else b"")
                        said[sock] += 1
            for sock in said:
                sock.close()

    def close(self):
        self._closing.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.alone
@pytest.mark.usefixtures("crowded")
def test_attack_05_a_thousand_silent_dripping_and_encrypting_strangers_keep_nobody_out(server, group):
    crowd = Crowd(server.address, 400, 400, 200)
    try:
        wait_until(lambda: crowd.came >= 1000, "a thousand strangers")
        host = group.host()
        assert host.wait_ready(PATIENCE)
        for turn in range(3):
            with at_most(HANDSHAKE_SECONDS):
                assert ask_status(server.uri, security()).slaves
            with at_most(2 * HANDSHAKE_SECONDS):
                client = group.client()
                assert process(client, [jobs.first(group.folder, f"crowd{turn}")]) == [f"'crowd{turn}'"]
    finally:
        crowd.close()
    wait_until(lambda: len(server._daemon._greeters) < 10, "an end to the strangers", 2 * HANDSHAKE_SECONDS)


def begin_tls(server, number):
    """Return so many strangers who have begun TLS, and say no more, once the server has noticed all of them."""
    strangers = [socket.create_connection(server.address) for _ in range(number)]
    for sock in strangers:
        sock.sendall(TLS)

    def all_begun():
        socks = [connection.sock for connection in list(server._daemon._strangers)]
        # A socket that was wrapped has no descriptor any more.
        return len(socks) == number and all(isinstance(sock, ssl.SSLSocket) or sock.fileno() < 0 for sock in socks)

    wait_until(all_begun, "strangers who have begun TLS")
    return strangers


def test_attack_05_strangers_who_begin_tls_make_room_like_all_others(server, monkeypatch):
    monkeypatch.setattr("papyros.distributed.daemon.HANDSHAKE_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr("papyros.distributed.daemon.MAX_STRANGERS", 20)
    strangers = begin_tls(server, 20)
    others = [socket.create_connection(server.address) for _ in range(20)]
    try:
        for sock in strangers:
            sock.settimeout(PATIENCE)
            assert hears_the_end(sock)
        wait_until(lambda: len(server._daemon._greeters) <= 20, "an end to the strangers")
        with at_most(HANDSHAKE_SECONDS):
            ask_status(server.uri, security())
    finally:
        for sock in strangers + others:
            sock.close()


def test_attack_05_strangers_who_begin_tls_do_not_hold_up_the_end(server, monkeypatch):
    monkeypatch.setattr("papyros.distributed.daemon.HANDSHAKE_SECONDS", 10 * PATIENCE)
    strangers = begin_tls(server, 20)
    try:
        with at_most(HANDSHAKE_SECONDS):
            server.close()
    finally:
        for sock in strangers:
            sock.close()


def hears_the_end(sock):
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.alone
def test_attack_05_silent_strangers_and_a_storm_of_resets_do_not_stop_the_loop_that_accepts(server, group):
    silent = [socket.create_connection(server.address) for _ in range(80)]
    try:
        for _ in range(500):
            sock = socket.create_connection(server.address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
        with at_most(HANDSHAKE_SECONDS):
            ask_status(server.uri, security())
    finally:
        for sock in silent:
            sock.close()


def test_attack_05_the_loop_that_accepts_outlives_a_lack_of_descriptors(server, monkeypatch):
    failures = [OSError(24, "Too many open files")] * 3
    accept = socket.socket.accept

    def scarce(sock):
        if failures:
            raise failures.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    with at_most(HANDSHAKE_SECONDS):
        ask_status(server.uri, security())
    assert not failures


def test_attack_05_who_drips_is_hung_up_on_when_the_time_for_all_of_it_is_over(server):
    started = time.monotonic()
    with socket.create_connection(server.address) as sock, contextlib.suppress(OSError):
        for byte in bytes(1000):
            sock.sendall(b"PAPYROS\n"[byte : byte + 1])
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                if sock.recv(1) == b"":
                    break
    assert time.monotonic() - started < HANDSHAKE_SECONDS + 3


@pytest.mark.parametrize("encrypted", [False, True], ids=["", "encrypted"])
def test_attack_05_who_is_hung_up_on_by_a_reset_tries_again(encrypted):
    """So the system says it where something has come that nobody reads any more."""
    address = own_address() if encrypted else "127.0.0.1"

    def serve():
        with listener.accept()[0] as sock:
            assert sock.recv(1, socket.MSG_PEEK)
        security().accept(listener.accept()[0], Role.MASTER, encrypted, time.monotonic() + PATIENCE)[0].close()

    with socket.create_server((address, 0)) as listener:
        served = Background(serve)
        security().connect(*listener.getsockname(), Role.CLIENT).close()
        served.result()


def test_attack_05_who_is_hung_up_on_before_a_word_tries_again(monkeypatch):
    about_to_speak, hung_up = threading.Event(), threading.Event()
    own = security_module._Greeting.own

    def speak(role, kind):
        if role is Role.CLIENT:
            about_to_speak.set()
            assert hung_up.wait(PATIENCE)
        return own(role, kind)

    def serve():
        with listener.accept()[0] as sock:
            assert about_to_speak.wait(PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        hung_up.set()
        security().accept(listener.accept()[0], Role.MASTER, False, time.monotonic() + PATIENCE)[0].close()

    monkeypatch.setattr(security_module._Greeting, "own", speak)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = Background(serve)
        security().connect(*listener.getsockname(), Role.CLIENT).close()
        served.result()


# Row 6 ----------------------------------------------------------------------------------

GB = 1 << 30


def frames():
    bomb = zlib.compress(bytes(200 * MB), 9)
    yield "a length of 1 GiB", header(4, length=GB)
    yield "a length of 4 GiB", header(4, length=4 * GB - 1)
    yield "4 GiB beside it", header(4, length=10, beside=4 * GB - 1)
    yield "both together 1 GiB", header(4, length=GB // 2, beside=GB // 2)
    yield "lengths that do not match", header(4, length=5, beside=30) + b"PAPY" + (99).to_bytes(4, "big") + bytes(27)
    yield "beside it less than a head", header(4, length=5, beside=3) + bytes(8)
    yield "a compressed bomb", header(4, flags=2, length=len(bomb)) + bomb
    yield "a deep nest", header(4, length=200_000) + b"[" * 200_000
    yield "a long number", header(4, length=200_000) + b"9" * 200_000
    yield "a batch", header(4, flags=8, length=2) + b"{}"
    yield "a call without an answer", header(4, flags=4, length=2) + b"{}"
    yield "another serializer", header(4, serializer=3, length=2) + b"{}"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("what", "frame"), [pytest.param(*pair, id=pair[0]) for pair in frames()])
def test_attack_06_lengths_and_bombs_take_no_memory(big_master, what, frame, known):
    address, pid = big_master
    before = resident(pid)
    sock = security().connect(*address, Role.CLIENT) if known else socket.create_connection(address)
    with sock, at_most(HANDSHAKE_SECONDS + 5):
        with contextlib.suppress(ConnectionError):
            sock.sendall(frame)
            sock.sendall(bytes(100_000))
        if what == "both together 1 GiB" and known:
            with contextlib.suppress(OSError):  # it may be quicker to hang up
                sock.shutdown(socket.SHUT_WR)
        hears(sock)
    assert resident(pid) - before < 50 * MB
    assert ask_status(f"PYRO:papyros.master@{address}", security()).clients == 0


@pytest.fixture(scope="module")
def _a_master(tmp_path_factory):
    import subprocess
    import sys

    program = (
        "from papyros.distributed.daemon import Daemon\n"
        "from papyros.distributed.service import MasterService\n"
        "from papyros.distributed.security import Role\n"
        "from tests.support import security\n"
        "daemon = Daemon('127.0.0.1', 0, security(), Role.MASTER, MasterService('big'))\n"
        "daemon.start(); print(daemon.port, flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as master:
        yield parse_address(f"127.0.0.1:{int(master.stdout.readline())}"), master.pid
        master.stdin.close()


@pytest.fixture
def standing(request):
    if "big_master" in request.fixturenames:
        request.getfixturevalue("_a_master")


@pytest.fixture
def big_master(_a_master):
    return _a_master


def resident(pid):
    """How much memory a process has, or had at most, in bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def test_attack_06_what_a_name_server_answers_is_bounded_too(monkeypatch):
    from papyros.distributed.naming import NameServer
    from papyros.errors import NameServerNotFoundError

    replies = {
        "too large": header(2, serializer=1, length=GB),
        "compressed": header(2, serializer=1, flags=2, length=10) + bytes(10),
        "marshal": header(2, serializer=3, length=10) + bytes(10),
        "noise": bytes(60),
    }
    for what, reply in replies.items():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=_reply, args=(listener, reply))
            thread.start()
            names = NameServer(parse_address(f"127.0.0.1:{listener.getsockname()[1]}"), security())
            with pytest.raises(NameServerNotFoundError):
                names.lookup("group")
            thread.join()
        assert what


def _reply(listener, reply):
    sock, _ = listener.accept()
    with sock, contextlib.suppress(ConnectionError):
        sock.recv(1000)
        sock.sendall(reply)


def test_attack_06_a_line_is_not_left_usable_by_an_answer_that_is_none():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            sock, _ = listener.accept()
            sock, _ = security().accept(sock, Role.MASTER, False, time.monotonic() + 5)
            with sock:
                sock.recv(1000)
                sock.sendall(header(5, length=4 * GB - 1))
                sock.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        with Line(f"PYRO:papyros.master@127.0.0.1:{listener.getsockname()[1]}", security(), Role.CLIENT) as line:
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    line.call("identify")
        thread.join()
