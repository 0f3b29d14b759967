"""The Dask clusters of a namespace at a glance."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from dask_hpsearch.cli.clusters import table
from dask_hpsearch.clusters.kubernetes.manifests import OWNER_ANNOTATION
from dask_hpsearch.clusters.kubernetes.overview import row_of

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def cluster(**metadata: Any) -> dict[str, Any]:
    """Return a DaskCluster as Kubernetes has it."""
    made = {"name": "forest", "creationTimestamp": "2026-01-01T21:00:00Z"}
    return {"metadata": made | metadata, "spec": {"idleTimeout": 7200}}


def pod(part: str, *, ready: bool = True) -> dict[str, Any]:
    """Return a pod of the cluster."""
    condition = {"type": "Ready", "status": str(ready)}
    return {
        "metadata": {"labels": {"dask.org/component": part}},
        "status": {"phase": "Running", "conditions": [condition]},
    }


GROUPS = [
    {"spec": {"cluster": "forest", "worker": {"replicas": 3}}},
    {"spec": {"cluster": "other", "worker": {"replicas": 7}}},
]
PODS = [pod("scheduler"), pod("worker"), pod("worker", ready=False), pod("driver")]


@pytest.mark.parametrize(
    ("one", "pods", "idle_since", "state"),
    [
        (cluster(), PODS, 0.0, "working"),
        (cluster(), PODS, None, "running"),
        (cluster(), PODS, NOW.timestamp() - 90, "idle for 1 min, ends after 2 h"),
        (cluster(), [], None, "starting"),
        (cluster(deletionTimestamp="2026-01-01T23:00:00Z"), PODS, None, "ending"),
    ],
)
def test_a_cluster_is_told_in_a_row(
    one: dict[str, Any], pods: list[dict[str, Any]], idle_since: float, state: str
) -> None:
    """Age, workers, owner, since when there has been no work."""
    one["metadata"]["annotations"] = {OWNER_ANNOTATION: "ada@desk"}

    row = row_of(one, GROUPS, pods, now=NOW, idle_since=idle_since)

    assert (row.name, row.age, row.desired, row.owner) == (
        "forest",
        "3 h",
        3,
        "ada@desk",
    )
    assert row.state == state
    assert row.ready == (1 if pods else 0)
    assert row.runs == ("1" if pods else "0")


def test_rows_stand_below_each_other_with_what_is_wrong() -> None:
    """One line each; a cluster of another program has no owner that is known."""
    row = row_of(cluster(), GROUPS, PODS, now=NOW, problem="pod p finds no node")

    lines = table([row]).splitlines()

    assert lines[0].split() == ["NAME", "AGE", "WORKERS", "OWNER", "STATE", "RUNS"]
    assert lines[1].split() == ["forest", "3", "h", "1/3", "unknown", "running", "1"]
    assert lines[2] == "forest: pod p finds no node"
