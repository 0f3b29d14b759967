"""GKE clusters: found, created, changed, deleted, and deleted in time."""

from __future__ import annotations

__all__ = [
    "clusters",
    "identities",
    "labels",
    "project_bindings",
    "reaper",
    "reaper_pod",
    "state",
]
