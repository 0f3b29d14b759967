"""Stores in a bucket of Google Cloud Storage, through google-cloud-storage."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from dask_hpsearch.exceptions import ObjectNotFoundError, StoreNameError
from dask_hpsearch.localfs.atomic import replaced_whole
from dask_hpsearch.stores.base import (
    Listing,
    StoredObject,
    check_name,
    check_prefix,
    is_part,
)
from dask_hpsearch.stores.gcs_bucket import CHUNK_BYTES, Bucket

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.stores.retry import Retry

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class GcsStore:
    """The objects of a bucket whose names begin with a prefix.

    It is pickled as its URL: another process opens it with its own credentials.

    Attributes
    ----------
    prefix : str
        Without leading and trailing slashes; empty: the whole bucket.
    bucket : Bucket
    """

    prefix: str
    bucket: Bucket = field(repr=False)

    @property
    def url(self) -> str:
        """The folder as a ``gs://`` URL."""
        return f"gs://{self.bucket.name}/{self.prefix}".removesuffix("/")

    def read(self, name: str) -> bytes:
        """Read an object, its checksum verified."""
        content = io.BytesIO()
        self._download(name, content)
        return content.getvalue()

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one of this name."""
        return self.bucket.upload(self._path(name), io.BytesIO(content))

    def fetch(self, name: str, path: Path) -> None:
        """Download an object into a local file, its checksum verified."""
        check_name(name)
        with replaced_whole(path) as file:
            self._download(name, file)

    def send(self, name: str, path: Path) -> bool:
        """Upload a local file unless there is an object of this name."""
        with path.open("rb") as file:
            return self.bucket.upload(self._path(name), file)

    def replace(self, name: str, content: bytes) -> None:
        """Create an object, in the place of one of this name if there is one."""
        self.bucket.replace(self._path(name), content)

    def list(self, prefix: str = "") -> Listing:
        """List the objects whose names begin with a text, sorted by name."""
        above = self._above()
        found = (
            StoredObject(path.removeprefix(above), nbytes, modified)
            for path, nbytes, modified in self.bucket.list(above + check_prefix(prefix))
        )
        whole = [one for one in found if all(map(is_part, one.name.split("/")))]
        return sorted(whole, key=lambda one: one.name)

    def touch(self, name: str) -> None:
        """Update the time in an object's metadata."""
        if not self.bucket.touch(self._path(name)):
            raise self._absent(name)

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        self.bucket.delete(self._path(name))

    def child(self, name: str) -> GcsStore:
        """Return the store of the objects below a name."""
        return GcsStore(self._path(name), self.bucket)

    def local_path(self) -> None:
        """Return None: it is not in a folder."""

    def _download(self, name: str, file: IO[bytes]) -> None:
        if not self.bucket.download(self._path(name), file):
            raise self._absent(name)

    def _absent(self, name: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(
            f"no object {name!r} in {self.url}: it was deleted or never created; check "
            "the name and the store's URL"
        )

    def _path(self, name: str) -> str:
        return self._above() + check_name(name)

    def _above(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open_bucket, (self.url.removeprefix("gs://"),)


def open_bucket(
    path: str, *, retry: Retry | None = None, chunk_bytes: int = CHUNK_BYTES
) -> GcsStore:
    """Open a folder of a bucket; only credentials are checked.

    Parameters
    ----------
    path : str
        ``BUCKET`` or ``BUCKET/PREFIX``, not quoted.
    retry : Retry, optional
        How requests are repeated.
    chunk_bytes : int
        Size of the chunks of a large upload.

    Raises
    ------
    StoreNameError
        If it is not the name of a bucket and a folder.
    MissingExtraError
        If google-cloud-storage is not installed.
    StorePermissionError
        If there are no credentials.
    """
    name, _, prefix = path.partition("/")
    if not _BUCKET_NAME.fullmatch(name):
        msg = (
            f"the store must be gs://BUCKET or gs://BUCKET/FOLDER, with the bucket in lower "
            f"case, got 'gs://{path}'"
        )
        raise StoreNameError(msg)
    prefix = prefix.strip("/")
    bucket = Bucket.open(name, retry, chunk_bytes=chunk_bytes)
    return GcsStore(check_name(prefix) if prefix else "", bucket)
