"""Attacks, row 7: mutated frames, before and after authentication.

``make fuzz`` sends 100,000; a run of all tests a tenth of them. What was sent
follows from the seed, which is shown when a test fails::

    PAPYROS_FUZZ_SEED=1234 PAPYROS_FUZZ_FRAMES=100000 python -m pytest tests/fuzz
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from papyros.distributed import security as frames
from papyros.distributed.batches import AddedJob, HostReport, JobOutcome, pack_added, pack_definitions, pack_report
from papyros.distributed.naming import ask_status
from papyros.distributed.security import Role
from papyros.frames import unpack_message
from papyros.terms import DEFAULT_TERMS
from tests.attacks.conftest import header
from tests.faults import jobs
from tests.faults.test_remote_calls import process
from tests.support import PATIENCE, security, wait_until

FRAMES = int(os.environ.get("PAPYROS_FUZZ_FRAMES", "10000"))
SEED = int(os.environ.get("PAPYROS_FUZZ_SEED", "20070512"))

#: So many frames go over one connection, as long as it lasts.
BURST = 50


class Fuzzer:
    """Makes frames of good ones: bits, lengths, cuts, repetitions and noise."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self._ways = (
            self._flip,
            self._set,
            self._length,
            self._cut,
            self._insert,
            self._repeat,
            self._append,
        )

    def mutate(self, frame):
        data = bytearray(frame)
        for _ in range(self.random.choice((1, 1, 2, 5))):
            if data:
                self.random.choice(self._ways)(data, self.random.randrange(len(data)))
        return bytes(data)

    def _flip(self, data, position):
        data[position] ^= 1 << self.random.randrange(8)

    def _set(self, data, position):
        data[position] = self.random.choice((0, 1, 127, 128, 255))

    def _length(self, data, position):
        data[position : position + 4] = self.random.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"))

    def _cut(self, data, position):
        del data[position : position + self.random.randrange(1, 40)]

    def _insert(self, data, position):
        data[position:position] = self.random.randbytes(self.random.randrange(1, 40))

    def _repeat(self, data, position):
        data[position:position] = data[: self.random.randrange(1, 60)]

    def _append(self, data, position):
        data += self.random.randbytes(self.random.randrange(1, 20))


def hellos(address):
    """Return good beginnings of conversations."""
    hello = frames._Greeting.own(Role.CLIENT, 0).pack() + frames._packed(address)
    yield hello + bytes(32)
    yield hello
    yield header(1, 1, length=20) + b"{'handshake':'hello'"
    yield bytes.fromhex("160301003f0100003b0303") + bytes(52)  # how a conversation in TLS begins
    yield b"PAPYROS\n\0\1"


def calls(uid):
    """Return good calls of clients and slave hosts, as bytes."""
    outcome = JobOutcome("fuzz", 1, b"R\x80\x05N.", 0.1, "h/1")
    report = pack_report(
        HostReport([outcome], [("fuzz", 1, "died")], [("fuzz", 1, "")], [("fuzz", 1, "h", "text")], [0], [True])
    )
    client = [
        ("identify", [], b""),
        ("status", [], b""),
        ("join", ["fuzz"], b""),
        ("define", ["fuzz", {bytes(16).hex(): "label"}], pack_definitions({bytes(16): b"definition"})),
        ("add", ["fuzz", 1, 0.0], pack_added([AddedJob(1, bytes(16), b"blob", DEFAULT_TERMS)])),
        ("collect", ["fuzz", 0, False, 0.0], b""),
        ("cancel", ["fuzz", False, 1], bytes(16)),
        ("drop", ["fuzz"], bytes(16)),
        ("leave", ["fuzz"], b""),
    ]
    host = [
        ("enlist", ["fuzzy", 1], b""),
        ("claim", ["fuzzy", [["fuzz", 1]], 1, [["fuzz", 2]]], b""),
        ("fetch", ["fuzzy", 0, 0, 0.0], b""),
        ("tell", ["fuzzy", 1, [["h/1", "fuzz", 1, 0.5, 0, True]]], b""),
        ("definitions", ["fuzzy"], pack_definitions({bytes(16): b""})),
        ("report", ["fuzzy", 1, uid, "a stay"], report),
        ("retire", ["fuzzy"], b""),
    ]
    return {Role.CLIENT: [call(*each) for each in client], Role.SLAVE_HOST: [call(*each) for each in host]}


def call(method, params, batch):
    content = json.dumps({"method": method, "params": params}).encode()
    beside = b"PAPY" + len(batch).to_bytes(4, "big") + batch if batch else b""
    return header(4, length=len(content), beside=len(beside)) + beside + content


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def threads():
    return sum(thread.name == "papyros-greeter" for thread in threading.enumerate())


@pytest.fixture
def fuzzed(group, capsys):
    """A master with a slave host and a client at work, all of which has to go on; nothing may be left."""
    server = group.master()
    server.register()
    assert group.host().wait_ready(PATIENCE)
    client = group.client()
    assert process(client, [jobs.first(group.folder, "before")]) == ["'before'"]
    before = descriptors(), threads()
    yield server
    print(f"PAPYROS_FUZZ_SEED={SEED} PAPYROS_FUZZ_FRAMES={FRAMES}")
    wait_until(
        lambda: descriptors() <= before[0] and threads() <= before[1], "an end to connections and their threads", 15
    )
    assert process(client, [jobs.first(group.folder, "after")]) == ["'after'"]
    assert ask_status(server.uri, security()).slaves
    desk = server.service._desk
    with desk.lock:
        for key in desk.clients.keys() - {client._key}:
            desk.drop_client(key)
        for key in [
            key for key, host in desk.hosts.items() if not host.seen or key not in {h._key for h in group._hosts}
        ]:
            desk.dismiss_host(key, "")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_attack_07_mutated_frames_of_strangers_do_no_harm(fuzzed):
    fuzzer = Fuzzer(SEED)
    good = list(hellos(fuzzed.address))
    for _ in range(FRAMES):
        frame = fuzzer.mutate(fuzzer.random.choice(good))
        with socket.create_connection(fuzzed.address) as sock, contextlib.suppress(OSError):
            sock.sendall(frame)
    assert ask_status(fuzzed.uri, security()).slaves


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_attack_07_mutated_frames_of_holders_of_the_key_do_no_harm(fuzzed):
    fuzzer = Fuzzer(SEED + 1)
    good = calls(fuzzed.service._uid)
    sent = 0
    while sent < FRAMES:
        role = fuzzer.random.choice((Role.CLIENT, Role.SLAVE_HOST))
        with security().connect(*fuzzed.address, role) as sock:
            sock.settimeout(1.0)
            for _ in range(BURST):
                frame = fuzzer.random.choice(good[role])
                if fuzzer.random.random() < 0.7:
                    frame = fuzzer.mutate(frame)
                    sent += 1
                try:
                    sock.sendall(frame)
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        if not sock.recv(1 << 16):
                            break
                    sock.settimeout(1.0)
                except OSError:
                    break
    assert ask_status(fuzzed.uri, security()).slaves


def test_attack_07_mutated_messages_of_batches_are_taken_apart_or_refused():
    """Without a network: what is no batch is an error of a kind that the daemon expects."""
    from papyros.distributed.batches import (
        HostJob,
        pack_host_jobs,
        pack_outcomes,
        unpack_added,
        unpack_definitions,
        unpack_host_jobs,
        unpack_outcomes,
        unpack_report,
    )

    fuzzer = Fuzzer(SEED + 2)
    outcome = JobOutcome("fuzz", 1, b"R\x80\x05N.", 0.1, "h/1")
    good = [
        (pack_added([AddedJob(n, bytes(16), b"blob", DEFAULT_TERMS) for n in range(3)]), unpack_added),
        (pack_host_jobs([HostJob("s", 1, bytes(16), b"blob", DEFAULT_TERMS)]), unpack_host_jobs),
        (bytes(unpack_message(pack_outcomes([outcome, outcome], b"[]"))[1]), unpack_outcomes),
        (pack_report(HostReport.empty()._replace(outcomes=[outcome])), unpack_report),
        (pack_definitions({bytes(16): b"x"}), unpack_definitions),
    ]
    started = time.monotonic()
    for _ in range(FRAMES):
        message, unpack = fuzzer.random.choice(good)
        with contextlib.suppress(Exception):  # of whatever kind: no crash, no hang
            unpack(memoryview(fuzzer.mutate(message)))
    assert time.monotonic() - started < FRAMES / 500
