"""Returns the problems of a cluster's pods, from their status, events and nodes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError
from dask_hpsearch.clusters.kubernetes.diagnosis import (
    Problem,
    deployment_problem,
    needs_events,
    pod_problem,
    with_node_sizes,
)
from dask_hpsearch.clusters.kubernetes.driver_job import COMPONENT
from dask_hpsearch.clusters.kubernetes.manifests import CLUSTER_LABEL, COMPONENT_LABEL
from dask_hpsearch.exceptions import KubernetesRightsError

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

Manifest = dict[str, Any]
_logger = logging.getLogger(__name__)


async def problem_of_pod(api: KubernetesApi, pod: Manifest) -> Problem | None:
    """Return the problem of a pod, from its status, its events and the nodes."""
    if not needs_events(pod):
        return None
    events = await events_of(api, pod["metadata"]["name"])
    problem = pod_problem(pod, events)
    if problem is None or problem.reason != "Unschedulable":
        return problem
    return with_node_sizes(problem, await _list_visible(api, "Node"))


async def problems_of(
    api: KubernetesApi, cluster: str, *, job: str | None = None
) -> list[Problem]:
    """Return the problems of the pods of a cluster, including those that have ended.

    Parameters
    ----------
    api : KubernetesApi
    cluster : str
    job : str, optional
        The Job whose driver pods are included; default: none.
    """
    labels = f"{CLUSTER_LABEL}={cluster}"
    found = []
    for pod in await api.list("Pod", labels):
        own = pod["metadata"].get("labels", {})
        foreign = own.get(COMPONENT_LABEL) == COMPONENT and own.get("job-name") != job
        if not foreign and "deletionTimestamp" not in pod["metadata"]:
            found.append(await problem_of_pod(api, pod))
    deployments = await _list_visible(api, "Deployment", labels)
    found += map(deployment_problem, deployments)
    return [one for one in found if one is not None]


async def events_of(api: KubernetesApi, name: str) -> list[Manifest]:
    """Return the events of an object; none if this user may not list them."""
    return await _list_visible(api, "Event", fields=f"involvedObject.name={name}")


async def _list_visible(
    api: KubernetesApi, kind: str, labels: str = "", fields: str = ""
) -> list[Manifest]:
    try:
        return await api.list(kind, labels, fields)
    except (KubernetesRightsError, ObjectMissingError) as error:
        _logger.debug("%s", error)
        return []
