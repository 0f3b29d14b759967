"""Signatures of pickled data, which is loaded only if this user has signed it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_hpsearch.data import formats, remote_files
from dask_hpsearch.exceptions import ObjectNotFoundError, UntrustedObjectError
from dask_hpsearch.security import signing
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    import os

    from dask_hpsearch.data.sources import ObjectPin

_SIGNATURE = ".signature"
_SIGNED_AS = "data"
_MOST_BYTES = 2**16


def sign(url: str | os.PathLike[str]) -> None:
    """Sign a pickle of data (``.joblib``) that you trust.

    The signature with your own key is written beside it, as ``NAME.joblib.signature``. It is
    valid for the current content: a changed object must be signed again.

    Parameters
    ----------
    url : str or Path

    Raises
    ------
    ObjectNotFoundError, StorePermissionError, StoreError
        If it is missing or cannot be read, or the signature cannot be written.
    """
    whole = remote_files.url_of(url)
    one = remote_files.pin(whole)
    content = remote_files.sha256_of(one)
    folder, _, name = whole.rpartition("/")
    key = signing.user_key()
    note = {
        "sha256": content,
        "nbytes": one.nbytes,
        "generation": one.generation,
        "signature": key.sign(_SIGNED_AS, name, content.encode()),
    }
    store = open_store(folder)
    store.delete(name + _SIGNATURE)
    store.create(name + _SIGNATURE, json.dumps(note).encode())


def signed(url: str) -> ObjectPin:
    """Pin a pickle that this user has signed, with its signed content."""
    one = remote_files.pin(url)
    try:
        note = remote_files.pin(url + _SIGNATURE)
    except ObjectNotFoundError as error:
        raise formats.unsigned(url) from error
    name, own = url.rpartition("/")[2], signing.user_key().public
    try:
        values = json.loads(remote_files.read_part(note, 0, _MOST_BYTES))
        content = str(values["sha256"])
        signing.verify(
            own, _SIGNED_AS, name, content.encode(), str(values["signature"])
        )
        if not _same(one, content, values["nbytes"], values["generation"]):
            raise formats.unsigned(url)
    except (ValueError, KeyError, TypeError, UntrustedObjectError) as error:
        raise formats.unsigned(url) from error
    return replace(one, checksum=f"sha256:{content}")


def _same(one: ObjectPin, content: str, nbytes: int, generation: str) -> bool:
    """Whether an object is still the signed one, without downloading it."""
    if one.checksum.startswith("sha256:"):
        return one.checksum == f"sha256:{content}"
    return (one.nbytes, one.generation) == (nbytes, generation)
