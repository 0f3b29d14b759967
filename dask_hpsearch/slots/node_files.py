"""Pickled objects in files that all slots of a node share.

The first slot that needs a file claims it and makes it. Another slot that needs the file in
the meantime gets `BeingMadeError`. A claim ends with its process, however the process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch.concurrency import poll_until
from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.localfs import bundles
from dask_hpsearch.localfs.node_cache import Claim, NodeCache

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from dask_hpsearch.slots.snapshots import Snapshot

_POLL_INTERVAL = 0.005
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """The folder of a node's shared files, and the search that they belong to.

    Attributes
    ----------
    folder : Path
        The folder of the node's cache.
    limit_bytes : int or None
        The limit of the cache.
    search : str
        Names the search; its files are removed when it ends.
    code : str
        Identifies the version of the user's modules.
    """

    folder: Path
    limit_bytes: int | None
    search: str
    code: str


class BeingMadeError(BaseException):
    """Another slot is making the file: do something else first.

    This is not an `Exception`, which scikit-learn would treat as a failed fit.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class NodeFiles:
    """The shared files of one kind and one search on this node.

    Parameters
    ----------
    place : NodeFolder
    cache : NodeCache
        The cache in that folder.

    Attributes
    ----------
    place : NodeFolder
    room : int
        Bytes that all files of this kind may take.
    """

    prefix = ""
    most_bytes = 0
    part_of_cache = 4  # the files take at most this part of the cache

    def __init__(self, place: NodeFolder, cache: NodeCache) -> None:
        self.place = place
        self._cache = cache
        limit = place.limit_bytes
        part = self.most_bytes if limit is None else limit // self.part_of_cache
        self.room = min(self.most_bytes, part)

    @classmethod
    def open(cls, place: NodeFolder) -> Self:
        """Open a node's cache."""
        return cls(place, NodeCache(place.folder, limit_bytes=place.limit_bytes))

    def at(self, place: NodeFolder) -> Self:
        """Return the files of another search, or of another version of its code."""
        if place == self.place:
            return self
        if place.folder == self.place.folder:
            return type(self)(place, self._cache)
        self._cache.close()
        return self.open(place)

    def name_of(self, *content: Hashable) -> str | None:
        """Return the name of a file; None if other slots would give it another name."""
        text = repr(content)
        if " at 0x" in text:  # an object without a name
            return None
        digest = hashlib.sha256(text.encode(), usedforsecurity=False).hexdigest()
        return f"{search_prefix(self.prefix, self.place.search)}{digest[:32]}"

    def find(self, name: str) -> Path | Claim | None:
        """Return the path of a file, or a claim to make it.

        Returns
        -------
        Path, Claim or None
            None if the node's cache cannot be used, or if other users may write to it:
            their pickles are not loaded.

        Raises
        ------
        BeingMadeError
            If another slot is making it.
        """
        if not self._is_own():
            return None
        try:
            found = self._cache.claim(name)
        except (OSError, StoreError):
            return None
        if found is None:
            raise BeingMadeError(name)
        if isinstance(found, Claim):
            return found
        found.close()
        return found.path

    def wait(
        self,
        name: str,
        *,
        given_up: Callable[[], bool] = bool,
        timeout: float | None = None,
    ) -> None:
        """Wait until no slot is making a file any more, or until the wait is given up.

        Parameters
        ----------
        name : str
        given_up : callable
            Whether to stop waiting.
        timeout : float, optional
            Seconds.
        """
        poll_until(
            lambda: given_up() or not self._is_being_made(name),
            bool,
            timeout=timeout,
            interval=_POLL_INTERVAL,
        )

    def fill(self, claim: Claim, snapshot: Snapshot) -> bool:
        """Make a claimed file; return whether there was room for it."""

        def write(path: Path) -> str:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                bundles.write_parts(file, snapshot.pickled, snapshot.buffers)
            return f"size:{path.stat().st_size}"

        # If the disk is full, each slot makes the object for itself.
        with contextlib.suppress(OSError, StoreError):
            claim.fill(snapshot.nbytes, write, among=self.prefix, limit_bytes=self.room)
            return True
        return False

    def load(self, path: Path) -> Any:
        """Return a private copy of a file's object; None if the file is gone."""
        with contextlib.suppress(OSError):
            return bundles.load(str(path), writable=True)
        return None

    def touch(self, path: Path) -> None:
        """Note that a file is used now: the least recently used files are removed first."""
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def _is_being_made(self, name: str) -> bool:
        try:
            found = self._cache.claim(name)
        except (OSError, StoreError):
            return False
        if found is not None:
            found.close()
        return found is None

    def _is_own(self) -> bool:
        try:
            status = self.place.folder.stat()
        except FileNotFoundError:
            return True  # this process creates it, closed to others
        return (
            status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS
        )


def search_prefix(kind: str, search: str) -> str:
    """Return the common beginning of the names of a search's files of one kind."""
    digest = hashlib.sha256(search.encode(), usedforsecurity=False).hexdigest()
    return f"{kind}{digest[:16]}-"
