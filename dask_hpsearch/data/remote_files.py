"""Objects by URL: pins their current version, and downloads exactly that version.

``gs://`` is read through gcsfs, which does not verify checksums: every file is verified here
against the pinned size and checksum.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from dask_hpsearch.data.sources import ObjectPin
from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    CorruptObjectError,
    DataChangedError,
    DataFormatError,
    MissingExtraError,
    ObjectNotFoundError,
    StoreError,
)
from dask_hpsearch.extras import install_command
from dask_hpsearch.localfs.checksums import checksum, kind_of
from dask_hpsearch.stores.errors import map_storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

AT_ONCE = 8
_ATTEMPTS = 3
_CHUNK = 2**22
_EMULATOR = "STORAGE_EMULATOR_HOST"  # needs no credentials
_KINDS = "gs://BUCKET/NAME, file:///PATH, memory://NAME, or a path"
_TIMEOUTS = {"sock_connect": 20.0, "sock_read": 30.0}
_logger = logging.getLogger(__name__)


def url_of(path_or_url: str | os.PathLike[str]) -> str:
    """Return the URL of a URL or a path."""
    text = os.fspath(path_or_url)
    scheme, separator, rest = text.partition("://")
    if not separator:
        path = Path(text).expanduser().absolute()
        # An existing file has that very name; otherwise it may be a pattern.
        return f"file://{quote(str(path), safe='/' if path.exists() else '/*?[]')}"
    return f"{scheme.lower()}://{rest}"


def pin(url: str) -> ObjectPin:
    """Return the current version of an object.

    Parameters
    ----------
    url : str
        ``gs://``, ``file://`` or ``memory://``.

    Raises
    ------
    ObjectNotFoundError
        If there is no such object or bucket.
    StorePermissionError
        If reading is not permitted.
    StoreError
        If the storage does not respond.
    DataFormatError
        If the URL's scheme is not supported.
    """
    files, path = _opened(url)
    with _map_errors("read", url):
        return _pinned(url, files, files.info(path))


def pin_all(pattern: str) -> list[ObjectPin]:
    """Pin the objects that match a pattern with ``*``, ``?`` or ``[…]``, or all in a folder.

    Returns
    -------
    list of ObjectPin
        In order of their names, without hidden ones and those that begin with ``_``, which
        are metadata of Spark and Dask.
    """
    files, path = _opened(pattern)
    with _map_errors("list", pattern):
        if any(sign in path for sign in "*?["):
            found = files.glob(path, detail=True)
        else:
            found = files.find(path, detail=True)
        scheme = pattern.partition("://")[0]
        return [
            _pinned(f"{scheme}://{_url_path(scheme, name)}", files, found[name])
            for name in sorted(found)
            if found[name]["type"] == "file"
            and not name.rpartition("/")[2].startswith(("_", "."))
        ]


def is_folder(url: str) -> bool:
    """Whether there are objects below a URL, and no object of exactly that name."""
    files, path = _opened(url)
    with _map_errors("list", url):
        try:
            return bool(files.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False


def read_part(one: ObjectPin, start: int, end: int) -> bytes:
    """Read some bytes of an object, unverified: only for its header."""
    files, path = _opened(one.url)
    with _map_errors("read", one.url):
        return bytes(files.cat_file(path, start=start, end=min(end, one.nbytes)))


@contextlib.contextmanager
def opened(one: ObjectPin) -> Iterator[Any]:
    """Open an object for random access, unverified."""
    files, path = _opened(one.url)
    with _map_errors("read", one.url):
        file = files.open(path, "rb", block_size=2**18, cache_type="bytes")
    with file:
        yield file


def sha256_of(one: ObjectPin) -> str:
    """Return the SHA-256 of an object's current content, in hexadecimal."""
    files, path = _opened(one.url)
    with _map_errors("read", one.url):
        return _sha256(files, path)


def download(one: ObjectPin, path: Path) -> str:
    """Download exactly the pinned version to a local file, and verify it.

    Returns
    -------
    str
        Its checksum.

    Raises
    ------
    DataChangedError
        If there is another version; names the object and both.
    CorruptObjectError
        If the received content differs repeatedly from the stored one.
    ObjectNotFoundError, StorePermissionError, StoreError
    """
    files, remote = _opened(one.url)
    for _ in range(_ATTEMPTS):
        if one.url.startswith("gs://"):  # of a file, the copy's checksum suffices
            check_unchanged(one)
        with _map_errors("read", one.url):
            files.get_file(remote, str(path))
        found = checksum(path, kind_of(one.checksum))
        if found == one.checksum and path.stat().st_size == one.nbytes:
            return found
        _logger.warning(
            "the download of %s was corrupted (%s): reading it again", one.url, found
        )
    check_unchanged(one)
    msg = (
        f"the download of {one.url} was corrupted {_ATTEMPTS} times: {found} instead of "
        f"{one.checksum}. Check the network and its proxies"
    )
    raise CorruptObjectError(msg)


def check_all_unchanged(pins: Iterable[ObjectPin]) -> None:
    """Compare the versions of several objects with the pinned ones.

    Raises
    ------
    DataChangedError
        As `check_unchanged`.
    """
    with ThreadPoolExecutor(
        AT_ONCE, thread_name_prefix="dask-hpsearch-data"
    ) as threads:
        list(threads.map(check_unchanged, pins))


def check_unchanged(one: ObjectPin) -> None:
    """Compare an object's version with the pinned one.

    Raises
    ------
    DataChangedError
        If it is another; names the object and both.
    """
    try:
        now: ObjectPin | None = pin(one.url)
    except ObjectNotFoundError:
        now = None
    if now is not None and _same(now, one):
        return
    is_now = "it was deleted" if now is None else f"it is {now}"
    msg = (
        f"{one.url} was changed since the run began: it was {one}; now {is_now}. Restore "
        "that version and resume, or start a new run"
    )
    raise DataChangedError(msg)


def _same(now: ObjectPin, then: ObjectPin) -> bool:
    if not now.url.startswith(
        "gs://"
    ):  # of a file, the modification time does not matter
        return (now.nbytes, now.checksum) == (then.nbytes, then.checksum)
    # The pinned checksum may be of another kind than the storage's.
    return (now.nbytes, now.generation) == (then.nbytes, then.generation)


def _pinned(url: str, files: Any, info: dict[str, Any]) -> ObjectPin:
    if info["type"] != "file":
        raise FileNotFoundError(url)
    nbytes = int(info["size"])
    if url.startswith("gs://"):
        return ObjectPin(url, nbytes, str(info["generation"]), _noted_checksum(info))
    digest = f"sha256:{_sha256(files, info['name'])}"
    return ObjectPin(url, nbytes, str(info.get("mtime", "")), digest)


def _noted_checksum(info: dict[str, Any]) -> str:
    if "crc32c" in info:
        return f"crc32c:{info['crc32c']}"
    return f"md5:{base64.b64decode(info['md5Hash']).hex()}"


def _sha256(files: Any, path: str) -> str:
    content = hashlib.sha256(usedforsecurity=False)
    with files.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    return str(content.hexdigest())


def _opened(url: str) -> tuple[Any, str]:
    """Return a file system of fsspec's, and the path in it."""
    import fsspec

    scheme, _, rest = url.partition("://")
    if scheme == "gs":
        return _bucket_files(), rest
    if scheme == "file":
        return fsspec.filesystem("file"), unquote(rest.removeprefix("localhost"))
    if scheme == "memory":
        return fsspec.filesystem("memory"), f"/{rest.lstrip('/')}"
    msg = f"data must be {_KINDS}, got {url!r}"
    raise DataFormatError(msg)


def _bucket_files() -> Any:
    """Return gcsfs's file system; gcsfs caches one for the same options."""
    try:
        import aiohttp

        # Its class for ordinary buckets: the newer one requests the type of each bucket over
        # gRPC first, to which an emulator does not respond.
        from gcsfs.core import GCSFileSystem
    except ModuleNotFoundError as error:
        msg = (
            f"gs:// needs the package {error.name!r}, which is not installed, here or on a "
            f"worker: {install_command('gcp')}"
        )
        raise MissingExtraError(msg) from error
    return GCSFileSystem(
        access="read_only",
        token="anon" if os.environ.get(_EMULATOR) else None,
        use_listings_cache=False,
        requests_timeout=aiohttp.ClientTimeout(total=None, **_TIMEOUTS),
    )


def _url_path(scheme: str, name: str) -> str:
    if scheme == "memory":
        return name.lstrip("/")
    return quote(name) if scheme == "file" else name


@contextlib.contextmanager
def _map_errors(doing: str, url: str) -> Iterator[None]:
    """Map errors of fsspec's file systems, which raise exceptions of many libraries."""
    with map_storage_errors(doing, url, foreign=(Exception,)):
        try:
            yield
        except StoreError:
            raise
        except FileNotFoundError as error:
            raise not_found(url) from error


def not_found(url: str) -> StoreError:
    """Return the error of a missing object, or of its missing bucket."""
    if url.startswith("gs://"):
        bucket = url.removeprefix("gs://").partition("/")[0]
        if not _bucket_exists(bucket):
            msg = (
                f"there is no bucket {bucket!r} for {url}: check the name, and the project of your "
                "credentials"
            )
            return BucketNotFoundError(msg)
    return ObjectNotFoundError(f"there is no object {url}: check its name")


def _bucket_exists(bucket: str) -> bool:
    files = _bucket_files()
    try:
        files.call("GET", "b/{}", bucket, json_out=True)
    except FileNotFoundError:
        return False
    except Exception:  # noqa: BLE001 (it may exist without permission to read it)
        return True
    return True
