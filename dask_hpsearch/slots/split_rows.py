"""The rows of a split: selected once on a node, and mapped by each fit as its own copy.

scikit-learn selects ``X[train]`` and ``X[test]`` anew for every fit, so that a node with 64
slots holds 64 copies of X. Here one slot selects the rows, and writes them to a file of the
node. Each fit gets a private map of that file: pages that the fit writes to become its own.
Small data are kept in the memory of each slot instead, and copied for each fit.

The rows equal those that scikit-learn selects, in every bit and in the same order in memory.
If this is not certain, each fit selects its own rows, as before.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from dask_hpsearch.concurrency import poll_until
from dask_hpsearch.localfs import bundles
from dask_hpsearch.localfs.node_cache import Claim
from dask_hpsearch.slots.node_files import BeingMadeError, NodeFiles
from dask_hpsearch.slots.snapshots import Snapshot, exact_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

KIB, GIB = 2**10, 2**30
_SMALL_BYTES = 256 * KIB  # above it, a map takes less time than a copy
_ROOM_IN_SLOT = 32 * 2**20
_MOST_KNOWN = 1000
_LEAST_FITS = 3  # of a split; fewer do not repay the file
_MEMORY_PART = 2  # the rows of all splits take at most half of the free memory
_MOST_PICKLED = 16 * KIB  # objects cost more time to load than to select
_WAIT_S = 1.0
_WAIT_BYTES_PER_S = 25e6
_POLL_INTERVAL = 0.01
_LEAST_RELEASED = 64 * 2**20
_RELEASE_EVERY_S = 0.03
# So many slots of a node select rows at once: memory limits their speed.
SLOTS_SELECTING = max(1, (os.cpu_count() or 1) // 4)


@dataclass(frozen=True, slots=True)
class Split:
    """The identity and the size of a fit's data.

    Attributes
    ----------
    digests : tuple of str
        Digests of X, y and the pair (train, test).
    nbytes : int
        Size of X and y in bytes.
    n_fits : int or None
        Number of the search's fits on this split; None if it is unknown.
    n_splits : int or None
        Number of splits of the search.
    data : tuple
        X and y, if they are mapped files.
    """

    digests: tuple[str, str, str]
    nbytes: int
    n_fits: int | None
    n_splits: int | None
    data: tuple[Any, ...] = ()


class NodeRows(NodeFiles):
    """The rows of splits that the slots of a node share."""

    prefix = "rows-"
    most_bytes = 64 * GIB
    part_of_cache = 2


class SplitRows:
    """The rows of splits for the fits of this slot.

    Attributes
    ----------
    node : NodeRows or None
        The files of the node.
    """

    def __init__(self) -> None:
        self.node: NodeRows | None = None
        self._in_slot: collections.OrderedDict[tuple[str, ...], Snapshot]
        self._in_slot = collections.OrderedDict()
        self._nbytes = 0
        self._files: dict[tuple[str, ...], Path] = {}
        self._selected_each_time: set[tuple[str, ...]] = set()

    def rows(self, split: Split, select: Callable[[], Any]) -> Any:
        """Return the rows of a split, for one fit to write to.

        Parameters
        ----------
        split : Split
        select : callable
            Selects the rows, as scikit-learn does.

        Returns
        -------
        object
            The result of ``select``, or an exact copy.
        """
        key = split.digests
        if (split.n_fits or 0) < _LEAST_FITS or key in self._selected_each_time:
            return select()
        if split.nbytes <= _SMALL_BYTES:
            return self._from_slot(key, select)
        found = self._from_file(key)
        return self._from_node(split, select) if found is None else found

    def forget(self, digest: str) -> None:
        """Drop the rows of data that are no longer used."""
        for key in [one for one in self._in_slot if digest in one]:
            self._nbytes -= self._in_slot.pop(key).nbytes
        for key in [one for one in self._files if digest in one]:
            del self._files[key]

    def _from_slot(self, key: tuple[str, ...], select: Callable[[], Any]) -> Any:
        known = self._in_slot.get(key)
        if known is not None:
            self._in_slot.move_to_end(key)
            return known.load()
        rows = select()
        snapshot = _snapshot(rows)
        if snapshot is None:
            self._note_each_time(key)
            return rows
        self._in_slot[key] = snapshot.kept()
        self._nbytes += snapshot.nbytes
        while self._nbytes > _ROOM_IN_SLOT:
            self._nbytes -= self._in_slot.popitem(last=False)[1].nbytes
        return rows

    def _from_file(self, key: tuple[str, ...]) -> Any:
        """Map the rows of a known file; None if there is none."""
        path = self._files.get(key)
        if path is None or self.node is None:
            return None
        found = self.node.load(path)
        if found is None:  # it was removed to make room
            del self._files[key]
        else:
            self.node.touch(path)
        return found

    def _from_node(self, split: Split, select: Callable[[], Any]) -> Any:
        """Return rows that a slot of this node has selected, or be that slot."""
        key, node = split.digests, self.node
        name = None if node is None else node.name_of(*key)
        if node is None or name is None or not _has_room(split, node):
            self._note_each_time(key)
            return select()
        found = _found(node, name, split.nbytes)
        if found is None:
            return select()
        if not isinstance(found, Claim):
            self._note_file(key, found)
            rows = self._from_file(key)
            return select() if rows is None else rows
        with found as claim, _turn(node, split.nbytes):
            with _releasing(split):
                rows = select()
            snapshot = _snapshot(rows)
            if snapshot is None or not node.fill(claim, snapshot):
                self._note_each_time(key)
                return rows
            self._note_file(key, claim.path)
        mapped = self._from_file(key)  # pages of the node, not of this process alone
        if mapped is None:
            return rows
        del rows, snapshot
        _free_memory()
        return mapped

    def _note_file(self, key: tuple[str, ...], path: Path) -> None:
        if len(self._files) >= _MOST_KNOWN:
            self._files.clear()
        self._files[key] = path

    def _note_each_time(self, key: tuple[str, ...]) -> None:
        if len(self._selected_each_time) >= _MOST_KNOWN:
            self._selected_each_time.clear()
        self._selected_each_time.add(key)


def _found(node: NodeRows, name: str, nbytes: int) -> Path | Claim | None:
    """Return the file of the rows, or a claim to make it; wait if another slot makes it."""
    try:
        return node.find(name)
    except BeingMadeError:
        node.wait(name, timeout=_most_wait_s(nbytes))
    try:
        return node.find(name)
    except BeingMadeError:
        return None


@contextlib.contextmanager
def _turn(node: NodeRows, nbytes: int) -> Iterator[None]:
    """Wait for this slot's turn to select rows: until they are written, they are in memory.

    After some time the slot begins anyway.
    """
    turns = [node.name_of("turn", turn) for turn in range(SLOTS_SELECTING)]
    turn = poll_until(
        lambda: _free_one(node, turns),
        lambda one: one is not None,
        timeout=_most_wait_s(nbytes),
        interval=_POLL_INTERVAL,
    )
    with turn or contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _releasing(split: Split) -> Iterator[None]:
    """Hold few pages of the data while rows are selected, and none afterwards.

    Fits need the rows alone. Without this, the selecting slot holds the data and the rows.
    """
    ended = threading.Event()

    def release() -> None:
        while not ended.wait(_RELEASE_EVERY_S):
            bundles.release_pages(split.data)

    thread = threading.Thread(target=release, daemon=True)
    if split.nbytes > _LEAST_RELEASED:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()
        bundles.release_pages(split.data)


def _free_one(
    node: NodeRows, turns: Iterable[str | None]
) -> AbstractContextManager[object] | None:
    """Claim a turn; None if all are taken."""
    for name in turns:
        with contextlib.suppress(BeingMadeError):
            found = None if name is None else node.find(name)
            # Without a cache there are no turns.
            return found if isinstance(found, Claim) else contextlib.nullcontext()
    return None


def _most_wait_s(nbytes: int) -> float:
    """Return how long to wait for rows that other slots select and write."""
    return _WAIT_S + nbytes / _WAIT_BYTES_PER_S


def _has_room(split: Split, node: NodeRows) -> bool:
    """Whether the rows of all splits fit in the cache's room and in free memory."""
    nbytes = split.nbytes * (split.n_splits or 1)
    free: int = psutil.virtual_memory().available
    return nbytes <= min(node.room, free // _MEMORY_PART)


def _free_memory() -> None:
    """Return freed memory to the system: a slot otherwise keeps it for the next fit."""
    with contextlib.suppress(AttributeError, OSError):  # only glibc has the function
        ctypes.CDLL(None).malloc_trim(0)


def _snapshot(rows: Any) -> Snapshot | None:
    """Take a snapshot of selected rows; None if selecting them again takes less time."""
    snapshot = exact_snapshot(rows)
    if snapshot is None or len(snapshot.pickled) > _MOST_PICKLED:
        return None
    return snapshot
