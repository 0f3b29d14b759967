"""Inspects a GKE cluster: its Dask clusters, the drivers of runs, its nodes."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError
from dask_hpsearch.clusters.kubernetes.driver_job import RUN_LABEL
from dask_hpsearch.clusters.kubernetes.manifests import CLUSTER_LABEL, COMPONENT_LABEL
from dask_hpsearch.concurrency import run_coroutine
from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.deploy.context import DeployContext

Manifest = dict[str, Any]
DEFAULT_GROUP = "default"  # the worker group that every Dask cluster has


@dataclass(frozen=True, slots=True)
class DaskClusterState:
    """A Dask cluster.

    Attributes
    ----------
    namespace, name : str
    desired, ready : int
        Numbers of workers.
    """

    namespace: str
    name: str
    desired: int
    ready: int


@dataclass(frozen=True, slots=True)
class GKEUsage:
    """What runs on a GKE cluster now.

    Attributes
    ----------
    dask_clusters : tuple of DaskClusterState
    drivers : tuple of str
        Jobs of unfinished runs.
    nodes : tuple of (str, float)
        The node pool of each node, and when it was created, in seconds since the epoch.
    """

    dask_clusters: tuple[DaskClusterState, ...]
    drivers: tuple[str, ...]
    nodes: tuple[tuple[str, float], ...]


def inspect(context: DeployContext) -> GKEUsage:
    """Return what runs on the spec's GKE cluster.

    Raises
    ------
    CloudError
        If there is no such GKE cluster.
    ClusterError
        If Kubernetes refuses or does not respond.
    """
    kubeconfig = context.kubeconfig()
    return run_coroutine(lambda: _inspect(kubeconfig))


async def _inspect(kubeconfig: Path) -> GKEUsage:
    async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
        everywhere = api.in_namespace("")
        return GKEUsage(
            await _dask_clusters(everywhere),
            await _drivers(everywhere),
            await _nodes(api),
        )


async def _dask_clusters(everywhere: KubernetesApi) -> tuple[DaskClusterState, ...]:
    try:
        clusters = await everywhere.list("DaskCluster")
        groups = await everywhere.list("DaskWorkerGroup")
    except ObjectMissingError:  # the operator is not installed yet
        return ()
    workers = await everywhere.list("Deployment", f"{COMPONENT_LABEL}=worker")
    ready = Counter(
        _cluster_of(one) for one in workers if one["status"].get("availableReplicas")
    )
    desired = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"]["worker"][
            "replicas"
        ]
        for one in groups
    }
    found = []
    for one in clusters:
        namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
        count = desired.get((namespace, f"{name}-{DEFAULT_GROUP}"), 0)
        found.append(DaskClusterState(namespace, name, count, ready[namespace, name]))
    return tuple(found)


async def _drivers(everywhere: KubernetesApi) -> tuple[str, ...]:
    jobs = await everywhere.list("Job", RUN_LABEL)
    finished = {"Complete", "Failed"}
    return tuple(
        job["metadata"]["name"]
        for job in jobs
        if not any(
            one["type"] in finished and one["status"] == "True"
            for one in job.get("status", {}).get("conditions", [])
        )
    )


async def _nodes(api: KubernetesApi) -> tuple[tuple[str, float], ...]:
    found = []
    for node in await api.list("Node"):
        labels = node["metadata"].get("labels", {})
        created = dt.datetime.fromisoformat(node["metadata"]["creationTimestamp"])
        for label, pool in ((ON_DEMAND_LABEL, "system"), (WORKERS_LABEL, "workers")):
            if label in labels:
                found.append((pool, created.timestamp()))
    return tuple(found)


def _cluster_of(deployment: Manifest) -> tuple[str, str]:
    metadata = deployment["metadata"]
    return metadata["namespace"], metadata["labels"].get(CLUSTER_LABEL, "")
