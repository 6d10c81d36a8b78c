"""What a master says to its name server, again and again, costs little; and one that is started anew learns it.

What a name server answers is a hint: whoever listens there, and whatever that says, is told in words.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from Pyro5 import errors, protocol
from Pyro5.serializers import serializers

from papyros import KeyRefusedError, NameServerNotFoundError
from papyros.distributed import names as names_module
from papyros.distributed import naming
from papyros.distributed.daemon import Daemon
from papyros.distributed.keys import ClusterKey
from papyros.distributed.names import Names
from papyros.distributed.naming import REGISTER_TRIES, Address, NameServer
from papyros.distributed.security import Role, Security
from tests.distributed.programs import free_port
from tests.support import at_most, security

SERPENT = serializers["serpent"]

URI = "PYRO:papyros.master@127.0.0.1:4711"


@pytest.fixture
def made(monkeypatch):
    """The lines that are made to name servers."""
    lines = []

    class Line(naming.Line):
        def __init__(self, *args, **kwds):
            super().__init__(*args, **kwds)
            lines.append(self)

    monkeypatch.setattr(naming, "Line", Line)
    return lines


def name_server(port, proof=None):
    daemon = Daemon("127.0.0.1", port, proof or security(), Role.NAME_SERVER, Names())
    daemon.start()
    return daemon


def message(kind, number, said, flags=0, annotations=None):
    """What Pyro's name server sends."""
    return protocol.SendingMessage(kind, flags, number, SERPENT.serializer_id, said, annotations).data


WELCOME = message(protocol.MSG_CONNECTOK, 0, SERPENT.dumps({}))


@contextlib.contextmanager
def stranger(answer, flags=0):
    """Somebody without a key who answers one question as Pyro's name server does, but for what is said."""
    with saying([WELCOME], [message(protocol.MSG_RESULT, 1, answer, flags)]) as names:
        yield names


@contextlib.contextmanager
def saying(*answers):
    """Somebody who says this, piece by piece, each time that something is said to them."""

    def serve():
        sock, _ = listener.accept()
        with sock, contextlib.suppress(ConnectionError):
            for pieces in answers:
                sock.recv(4096)
                for piece in pieces:
                    sock.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield NameServer(Address(*listener.getsockname()), security())
        thread.join()


def test_a_master_stays_registered_over_one_line_also_when_the_name_server_is_another_one(made):
    daemon = name_server(free_port())
    address = Address("127.0.0.1", daemon.port)
    names = NameServer(address, security(), keeps_line=True)
    try:
        names.register("lab", URI)
        for _ in range(5):
            names.stay_registered("lab", URI)
        assert len(made) == 1
        daemon.close()
        with pytest.raises(NameServerNotFoundError):
            names.stay_registered("lab", URI)
        daemon = name_server(address.port)
        names.stay_registered("lab", URI)
        assert NameServer(address, security()).lookup("lab") == URI
        lines = len(made)
        daemon.close()
        daemon = name_server(address.port)
        names.stay_registered("lab", URI)  # nothing was asked in between, so the line broke under the question
        assert NameServer(address, security()).lookup("lab") == URI
        assert names.lookup("lab") == URI
        assert len(made) == lines + 2
    finally:
        names.close()
        daemon.close()
    assert all(line.broken for line in made)


def test_others_keep_no_line(made):
    daemon = name_server(free_port())
    try:
        names = NameServer(Address("127.0.0.1", daemon.port), security())
        names.register("lab", URI)
        assert names.lookup("lab") == URI
        assert len(made) == 2
        assert all(line.broken for line in made)
    finally:
        daemon.close()


#: What a stranger may answer: no Python, too much of it, and what makes no sense where an address is expected.
NONSENSE = {
    "no text": b"\xff\xfe",
    "no literal": b"not python (",
    "nested": b"(" * 20_000,
    "a call": b"foo(1)",
    "a number": b"5",
    "nothing": b"None",
    "a list": b"['PYRO:papyros.master@127.0.0.1:4711']",
    "no class of Pyro's": b"{'__class__':'Pyro5.server.Daemon'}",
    "half an address": b"{'__class__':'Pyro5.core.URI','state':('PYRO',)}",
    "an address of wrong parts": b"{'__class__':'Pyro5.core.URI','state':('PYRO',5,None,'127.0.0.1',4711)}",
}


@pytest.mark.parametrize("what", NONSENSE)
@pytest.mark.parametrize("question", ["lookup", "groups", "others"])
def test_nonsense_from_the_port_of_a_name_server_is_told_as_a_name_server_that_is_not_there(question, what):
    """It would end each slave host and each client that seeks a master there, as a bug in Papyros."""
    with stranger(NONSENSE[what]) as names:
        if question == "others":
            assert names.others("lab") == ""
            return
        ask = names.groups if question == "groups" else lambda: names.lookup("lab")
        with pytest.raises(NameServerNotFoundError, match="what it answers") as caught:
            ask()
        assert str(names.address) in str(caught.value)


@pytest.mark.parametrize("what", ["greeting", "answer"])
def test_an_annotation_whose_name_is_no_text_is_told_in_words(what):
    """It would end masters, slave hosts and clients, whoever had taken the port of their name server."""
    sent = {
        "greeting": [message(protocol.MSG_CONNECTOK, 0, b"", annotations={"NAME": b""})],
        "answer": [WELCOME, message(protocol.MSG_RESULT, 1, b"''", annotations={"NAME": b""})],
    }[what]
    spoilt = [[each.replace(b"NAME", b"\xff" * 4)] for each in sent]
    with saying(*spoilt) as names, pytest.raises(NameServerNotFoundError, match="no message"):
        names.lookup("lab")


def test_who_answers_a_byte_at_a_time_is_not_waited_for_longer_than_others(monkeypatch):
    monkeypatch.setattr(naming, "ANSWER_SECONDS", 0.3)

    def drip():
        """So that each byte comes in time, and all of them in ten seconds."""
        yield WELCOME.replace(len(SERPENT.dumps({})).to_bytes(4, "big"), (1000).to_bytes(4, "big"), 1)
        for _ in range(100):
            time.sleep(0.1)
            yield b"x"

    with saying(drip()) as names, at_most(5.0), pytest.raises(NameServerNotFoundError, match=r"too long|timed out"):
        names.lookup("lab")


def test_a_stranger_who_refuses_what_cannot_be_refused_is_told_as_one():
    refusal = SERPENT.dumps(errors.NamingError("no"))
    answers = [WELCOME], [message(protocol.MSG_RESULT, 1, refusal, protocol.FLAGS_EXCEPTION)]
    with saying(*answers) as names, pytest.raises(NameServerNotFoundError, match="NamingError"):
        names.groups()


def test_an_exception_of_a_stranger_is_told_though_it_is_one_that_cannot_be_shown():
    broken = b"{'__class__':'UnicodeTranslateError','__exception__':True,'args':('x',0,1,''),'attributes':{'object':5}}"
    told = pytest.raises(NameServerNotFoundError, match="it raised: UnicodeTranslateError")
    with stranger(broken, protocol.FLAGS_EXCEPTION) as names, told:
        names.lookup("lab")


def test_what_is_no_name_of_a_group_is_left_out_whatever_it_is():
    known = b"{'papyros.master.lab': 'x', 5: 'x', ('papyros.master.a',): 'x', 'papyros.master.-': 'x', 'pyro': 'x'}"
    with stranger(known) as names:
        assert names.groups() == ["lab", "pyro"]


def test_a_name_server_with_another_key_is_told_as_that():
    other = Security(ClusterKey(b"another key, just as long as one", "somewhere else"))
    daemon = name_server(0, other)
    try:
        names = NameServer(Address("127.0.0.1", daemon.port), security())
        for ask in (lambda: names.lookup("lab"), names.groups, lambda: names.register("lab", URI)):
            with pytest.raises(KeyRefusedError):
                ask()
        assert names.others("lab") == "", "it is only a hint for people, in the words of another error"
    finally:
        daemon.close()


class Refusing(NameServer):
    """Asks a name server that takes no name, and knows none; counts the questions."""

    def __init__(self):
        super().__init__(Address("127.0.0.1", 1), security())
        self.registered = 0

    def _ask(self, method, *args):
        if method == "register":
            self.registered += 1
            assert self.registered <= 2 * REGISTER_TRIES, "there is no end to it"
        raise errors.NamingError(f"no {method}")


def test_a_name_that_is_refused_each_time_is_not_asked_for_again_and_again():
    names = Refusing()
    with pytest.raises(NameServerNotFoundError, match=f"{REGISTER_TRIES} times"):
        names.register("lab", URI)
    assert names.registered == REGISTER_TRIES


def test_a_name_server_that_is_full_says_so_at_once(monkeypatch, made):
    monkeypatch.setattr(names_module, "MOST_NAMES", 1)
    daemon = name_server(0)
    try:
        names = NameServer(Address("127.0.0.1", daemon.port), security())
        names.register("lab", URI)
        lines = len(made)
        with pytest.raises(NameServerNotFoundError, match="no more than 1 names"):
            names.register("another", URI)
        assert len(made) == lines + 1
    finally:
        daemon.close()


def test_what_listens_in_the_place_of_a_name_server_is_told_of_where_one_that_is_missing_would_be_started(monkeypatch):
    monkeypatch.setattr(naming, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(NameServerNotFoundError, match="though something listens there") as caught:
            NameServer(address, security()).lookup("lab")
    assert "pyro5-ns" not in str(caught.value)
    with pytest.raises(NameServerNotFoundError, match="start one with pyro5-ns"):
        NameServer(address, security()).lookup("lab")
