"""Data of searches: put where workers find it, or referred to where it lies."""

from __future__ import annotations

from dask_hpsearch.data.data_store import DataStore, KnownObjects
from dask_hpsearch.data.transfer import DataSender

__all__ = [
    "DataSender",
    "DataStore",
    "KnownObjects",
    "collections",
    "inputs",
    "node_reader",
    "prefetch",
    "remote_files",
    "signing",
    "sources",
    "upload",
]
