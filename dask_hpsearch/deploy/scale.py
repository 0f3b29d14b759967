"""Scales the Dask clusters on a GKE cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes.lifecycle import Lifecycle
from dask_hpsearch.concurrency import run_coroutine
from dask_hpsearch.deploy.inspect import DEFAULT_GROUP

if TYPE_CHECKING:
    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.deploy.inspect import DaskClusterState


def scale(context: DeployContext, dask: DaskClusterState, n_workers: int) -> None:
    """Set how many workers a Dask cluster should have.

    Raises
    ------
    CloudError
        If there is no GKE cluster.
    ClusterError
        If Kubernetes refuses.
    """
    kubeconfig = str(context.kubeconfig())

    async def run() -> None:
        async with kubernetes_api.connected(
            kubeconfig=kubeconfig, namespace=dask.namespace
        ) as api:
            await Lifecycle(api, dask.name).scale(n_workers, DEFAULT_GROUP)

    run_coroutine(run)
