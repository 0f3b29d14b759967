"""Signatures of the objects of runs: only signed pickles are loaded.

A pickle is code, and anyone with write access to a run's folder could put one there. So a
pickle is loaded only after its Ed25519 signature was verified, which covers the run's ID, the
object's name and its content. An object that was altered, truncated, signed by another key,
or copied from another run or name, is refused before it is parsed.

This protects readers of a folder from other writers. It does not protect a cluster from the
holders of its certificates, nor a user from readers of the user's files.
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
# Prefix of signed statements, which separates them from other uses of the key.
_PURPOSE = b"dask_hpsearch object 1"
_LENGTH = struct.Struct("<Q")


class SigningKey:
    """A private key that signs the objects of runs.

    It is kept in a file or in memory; it is never pickled or printed.
    """

    __slots__ = ("_private",)

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """Generate a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_file(cls, path: Path) -> SigningKey:
        """Read a key from a file that only its owner may read or write.

        Raises
        ------
        SigningKeyError
            If the file is missing, contains no such key, or others may access it.
        """
        try:
            content = _read_secret(path)
        except OSError as error:
            msg = f"the signing key {path} cannot be read: {error.strerror or error}"
            raise SigningKeyError(msg) from error
        return cls.from_pem(content, path)

    @classmethod
    def from_pem(cls, content: bytes, path: Path) -> SigningKey:
        """Parse a key from the content of a file, as that of a mounted Secret.

        Raises
        ------
        SigningKeyError
            If it contains no such key; names the file.
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
            If the file exists, or cannot be written.
        """
        if not _write_secret(path, self.to_pem()):
            msg = f"the file {path} exists already: a signing key is never overwritten"
            raise SigningKeyError(msg)

    @property
    def public(self) -> str:
        """The public key that verifies this key's signatures, in hexadecimal."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, run_id: str, name: str, content: bytes) -> str:
        """Sign an object.

        Parameters
        ----------
        run_id : str
            Its run.
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
        """Return the key in PEM format: for a private file or a Secret."""
        return self._private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )

    def __repr__(self) -> str:
        return f"<SigningKey, public: {self.public}>"

    def __reduce__(self) -> NoReturn:
        msg = "a signing key is never pickled: pass its file, or its public key"
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
        As `SigningKey.sign` returns it.

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
            "its signature is invalid: it was altered after it was signed, or copied from "
            "another run or name"
        )
        raise _untrusted(run_id, name, reason) from error


def seal(key: SigningKey, run_id: str, name: str, content: bytes) -> bytes:
    """Put an object into an envelope with its signature.

    See Also
    --------
    unseal : Verifies the envelope and returns the object.
    """
    signature = bytes.fromhex(key.sign(run_id, name, content))
    head = _HEAD.pack(_MAGIC, bytes.fromhex(key.public), signature, len(content))
    return head + content


def unseal(public: str, run_id: str, name: str, sealed: bytes) -> bytes:
    """Return the object in an envelope, if its signature is valid.

    Parameters
    ----------
    public : str
        The public key that must have signed it, in hexadecimal.
    run_id, name : str
        The run and the name under which the envelope was found.
    sealed : bytes
        As `seal` returns it.

    Raises
    ------
    UntrustedObjectError
        If it is not an envelope, is truncated, or was signed by another key, for another
        run or name, or with another content.
    """
    signer, signature, content = _opened(run_id, name, sealed)
    if signer != public.lower():
        reason = f"it was signed by the key {signer}, not by the run's key {public}"
        raise _untrusted(run_id, name, reason)
    verify(public, run_id, name, content, signature)
    return content


def unseal_unchecked(run_id: str, name: str, sealed: bytes) -> bytes:
    """Return the object in an envelope without verifying its signature.

    Only for ``trust=True``.

    Raises
    ------
    UntrustedObjectError
        If it is not an envelope, or is truncated.
    """
    return _opened(run_id, name, sealed)[2]


def user_key(folder: Path | None = None) -> SigningKey:
    """Return this user's key, generated on first use.

    Parameters
    ----------
    folder : Path or None
        Its folder; None: `data_folder`.

    Raises
    ------
    SigningKeyError
        If it cannot be read or written, or others may access it.
    """
    path = (data_folder() if folder is None else folder) / _KEY_FILE
    if not path.exists():
        # Of concurrent processes one writes its key, which all use.
        _write_secret(path, SigningKey.generate().to_pem())
    return SigningKey.from_file(path)


def _statement(run_id: str, name: str, content: bytes) -> bytes:
    """Return the signed statement; each part follows its length."""
    parts = (
        _PURPOSE,
        run_id.encode("utf-8", "surrogatepass"),
        name.encode("utf-8", "surrogatepass"),
        hashlib.sha256(content).digest(),
    )
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _opened(run_id: str, name: str, sealed: bytes) -> tuple[str, str, bytes]:
    """Return signer, signature and content of an envelope; only its form is checked."""
    if not sealed.startswith(_MAGIC):
        reason = "it has no signature"
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
        "Loading a pickle runs the code in it: pass trust=True only if you know who wrote it"
    )


def _read_secret(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            msg = (
                f"other users have access to the signing key {path} (mode {mode:03o}): if you are "
                f"sure that none of them has copied it, run `chmod 600 '{path}'`; otherwise "
                "delete it: a new key is generated when one is needed"
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
            "set the environment variable DASK_HPSEARCH_HOME to a writable folder"
        )
        raise SigningKeyError(msg) from error


def _no_key(path: Path) -> SigningKeyError:
    return SigningKeyError(
        f"{path} contains no Ed25519 key: move it away, and a new one is generated on next "
        "use; runs signed by the old one then need trust=True"
    )
