"""A bucket: uploads that happen once, verified downloads, retries.

It handles cases that google-cloud-storage leaves to its caller:

- If the response to an upload is lost, the retry is refused, since the object exists. Each
  upload has a token, by which it recognizes its own object.
- If a download is interrupted, it continues where it stopped, without verification of its
  checksum: it is verified here, over all bytes that were written.
- A chunked upload with a wrong checksum would leave an object for a moment: so the checksum
  is sent at its beginning, and the storage refuses the upload.
"""

from __future__ import annotations

import base64
import os
import threading
import time
import uuid
from typing import IO, TYPE_CHECKING, Any

from dask_hpsearch.exceptions import CorruptObjectError
from dask_hpsearch.extras import map_import_errors
from dask_hpsearch.stores.errors import bucket_not_found, map_storage_errors
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

_RETRY = Retry(timeout=20.0)
CHUNK_BYTES = 100 * 2**20  # google-cloud-storage's own
_ONE_REQUEST_BYTES = 8 * 2**20  # google-cloud-storage's own limit
_READ_BYTES = 2**20
_ATTEMPTS = 3
_CONNECTIONS = 32
_FIRST_REFUSAL = 400
_TOKEN = "dask-hpsearch-write"  # noqa: S105 (no secret)
_TOUCHED = "dask-hpsearch-touched"
_CONTENT_TYPE = "application/octet-stream"


class Bucket:
    """A bucket and its client.

    Parameters
    ----------
    client : google.cloud.storage.Client
    name : str
    retry : Retry
    chunk_bytes : int
        Size of the chunks of a large upload, each of which is in memory: a multiple of
        256 KiB.
    """

    def __init__(self, client: Any, name: str, retry: Retry, chunk_bytes: int) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        self.name = name
        self._chunk_bytes = chunk_bytes
        self._client = client
        self._bucket = client.bucket(name)
        self._exists = threading.Event()
        repeated = DEFAULT_RETRY.with_delay(
            initial=retry.initial, maximum=retry.maximum, multiplier=2
        ).with_timeout(retry.deadline)
        self._request_options = {
            "timeout": (retry.connect_timeout, retry.timeout),
            "retry": repeated,
        }

    @classmethod
    def open(
        cls,
        name: str,
        retry: Retry | None = None,
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> Bucket:
        """Open a bucket with Application Default Credentials.

        With ``STORAGE_EMULATOR_HOST``, the bucket is in that emulator, without credentials.

        Raises
        ------
        MissingExtraError
            If google-cloud-storage is not installed.
        StorePermissionError
            If there are no credentials.
        """
        with map_import_errors(f"gs://{name}"):
            from google.cloud.storage import Client
        with map_storage_errors("open", f"gs://{name}"):
            client = Client(project="none")  # objects need no project
        _prepare(client)
        return cls(client, name, retry or _RETRY, chunk_bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def download(self, name: str, file: IO[bytes]) -> bool:
        """Download an object; False if there is none.

        Raises
        ------
        CorruptObjectError
            If the received content differed twice from the stored one.
        """
        from google.api_core import exceptions

        with map_storage_errors("read", self._url(name)):
            for _ in range(2):
                file.seek(0)
                file.truncate()
                try:
                    if self._download(name, file):
                        return True
                except exceptions.RequestRangeNotSatisfiable:
                    continue  # the object is shorter now
                except exceptions.NotFound as error:
                    self._check_exists(error)
                    return False
        msg = (
            f"gs://{self.name}/{name} arrived twice with a wrong checksum: check the network "
            "and the disk, and try again"
        )
        raise CorruptObjectError(msg)

    def _download(self, name: str, file: IO[bytes]) -> bool:
        """Download an object; False if its checksum is wrong."""
        blob = self._bucket.blob(name)
        checked = _Checked(file)
        blob.download_to_file(
            checked, raw_download=True, checksum=None, **self._request_options
        )
        self._exists.set()
        if blob.crc32c is None:  # of an answer without checksum, such as a part
            blob.reload(**self._request_options)
        return blob.crc32c in (None, checked.crc32c())

    def upload(self, name: str, file: IO[bytes]) -> bool:
        """Upload an object from a file's beginning, unless there is one of this name.

        Raises
        ------
        CorruptObjectError
            If the storage repeatedly received something else.
        """
        from google.api_core import exceptions

        token, crc32c = uuid.uuid4().hex, None
        size = file.seek(0, os.SEEK_END)
        with map_storage_errors("create", self._url(name)):
            if size > _ONE_REQUEST_BYTES:
                if self._token_of(name) is not None:  # fail before the upload
                    return False
                crc32c = _crc32c_of(file)
            for remaining in reversed(range(_ATTEMPTS)):
                try:
                    self._upload(name, file, size, token=token, crc32c=crc32c)
                    break
                except exceptions.PreconditionFailed:
                    return self._token_of(name) == token
                except (exceptions.GoogleAPICallError, ValueError) as error:
                    if not _may_succeed_later(error):
                        raise
                    if self._token_of(name) == token:
                        return True
                    self._exists.clear()  # the bucket may have been deleted meanwhile
                    self._check_exists(error)
                    if not remaining:
                        raise _not_received(self.name, name, error) from error
        self._exists.set()
        return True

    def replace(self, name: str, content: bytes) -> None:
        """Upload an object, in the place of one of this name if there is one."""
        from google.api_core.exceptions import NotFound

        with map_storage_errors("create", self._url(name)):
            try:
                self._bucket.blob(name).upload_from_string(
                    content,
                    content_type=_CONTENT_TYPE,
                    checksum="crc32c",
                    **self._request_options,
                )
            except NotFound as error:
                raise bucket_not_found(self.name) from error
        self._exists.set()

    def _upload(
        self, name: str, file: IO[bytes], size: int, *, token: str, crc32c: str | None
    ) -> None:
        blob = self._bucket.blob(name)
        blob.metadata = {_TOKEN: token}
        if crc32c is not None:
            blob.chunk_size = self._chunk_bytes
        blob.upload_from_file(
            file,
            rewind=True,
            size=size,
            content_type=_CONTENT_TYPE,
            if_generation_match=0,
            checksum="crc32c" if crc32c is None else None,
            crc32c_checksum_value=crc32c,
            **self._request_options,
        )

    def _token_of(self, name: str) -> str | None:
        """Return the token with which an object was uploaded; None if there is no object.

        Objects from other programs have an empty one.
        """
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(name)
        try:
            blob.reload(**self._request_options)
        except NotFound:
            return None
        return str((blob.metadata or {}).get(_TOKEN, ""))

    def list(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """Yield name, size and time of the objects whose names begin with a text."""
        from google.api_core.exceptions import NotFound

        with map_storage_errors("list", self._url(prefix)):
            try:
                for blob in self._client.list_blobs(
                    self._bucket,
                    prefix=prefix,
                    fields="items(name,size,updated,metadata),nextPageToken",
                    **self._request_options,
                ):
                    touched = float((blob.metadata or {}).get(_TOUCHED, 0.0))
                    modified = max(blob.updated.timestamp(), touched)
                    yield blob.name, int(blob.size), modified
            except NotFound as error:
                raise bucket_not_found(self.name) from error
        self._exists.set()

    def touch(self, name: str) -> bool:
        """Update the time in an object's metadata; False if there is no object."""
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(name)
        with map_storage_errors("touch", self._url(name)):
            try:
                blob.reload(**self._request_options)
                blob.metadata = {
                    **(blob.metadata or {}),
                    _TOUCHED: f"{time.time():.3f}",
                }
                blob.patch(**self._request_options)
            except NotFound as error:
                self._check_exists(error)
                return False
        self._exists.set()
        return True

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        from google.api_core.exceptions import NotFound

        with map_storage_errors("delete", self._url(name)):
            try:
                self._bucket.blob(name).delete(**self._request_options)
            except NotFound as error:
                self._check_exists(error)
        self._exists.set()

    def _url(self, name: str) -> str:
        return f"gs://{self.name}/{name}".removesuffix("/")

    def _check_exists(self, error: Exception) -> None:
        """Raise if the bucket is missing, and not only the object."""
        from google.api_core.exceptions import Forbidden, NotFound

        if self._exists.is_set():
            return
        try:
            next(
                iter(
                    self._client.list_blobs(
                        self._bucket,
                        max_results=1,
                        fields="items(name)",
                        **self._request_options,
                    )
                ),
                None,
            )
        except NotFound:
            raise bucket_not_found(self.name) from error
        except Forbidden:
            return  # unknown
        self._exists.set()


class _Checked:
    """Writes to a file, and computes the checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        from google_crc32c import Checksum

        self._file = file
        self._sum = Checksum()

    def write(self, data: bytes) -> int:
        self._sum.update(data)
        return self._file.write(data)

    def crc32c(self) -> str:
        """Return the checksum of all written bytes, as the storage formats it."""
        return base64.b64encode(self._sum.digest()).decode()


def _crc32c_of(file: IO[bytes]) -> str:
    from google_crc32c import Checksum

    file.seek(0)
    found = Checksum()
    while data := file.read(_READ_BYTES):
        found.update(data)
    return base64.b64encode(found.digest()).decode()


def _may_succeed_later(error: Exception) -> bool:
    """Whether an upload may succeed if it is started again.

    The storage has lost it (404, 410), has kept less than was sent (308, or a ValueError of
    google-cloud-storage), or has received another checksum (400).
    """
    code: int | None = getattr(error, "code", None)
    return isinstance(error, ValueError) or code in (308, 400, 404, 410)


def _not_received(bucket: str, name: str, error: Exception) -> CorruptObjectError:
    return CorruptObjectError(
        f"gs://{bucket}/{name} did not arrive as it was sent ({error}): check the network, "
        "and that the file is not changed meanwhile; the object was not created"
    )


def _prepare(client: Any) -> None:
    """Let many threads share a client, each with a persistent connection."""
    from requests.adapters import HTTPAdapter

    # Used for traces, it requests the bucket's metadata in a thread even without traces, which
    # needs another permission.
    client._bucket_metadata_cache = None  # noqa: SLF001 (the environment variable is for the whole process)
    # As in the documentation of google-cloud-storage.
    session = client._http  # noqa: SLF001 (no public API)
    adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    session.hooks["response"].append(_release_if_refused)


def _release_if_refused(response: Any, **_: Any) -> None:
    """Read the body of a refusal, so that its connection can be reused."""
    if response.status_code >= _FIRST_REFUSAL:
        _ = response.content
