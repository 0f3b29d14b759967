"""Specs of clusters: YAML files as values that have been checked."""

from __future__ import annotations

__all__ = [
    "cluster",
    "gke",
    "gke_parts",
    "load",
    "machines",
    "placement",
    "quantities",
    "spec_files",
]
