"""An authority that stays, so that a test can have certificates of it that have expired."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dask_hpsearch.clusters import tls

DAY = dt.timedelta(days=1)


class Authority:
    """Issues certificates as a cluster's own authority does, and keeps its key."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key, DAY)
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._ca = builder.add_extension(basic, critical=True).sign(
            self._key, hashes.SHA256()
        )

    def issue(self, *, expired: bool = False) -> tls.Certificates:
        """Make a certificate for each role."""
        files = {tls.CA_FILE: _pem(self._ca)}
        for role in tls.ROLES:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
            life = -DAY if expired else DAY
            certificate = self._builder(subject, key, life).sign(
                self._key, hashes.SHA256()
            )
            files[f"{role}.crt"] = _pem(certificate)
            files[f"{role}.key"] = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode("ascii")
        return tls.Certificates(files)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: dt.timedelta
    ) -> x509.CertificateBuilder:
        until = dt.datetime.now(tz=dt.UTC) + life
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(until - 10 * DAY)
            .not_valid_after(until)
        )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
