"""Writes files of data on the node that needs them, from stores and URLs."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import formats, remote_files
from dask_hpsearch.exceptions import (
    DataUnavailableError,
    ObjectNotFoundError,
    UntrustedObjectError,
)
from dask_hpsearch.localfs import bundles
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.data.sources import ObjectPin, Source
    from dask_hpsearch.localfs.node_cache import NodeCache


class DataReader:
    """Reads data on the node of a worker or of the driver; stateless and pickled."""

    def fetch(self, store: str, digest: str, path: Path) -> str:
        """Write a bundle from a store to a file.

        Parameters
        ----------
        store : str
            URL of the store's folder of data.
        digest : str
        path : Path

        Returns
        -------
        str
            The file's checksum.

        Raises
        ------
        DataUnavailableError
            If it was deleted.
        UntrustedObjectError
            If it was altered; then it is not loaded.
        StoreError
            If the store cannot be read.
        """
        url = f"{store}/{digest}"
        try:
            open_store(store).fetch(digest, path)
        except ObjectNotFoundError as error:
            msg = f"{url}, data of this search, was deleted: {error}"
            raise DataUnavailableError(msg) from error
        try:
            bundles.verify(path, digest)
        except OSError as error:
            msg = (
                f"{url} was altered, and was not loaded: its name is the hash of another content. "
                "Delete it, and start the search (or upload) again, which writes it again"
            )
            raise UntrustedObjectError(msg) from error
        return f"bundle:{digest}"

    def make(self, source: Source, path: Path, cache: NodeCache) -> str:
        """Write data by URL to a file that slots can map.

        An ``.npy`` file is copied unchanged; other formats become a bundle.

        Returns
        -------
        str
            The file's checksum.

        Raises
        ------
        HPSearchError
            If it cannot be read, or has changed.
        """
        if source.format == "npy":
            return remote_files.download(source.objects[0], path)

        def part(one: ObjectPin) -> Any:
            load = functools.partial(remote_files.download, one)
            with cache.hold(one.key, one.nbytes, load) as held:
                return formats.read(source, one, held.path)

        with ThreadPoolExecutor(
            remote_files.AT_ONCE, thread_name_prefix="dask-hpsearch-data"
        ) as threads:
            parts = list(threads.map(part, source.objects))
        bundle = bundles.Bundle(formats.whole(source, parts))
        with path.open("wb") as file:
            bundle.write_to(file)
        return f"bundle:{bundle.digest}"
