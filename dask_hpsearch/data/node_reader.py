"""Makes files of data on the node that needs them, from where the data lies."""

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
    """Reads for a node, a worker's or the driver's; it has no state and travels."""

    def fetch(self, place: str, digest: str, path: Path) -> str:
        """Write a bundle from a store to a file.

        Parameters
        ----------
        place : str
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
            If it is gone.
        UntrustedObjectError
            If it is not what was stored; it is not loaded then.
        StoreError
            If the store cannot be read.
        """
        url = f"{place}/{digest}"
        try:
            open_store(place).fetch(digest, path)
        except ObjectNotFoundError as error:
            msg = f"{url}, data of this search, is gone: {error}"
            raise DataUnavailableError(msg) from error
        try:
            bundles.verify(path, digest)
        except OSError as error:
            msg = (
                f"{url} does not have the content that its name says, and was not loaded: "
                "somebody altered it. Delete it, and begin the search (or upload) anew: "
                "it is written again then"
            )
            raise UntrustedObjectError(msg) from error
        return f"bundle:{digest}"

    def make(self, source: Source, path: Path, cache: NodeCache) -> str:
        """Write data by URL to a file that slots can map.

        An array in numpy's format is that file as it is; of anything else it is a bundle.

        Returns
        -------
        str
            The file's checksum.

        Raises
        ------
        HPSearchError
            If it cannot be read, or is not what it was.
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
