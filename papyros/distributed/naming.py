"""The name server: finding and registering the master of a group.

What a name server says is a hint: whoever is found there has to answer, and to
say that it serves the group that was asked for.
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from Pyro5 import errors as pyro_errors
from Pyro5.core import URI

from papyros.distributed.asking import NotThereError, ask
from papyros.distributed.line import CallFailedError, Line, LineBrokenError, LineRefusedError, split_uri
from papyros.distributed.security import NotReachedError, Role, Security, is_loopback
from papyros.errors import (
    ClusterError,
    ConfigError,
    GroupNameError,
    GroupTakenError,
    KeyRefusedError,
    NameServerNotFoundError,
    PapyrosError,
    VersionMismatchError,
)
from papyros.logs import logger_of
from papyros.status import Status

__all__ = [
    "DEFAULT_GROUP",
    "DEFAULT_NAMESERVER",
    "LOOPBACK",
    "MASTER_OBJECT",
    "PROGRAM",
    "Address",
    "MasterUnreachedError",
    "MayReplace",
    "NameServer",
    "always",
    "ask_status",
    "check_group",
    "check_listening",
    "check_reachable",
    "is_here",
    "is_only_here",
    "never",
    "parse_address",
    "parse_uri",
    "start_command",
]

log = logger_of(__name__)

#: The group of those who name none.
DEFAULT_GROUP = "papyros"

#: What is called to start a part of a cluster.
PROGRAM = "python -m papyros.distributed"

#: Where Pyro5's name server listens when it is not told otherwise.
DEFAULT_NAMESERVER = "localhost:9090"

#: Where everything listens that is not told otherwise.
LOOPBACK = "127.0.0.1"

#: The identifiers of a master and of a name server in the addresses of theirs.
MASTER_OBJECT = "papyros.master"
NAMES_OBJECT = "Pyro.NameServer"

#: In what a name server of ours says to those who ask without a key.
ASKS_FOR_KEY = "asks for the key"

#: What a name server may refuse since there is no such name, or is one already. Else it has no reason to.
_REFUSABLE = ("lookup", "register")

_PREFIX = "papyros.master."
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^\s:\[\]/@]+))(?::(\d{1,5}))?")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)

#: How long the name server, or a registered master, may take to answer.
ANSWER_SECONDS = 3.0


#: Somebody else may register, and be gone, while a name is registered; nobody does so time and again.
REGISTER_TRIES = 10

#: Whether the master at a URI may be replaced, which does not answer: since nobody listens there, or, if the other
#: argument is true, as far as can be seen from here.
MayReplace = Callable[[str, bool], bool]


def always(_uri: str, _silent: bool) -> bool:
    """Let any master be replaced that does not answer: somebody has started another one."""
    return True


def never(_uri: str, _silent: bool) -> bool:
    """Let no master be replaced: whoever took a name just now is there, whether or not it can be reached from here."""
    return False


class MasterUnreachedError(ClusterError):
    """Whether a master is where it is registered cannot be seen from here."""


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int = 9090, what: str = "a name server") -> Address:
    """Return the address, of `what`, that ``HOST[:PORT]`` or ``[IPV6]:PORT`` names.

    Raises:
        ConfigError: it is no address.
    """
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None or not 0 < int(match[3] or default_port) < 65536:
        raise ConfigError(f"{text!r} is no address of {what}; write HOST or HOST:PORT, like lab1:9090, or [IPV6]:PORT")
    return Address(check_host(match[1] or match[2]), int(match[3] or default_port))


def check_host(host: str) -> str:
    """Return the name or address of a machine, or refuse what no machine can be called.

    Raises:
        ConfigError: the system could not even be asked for it.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigError(
            f"{ascii(host)[:80]} is no name of a machine: its parts, between dots, have 1 to 63 characters"
        ) from None
    return host


def start_command(group: str, nameserver: Address) -> str:
    """Return what starts a master of a group, and with ``--slaves`` slaves: to be told where there are none."""
    words = [PROGRAM]
    if group != DEFAULT_GROUP:
        words.append(f"--group={group}")
    if str(nameserver) != DEFAULT_NAMESERVER:
        words.append(f"--nameserver={nameserver}")
    return " ".join(words)


def check_group(group: str) -> str:
    """Return the name of a group, or refuse it.

    Raises:
        GroupNameError: it is not 1 to 63 letters, digits, dots, dashes or underscores, a letter or digit first.
    """
    if not isinstance(group, str) or not _GROUP.fullmatch(group):
        shown = ascii(group)[:80]
        raise GroupNameError(
            f"{shown} is no name of a group: use up to 63 letters, digits, '.', '-' or '_', "
            "and begin with a letter or a digit"
        )
    return group


def is_here(host: str) -> bool:
    """Whether a host is this machine, as far as this machine can tell."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, protocol, _, address in found:
        if is_loopback(str(address[0])):
            return True
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
        except OSError:
            continue
        return True
    return False


def parse_uri(uri: str) -> Address:
    """Return the address in the URI of a master.

    Raises:
        ClusterError: it is none.
    """
    try:
        return Address(*split_uri(uri))
    except ValueError as error:
        raise ClusterError(str(error)) from None


def check_reachable(uri: str, nameserver: Address) -> None:
    """Refuse the address of a master that only its own machine can reach, which is another one than this.

    Raises:
        ClusterError: so it is; the text says what to do there.
    """
    host = parse_uri(uri).host
    if is_only_here(host, nameserver):
        raise ClusterError(
            f"the master is registered as {host}, by which only its own machine can reach it, at a name server on "
            f"another machine, {nameserver}: start it with --host ADDRESS, an address that the others can reach"
        )


def is_only_here(host: str, nameserver: Address) -> bool:
    """Whether a host can be reached from its own machine only, though the name server tells others of it, too."""
    return _loopback_of(host) is not None and not is_here(nameserver.host)


def check_listening(host: str) -> str:
    """Return the name or address on which a part of a cluster is to listen, and which others are told.

    Raises:
        ConfigError: the system could not even be asked for it.
        ClusterError: it is a name by which this machine knows itself, where other machines do not.
    """
    check_host(host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        loopback = _loopback_of(host)
        if host in ("", "localhost") or loopback is None:
            return host
        raise ClusterError(
            f"on this machine {host!r} stands for {loopback}, which other machines cannot reach "
            "(often it is the file /etc/hosts that says so): write an address of this machine instead, which "
            "`ip address` or `ifconfig` shows; or leave --host out, if only this machine is to be served"
        ) from None
    return host


def _loopback_of(host: str) -> str | None:
    """Return the loopback address that a host stands for; None if it stands for another one, too, or for none."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    addresses = [str(address[0]) for *_, address in found]
    return addresses[0] if all(map(is_loopback, addresses)) else None


class NameServer:
    """A name server, asked over a connection of its own for each question.

    Pyro's own one is asked as anybody asks it; one of Papyros', which a local cluster has, wants the key.

    Args:
        address: where it is.
        security: what this side proves itself with, where that is asked for.
        keeps_line: whether a connection to one of Papyros' is kept for the next question, until `close`: to prove
            who one is costs more than all questions. Then only one thread at a time may ask.
    """

    def __init__(self, address: Address, security: Security, keeps_line: bool = False) -> None:
        self.address = address
        self._security = security
        self._asks_for_key = False
        self._keeps_line = keeps_line
        self._line: Line | None = None

    def close(self) -> None:
        """Close the connection, if one is kept; another question makes another one."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def lookup(self, group: str) -> str | None:
        """Return the URI that is registered for the master of a group, or None.

        Raises:
            NameServerNotFoundError: no name server answers.
            KeyRefusedError: it has another key.
            VersionMismatchError: it has a version that does not go with this one.
        """
        try:
            uri = self._ask("lookup", _PREFIX + group)
        except pyro_errors.NamingError:
            return None
        if not isinstance(uri, str | URI):
            raise self._absent("what it answers is no address")
        return str(uri)

    def groups(self) -> list[str]:
        """Return the groups that have a master registered; what is no name of a group is left out.

        Raises:
            NameServerNotFoundError, KeyRefusedError, VersionMismatchError: as `lookup`.
        """
        known = self._ask("list", _PREFIX)
        if not isinstance(known, dict):
            raise self._absent("what it answers are no names")
        names = (name.removeprefix(_PREFIX) for name in known if isinstance(name, str))
        return sorted(filter(_GROUP.fullmatch, names))

    def others(self, group: str) -> str:
        """Return the groups that have a master registered, but for this one, as a text; empty if there are none."""
        try:
            return ", ".join(other for other in self.groups() if other != group)
        except PapyrosError:
            return ""

    def register(self, group: str, uri: str, may_replace: MayReplace = always, over_hosted: bool = False) -> None:
        """Register the master of a group, in the place of one that does not answer any more.

        Args:
            group: which group.
            uri: where the master is.
            may_replace: whether one may be replaced that does not answer.
            over_hosted: whether one is replaced, too, that answers and is hosted by a client.

        Raises:
            NameServerNotFoundError: no name server answers.
            GroupTakenError: another master serves the group; the text says where.
            KeyRefusedError: who is registered has another key, so that nobody can say whether it serves the group; or
                the name server has.
            VersionMismatchError: who is registered has a version that does not go with this one; or the name server.
        """
        for _ in range(REGISTER_TRIES):
            try:
                self._ask("register", _PREFIX + group, uri, True)
                return
            except pyro_errors.NamingError:
                known = self.lookup(group)
            if known == uri:
                return
            if known is None:
                continue  # removed meanwhile
            self._check_gone(group, known, may_replace, over_hosted)
            self._remove_if(group, known)
        raise self._absent(f"somebody else took the name of the group {group!r} {REGISTER_TRIES} times")

    def _check_gone(self, group: str, known: str, may_replace: MayReplace, over_hosted: bool) -> None:
        """Refuse to replace who is registered, unless that may be."""
        silence = None
        try:
            answer = who_is(known, self._security)
        except LineRefusedError as error:
            raise _foreign(group, self.address, error) from error
        except MasterUnreachedError as error:
            answer, silence = None, error
        if answer is not None and answer.get("group") == group:
            if over_hosted and answer.get("hosted"):
                return
            raise GroupTakenError(
                f"the group {group!r} has a master already: {known}, "
                f"process {answer.get('pid')} on {answer.get('host')}; if that is a program which hosts it, as "
                "it found none, it ends with that: wait for it, or have programs host none (host_master=False)",
                known,
            )
        if not may_replace(known, silence is not None):
            reason = silence or f"the master that is registered, {known}, does not answer here"
            raise GroupTakenError(f"the group {group!r} may have a master already: {reason}", known)
        if silence is not None:
            log.warning("%s; its name is taken over", silence)

    def stay_registered(self, group: str, uri: str, hosted: bool = False) -> None:
        """Do what `register` does, of a master that is registered already, unless the name server has forgotten it.

        One that a client hosts gives way to any other. One that was started for the group goes before those: clients
        host them where it cannot be reached, which may be so for a single one.

        Raises:
            NameServerNotFoundError, GroupTakenError, KeyRefusedError, VersionMismatchError: as `register`.
        """
        if self.lookup(group) != uri:
            self.register(group, uri, never if hosted else always, over_hosted=not hosted)

    def unregister(self, group: str, uri: str) -> None:
        """Remove the name of a master, if it is still that master's.

        Raises:
            NameServerNotFoundError: no name server answers.
        """
        self._remove_if(group, uri)

    def _remove_if(self, group: str, uri: str) -> None:
        # Between the question and the answer somebody may register: nothing better is to be had of a name server.
        if self.lookup(group) == uri:
            self._ask("remove", _PREFIX + group)

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            if not self._asks_for_key:
                try:
                    return ask(*self.address, NAMES_OBJECT, method, args, ANSWER_SECONDS)
                except pyro_errors.CommunicationError as error:
                    if ASKS_FOR_KEY not in str(error):
                        raise
                    self._asks_for_key = True
            return self._ask_ours(method, args)
        except (KeyRefusedError, VersionMismatchError):
            raise
        except (pyro_errors.PyroError, OSError) as error:
            if isinstance(error, pyro_errors.NamingError) and method in _REFUSABLE:
                raise
            # Whoever listens there may be another one the next time.
            self._asks_for_key = False
            # The text says it all; a traceback of sockets above it would only hide that.
            raise self._absent(error) from None

    def _absent(self, why: object) -> NameServerNotFoundError:
        absent = f"no name server answers at {self.address} ({why})"
        if isinstance(why, NotThereError | LineBrokenError):
            absent += "; start one with pyro5-ns, or say where it is"
        else:  # that would find the port taken
            absent += (
                ", though something listens there: a name server that is stopped or overloaded, or some other program; "
                "see what it is, or say where the name server is"
            )
        return NameServerNotFoundError(f"{absent}: --nameserver HOST[:PORT], in a program nameserver='HOST[:PORT]'")

    def _ask_ours(self, method: str, args: tuple[Any, ...]) -> Any:
        line, self._line = self._line, None
        try:
            if line is not None:
                try:
                    return self._call(line, method, args)
                except CallFailedError:
                    raise
                except LineBrokenError:
                    pass  # it may have been started anew since it was last asked
            return self._call(self._connect(), method, args)
        except LineRefusedError as error:
            raise error.__cause__ or error from None
        except CallFailedError as error:
            if error.kind == pyro_errors.NamingError.__name__:
                raise pyro_errors.NamingError(str(error)) from error
            raise pyro_errors.CommunicationError(f"it raised: {error}") from error

    def _call(self, line: Line, method: str, args: tuple[Any, ...]) -> Any:
        try:
            return line.call(method, *args, timeout=ANSWER_SECONDS)[0]
        finally:
            if self._keeps_line and not line.broken:
                self._line = line
            else:
                line.close()

    def _connect(self) -> Line:
        uri = f"PYRO:{NAMES_OBJECT}@{self.address}"
        # Each question has a time of its own, so nobody need watch for silences.
        return Line(
            uri, self._security, Role.WATCHER, Role.NAME_SERVER, connect_timeout=ANSWER_SECONDS, silence=math.inf
        )


def _foreign(group: str, names: Address, error: LineRefusedError) -> Exception:
    text = f"at the name server {names}, somebody else is registered for the group {group!r}: {error}"
    if isinstance(error.__cause__, VersionMismatchError):
        return VersionMismatchError(text)
    return KeyRefusedError(f"{text}; or choose another name for the group: --group NAME")


def ask_status(uri: str, security: Security) -> Status:
    """Ask the master at a URI what it and its slaves do.

    Raises:
        LineBrokenError: it does not answer.
    """
    with Line(uri, security, Role.WATCHER, connect_timeout=ANSWER_SECONDS) as line:
        answer, _ = line.call("status", timeout=ANSWER_SECONDS)
    return Status.read(answer)


def who_is(uri: str, security: Security) -> dict[str, Any] | None:
    """Ask who answers at the URI of a master; None when nobody does.

    Raises:
        LineRefusedError: somebody does, with another key than this process, or another version.
        MasterUnreachedError: nobody can say; the text says why.
    """
    try:
        with Line(uri, security, Role.WATCHER, connect_timeout=ANSWER_SECONDS) as line:
            answer, _ = line.call("identify", timeout=ANSWER_SECONDS)
    except LineRefusedError:
        raise
    except LineBrokenError as error:
        # That nobody listens there, or somebody else, is known only where the machine itself says so.
        if isinstance(error.__cause__, NotReachedError | TimeoutError):
            raise MasterUnreachedError(
                f"the master that is registered, {uri}, cannot be reached from here: {error.__cause__}; --doctor tells "
                "more, and if that master is gone for good, another one may be started in its place"
            ) from error
        return None
    return answer if isinstance(answer, dict) else None
