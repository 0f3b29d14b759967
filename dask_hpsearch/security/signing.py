"""Signatures that say which objects of a run may be unpickled.

A pickle is code. Whoever can write to a run's folder could put one there; so a pickle is
loaded only after its Ed25519 signature was checked, which is made over the run's id, the
object's name and the content together. An object that was altered, cut, signed by somebody
else, or taken from another run or name, is refused before a byte of it is parsed.

This protects those who read a folder from others who write to it. It does not protect a
cluster from those who hold its certificates, nor a user from who can read the user's files.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dask_hpsearch.exceptions import SigningKeyError, UntrustedObjectError
from dask_hpsearch.localfs.atomic import create_whole
from dask_hpsearch.paths import data_folder

if TYPE_CHECKING:
    from pathlib import Path

_KEY_FILE = "signing-key.pem"
_KEY_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

# An envelope: magic, public key, signature, length of the content; then the content.
_MAGIC = b"hpsseal1"
_HEAD = struct.Struct("<8s32s64sQ")
# What is signed begins with this, so that no other use of the key can be mistaken for it.
_PURPOSE = b"dask_hpsearch object 1"
_LENGTH = struct.Struct("<Q")


class SigningKey:
    """A private key that signs the objects of runs.

    It is kept in a file or in memory: it is never pickled, and not shown.
    """

    __slots__ = ("_private",)

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_file(cls, path: Path) -> SigningKey:
        """Read a key from a file that only its owner may read or write.

        Raises
        ------
        SigningKeyError
            If the file is missing, holds no such key, or is open to others.
        """
        try:
            content = _read_secret(path)
        except OSError as error:
            msg = f"the signing key {path} cannot be read: {error.strerror or error}"
            raise SigningKeyError(msg) from error
        return cls.from_pem(content, path)

    @classmethod
    def from_pem(cls, content: bytes, path: Path) -> SigningKey:
        """Take a key from the content of a file, such as one that a Secret became.

        Raises
        ------
        SigningKeyError
            If it holds no such key; names the file.
        """
        try:
            private = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _no_key(path) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise _no_key(path)
        return cls(private)

    def to_file(self, path: Path) -> None:
        """Write the key to a new file that only its owner may read or write.

        Raises
        ------
        SigningKeyError
            If there is a file already, or none can be written.
        """
        if not _write_secret(path, self.to_pem()):
            msg = f"there is a file {path} already: a signing key is never overwritten"
            raise SigningKeyError(msg)

    @property
    def public(self) -> str:
        """The public key that checks this key's signatures, in hexadecimal."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, run_id: str, name: str, content: bytes) -> str:
        """Sign an object.

        Parameters
        ----------
        run_id : str
            The run that it belongs to.
        name : str
            Its name in that run.
        content : bytes

        Returns
        -------
        str
            In hexadecimal.
        """
        return self._private.sign(_statement(run_id, name, content)).hex()

    def to_pem(self) -> bytes:
        """Return the key as text: for a file or a Secret that its owner alone can read."""
        return self._private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )

    def __repr__(self) -> str:
        return f"<SigningKey, public: {self.public}>"

    def __reduce__(self) -> NoReturn:
        msg = "a signing key is never pickled: hand on its file, or its public key"
        raise TypeError(msg)


def verify(public: str, run_id: str, name: str, content: bytes, signature: str) -> None:
    """Check that an object was signed under its run and name.

    Parameters
    ----------
    public : str
        The public key, in hexadecimal.
    run_id, name : str
        The run and the name under which the object was found.
    content : bytes
    signature : str
        As `SigningKey.sign` made it.

    Raises
    ------
    UntrustedObjectError
        If it was not, whatever the reason.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), _statement(run_id, name, content))
    except (InvalidSignature, ValueError) as error:
        reason = (
            "its signature does not fit: it was altered after it was signed, or comes "
            "from another run or name"
        )
        raise _untrusted(run_id, name, reason) from error


def seal(key: SigningKey, run_id: str, name: str, content: bytes) -> bytes:
    """Put an object into one envelope with its signature.

    See Also
    --------
    unseal : Checks the envelope and takes the object out.
    """
    signature = bytes.fromhex(key.sign(run_id, name, content))
    head = _HEAD.pack(_MAGIC, bytes.fromhex(key.public), signature, len(content))
    return head + content


def unseal(public: str, run_id: str, name: str, sealed: bytes) -> bytes:
    """Take an object out of its envelope, if it may be trusted.

    Parameters
    ----------
    public : str
        The public key that must have signed it, in hexadecimal.
    run_id, name : str
        The run and the name under which the envelope was found.
    sealed : bytes
        As `seal` made it.

    Raises
    ------
    UntrustedObjectError
        If it is no envelope, is not whole, or was signed by another key, for another run
        or name, or with another content.
    """
    signer, signature, content = _opened(run_id, name, sealed)
    if signer != public.lower():
        reason = f"it was signed by the key {signer}, not by the run's key {public}"
        raise _untrusted(run_id, name, reason)
    verify(public, run_id, name, content, signature)
    return content


def unseal_unchecked(run_id: str, name: str, sealed: bytes) -> bytes:
    """Take an object out of its envelope without checking who signed what.

    Only for a user who said ``trust=True``.

    Raises
    ------
    UntrustedObjectError
        If it is no envelope, or is not whole.
    """
    return _opened(run_id, name, sealed)[2]


def user_key(folder: Path | None = None) -> SigningKey:
    """Return this user's key, made on first use.

    Parameters
    ----------
    folder : Path or None
        Where it is kept; None: `data_folder`.

    Raises
    ------
    SigningKeyError
        If it cannot be read or made, or others can read it.
    """
    path = (data_folder() if folder is None else folder) / _KEY_FILE
    if not path.exists():
        # Of several at once one writes its key; all use that one.
        _write_secret(path, SigningKey.generate().to_pem())
    return SigningKey.from_file(path)


def _statement(run_id: str, name: str, content: bytes) -> bytes:
    """Return what is signed; every part has its length before it."""
    parts = (
        _PURPOSE,
        run_id.encode("utf-8", "surrogatepass"),
        name.encode("utf-8", "surrogatepass"),
        hashlib.sha256(content).digest(),
    )
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _opened(run_id: str, name: str, sealed: bytes) -> tuple[str, str, bytes]:
    """Return signer, signature and content of an envelope; nothing is checked but form."""
    if not sealed.startswith(_MAGIC):
        reason = "it carries no signature"
        raise _untrusted(run_id, name, reason)
    if len(sealed) < _HEAD.size:
        reason = f"it is cut off within its signature, after {len(sealed)} bytes"
        raise _untrusted(run_id, name, reason)
    _, signer, signature, length = _HEAD.unpack_from(sealed)
    content = sealed[_HEAD.size :]
    if len(content) != length:
        reason = f"it has {len(content)} bytes instead of {length}"
        raise _untrusted(run_id, name, reason)
    return signer.hex(), signature.hex(), content


def _untrusted(run_id: str, name: str, reason: str) -> UntrustedObjectError:
    return UntrustedObjectError(
        f"{name!r} of run {run_id!r} is not trusted, and was not loaded: {reason}. "
        "If you know who wrote it, trust=True loads it all the same; loading a pickle "
        "runs whatever its writer put in it"
    )


def _read_secret(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            msg = (
                f"the signing key {path} is open to others (mode {mode:03o}): if nobody "
                f"can have copied it, run `chmod 600 '{path}'`; else delete it, and a "
                "new one is made on next use"
            )
            raise SigningKeyError(msg)
        return file.read()


def _write_secret(path: Path, content: bytes) -> bool:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return create_whole(path, content, mode=_KEY_MODE)
    except OSError as error:
        msg = (
            f"the signing key {path} cannot be written ({error.strerror or error}): "
            "name a folder of yours in the environment variable DASK_HPSEARCH_HOME"
        )
        raise SigningKeyError(msg) from error


def _no_key(path: Path) -> SigningKeyError:
    return SigningKeyError(
        f"{path} holds no Ed25519 key: move it away, and a new one is made on next use; "
        "runs signed by the old one then need trust=True"
    )
