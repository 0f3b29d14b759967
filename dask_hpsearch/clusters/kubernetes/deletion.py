"""Deletes the objects of a Dask cluster, and waits until they are gone."""

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
# The operator may ask an ending scheduler whether it is idle; that may hang for five minutes,
# and its finalizers keep the cluster for so long (dask-kubernetes 2026.3.0).
_OPERATOR_TIMEOUT = 3.0
# Kinds of the objects of a cluster; each has the cluster's label.
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
# Deleted explicitly: they have no owner, or get it late. The operator sets the owner of a
# worker group a moment after creating it: if the cluster is deleted in between, the group
# would stay (dask-kubernetes 2026.3.0).
_EXPLICIT = (
    "DaskWorkerGroup",
    "Deployment",
    "Secret",
    "NetworkPolicy",
    "ServiceAccount",
)
_logger = logging.getLogger(__name__)


def ending_with_runs(cluster: Manifest) -> Manifest:
    """Return the patch of a cluster that is deleted as soon as no run needs it.

    The last driver deletes it. If Kubernetes has given up that driver, an idle time-out
    deletes the cluster, which is set if there is none.

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
    """Delete all objects of a Dask cluster, and wait until they are gone.

    Parameters
    ----------
    api : KubernetesApi
    name : str
    timeout : float

    Raises
    ------
    ClusterError
        If any is left after ``timeout`` seconds; it is named.
    """
    for job in await job_control.all_of(api, name):
        await api.delete("Job", job["metadata"]["name"])
    await api.delete("DaskCluster", name)
    deadline, operator_deadline = Deadline(timeout), Deadline(_OPERATOR_TIMEOUT)
    released = False
    kinds = KINDS
    pause, longest = _POLL_INTERVALS
    while True:
        left = await _delete_what_is_left(api, name, kinds)
        if not left and kinds == KINDS:
            return
        # All kinds are checked once more when nothing else is left.
        kinds = tuple(left) or KINDS
        if not left:
            continue
        if deadline.expired:
            msg = (
                f"these objects of the Dask cluster {name} remain after {timeout:g} s: "
                f"{', '.join(one for names in left.values() for one in names)}. "
                "Delete them with kubectl"
            )
            raise ClusterError(msg)
        if operator_deadline.expired and not released:
            released = True
            await _remove_finalizers(api, name)
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, longest)


async def _delete_what_is_left(
    api: KubernetesApi, name: str, kinds: tuple[str, ...]
) -> dict[str, list[str]]:
    """Delete the objects of some kinds; return their names by kind."""
    left: dict[str, list[str]] = {}
    for kind in kinds:
        for one in await _list_visible(api, kind, name):
            own = one["metadata"]["name"]
            left.setdefault(kind, []).append(f"{kind} {own}")
            if kind in _EXPLICIT and "deletionTimestamp" not in one["metadata"]:
                await _delete_if_allowed(api, kind, own)
    return left


async def _list_visible(api: KubernetesApi, kind: str, name: str) -> list[Manifest]:
    """List the cluster's objects of a kind; none if this user may not list them."""
    try:
        return await api.list(kind, f"{CLUSTER_LABEL}={name}")
    except KubernetesRightsError as error:
        _logger.debug("%s", error)
        return []


async def _delete_if_allowed(api: KubernetesApi, kind: str, name: str) -> None:
    try:
        await api.delete(kind, name)
    except KubernetesRightsError as error:
        _logger.debug("left to the garbage collector: %s", error)


async def _remove_finalizers(api: KubernetesApi, name: str) -> None:
    """Remove finalizers of an operator that is busy or missing."""
    for kind in ("DaskCluster", "DaskAutoscaler"):
        try:
            await api.patch(kind, name, {"metadata": {"finalizers": None}})
        except (ObjectMissingError, KubernetesRightsError) as error:
            _logger.debug("%s %s is left to the operator: %s", kind, name, error)
