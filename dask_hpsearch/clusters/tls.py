"""Mutual TLS between client, scheduler and workers of one Dask cluster.

Each cluster has its own certificate authority, whose key is discarded after issuing the
certificates: no other one can be issued later. On both sides of each connection, Dask checks
that the peer's certificate is from that authority, but neither host name nor role. So the
holder of any certificate of a cluster has access to all of it.
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
    from collections.abc import Iterator, Mapping

Role = Literal["scheduler", "worker", "client"]
ROLES: tuple[Role, ...] = ("scheduler", "worker", "client")
CA_FILE = "ca.crt"
# Longer than clusters live, since no certificate can be issued later. A leaked copy is
# worthless after its cluster was deleted.
LIFE = dt.timedelta(days=365)
# Clocks of two machines differ.
_CLOCK_SKEW = dt.timedelta(minutes=5)
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_RESPONSE_TIMEOUT = 2.0
_LONGEST_RESPONSE_TIMEOUT = 30.0
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
        """Return the files that one role needs."""
        names = role_files(role)
        missing = [name for name in names if name not in self.files]
        if missing:
            msg = f"the certificates of this cluster lack {missing[0]}: create the cluster again"
            raise ClusterAccessError(msg)
        return Certificates({name: self.files[name] for name in names})

    def are_saved(self, folder: Path) -> bool:
        """Whether a folder has exactly these files."""
        with contextlib.suppress(OSError):
            return all(
                (folder / name).read_text("ascii") == text
                for name, text in self.files.items()
            )
        return False

    def save(self, folder: Path) -> None:
        """Write the files so that only their owner can read them."""
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
    """Return the file names of a role: authority, certificate, key."""
    return CA_FILE, f"{role}.crt", f"{role}.key"


def issue(
    cluster: str, *, life: dt.timedelta = LIFE, now: dt.datetime | None = None
) -> Certificates:
    """Create an authority for a cluster, and a certificate for each role.

    Parameters
    ----------
    cluster : str
        The cluster's name, for the subjects of the certificates.
    life : timedelta
        Their validity.
    now : datetime, optional
        Its beginning; default: the current time.
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
    """Return the TLS settings of a Dask client of a cluster.

    Raises
    ------
    ClusterAccessError
        If the folder lacks the client's certificate.
    """
    ca, certificate, key = (folder / name for name in role_files("client"))
    missing = [path for path in (ca, certificate, key) if not path.is_file()]
    if missing:
        msg = (
            f"there is no {missing[0]}: this user has no certificate of that cluster. "
            "Attach as the user who created it, or with permission to read its Secret"
        )
        raise ClusterAccessError(msg)
    return Security(
        require_encryption=True,
        tls_ca_file=str(ca),
        tls_client_cert=str(certificate),
        tls_client_key=str(key),
    )


def pod_environment(role: Role, folder: str) -> dict[str, str]:
    """Return the variables by which Dask in a pod finds and requires its certificates.

    Parameters
    ----------
    role : str
    folder : str
        Path of the files in the pod.
    """
    names = role_files(role)
    ca, certificate, key = (f"{folder}/{name}" for name in names)
    prefix = "DASK_DISTRIBUTED__COMM__"
    variables = {
        f"{prefix}DEFAULT_SCHEME": "tls",
        f"{prefix}REQUIRE_ENCRYPTION": "true",
        f"{prefix}TLS__CA_FILE": ca,
    }
    # A worker is also a client, in tasks that create one.
    for part in ("CLIENT", role.upper()):
        variables[f"{prefix}TLS__{part}__CERT"] = certificate
        variables[f"{prefix}TLS__{part}__KEY"] = key
    return variables


def forget(folder: Path) -> None:
    """Remove a cluster's certificates."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def response_timeouts() -> Iterator[float]:
    """Yield how many seconds each try may wait for a scheduler's response.

    The way to it leads through other servers, and may be slow: if each try ended after the
    same short time, none might succeed.
    """
    timeout = _RESPONSE_TIMEOUT
    while True:
        yield timeout
        timeout = min(2 * timeout, _LONGEST_RESPONSE_TIMEOUT)


def check_scheduler(
    address: str,
    security: Security,
    *,
    role: Role = "client",
    timeout: float = _RESPONSE_TIMEOUT,
) -> None:
    """Check that a scheduler belongs to the cluster, and accepts this certificate.

    Dask retries until its own time-out, and then its error has no cause.

    Parameters
    ----------
    address : str
        As ``tls://HOST:PORT``.
    security : Security
    role : str
        Whose certificate of the security is used.
    timeout : float
        Seconds for each of connection, handshake and first response.

    Raises
    ------
    ClusterAccessError
        If either side refuses the other, or it is not a scheduler with TLS.
    ClusterUnreachableError
        If nothing responds there; a retry may help.
    """
    scheme, _, host_port = address.partition("://")
    if scheme != "tls":
        msg = (
            f"the scheduler's address {address!r} is not for TLS: use tls://{host_port}"
        )
        raise ClusterAccessError(msg)
    host, _, port = host_port.rpartition(":")
    config = security.get_tls_config_for_role(role)
    if not config["ca_file"] or not config["cert"]:
        msg = (
            f"the cluster at {address} requires one of its certificates: pass its security, as "
            "cluster.security"
        )
        raise ClusterAccessError(msg)
    _check_expiry(config["cert"])
    context = security.get_connection_args(role)["ssl_context"]
    try:
        raw = socket.create_connection((host, int(port)), timeout=timeout)
    except OSError as error:
        msg = f"nothing responds at {address}: {error}"
        raise ClusterUnreachableError(msg) from error
    with raw:
        _handshake(raw, context, address, timeout)


def _handshake(
    raw: socket.socket, context: ssl.SSLContext, address: str, timeout: float
) -> None:
    raw.settimeout(timeout)
    # A server could send single bytes to keep the handshake going forever.
    watchdog = threading.Timer(2 * timeout, _shut, [raw])
    watchdog.start()
    complete = False
    try:
        with context.wrap_socket(raw) as connection:
            complete = True
            # With TLS 1.3 the server's verdict on the client's certificate arrives only now.
            if connection.recv(1):
                return
        reason = "closed the connection: it does not accept this certificate"
    except ssl.SSLCertVerificationError as error:
        reason = _verification_failure(error)
    except (OSError, ValueError) as error:
        said = _refusal(error, complete=complete)
        if said is None:
            msg = f"the server at {address} does not respond like a scheduler with TLS: {error!r}"
            raise ClusterUnreachableError(msg) from error
        reason = said
    finally:
        watchdog.cancel()
    msg = f"the server at {address} {reason}"
    raise ClusterAccessError(msg)


def _verification_failure(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "has a certificate that has expired: create a new cluster"
    return (
        "is not this cluster's scheduler: its certificate is not from the cluster's "
        f"authority ({error.verify_message})"
    )


def _refusal(error: Exception, *, complete: bool) -> str | None:
    """Return why a connection broke; None if the scheduler may be starting."""
    alert = str(getattr(error, "reason", None) or "").upper()
    if "CERTIFICATE_EXPIRED" in alert:
        return "says that this client's certificate has expired: create a new cluster"
    if "UNKNOWN_CA" in alert or "CERTIFICATE" in alert:
        return "does not accept this client's certificate: it is not of this cluster"
    if isinstance(error, TimeoutError):
        return None
    if complete:
        return "refuses this client's certificate: it is not of this cluster"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return "does not speak TLS: it is not this cluster's scheduler"
    return None


def _check_expiry(certificate: str) -> None:
    text = certificate if "\n" in certificate else Path(certificate).read_text("ascii")
    expiry = x509.load_pem_x509_certificate(text.encode("ascii")).not_valid_after_utc
    if expiry <= dt.datetime.now(tz=dt.UTC):
        msg = (
            f"this certificate of the cluster expired at {expiry:%Y-%m-%d %H:%M} UTC: "
            "create a new cluster"
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
