"""A driver's pod that finds no room is told with its sizes, from what Kubernetes has."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import pytest

from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec, driver_job
from dask_hpsearch.clusters.kubernetes.job_control import problem_of
from dask_hpsearch.config.load import load_spec
from tests.clusters.kubernetes.test_manifests import SPOT

JOB = DriverJobSpec("run", "run-1", "the.program", {}, "key")
WITHIN_S = 120.0
NODE = {"status": {"allocatable": {"cpu": "3920m", "memory": "13283Mi"}}}


@dataclass
class Documents:
    """Lists objects as Kubernetes has them, without a Kubernetes."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    async def list(
        self, kind: str, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        """Return the objects of a kind; there are no others."""
        del labels, fields
        return self.objects.get(kind, [])


def ago(seconds: float) -> str:
    """Write a time as Kubernetes does."""
    time = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def pending(seconds: float, message: str) -> dict[str, Any]:
    """Return the driver's pod, which has found no node for some seconds."""
    job = driver_job("a", "here", load_spec(SPOT), JOB)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": ago(seconds),
    }
    labels = job["spec"]["template"]["metadata"]["labels"]
    return {
        "metadata": {
            "name": "run-1-x",
            "labels": labels,
            "creationTimestamp": ago(seconds),
        },
        "spec": job["spec"]["template"]["spec"],
        "status": {"phase": "Pending", "conditions": [condition]},
    }


def found(pod: dict[str, Any], *events: dict[str, Any]) -> Any:
    """Return the problem of the driver's Job, by these documents."""
    job = {"metadata": {"name": "run-1"}, "status": {}}
    objects = {"Job": [job], "Pod": [pod], "Event": list(events), "Node": [NODE]}
    return asyncio.run(problem_of(Documents(objects), "run-1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_a_driver_without_room_is_an_error_within_two_minutes(resource: str) -> None:
    """With what the pod requests, what nodes have, and that no node is coming."""
    message = f"0/1 nodes are available: 1 Insufficient {resource}."

    problem = found(pending(WITHIN_S, message))

    assert problem.outlook == "late"
    assert problem.part == "driver"
    for words in (
        f"Insufficient {resource}",
        "it requests cpu 7, memory 26Gi",
        "no node is being added",
        "Allocatable on nodes: 1 of cpu 3920m, memory 13283Mi",
    ):
        assert words in problem.message


def test_a_node_that_is_coming_is_waited_for() -> None:
    """A driver often has a node of its own, which the autoscaler adds first."""
    event = {
        "reason": "TriggeredScaleUp",
        "message": "pod triggered scale-up: [{system 1->2 (max: 3)}]",
        "lastTimestamp": ago(60),
    }

    problem = found(pending(WITHIN_S, "1 Insufficient memory."), event)

    assert problem.outlook == "wait"
    assert "a node is being added" in problem.message
