"""Provides data to workers: through a store, a shared folder, or Dask.

Each object is written once, under the hash of its content. Workers read a store that they can
reach (``gs://``) themselves. Files in a folder of the client are mapped by workers that see
the folder; other workers, late ones included, request them on the search's event topic, and
receive them once for all slots. No copy stays on the scheduler or is part of a task.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch import paths
from dask_hpsearch.data.node_reader import DataReader
from dask_hpsearch.data.sources import REACHABLE, DataReference, Source
from dask_hpsearch.data.temp_dirs import temporary_folder
from dask_hpsearch.exceptions import DataUnavailableError, StoreError, UnpicklableError
from dask_hpsearch.identity import IdentityMemo
from dask_hpsearch.localfs import bundles
from dask_hpsearch.localfs.bundles import Bundle, verify
from dask_hpsearch.localfs.node_cache import NodeCache
from dask_hpsearch.messages import DataRef
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from dask_hpsearch.data.sources import Reference
    from dask_hpsearch.localfs.node_cache import Held
    from dask_hpsearch.stores import Store

DATA = "data"
_TOUCH_AFTER = 600.0
_WRITERS = 16


class DataStore:
    """The data of one or more searches, as bundles in a folder or a store.

    Parameters
    ----------
    store : Path or None
        A folder that workers may see; the data stays there for later searches. None: a
        folder of this machine, removed by `close`.
    bucket : Store, optional
        Instead: a store's folder of data, which workers read themselves.
    """

    def __init__(
        self, store: Path | None = None, *, bucket: Store | None = None
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._folder: Path | None = None
        self._refs: dict[str, DataRef] = {}
        self._pinned: IdentityMemo[DataRef] = IdentityMemo()
        self._held: dict[str, int] = {}
        self._kept: list[Held] = []
        self._cache: NodeCache | None = None
        self._reader = DataReader()
        self._lock = threading.Lock()
        self._writing = [threading.Lock() for _ in range(_WRITERS)]
        self.bytes_uploaded = 0

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return the data store of a store: in it, if workers can read it there."""
        if store.url.partition("://")[0] in REACHABLE:
            return cls(bucket=store.child(DATA))
        return cls(store.local_path())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def is_far(self) -> bool:
        """Whether it is in a bucket."""
        return self._bucket is not None

    def put(self, value: Any, *, what: str) -> DataRef:
        """Write an object, unless its content was written before.

        Parameters
        ----------
        value : object
        what : str
            Its name in errors.

        Raises
        ------
        UnpicklableError
            If it cannot be pickled.
        StoreError
            If the folder cannot be written; no partial file is left.
        """
        pinned = self._pinned.get(value)
        if pinned is not None:
            return pinned
        bundle = _encode(value, what)
        # Different objects may be written at the same time, each once.
        with self._writing[int(bundle.digest, 16) % _WRITERS]:
            ref = self._refs.get(bundle.digest) or self._write(bundle)
            self._refs[ref.digest] = ref
        return ref

    def pin(self, value: Any, ref: DataRef) -> None:
        """Remember the bundle of an object, as long as the data store exists."""
        if value is not None:
            self._pinned.put(value, value=ref)
        self._refs[ref.digest] = ref

    def forget(self, digest: str) -> None:
        """Forget a bundle that is not in the data store's own folder."""
        self._refs.pop(digest, None)

    def hold(self, ref: DataRef) -> None:
        """Increase the reference count of a bundle."""
        with self._lock:
            self._held[ref.digest] = self._held.get(ref.digest, 0) + 1

    def release(self, refs: list[DataRef]) -> None:
        """Decrease reference counts; a temporary bundle is deleted at zero."""
        pinned = {ref.digest for ref in self._pinned.values()}
        with self._lock:
            for ref in refs:
                self._held[ref.digest] -= 1
                last = not self._held[ref.digest] and ref.digest not in pinned
                if last and self._store is None and not ref.in_store:
                    self._refs.pop(ref.digest, None)
                    ref.path.unlink(missing_ok=True)

    def open(self, reference: Reference, *, what: str) -> Any:
        """Return referenced data; this node keeps one copy, which is mapped.

        Writing to it changes only this process's view.

        Parameters
        ----------
        reference : Source or DataReference
        what : str
            Its name in errors.

        Raises
        ------
        DataChangedError
            If they have changed since they were pinned.
        DataUnavailableError
            If they were deleted or altered.
        HPSearchError
            If they cannot be read.
        """
        if isinstance(reference, Source):
            return self._open_source(reference, what)
        return self._open_bundle(reference, what)

    def reference(self, ref: DataRef, *, n_samples: int | None) -> DataReference:
        """Return the reference to a bundle, for any process."""
        store = ref.place if ref.in_store else Path(ref.place).as_uri()
        return DataReference(store, ref.digest, ref.nbytes, n_samples)

    def own(self, digest: str, nbytes: int) -> DataReference:
        """Return the reference to a bundle in this store."""
        if self._bucket is not None:
            return DataReference(self._bucket.url, digest, nbytes)
        return DataReference(self.folder().as_uri(), digest, nbytes)

    def _open_source(self, source: Source, what: str) -> Any:
        if self._cache is None:
            self._cache = _cache_of_driver()
        cache = self._cache

        def make(path: Path) -> str:
            return self._reader.make(source, path, cache)

        held = self._keep(cache.hold(source.key, source.nbytes, make))
        value = bundles.load(str(held.path), writable=True)
        made_from = None
        if source.reachable:  # workers on other machines build their own
            made_from = self.put(source, what=what)
        self.pin(value, _ref_of(held.path, made_from))
        return value

    def _open_bundle(self, reference: DataReference, what: str) -> Any:
        store = open_store(reference.store)
        folder = store.local_path()
        if folder is not None:
            path = folder / reference.digest
            ref = _ref_of(path, None, reference.nbytes)
            _check_bundle(path, reference, what)
        else:
            path = self._fetched(reference)
            place = sys.intern(reference.store)
            ref = DataRef(reference.digest, reference.nbytes, place)
        value = bundles.load(str(path), writable=True)
        self.pin(value, ref)
        return value

    def _fetched(self, reference: DataReference) -> Path:
        if self._cache is None:
            self._cache = _cache_of_driver()
        fetch = functools.partial(self._reader.fetch, reference.store, reference.digest)
        held = self._cache.hold(reference.digest, reference.nbytes, fetch)
        return self._keep(held).path

    def _keep(self, held: Held) -> Held:
        self._kept.append(held)
        return held

    def folder(self) -> Path:
        """Return the folder; create it if necessary."""
        with self._lock:
            if self._folder is None:
                self._folder = self._make_folder(0)
            return self._folder

    def find(self, digest: str) -> DataRef | None:
        """Return a bundle by its digest."""
        return self._refs.get(digest)

    def digests(self) -> list[str]:
        """Return the digests of all bundles."""
        return list(self._refs)

    def close(self) -> None:
        """Remove the folder, unless it is the user's store."""
        with self._lock:
            self._refs.clear()
            self._pinned.clear()
            for held in self._kept:
                held.close()
            self._kept.clear()
            if self._cache is not None:
                self._cache.close()
                self._cache = None
            if self._folder is not None and self._store is None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _write(self, bundle: Bundle) -> DataRef:
        try:
            with self._lock:
                if self._folder is None:
                    self._folder = self._make_folder(bundle.nbytes)
                path = self._folder / bundle.digest
            if self._bucket is not None:
                return self._upload(bundle, path, self._bucket)
            _write_or_use(bundle, path)
        except StoreError:
            raise
        except OSError as error:
            where = self._store or self._folder or tempfile.gettempdir()
            msg = (
                f"cannot write {bundle.nbytes / 2**20:.1f} MiB of data to {where} "
                f"({error.strerror or error}): free some space, check its permissions, "
                "or name another folder with store="
            )
            raise StoreError(error.errno, msg) from error
        return _ref_of(path, None, bundle.nbytes)

    def _upload(self, bundle: Bundle, path: Path, bucket: Store) -> DataRef:
        """Upload a bundle through a temporary file, unless the store has it."""
        found = [
            one for one in bucket.list(bundle.digest) if one.nbytes == bundle.nbytes
        ]
        if found:
            if time.time() - found[0].modified > _TOUCH_AFTER:
                bucket.touch(bundle.digest)  # protects it from garbage collection
        else:
            try:
                bundle.write(path)
                if bucket.send(bundle.digest, path):
                    self.bytes_uploaded += bundle.nbytes
            finally:
                path.unlink(missing_ok=True)
        return DataRef(bundle.digest, bundle.nbytes, sys.intern(bucket.url))

    def _make_folder(self, nbytes: int) -> Path:
        if self._store is not None:
            folder = self._store / DATA
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        return temporary_folder(nbytes)


class KnownObjects:
    """Remembers the bundles of objects by identity, so that each is hashed once.

    Parameters
    ----------
    data_store : DataStore
    """

    def __init__(self, data_store: DataStore) -> None:
        self._data_store = data_store
        self._refs: IdentityMemo[DataRef] = IdentityMemo()

    def put(self, value: Any, *, what: str) -> DataRef:
        """Put an object into the data store, unless this very object was put before."""
        ref = self._refs.get(value)
        if ref is None:
            ref = self._data_store.put(value, what=what)
            self._data_store.hold(ref)
            self._refs.put(value, value=ref)
        return ref

    def clear(self) -> None:
        """Release the objects, and bundles that have no other user in this process."""
        refs = list(self._refs.values())
        self._refs.clear()
        self._data_store.release(refs)


def _ref_of(
    path: Path, made_from: DataRef | None, nbytes: int | None = None
) -> DataRef:
    """Return the reference to a file; references into a folder share its name."""
    size = path.stat().st_size if nbytes is None else nbytes
    return DataRef(path.name, size, sys.intern(str(path.parent)), made_from)


def _check_bundle(path: Path, reference: DataReference, what: str) -> None:
    try:
        verify(path, reference.digest)
        os.utime(path)  # protects it from garbage collection
    except OSError as error:
        msg = (
            f"the run's data {what!r} was deleted or altered: {error}. Restore the file, or "
            "start a new run"
        )
        raise DataUnavailableError(msg) from error


def _cache_of_driver() -> NodeCache:
    return NodeCache.of_environment(paths.data_folder() / "cache", temporary=False)


def _write_or_use(bundle: Bundle, path: Path) -> None:
    """Write a bundle, unless there is an intact one."""
    with contextlib.suppress(OSError, ValueError):
        verify(path, bundle.digest)
        os.utime(path)  # protects it from garbage collection
        return
    path.unlink(missing_ok=True)
    bundle.write(path)


def _encode(value: Any, what: str) -> Bundle:
    try:
        return Bundle(value)
    except Exception as error:
        raise UnpicklableError.of(what, error) from error
