"""Stores of runs: the default one on this machine, and the one around a run's folder."""

from __future__ import annotations

from dask_hpsearch import paths
from dask_hpsearch.journal.folder import RUNS
from dask_hpsearch.stores import Store, open_store


def default_store() -> Store:
    """Return the store of the user's runs on this machine."""
    return open_store(paths.data_folder() / "store")


def store_around(run_store: Store) -> Store:
    """Return the store that contains a run's folder."""
    return open_store(run_store.url.rsplit(f"/{RUNS}/", 1)[0])
