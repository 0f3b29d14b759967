"""Requests to the driver of a run: objects in the run's folder that the driver looks for."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from dask_hpsearch.journal.run_state import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.stores import Store

_REQUESTS = "requests/"
# The most urgent first: a cancelled run needs no result.
_STATES = (RunState.CANCELLED, RunState.STOPPED)


def add_request(store: Store, state: RunState) -> None:
    """Ask the driver of a run to end the run.

    Parameters
    ----------
    store : Store
        The run's folder.
    state : {RunState.CANCELLED, RunState.STOPPED}
        How the run is to end.
    """
    store.create(f"{_REQUESTS}{state}-{uuid.uuid4().hex[:12]}", b"")


def list_requests(store: Store) -> list[str]:
    """Return the names of all requests that were made to drivers of a run."""
    return [one.name for one in store.list(_REQUESTS)]


def requested_states(names: Iterable[str]) -> list[RunState]:
    """Return the states that requests ask for, the most urgent first."""
    names = list(names)
    return [
        state
        for state in _STATES
        if any(name.startswith(f"{_REQUESTS}{state}-") for name in names)
    ]
