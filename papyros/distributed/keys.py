"""The cluster key: where its file is, how one is made, and what a key is for.

Whoever holds the key of a cluster is of it, and nobody else. A key is 32 random
bytes, made on first use in a file that only its owner can read; other machines
get a copy of that file. A file may hold a passphrase instead.

No more than this module sees the secret itself. Others `derive` from it what they
need, each for one purpose, and nothing that shows a key shows the secret.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from papyros.errors import KeyFileError

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ENVIRONMENT",
    "ClusterKey",
    "NoPlaceForKeyError",
    "default_key_file",
    "find_key",
    "make_key_file",
    "read_key_file",
    "tell_fresh",
]

#: The environment variable that names a key file.
ENVIRONMENT = "PAPYROS_KEY_FILE"

#: What to do where the user's configuration folder is no place for a key.
_ANOTHER_PLACE = (
    f"name another place for it: {ENVIRONMENT}=FILE, with a file that python -m papyros.distributed --new-key FILE made"
)

_PREFIX = "papyros-key-1:"
_SECRET_BYTES = 32
_MAX_FILE_BYTES = 4096

#: A passphrase is so long, and has so many different characters, at least.
PASSPHRASE_LENGTH, PASSPHRASE_VARIETY = 20, 8

#: What stretching a passphrase costs: 64 MB and some tenths of a second. Each machine has to come to the same key,
#: so the salt cannot be a random one.
_SCRYPT = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 1 << 27, "dklen": _SECRET_BYTES}
_SALT = b"papyros passphrase 1"


class NoPlaceForKeyError(KeyFileError):
    """There is no key, and the folder where this user's should be cannot be written to, or is not known."""


class ClusterKey:
    """A key. It can be compared and derived from, and neither printed nor pickled.

    Args:
        secret: the bytes of it.
        source: where it comes from, in words for people.
        fresh: whether it was made just now.
    """

    __slots__ = ("_secret", "fresh", "source")

    def __init__(self, secret: bytes, source: str, fresh: bool = False) -> None:
        self._secret = secret
        self.source = source
        self.fresh = fresh

    def derive(self, purpose: str, *context: bytes) -> bytes:
        """Return 32 bytes that only holders of the key can come to, others for each purpose and context."""
        # One step of HKDF (RFC 5869): the secret is uniformly random already, or was stretched.
        parts = [purpose.encode(), *context]
        info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, b"papyros 1 " + info, "sha256")

    def hand_over(self) -> str:
        """Return the key for a process that this one has started, to be told over a socket that nobody else has."""
        return self._secret.hex()

    @classmethod
    def handed_over(cls, told: str, source: str) -> Self:
        """Return the key that was handed over."""
        return cls(bytes.fromhex(told), source)

    @property
    def fingerprint(self) -> str:
        """What may be shown of the key, to compare it with another one."""
        return ":".join(re.findall("....", self.derive("fingerprint").hex()[:24]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClusterKey) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<ClusterKey {self.fingerprint} of {self.source}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the key of a cluster cannot be pickled; copy its file instead")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


# Where keys are --------------------------------------------------------------------------


def default_key_file() -> Path:
    """Return where the key is of those who name none: in the user's configuration folder.

    Raises:
        NoPlaceForKeyError: the user has none.
    """
    try:
        if sys.platform == "darwin":
            folder = Path.home() / "Library" / "Application Support"
        elif sys.platform == "win32":
            folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
        else:
            named = os.environ.get("XDG_CONFIG_HOME", "")
            folder = Path(named) if os.path.isabs(named) else Path.home() / ".config"
    except RuntimeError:  # as in a container that is run under a number
        raise NoPlaceForKeyError(f"this user has no home folder, where its key would be; {_ANOTHER_PLACE}") from None
    return folder / "papyros" / "key"


def tell_fresh(key: ClusterKey) -> str:
    """Return what is to be known of a key that was made just now."""
    return (
        f"a key was made for this cluster, {key.source}; its other machines, and other users of this one, "
        "need a copy of that file"
    )


def find_key(named: str | os.PathLike[str] | None = None, make: bool = True, here: bool = False) -> ClusterKey:
    """Return the key of this user's cluster.

    Args:
        named: its file; else the one that the environment names, else the default one.
        make: whether to make the default one where there is none.
        here: whether the cluster should be on this machine, as far as is known.

    Raises:
        NoPlaceForKeyError: there is no default one, and none can be made, or there is no place for it.
        KeyFileError: there is no such file, or it is not fit to hold a key; the text says how to mend it.
    """
    chosen = named if named is not None else os.environ.get(ENVIRONMENT)
    if chosen is not None:
        return read_key_file(_named(chosen))
    path = default_key_file()
    if not _is_there(path):
        if not make:
            raise _no_key(path, here)
        with contextlib.suppress(FileExistsError):  # else somebody was quicker, and that key is the one
            made = _make_default(path)
            return ClusterKey(made._secret, made.source, fresh=True)
    return read_key_file(path)


def _is_there(path: Path) -> bool:
    """Whether there is a file, or may be one: who reads it says why that cannot be."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _no_key(path: Path, here: bool) -> KeyFileError:
    copy = (
        f"copy its key file to {_shown(path)}, for example with scp -p (there it is {_shown(path)}, too, unless it was "
        f"put elsewhere), or say where it is: --key-file FILE, {ENVIRONMENT}=FILE, in a program key_file='FILE'"
    )
    if here:
        return KeyFileError(
            "there is no key on this machine yet, since you have started nothing of Papyros here; to start a master, "
            f"with a key for it: python -m papyros.distributed. If there is a cluster, but with another user, or with "
            f"--nameserver HOST, on other machines: {copy}"
        )
    return KeyFileError(
        f"there is no key on this machine yet that is yours. If there is a cluster: {copy}. If there is none yet, "
        "start its first part on the machine of the name server, which makes a key: python -m papyros.distributed"
    )


def _named(chosen: str | os.PathLike[str]) -> Path:
    """Return the path of a key file that somebody has named; an empty name is a mistake, and not the default one."""
    if os.fspath(chosen) in ("", "."):  # which is what a Path makes of ""
        raise KeyFileError(
            f"the name of the key file is empty; write which file it is, or leave out --key-file, {ENVIRONMENT} and "
            "key_file, for the key of this user"
        )
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise KeyFileError(
            f"the key file {_shown(chosen)} cannot be found, since nobody knows that home folder; write its whole path"
        ) from None


def _make_default(path: Path) -> ClusterKey:
    try:
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return make_key_file(path)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.parent.is_dir():
            raise  # somebody was quicker
        raise NoPlaceForKeyError(
            f"no key can be made at {_shown(path)}: {error.strerror or error}; {_ANOTHER_PLACE}"
        ) from error


def make_key_file(path: Path) -> ClusterKey:
    """Write a new key into a file that must not exist yet; readers see all of it or nothing.

    Raises:
        KeyFileError: that is no name of a file.
        FileExistsError: there is a file of that name.
        OSError: it cannot be written.
    """
    if not path.name:
        raise KeyFileError(f"{_shown(path)} is no name of a file; write which file the new key is to be in")
    secret = secrets.token_bytes(_SECRET_BYTES)
    text = _PREFIX + base64.urlsafe_b64encode(secret).decode() + "\n"
    with _new_file(path.with_name(f".{path.name}.{secrets.token_hex(8)}"), text) as whole:
        try:
            os.link(whole, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with _new_file(path, text, keep=True):
                pass
    return ClusterKey(secret, str(path))


@contextlib.contextmanager
def _new_file(path: Path, text: str, keep: bool = False) -> Iterator[Path]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags, 0o600)
    try:
        try:
            _write(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        yield path
    except BaseException:
        keep = False  # a part of a key is worse than none: it is found, and refused, by all who come later
        raise
    finally:
        if not keep:
            path.unlink()


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


# What is in them -------------------------------------------------------------------------


def read_key_file(path: Path) -> ClusterKey:
    """Return the key in a file that only its owner can read.

    Raises:
        KeyFileError: it is not there, not fit to hold a key, or holds none; the text says how to mend it.
    """
    content = _content(path)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise _unfit(path, "holds no text; a key file holds a key or a passphrase", _new(path)) from None
    if text.startswith(_PREFIX):
        return ClusterKey(_decoded(path, text), str(path))
    if not text:
        raise _unfit(path, "is empty", f"copy the key of the cluster again, or {_new(path)}")
    if len(text) < PASSPHRASE_LENGTH or len(set(text)) < PASSPHRASE_VARIETY:
        raise _unfit(
            path,
            f"holds a passphrase that is too easy to guess: at least {PASSPHRASE_LENGTH} characters, "
            f"{PASSPHRASE_VARIETY} of them different, are needed",
            f"write a longer one, the same on all machines, or {_new(path)}",
        )
    return ClusterKey(hashlib.scrypt(text.encode(), salt=_SALT, **_SCRYPT), f"the passphrase in {path}")


def _decoded(path: Path, text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), altchars=b"-_", validate=True)
    except ValueError:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise _unfit(path, "holds only a part of a key", f"copy the key of the cluster again, or {_new(path)}")
    return secret


def _content(path: Path) -> bytes:
    """Read a file, having looked at what it is by the same descriptor."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            target = os.path.realpath(path)
            raise _unfit(path, f"is a link to {_shown(target)}", f"name the file itself: --key-file {_shown(target)}")
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise KeyFileError(
            f"there is no key file {_shown(path)}; copy that of the cluster, or make one: "
            f"python -m papyros.distributed --new-key {_shown(path)}"
        ) from None
    except OSError as error:
        raise KeyFileError(f"the key file {_shown(path)} cannot be read: {error.strerror or error}") from None
    try:
        _check_file(path, os.fstat(fd))
        return os.read(fd, _MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unfit(path, "is no file", "name a file")
    if found.st_size > _MAX_FILE_BYTES:
        raise _unfit(path, f"has {found.st_size:,} bytes, which no key has", "name the file with the key")
    if sys.platform == "win32":  # modes say nothing there, and a user's folder is the user's own
        return
    if found.st_uid not in {os.geteuid(), 0}:
        raise _unfit(path, f"belongs to another user (number {found.st_uid})", f"chown {os.geteuid()} {_shown(path)}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise _unfit(path, f"can be used by others (its mode is {mode:04o})", f"chmod 600 {_shown(path)}")


def _unfit(path: Path, what: str, mend: str) -> KeyFileError:
    return KeyFileError(f"the key file {_shown(path)} {what}; to mend it: {mend}")


def _new(path: Path) -> str:
    shown = _shown(path)
    return f"rm {shown}; python -m papyros.distributed --new-key {shown}"


def _shown(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if text.isprintable() and " " not in text else repr(text)
