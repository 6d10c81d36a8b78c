"""Crews and slaves, and the parts of a cluster, have the same Papyros, or say in words that they do not."""

from __future__ import annotations

import inspect
import json
import os
import struct
import subprocess
import sys
from array import array
from hashlib import blake2b

import pytest

from papyros import bundles, encoded, process, protocol
from papyros.distributed import batches, daemon, messages, security
from papyros.distributed.service import MasterService
from papyros.frames import pack_frame
from papyros.process import SlaveProcess
from papyros.protocol import spoken
from papyros.screen import Screen
from papyros.slate import Slate
from papyros.slave import PROGRAM
from papyros.tasks import CrewOptions
from papyros.terms import Terms


def test_a_slave_of_another_papyros_than_its_crew_ends_in_words():
    command = [sys.executable, "-c", PROGRAM, "0", "0", "0", str(os.getpid()), "0.9/7"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "0.9/7: Papyros was exchanged while it ran; start that program again" in ended.stderr
    assert spoken() in ended.stderr


#: Of what a crew and its slaves say to each other: the number, and the digest of `crews_and_slaves`.
WORDS = (3, "dedbbd96eee4a91d")

#: Of what the parts of a cluster say to each other: the number, and the digest of `cluster`.
PROTOCOL = (3, "a9143f5f7d9030e8")

CHANGED = """
What {who} say to each other has changed. Those of another Papyros would misunderstand it, and are to say so in words:
raise {number} (once between two releases is enough),
and record it in this file with its new digest, {digest!r}.

This is what they say:

{words}
"""

#: One of each kind of payload has terms, a blob, and a seal that tell all columns apart.
TERMS = Terms(1, 2.5, 3, 0.25, once=True, echo=True, jobs=7, deaths=2)
DIGEST, BLOB, TICKET, SEAL = b"d" * 16, b"blob", b"t" * 8, b"s" * 28


def constants(module, kinds=(bytes, int, struct.Struct, frozenset)):
    """The words that a module defines, by their names."""
    for name, value in sorted(vars(module).items()):
        if name.isupper() and isinstance(value, kinds) and not isinstance(value, bool):
            value = value.format if isinstance(value, struct.Struct) else value
            yield f"{name} = {sorted(value) if isinstance(value, frozenset) else value!r}"


def hello_of(monkeypatch):
    """What a slave is told first."""
    told = {}

    def note(kind, number, blobs):
        if kind == protocol.HELLO:
            told.update(json.loads(blobs[0]))
        return pack_frame(kind, number, blobs)

    monkeypatch.setattr(process, "pack_frame", note)
    slave = SlaveProcess(CrewOptions(1, []), Screen())
    slave.bury()
    return sorted(told)


def letters():
    """The kinds of outcomes, and of what is told of bundles."""
    for module in (encoded, bundles):
        yield from (line for line in constants(module, bytes) if line.endswith("'") and len(line.split(" = ")[1]) == 4)
    yield f"bundle {bundles.pack_bundle([BLOB, b'another'])!r}"
    yield f"told of it {bundles.outcomes(3, array('d', [0.5]), [b'R1'], True)!r}"
    yield f"cut off {bundles.cut_off(3)!r}"
    yield f"lost {encoded.encode_lost('why')!r}"


def crews_and_slaves(monkeypatch):
    """What a crew and its slaves say to each other, as far as it can be seen without a conversation."""
    slate = bytearray(64)
    Slate(slate).start(5, 0.5, 3)
    Slate(slate).finish(4, 0.25)
    yield from (line for line in constants(protocol) if not line.startswith("WORDS"))
    yield f"hello {hello_of(monkeypatch)}"
    yield f"frame {b''.join(pack_frame(protocol.JOBS, 2, [BLOB, b'another']))!r}"
    yield f"slate {bytes(slate)!r}"
    yield from letters()


def cluster():
    """What the parts of a cluster say to each other, but for the names in what masters answer."""
    yield from (line for line in constants(security) if line.startswith(("MAGIC", "_")))
    yield from (f"{role.name} = {role.value}" for role in security.Role)
    yield from (line for line in constants(messages) if line.startswith(("ANNOTATION", "_HEADER", "_CHUNK")))
    for name, method in inspect.getmembers(MasterService, callable):
        roles = getattr(method, daemon._OFFER, None)
        if roles is not None:
            names = [str(each.replace(annotation=each.empty)) for each in inspect.signature(method).parameters.values()]
            yield f"{name}({', '.join(names[1:])}) for {', '.join(role.name for role in sorted(roles))}"
    yield f"added {batches.pack_added([batches.AddedJob(5, DIGEST, BLOB, TERMS, SEAL)])!r}"
    yield f"for a host {batches.pack_host_jobs([batches.HostJob('session', 5, DIGEST, BLOB, TERMS, SEAL)])!r}"
    outcome = batches.JobOutcome("session", 5, b"R1", 0.5, "slave", TICKET, SEAL)
    report = batches.HostReport(
        [outcome], [("session", 6, "death")], [("session", 7, "why")], [("session", 8, "slave", "text")], [1], [True]
    )
    yield f"outcomes {batches.pack_outcomes([outcome], b'beside')!r}"
    yield f"report {batches.pack_report(report)!r}"
    yield f"definitions {batches.pack_definitions({DIGEST: BLOB})!r}"
    yield f"numbers {batches.pack_numbers([1, 2])!r}"
    yield from letters()


def told_of(lines, recorded, number, name, who):
    words = "\n".join(lines)
    digest = blake2b(words.encode(), digest_size=8).hexdigest()
    if (number, digest) != recorded:
        pytest.fail(CHANGED.format(who=who, number=name, digest=digest, words=words), pytrace=False)


def test_who_changes_what_crews_and_slaves_say_raises_its_number(monkeypatch):
    told_of(crews_and_slaves(monkeypatch), WORDS, protocol.WORDS, "papyros.protocol.WORDS", "a crew and its slaves")


def test_who_changes_what_the_parts_of_a_cluster_say_raises_its_number():
    name = "papyros.distributed.security.PROTOCOL"
    told_of(cluster(), PROTOCOL, security.PROTOCOL, name, "the parts of a cluster")
