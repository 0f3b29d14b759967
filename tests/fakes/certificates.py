"""A certificate of ``localhost``, and a file that makes clients believe it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


def localhost_certificate(roots: Path) -> grpc.ServerCredentials:
    """Make what serves ``localhost``.

    Parameters
    ----------
    roots : Path
        Where its certificate is written, for ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH``.
    """
    private, pem = own_certificate("localhost")
    roots.write_bytes(pem)
    return grpc.ssl_server_credentials([(private, pem)])


def own_certificate(name: str) -> tuple[bytes, bytes]:
    """Make a key and a certificate that signs itself.

    Parameters
    ----------
    name : str
        Of the server.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    alternatives = [x509.DNSName(name)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, pem
