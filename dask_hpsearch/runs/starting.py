"""Starts a driver process for a run, and says so in the run's journal."""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING

from dask_hpsearch.journal.folder import RUNS
from dask_hpsearch.journal.segments import write_once
from dask_hpsearch.runs.processes import start_driver
from dask_hpsearch.runs.states import signature_of
from dask_hpsearch.stores import Store, open_store

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder


def start(
    folder: RunFolder,
    client: Client | None,
    *,
    generation: int = 0,
    n_iter_more: int = 0,
    ignored: list[str] | None = None,
) -> None:
    """Start a driver process for a run, and note that in its journal."""
    driver = uuid.uuid4().hex
    options = {
        "store": store_of(folder.store).url,
        "generation": generation,
        "n_iter_more": n_iter_more,
        "driver": driver,
        "ignored": ignored or [],
    }
    key, began = folder.signing_key(), time.time()
    pid = start_driver(folder, client=client, options=options)
    event = {"e": "state", "state": "starting", "g": generation, "t": began}
    event |= signature_of(driver, pid, own=True)
    write_once(folder.store, folder.run_id, key, [event])


def note_cancelled(folder: RunFolder, generation: int) -> None:
    """Note in a run's journal that it was cancelled, for a driver that cannot."""
    event = {"e": "state", "state": "cancelled", "g": generation, "t": time.time()}
    event |= signature_of(uuid.uuid4().hex, os.getpid(), own=False)
    write_once(folder.store, folder.run_id, folder.signing_key(), [event])


def store_of(run_store: Store) -> Store:
    """Return the store that a run's folder lies in."""
    return open_store(run_store.url.rsplit(f"/{RUNS}/", 1)[0])
