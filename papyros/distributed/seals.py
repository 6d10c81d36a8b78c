"""Seals: what a client and a slave host put on payloads, so that nobody on the way can change or exchange them.

A job's seal binds its blob to the session, the number and the class's definition
that it was added with; an outcome's seal binds it to the job's seal. Either is
checked before a byte of what it seals is unpickled. The master passes seals on and
looks at the *ticket* in them only: a part of a job's seal that nobody can know who was
not given the job, and without which no outcome of it is taken.

A seal is a keyed digest, under a key for this session and this direction: of what
is small by BLAKE2, of what is large by AES-GCM (of a message that is not encrypted),
which takes a fifth of the time for a megabyte.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from papyros.frames import Parts

if TYPE_CHECKING:
    from papyros.distributed.keys import ClusterKey
    from papyros.frames import Buffer

__all__ = ["SEAL_BYTES", "TICKET_BYTES", "Seals", "ticket_of"]

_NONCE_BYTES, _TAG_BYTES = 12, 16
_NONCES = 1 << (8 * _NONCE_BYTES)

#: How long a seal is, and the ticket in it.
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES
TICKET_BYTES = 8


#: Payloads of this size and more are large.
_LARGE = 1024
_PADDING = bytes(_NONCE_BYTES)


class Seals:
    """Seals and checks the payloads of a session. For one process, which is not forked meanwhile.

    Args:
        key: the key of the cluster.
        session: the name of the session.
    """

    def __init__(self, key: ClusterKey, session: str) -> None:
        self._jobs = _Sealer(key, "jobs", session)
        self._bundles = _Sealer(key, "bundles", session)  # so that nobody takes one for a job, nor a job for one
        self._outcomes = _Sealer(key, "outcomes", session)

    def seal_job(self, number: int, definition: bytes, blob: Buffer | Parts) -> bytes:
        """Return the seal of a job."""
        return self._jobs.seal(number.to_bytes(8, "little") + definition, blob)

    def check_job(self, number: int, definition: bytes, blob: Buffer, seal: Buffer) -> bool:
        """Whether a seal is that of this very job."""
        return self._jobs.fits(number.to_bytes(8, "little") + definition, blob, seal)

    def seal_bundle(self, number: int, definition: bytes, blob: Buffer) -> bytes:
        """Return the seal of a bundle of jobs."""
        return self._bundles.seal(number.to_bytes(8, "little") + definition, blob)

    def check_bundle(self, number: int, definition: bytes, blob: Buffer, seal: Buffer) -> bool:
        """Whether a seal is that of this very bundle."""
        return self._bundles.fits(number.to_bytes(8, "little") + definition, blob, seal)

    def seal_outcome(self, number: int, ticket: bytes, outcome: Buffer) -> bytes:
        """Return the seal of an outcome of the job with that ticket."""
        return self._outcomes.seal(number.to_bytes(8, "little") + ticket, outcome)

    def check_outcome(self, number: int, ticket: bytes, outcome: Buffer, seal: Buffer) -> bool:
        """Whether a seal is that of this outcome, of the job with that ticket."""
        return self._outcomes.fits(number.to_bytes(8, "little") + ticket, outcome, seal)


class _Sealer:
    """Seals payloads together with what they are bound to, of which the length is always the same."""

    def __init__(self, key: ClusterKey, direction: str, session: str) -> None:
        name = session.encode()
        self._small = blake2b(key=key.derive(f"seals of small {direction}", name), digest_size=_TAG_BYTES)
        self._key = key.derive(f"seals of large {direction}", name)
        self._large = AESGCM(self._key)
        # No nonce may come twice under a key. Each process counts from a random one of 2**96 on.
        self._nonce = secrets.randbelow(_NONCES)

    def seal(self, about: bytes, payload: Buffer | Parts) -> bytes:
        if not isinstance(payload, Parts) and len(payload) < _LARGE:
            digest = self._small.copy()
            digest.update(about + payload)
            return _PADDING + digest.digest()
        self._nonce = (self._nonce + 1) % _NONCES
        nonce = self._nonce.to_bytes(_NONCE_BYTES, "little")
        if isinstance(payload, Parts):
            return nonce + self._tag_of_parts(nonce, about, payload)
        return nonce + self._tag(nonce, about, payload)

    def fits(self, about: bytes, payload: Buffer, seal: Buffer) -> bool:
        if len(payload) < _LARGE:
            digest = self._small.copy()
            digest.update(about + payload)
            return compare_digest(_PADDING + digest.digest(), seal)
        nonce = bytes(seal[:_NONCE_BYTES])
        return len(seal) == SEAL_BYTES and compare_digest(self._tag(nonce, about, payload), seal[_NONCE_BYTES:])

    def _tag(self, nonce: bytes, about: bytes, payload: Buffer) -> bytes:
        # The payload is authenticated beside the few bytes that are encrypted, and so it is not copied.
        return self._large.encrypt(nonce, about, payload)[-_TAG_BYTES:]

    def _tag_of_parts(self, nonce: bytes, about: bytes, payload: Parts) -> bytes:
        """Return the same as `_tag`, of what lies in several buffers."""
        encryptor = Cipher(algorithms.AES(self._key), modes.GCM(nonce)).encryptor()
        for buffer in payload.buffers:
            encryptor.authenticate_additional_data(buffer)
        encryptor.update(about)
        encryptor.finalize()
        return encryptor.tag


def ticket_of(seal: Buffer) -> bytes:
    """Return the ticket in the seal of a job."""
    return bytes(seal[-TICKET_BYTES:])
