"""TLS without files: a certificate that all holders of a key derive from it, and contexts that accept no other."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

__all__ = ["Identity", "identity_of", "tls_context"]


class Identity(NamedTuple):
    """A certificate, as bytes (DER), and what proves that it is one's own (PEM)."""

    certificate: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "<Identity>"


def identity_of(seed: bytes) -> Identity:
    """Return the identity that follows from 32 secret bytes: the same wherever and whenever it is asked for."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "papyros")])
    # All of it is fixed, and so is the signature of this kind of keys. No clock may be so wrong that it is not valid.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1970, 1, 1))
        .not_valid_after(datetime.datetime(9999, 12, 31))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, None)
    )
    return Identity(
        certificate.public_bytes(serialization.Encoding.DER),
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def tls_context(identity: Identity, server: bool) -> ssl.SSLContext:
    """Return a context for TLS 1.3 in which both sides show this identity, and accept no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the key says who it is, wherever it is
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.certificate)
    if server:
        context.num_tickets = 0  # each connection proves itself anew
    certificate = ssl.DER_cert_to_PEM_cert(identity.certificate).encode()
    with _as_file(certificate) as shown, _as_file(identity.private_key) as proved:
        context.load_cert_chain(shown, proved)
    return context


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Name a file that holds a few bytes, since the module `ssl` reads files only: a pipe, so it is on no disk."""
    out, into = os.pipe()
    try:
        os.write(into, content)
        os.close(into)
        yield f"/dev/fd/{out}"
    finally:
        os.close(out)
