"""Starts a driver as a Job on Kubernetes, beside the workers of the cluster."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
from dask_hpsearch.data.sources import REACHABLE
from dask_hpsearch.engine.cluster_features import features_of
from dask_hpsearch.runs.launch.job_watch import StartedJob
from dask_hpsearch.runs.launch.module_archive import store_modules
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.engine.cluster_features import ClusterFeatures
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.driver.request import DriverRequest
    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
_PROGRAM = "dask_hpsearch.runs.driver.pod_main"
# Kubernetes takes time to notice that a node is lost, and to add another one.
HEARTBEAT_TIMEOUT_S = 900.0
START_TIMEOUT_S = 1800.0


def job_cluster(store: Store, client: Client | None) -> ClusterFeatures | None:
    """Return the cluster on which a run's driver can be a Job.

    Parameters
    ----------
    store : Store
        The run's folder, or the store that contains it.
    client : Client, optional

    Returns
    -------
    ClusterFeatures or None
        None if the driver has to be a process of this machine.
    """
    cluster = features_of(client)
    if not cluster.on_kubernetes or _why_local(store, cluster) is not None:
        return None
    return cluster


def warn_if_local(store: Store, client: Client | None) -> None:
    """Log why a run on Kubernetes is driven from this machine, if it is one."""
    cluster = features_of(client)
    reason = _why_local(store, cluster) if cluster.on_kubernetes else None
    if reason is not None:
        _logger.warning("the run is driven from this machine: %s", reason)


def _why_local(store: Store, cluster: ClusterFeatures) -> str | None:
    if store.url.partition("://")[0] not in REACHABLE:
        return (
            f"pods cannot reach {store.url}; with store='gs://…' a pod drives the run"
        )
    if not cluster.runs_drivers:
        return "the cluster was not made by kube_cluster(spec)"
    return None


def start_job(
    folder: RunFolder, cluster: ClusterFeatures, request: DriverRequest
) -> None:
    """Start a Job that drives a run.

    Parameters
    ----------
    folder : RunFolder
    cluster : ClusterFeatures
    request : DriverRequest
        The maker of the run and its user modules are added.

    Raises
    ------
    ClusterError
        If Kubernetes does not accept the Job; nothing of it is left.
    """
    request = replace(
        request,
        maker=signing.user_key().public,
        modules=tuple(store_modules(folder)),
    )
    job = DriverJobSpec(
        run_id=folder.run_id,
        job=f"run-{folder.run_id}-{request.driver[:6]}",
        module=_PROGRAM,
        request=request.to_json(),
        signing_key=folder.signing_key().to_pem().decode("ascii"),
    )
    if not request.keep_cluster:
        cluster.end_with_runs()
    connection = cluster.start_driver(job)
    StartedJob(job.job, connection, request.driver).save(folder.run_id)
