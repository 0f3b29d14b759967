"""Fitted steps that all slots of a node share: files, made once by the slot that is first.

A slot claims a step before it fits it. Another one that needs it meanwhile gets an error that
says that it is being made. A claim ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.localfs import bundles
from dask_hpsearch.localfs.node_cache import Claim, NodeCache

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from dask_hpsearch.slots.snapshots import Snapshot

PREFIX = "steps-"
MOST_BYTES = 2 * 2**30
_LARGEST_PART = 4  # one step takes at most a quarter of the room
_LEAST_S = 0.02
_BYTES_PER_S = 200e6
_POLL_S = 0.005
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class StepsFolder:
    """Where a node's slots keep fitted steps.

    Attributes
    ----------
    folder : Path
        Of the node's cache.
    limit_bytes : int or None
        The cache's.
    search : str
        Names the search; its steps go with it.
    code : str
        Tells apart the versions of user modules.
    """

    folder: Path
    limit_bytes: int | None
    search: str
    code: str


class BeingMadeError(BaseException):
    """Another slot fits the step now: do something else first.

    No `Exception`, which scikit-learn would take for a fit's failure.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class NodeSteps:
    """The fitted steps of a search on this node.

    Parameters
    ----------
    place : StepsFolder
    cache : NodeCache
        In that folder.

    Attributes
    ----------
    place : StepsFolder
    """

    def __init__(self, place: StepsFolder, cache: NodeCache) -> None:
        self.place = place
        self._cache = cache
        limit = place.limit_bytes
        self._room = MOST_BYTES if limit is None else min(MOST_BYTES, limit // 4)

    @classmethod
    def open(cls, place: StepsFolder) -> NodeSteps:
        """Open a node's cache."""
        return cls(place, NodeCache(place.folder, limit_bytes=place.limit_bytes))

    def at(self, place: StepsFolder) -> NodeSteps:
        """Return the steps of another search, or of another version of its code."""
        if place == self.place:
            return self
        if place.folder == self.place.folder:
            return NodeSteps(place, self._cache)
        self._cache.close()
        return NodeSteps.open(place)

    def key(self, step: Hashable) -> str | None:
        """Return the name of a step's file; None if it has no name on other slots."""
        content = repr((self.place.code, step))
        if " at 0x" in content:  # in the settings there is an object without a name
            return None
        digest = hashlib.sha256(content.encode(), usedforsecurity=False).hexdigest()
        return f"{prefix_of(self.place.search)}{digest[:32]}"

    def find(self, key: str) -> tuple[Any, Any] | bool | Claim | None:
        """Return a private copy of a step's output and the step, or a claim to make them.

        Returns
        -------
        tuple, bool, Claim or None
            Of a step that is fitted every time, whether it comes out the same. None
            where the node's cache cannot be used, or others may write to it: pickles of
            theirs are not loaded.

        Raises
        ------
        BeingMadeError
            If another slot makes it.
        """
        if not self._is_own():
            return None
        try:
            found = self._cache.claim(key)
            if found is None:
                raise BeingMadeError(key)
            if isinstance(found, Claim):
                return found
            with found:
                loaded: tuple[Any, Any] | bool
                loaded = bundles.load(str(found.path), writable=True)
                return loaded
        except (OSError, StoreError):
            return None

    def wait(self, key: str, *, given_up: Callable[[], bool]) -> None:
        """Wait until nobody makes a step, or it is given up."""
        while not given_up():
            try:
                found = self._cache.claim(key)
            except (OSError, StoreError):
                return
            if found is not None:
                found.close()
                return
            time.sleep(_POLL_S)

    def is_worth(self, seconds: float, nbytes: int) -> bool:
        """Whether to map a step's file is much faster than to fit it again."""
        return seconds >= _LEAST_S + nbytes / _BYTES_PER_S

    def keep(self, claim: Claim, snapshot: Snapshot) -> bool:
        """Fill a claim, unless that takes too much room; return whether it was."""
        if snapshot.nbytes > self._room // _LARGEST_PART:
            return False
        return self._fill(claim, snapshot.pickled, snapshot.buffers)

    def note_every_time(self, claim: Claim, *, repeatable: bool) -> None:
        """Fill a claim with the note that the step is fitted every time."""
        self._fill(claim, pickle.dumps(repeatable), ())

    def _is_own(self) -> bool:
        try:
            status = self.place.folder.stat()
        except FileNotFoundError:
            return True  # nobody else will be let in
        return (
            status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS
        )

    def _fill(self, claim: Claim, pickled: bytes, buffers: Sequence[Any]) -> bool:
        nbytes = len(pickled) + sum(len(buffer) for buffer in buffers)

        def write(path: Path) -> str:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                bundles.write_parts(file, pickled, buffers)
            return f"size:{path.stat().st_size}"

        # A full disk, perhaps: each slot makes it for itself.
        with contextlib.suppress(OSError, StoreError):
            claim.fill(nbytes, write, among=PREFIX, limit_bytes=self._room)
            return True
        return False


def prefix_of(search: str) -> str:
    """Return how the names of a search's files begin."""
    digest = hashlib.sha256(search.encode(), usedforsecurity=False).hexdigest()
    return f"{PREFIX}{digest[:16]}-"
