"""Fitted pipeline steps that all slots of a node share."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from dask_hpsearch.localfs.node_cache import Claim
from dask_hpsearch.slots.node_files import NodeFiles
from dask_hpsearch.slots.snapshots import Snapshot

if TYPE_CHECKING:
    from collections.abc import Hashable

_LARGEST_PART = 4  # one step takes at most a quarter of the room
_LEAST_S = 0.02
_BYTES_PER_S = 200e6


class NodeSteps(NodeFiles):
    """The fitted steps of a search on this node."""

    prefix = "steps-"
    most_bytes = 2 * 2**30

    def key(self, step: Hashable) -> str | None:
        """Return the name of a step's file; None if it has no name on other slots."""
        return self.name_of(self.place.code, step)

    def recall(self, key: str) -> tuple[Any, Any] | bool | Claim | None:
        """Return private copies of a step's output and the step, or a claim to make them.

        Returns
        -------
        tuple, bool, Claim or None
            A bool for a step that is fitted every time: whether another fit gives the same
            result. None if the node's cache cannot be used.

        Raises
        ------
        BeingMadeError
            If another slot is making the file.
        """
        found = self.find(key)
        if found is None or isinstance(found, Claim):
            return found
        loaded: tuple[Any, Any] | bool | None = self.load(found)
        return loaded

    def is_worth(self, seconds: float, nbytes: int) -> bool:
        """Whether mapping a step's file is much faster than fitting it again."""
        return seconds >= _LEAST_S + nbytes / _BYTES_PER_S

    def keep(self, claim: Claim, snapshot: Snapshot) -> bool:
        """Fill a claim, unless the step is too large; return whether it was filled."""
        if snapshot.nbytes > self.room // _LARGEST_PART:
            return False
        return self.fill(claim, snapshot)

    def note_every_time(self, claim: Claim, *, repeatable: bool) -> None:
        """Fill a claim with the note that the step is fitted every time."""
        self.fill(claim, Snapshot(pickle.dumps(repeatable), ()))
