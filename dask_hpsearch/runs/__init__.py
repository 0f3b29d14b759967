"""Runs: searches that outlive the process that began them."""

from __future__ import annotations

from dask_hpsearch.runs.run import SearchRun

__all__ = ["SearchRun", "create", "follow", "gc", "submit"]
