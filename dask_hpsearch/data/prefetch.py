"""Uploads data before it is needed, several objects at a time.

Each request to a bucket takes a while, and a search has to write a handful of small objects
before its first fit can start.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.data.data_store import DataStore

_THREADS = 8


class EarlyUpload:
    """Puts objects into a data store in the background, if it is in a bucket.

    A concurrent ``put`` of the same object waits for it; if it failed, that ``put`` tries
    again, and raises the error.

    Parameters
    ----------
    data_store : DataStore
    """

    def __init__(self, data_store: DataStore) -> None:
        self._data_store = data_store
        self._threads = ThreadPoolExecutor(_THREADS) if data_store.is_far else None

    def __call__(self, values: Iterable[Any], *, what: str) -> None:
        """Start to put objects."""
        if self._threads is not None:
            for value in values:
                self._threads.submit(self._data_store.put, value, what=what)

    def close(self) -> None:
        """Start no more uploads, and wait for those in progress."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
