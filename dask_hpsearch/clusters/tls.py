"""Mutual TLS between a Dask cluster's own parts, and nobody else.

Every cluster has an authority of its own, whose key exists only while its certificates are
made: afterwards nobody can make another one. Dask checks that a peer's certificate is from
that authority, on both sides of each connection, and neither host name nor role. So whoever
holds one of a cluster's certificates is part of that cluster.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import shutil
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from distributed.security import Security

from dask_hpsearch.exceptions import ClusterAccessError, ClusterUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

Role = Literal["scheduler", "worker", "client"]
ROLES: tuple[Role, ...] = ("scheduler", "worker", "client")
CA_FILE = "ca.crt"
# Longer than clusters live: nobody can make another certificate later. A copy that leaked is
# worth nothing once its cluster is gone.
LIFE = dt.timedelta(days=365)
# Two machines' clocks never agree quite.
_CLOCK_SKEW = dt.timedelta(minutes=5)
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_ANSWER_WAIT_S = 2.0
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certificates:
    """A cluster's certificates and keys, as files by their names.

    Parameters
    ----------
    files : mapping of str to str
        PEM texts: ``ca.crt``, and ``ROLE.crt`` and ``ROLE.key`` of some roles.
    """

    files: Mapping[str, str] = field(repr=False)

    def of(self, role: Role) -> Certificates:
        """Return what one role needs, and no more."""
        names = role_files(role)
        missing = [name for name in names if name not in self.files]
        if missing:
            msg = f"there is no {missing[0]} among the certificates of this cluster"
            raise ClusterAccessError(msg)
        return Certificates({name: self.files[name] for name in names})

    def are_saved(self, folder: Path) -> bool:
        """Whether a folder has these very files."""
        with contextlib.suppress(OSError):
            return all(
                (folder / name).read_text("ascii") == text
                for name, text in self.files.items()
            )
        return False

    def save(self, folder: Path) -> None:
        """Write the files where their owner alone can read them."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(_PRIVATE_FOLDER)
        for name, text in self.files.items():
            descriptor = os.open(
                folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE
            )
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                os.fchmod(descriptor, _PRIVATE_FILE)
                file.write(text)


def role_files(role: Role) -> tuple[str, str, str]:
    """Name the files of a role: authority, certificate, key."""
    return CA_FILE, f"{role}.crt", f"{role}.key"


def issue(
    cluster: str, *, life: dt.timedelta = LIFE, now: dt.datetime | None = None
) -> Certificates:
    """Make an authority for a cluster, and a certificate for each role.

    Parameters
    ----------
    cluster : str
        The cluster's name, to be read in the certificates.
    life : timedelta
        How long they are valid.
    now : datetime, optional
        When that begins; default: now.
    """
    now = now or dt.datetime.now(tz=dt.UTC)
    valid = now - _CLOCK_SKEW, now + life
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(f"{cluster} authority")
    ca = (
        _builder(ca_name, ca_name, ca_key, valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    files = {CA_FILE: _pem(ca)}
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_name(f"{cluster} {role}"), ca_name, key, valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)  # noqa: FBT003
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        files[f"{role}.crt"] = _pem(certificate)
        files[f"{role}.key"] = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii")
    return Certificates(files)


def client_security(folder: Path) -> Security:
    """Return what a Dask client needs to be part of a cluster.

    Raises
    ------
    ClusterAccessError
        If the folder has no certificate of a client.
    """
    ca, certificate, key = (folder / name for name in role_files("client"))
    missing = [path for path in (ca, certificate, key) if not path.is_file()]
    if missing:
        msg = (
            f"there is no {missing[0]}: this user has no certificate of that cluster. "
            "Attach as the user who made it, or with rights to read its Secret"
        )
        raise ClusterAccessError(msg)
    return Security(
        require_encryption=True,
        tls_ca_file=str(ca),
        tls_client_cert=str(certificate),
        tls_client_key=str(key),
    )


def pod_environment(role: Role, folder: str) -> dict[str, str]:
    """Tell Dask in a pod where its certificates are, and to do nothing without them.

    Parameters
    ----------
    role : str
    folder : str
        Where the pod has the files of its role.
    """
    names = role_files(role)
    ca, certificate, key = (f"{folder}/{name}" for name in names)
    prefix = "DASK_DISTRIBUTED__COMM__"
    variables = {
        f"{prefix}DEFAULT_SCHEME": "tls",
        f"{prefix}REQUIRE_ENCRYPTION": "true",
        f"{prefix}TLS__CA_FILE": ca,
    }
    # A worker is a client too, to those of its tasks that make one.
    for part in ("CLIENT", role.upper()):
        variables[f"{prefix}TLS__{part}__CERT"] = certificate
        variables[f"{prefix}TLS__{part}__KEY"] = key
    return variables


def forget(folder: Path) -> None:
    """Remove a cluster's certificates."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def check_scheduler(
    address: str,
    security: Security,
    *,
    role: Role = "client",
    timeout_s: float = _ANSWER_WAIT_S,
) -> None:
    """See whether a scheduler is the cluster's own, and takes this certificate.

    Dask tries again until its own time-out, and then says little of the cause.

    Parameters
    ----------
    address : str
        As ``tls://HOST:PORT``.
    security : Security
    role : str
        Whose certificate of the security is shown.
    timeout_s : float
        Seconds for each of connecting, the handshake and the first answer.

    Raises
    ------
    ClusterAccessError
        If either side refuses the other, or it is no scheduler with TLS.
    ClusterUnreachableError
        If nothing answers there; trying again may help.
    """
    scheme, _, place = address.partition("://")
    if scheme != "tls":
        msg = f"the scheduler's address {address!r} is not for TLS: use tls://{place}"
        raise ClusterAccessError(msg)
    host, _, port = place.rpartition(":")
    config = security.get_tls_config_for_role(role)
    if not config["ca_file"] or not config["cert"]:
        msg = (
            f"the cluster at {address} takes nobody without one of its certificates: "
            "give its own security, as cluster.security"
        )
        raise ClusterAccessError(msg)
    _check_expiry(config["cert"])
    context = security.get_connection_args(role)["ssl_context"]
    try:
        raw = socket.create_connection((host, int(port)), timeout=timeout_s)
    except OSError as error:
        msg = f"nothing answers at {address}: {error}"
        raise ClusterUnreachableError(msg) from error
    with raw:
        _shake_hands(raw, context, address, timeout_s)


def _shake_hands(
    raw: socket.socket, context: ssl.SSLContext, address: str, timeout_s: float
) -> None:
    raw.settimeout(timeout_s)
    # A server may send a byte now and then to keep the handshake going for ever.
    watchdog = threading.Timer(2 * timeout_s, _shut, [raw])
    watchdog.start()
    shaken = False
    try:
        with context.wrap_socket(raw) as connection:
            shaken = True
            # With TLS 1.3 it is only now that the server's opinion of us arrives.
            if connection.recv(1):
                return
        reason = "closed the connection: it does not take this certificate"
    except ssl.SSLCertVerificationError as error:
        reason = _what_is_wrong_with_it(error)
    except (OSError, ValueError) as error:
        said = _refusal(error, shaken=shaken)
        if said is None:
            msg = (
                f"what listens at {address} does not answer as a scheduler with TLS "
                f"does: {error!r}"
            )
            raise ClusterUnreachableError(msg) from error
        reason = said
    finally:
        watchdog.cancel()
    msg = f"what answers at {address} {reason}"
    raise ClusterAccessError(msg)


def _what_is_wrong_with_it(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "has a certificate that has expired: make a new cluster"
    return (
        "is not this cluster's scheduler: its certificate is not from the cluster's "
        f"own authority ({error.verify_message})"
    )


def _refusal(error: Exception, *, shaken: bool) -> str | None:
    """Say why a connection broke; None if the scheduler may be just starting."""
    alert = str(getattr(error, "reason", None) or "").upper()
    if "CERTIFICATE_EXPIRED" in alert:
        return "says that this client's certificate has expired: make a new cluster"
    if "UNKNOWN_CA" in alert or "CERTIFICATE" in alert:
        return "does not take this client's certificate: it is not of this cluster"
    if isinstance(error, TimeoutError):
        return None
    if shaken:
        return "refuses this client's certificate: it is not of this cluster"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return "does not speak TLS: it is not this cluster's scheduler"
    return None


def _check_expiry(certificate: str) -> None:
    text = certificate if "\n" in certificate else Path(certificate).read_text("ascii")
    until = x509.load_pem_x509_certificate(text.encode("ascii")).not_valid_after_utc
    if until <= dt.datetime.now(tz=dt.UTC):
        msg = (
            f"this certificate of the cluster expired at {until:%Y-%m-%d %H:%M} UTC: "
            "make a new cluster"
        )
        raise ClusterAccessError(msg)


def _shut(raw: socket.socket) -> None:
    with contextlib.suppress(OSError):
        raw.shutdown(socket.SHUT_RDWR)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid: tuple[dt.datetime, dt.datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
