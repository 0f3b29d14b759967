"""Deletes all that a cluster consists of, whoever made it, and waits until it is gone."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import job_control
from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError
from dask_hpsearch.clusters.kubernetes.manifests import CLUSTER_LABEL, ENDS_ANNOTATION
from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.config.cluster import IDLE_TIMEOUT_S
from dask_hpsearch.exceptions import ClusterError, KubernetesRightsError

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

Manifest = dict[str, Any]

_POLL_INTERVALS = 0.25, 1.0  # the first, and the longest
# It does nothing as a cluster ends, but ask an ending scheduler whether it is idle: that may
# hang for five minutes, and the cluster would stay for so long (dask-kubernetes 2026.3.0).
_OPERATOR_TIMEOUT = 3.0
# What a cluster consists of; all of it has the cluster's label.
KINDS: tuple[str, ...] = (
    "DaskCluster",
    "DaskWorkerGroup",
    "DaskAutoscaler",
    "Deployment",
    "ReplicaSet",
    "Service",
    "Secret",
    "NetworkPolicy",
    "ServiceAccount",
    "Pod",
)
# What is deleted by itself, if it has no owner, or has it a moment later only. The operator
# gives a group of workers its owner a moment after making it: of a cluster that is deleted in
# between, the group would stay (dask-kubernetes 2026.3.0).
_BY_ITSELF = (
    "DaskWorkerGroup",
    "Deployment",
    "Secret",
    "NetworkPolicy",
    "ServiceAccount",
)
_logger = logging.getLogger(__name__)


def ending_with_runs(cluster: Manifest) -> Manifest:
    """Return what changes in a cluster that is to end as soon as no run needs it.

    The last driver sees to that. One that Kubernetes has given up cannot: so a cluster
    that would wait for ever ends when there has been no work for long.

    Parameters
    ----------
    cluster : dict
        The DaskCluster as Kubernetes has it.
    """
    change: Manifest = {"metadata": {"annotations": {ENDS_ANNOTATION: "true"}}}
    if not cluster["spec"].get("idleTimeout"):
        change["spec"] = {"idleTimeout": IDLE_TIMEOUT_S}
    return change


async def delete_cluster(api: KubernetesApi, name: str, timeout: float) -> None:
    """Delete all objects of a cluster, and wait until they are gone.

    Parameters
    ----------
    api : KubernetesApi
    name : str
    timeout : float

    Raises
    ------
    ClusterError
        If any is there after ``timeout`` seconds; it is named.
    """
    for job in await job_control.all_of(api, name):
        await api.delete("Job", job["metadata"]["name"])
    await api.delete("DaskCluster", name)
    deadline, operator_deadline = Deadline(timeout), Deadline(_OPERATOR_TIMEOUT)
    freed = False
    kinds = KINDS
    pause, longest = _POLL_INTERVALS
    while True:
        left = await _delete_what_is_left(api, name, kinds)
        if not left and kinds == KINDS:
            return
        # Whatever was gone is looked for once more when nothing else is left.
        kinds = tuple(left) or KINDS
        if not left:
            continue
        if deadline.expired:
            msg = (
                f"of the cluster {name}, these are left after {timeout:g} s: "
                f"{', '.join(one for names in left.values() for one in names)}. "
                "Delete them with kubectl"
            )
            raise ClusterError(msg)
        if operator_deadline.expired and not freed:
            freed = True
            await _free(api, name)
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, longest)


async def _delete_what_is_left(
    api: KubernetesApi, name: str, kinds: tuple[str, ...]
) -> dict[str, list[str]]:
    """Delete what is there of some kinds; return it by kind."""
    left: dict[str, list[str]] = {}
    for kind in kinds:
        for one in await _seen(api, kind, name):
            own = one["metadata"]["name"]
            left.setdefault(kind, []).append(f"{kind} {own}")
            if kind in _BY_ITSELF and "deletionTimestamp" not in one["metadata"]:
                await _delete_if_allowed(api, kind, own)
    return left


async def _seen(api: KubernetesApi, kind: str, name: str) -> list[Manifest]:
    """List the cluster's objects of a kind; what one may not see, one did not make."""
    try:
        return await api.list(kind, f"{CLUSTER_LABEL}={name}")
    except KubernetesRightsError as error:
        _logger.debug("%s", error)
        return []


async def _delete_if_allowed(api: KubernetesApi, kind: str, name: str) -> None:
    try:
        await api.delete(kind, name)
    except KubernetesRightsError as error:
        _logger.debug("left to its owner's end: %s", error)


async def _free(api: KubernetesApi, name: str) -> None:
    """Let objects go that wait for an operator which is busy, or not there."""
    for kind in ("DaskCluster", "DaskAutoscaler"):
        try:
            await api.patch(kind, name, {"metadata": {"finalizers": None}})
        except (ObjectMissingError, KubernetesRightsError) as error:
            _logger.debug("%s %s is left to the operator: %s", kind, name, error)
