"""Specs of GKE clusters for tests."""

from __future__ import annotations

from typing import Any

from dask_hpsearch.config.load import load_gke_spec

SMALL: dict[str, Any] = {
    "project": "some-project",
    "location": "europe-west4-a",
    "name": "searches",
    "store": "gs://some-bucket/runs",
    "labels": {"team": "research"},
    "dask": {"workers": {"cpu": 7, "memory": "24Gi", "slots": 7, "max": 10}},
}


def spec(**changes: Any) -> Any:
    """A small cluster's spec, with some fields changed."""
    return load_gke_spec(SMALL | changes)
