"""Makes files of data on the node that needs them, from where the data lies."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from dask_hpsearch import bundles
from dask_hpsearch.data import formats, objects
from dask_hpsearch.errors import DataUnavailableError, ObjectNotFoundError
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.data.sources import ObjectPin, Source
    from dask_hpsearch.node_cache import Held, NodeCache


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
            If it is gone, or is not what was stored.
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
                f"{url} does not have the content that its name says: somebody altered "
                "it. Delete it, and begin the search anew: it is written again then"
            )
            raise DataUnavailableError(msg) from error
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
            return objects.download(source.objects[0], path)
        with ExitStack() as stack:
            paths = [one.path for one in _held(source, cache, stack)]
            bundle = bundles.Bundle(formats.read(source, paths))
        with path.open("wb") as file:
            bundle.write_to(file)
        return f"bundle:{bundle.digest}"


def _held(source: Source, cache: NodeCache, stack: ExitStack) -> list[Held]:
    """Have a source's objects in the cache, several read at a time."""

    def hold(one: ObjectPin) -> Held:
        load = functools.partial(objects.download, one)
        held = cache.hold(one.key, one.nbytes, load)
        stack.callback(held.close)
        return held

    name = "dask-hpsearch-data"
    with ThreadPoolExecutor(objects.AT_ONCE, thread_name_prefix=name) as threads:
        return list(threads.map(hold, source.objects))
