"""What is on a GKE cluster: Dask clusters and nodes."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError
from dask_hpsearch.clusters.kubernetes.driver_job import RUN_LABEL
from dask_hpsearch.clusters.kubernetes.lifecycle import Lifecycle
from dask_hpsearch.clusters.kubernetes.manifests import CLUSTER_LABEL, COMPONENT_LABEL
from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

Manifest = dict[str, Any]
_GROUP = "default"  # the group of workers that every Dask cluster has


@dataclass(frozen=True, slots=True)
class DaskState:
    """A Dask cluster.

    Attributes
    ----------
    namespace, name : str
    wanted, ready : int
        How many workers it is to have, and has.
    """

    namespace: str
    name: str
    wanted: int
    ready: int


@dataclass(frozen=True, slots=True)
class Inside:
    """What is on a GKE cluster right now.

    Attributes
    ----------
    dask : tuple of DaskState
    drivers : tuple of str
        Jobs that drive runs, and are not over.
    nodes : tuple of (str, float)
        The pool of each node, and when it came, in seconds since the epoch.
    """

    dask: tuple[DaskState, ...]
    drivers: tuple[str, ...]
    nodes: tuple[tuple[str, float], ...]


async def look_inside(kubeconfig: Path) -> Inside:
    """Look what is on a GKE cluster.

    Raises
    ------
    ClusterError
        If Kubernetes does not tell.
    """
    async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
        everywhere = type(api)(api.connection, "")
        return Inside(
            await _dask(everywhere), await _drivers(everywhere), await _nodes(api)
        )


async def scale(kubeconfig: Path, dask: DaskState, workers: int) -> None:
    """Change how many workers a Dask cluster is to have.

    Raises
    ------
    ClusterError
        If Kubernetes refuses.
    """
    async with kubernetes_api.connected(
        kubeconfig=str(kubeconfig), namespace=dask.namespace
    ) as api:
        await Lifecycle(api, dask.name).scale(workers, _GROUP)


async def _dask(everywhere: KubernetesApi) -> tuple[DaskState, ...]:
    try:
        clusters = await everywhere.list("DaskCluster")
        groups = await everywhere.list("DaskWorkerGroup")
    except ObjectMissingError:  # there is no operator yet
        return ()
    workers = await everywhere.list("Deployment", f"{COMPONENT_LABEL}=worker")
    ready = Counter(
        _owner(one) for one in workers if one["status"].get("availableReplicas")
    )
    wanted = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"]["worker"][
            "replicas"
        ]
        for one in groups
    }
    found = []
    for one in clusters:
        namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
        count = wanted.get((namespace, f"{name}-{_GROUP}"), 0)
        found.append(DaskState(namespace, name, count, ready[namespace, name]))
    return tuple(found)


async def _drivers(everywhere: KubernetesApi) -> tuple[str, ...]:
    jobs = await everywhere.list("Job", RUN_LABEL)
    ended = {"Complete", "Failed"}
    return tuple(
        job["metadata"]["name"]
        for job in jobs
        if not any(
            one["type"] in ended and one["status"] == "True"
            for one in job.get("status", {}).get("conditions", [])
        )
    )


async def _nodes(api: KubernetesApi) -> tuple[tuple[str, float], ...]:
    found = []
    for node in await api.list("Node"):
        labels = node["metadata"].get("labels", {})
        since = dt.datetime.fromisoformat(node["metadata"]["creationTimestamp"])
        for label, pool in ((ON_DEMAND_LABEL, "system"), (WORKERS_LABEL, "workers")):
            if label in labels:
                found.append((pool, since.timestamp()))
    return tuple(found)


def _owner(deployment: Manifest) -> tuple[str, str]:
    metadata = deployment["metadata"]
    return metadata["namespace"], metadata["labels"].get(CLUSTER_LABEL, "")
