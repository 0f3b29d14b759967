"""Stores: folders of named, immutable objects, opened by URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from dask_hpsearch.exceptions import StoreNameError
from dask_hpsearch.stores.base import Listing, Store, StoredObject, check_name
from dask_hpsearch.stores.file import open_folder

__all__ = [
    "Listing",
    "Store",
    "StoredObject",
    "check_name",
    "errors",
    "open_store",
    "retry",
]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_KINDS = "a folder's path, file:///FOLDER, gs://BUCKET/FOLDER or memory://NAME"


def open_store(url_or_path: str | os.PathLike[str]) -> Store:
    """Open a store, which need not exist yet; it is created by the first write.

    Parameters
    ----------
    url_or_path : str or path-like
        A folder, relative ones and ``~`` included; ``file:///…``; ``gs://bucket/folder``,
        with Google's Application Default Credentials; or ``memory://name``, which is
        private to this process.

    Raises
    ------
    StoreNameError
        If it is neither a path nor the URL of a store.
    StoreError
        If the folder is a file, or if there are no credentials.
    MissingExtraError
        If the packages for such a store are not installed.
    """
    text = os.fspath(url_or_path)
    if not text:
        msg = f"the store must be {_KINDS}, got ''"
        raise StoreNameError(msg)
    url = _URL.fullmatch(text) if isinstance(url_or_path, str) else None
    if url is None:
        return open_folder(_expanded(text))
    scheme, rest = url[1].lower(), url[2]
    if scheme == "file":
        return open_folder(_path_of_url(text, rest))
    if scheme == "memory":
        return _open_memory(rest.strip("/"))
    if scheme == "gs":
        return _open_bucket(rest)
    msg = f"the store must be {_KINDS}, got {text!r}"
    raise StoreNameError(msg)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        msg = f"the home folder of '~' in {path!r} is unknown: give the absolute path"
        raise StoreNameError(msg) from error


def _path_of_url(url: str, rest: str) -> Path:
    path = Path(unquote(rest.removeprefix("localhost")))
    if not path.is_absolute():
        msg = (
            f"a file URL must have an absolute path, as file:///home/me/searches, got {url!r}: "
            "give a relative path without file://"
        )
        raise StoreNameError(msg)
    return path


def _open_memory(name: str) -> Store:
    # fsspec is imported only if it is used.
    from dask_hpsearch.stores.memory import MemoryStore

    return MemoryStore(check_name(name))


def _open_bucket(path: str) -> Store:
    from dask_hpsearch.stores.gcs import open_bucket

    return open_bucket(path)
