"""What tests leave behind takes the node's CPU from those that come after them."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes import driver_job, manifests

ALONE_VARIABLE = "DASK_HPSEARCH_TEST_ALONE"  # says that nobody else uses the Kubernetes
PREFIXES = ("hpsearch-", "gke-")  # of the namespaces that tests make
_GONE_WITHIN_S = 90.0
_LOOK_EVERY_S = 0.5


def remove_earlier_namespaces() -> None:
    """Remove what earlier tests made, if nobody else tests there; wait for its pods."""
    if os.environ.get(ALONE_VARIABLE):
        asyncio.run(_remove_namespaces(PREFIXES))


def remove_namespace(name: str) -> None:
    """Remove a namespace; wait for its pods, which would take CPU from later tests."""
    asyncio.run(_remove_namespaces((name,)))


def remove_leftovers(namespace: str, kept: set[str]) -> None:
    """Remove all clusters and runs of a namespace but some clusters; wait for their pods."""
    asyncio.run(_remove_leftovers(namespace, kept))


def pods_there() -> str:
    """Describe all pods: which namespaces have them, in what state, with what CPU."""
    return asyncio.run(_describe())


async def _remove_namespaces(prefixes: tuple[str, ...]) -> None:
    async with kubernetes_api.connected() as api:
        names = [one["metadata"]["name"] for one in await api.list("Namespace")]
        own = [name for name in names if name.startswith(prefixes)]
        for name in own:
            await api.delete("Namespace", name)
    await asyncio.gather(*(_no_pods(name, set()) for name in own))


async def _remove_leftovers(namespace: str, kept: set[str]) -> None:
    async with kubernetes_api.connected(namespace=namespace) as api:
        for one in await api.list("DaskCluster"):
            if one["metadata"]["name"] not in kept:
                await api.delete("DaskCluster", one["metadata"]["name"])
        for one in await api.list("Job", driver_job.RUN_LABEL):
            await api.delete("Job", one["metadata"]["name"])
    await _no_pods(namespace, kept)


async def _no_pods(namespace: str, kept: set[str]) -> None:
    """Wait until there are no pods of clusters and runs; not for ever."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    async with kubernetes_api.connected(namespace=namespace) as api:
        while time.monotonic() < deadline:
            pods = await api.list("Pod")
            if not [one for one in pods if _is_searchs(one, kept)]:
                return
            await asyncio.sleep(_LOOK_EVERY_S)


def _is_searchs(pod: dict[str, Any], kept: set[str]) -> bool:
    labels = pod["metadata"].get("labels", {})
    if driver_job.RUN_LABEL in labels:
        return True
    cluster = labels.get(manifests.CLUSTER_LABEL)
    return cluster is not None and cluster not in kept


async def _describe() -> str:
    lines = []
    async with kubernetes_api.connected() as api:
        names = [one["metadata"]["name"] for one in await api.list("Namespace")]
    for namespace in names:
        async with kubernetes_api.connected(namespace=namespace) as api:
            for pod in await api.list("Pod"):
                state = pod["status"].get("phase", "unknown")
                going = "going" if "deletionTimestamp" in pod["metadata"] else ""
                name = f"{namespace}/{pod['metadata']['name']}"
                lines.append(f"{name} {state} {going} {_cpu_of(pod)}")
    return "\n".join(lines)


def _cpu_of(pod: dict[str, Any]) -> str:
    asked = [
        container.get("resources", {}).get("requests", {}).get("cpu", "0")
        for container in pod["spec"]["containers"]
    ]
    return " + ".join(asked)
