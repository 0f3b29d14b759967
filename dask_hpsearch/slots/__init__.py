"""Slots: processes on the Dask workers that run one fit at a time."""

from __future__ import annotations

__all__ = [
    "disk_watch",
    "model_state",
    "module_plugin",
    "no_internet",
    "oom_record",
    "own_cluster",
    "plugin",
    "slot",
]
