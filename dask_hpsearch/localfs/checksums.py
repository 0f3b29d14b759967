"""Checksums of files, written as ``kind:value``.

``sha256`` and ``md5`` in hexadecimal; ``crc32c`` in base64, as Google Cloud Storage writes
it; ``bundle``: the digest of a bundle; ``size``: only the length, of what is made again at
no great cost.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from dask_hpsearch.localfs import bundles

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 2**20


def checksum(path: Path, kind: str) -> str:
    """Compute a file's checksum.

    Parameters
    ----------
    path : Path
    kind : {"sha256", "md5", "crc32c", "bundle", "size"}

    Raises
    ------
    OSError
        If it cannot be read, or is not a bundle though it should be one.
    ValueError
        If the kind is unknown.
    """
    if kind == "bundle":
        return f"bundle:{bundles.digest_of(path)}"
    if kind == "size":
        return f"size:{path.stat().st_size}"
    content = _content(kind)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    if kind == "crc32c":
        return f"crc32c:{base64.b64encode(content.digest()).decode()}"
    return f"{kind}:{content.hexdigest()}"


def kind_of(text: str) -> str:
    """Return the kind of a checksum."""
    return text.partition(":")[0]


def _content(kind: str) -> Any:
    if kind == "crc32c":
        import google_crc32c  # comes with the extra "gcp"

        return google_crc32c.Checksum()
    if kind in ("sha256", "md5"):
        return hashlib.new(kind, usedforsecurity=False)
    msg = f"the kind of a checksum must be sha256, md5, crc32c or bundle, got {kind!r}"
    raise ValueError(msg)
