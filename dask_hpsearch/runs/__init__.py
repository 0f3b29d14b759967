"""Runs: searches that can outlive the process that started them."""

from __future__ import annotations

from dask_hpsearch.runs.run import SearchRun

__all__ = [
    "SearchRun",
    "create",
    "gc",
    "history",
    "live",
    "notebook_view",
    "stores",
    "submit",
    "watch",
]
