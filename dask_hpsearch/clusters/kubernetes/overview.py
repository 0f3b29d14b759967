"""Lists the Dask clusters of a namespace, and deletes one."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError, connected
from dask_hpsearch.clusters.kubernetes.deletion import delete_cluster
from dask_hpsearch.clusters.kubernetes.diagnosis import (
    deployment_problem,
    is_ready,
    worst,
)
from dask_hpsearch.clusters.kubernetes.driver_job import COMPONENT
from dask_hpsearch.clusters.kubernetes.manifests import (
    CLUSTER_LABEL,
    COMPONENT_LABEL,
    HTTP_PORT,
    OWNER_ANNOTATION,
)
from dask_hpsearch.clusters.kubernetes.pod_status import problem_of_pod
from dask_hpsearch.clusters.kubernetes.port_forward import PortForward
from dask_hpsearch.exceptions import ClusterError, ClusterNotFoundError

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem

Manifest = dict[str, Any]
_DELETE_TIMEOUT = 120.0
_RESPONSE_TIMEOUT = 10.0
_ACTIVE = ("Pending", "Running")
_logger = logging.getLogger(__name__)
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """A Dask cluster, as a row of a table.

    Attributes
    ----------
    name, age, owner : str
    desired, ready : int
        Numbers of workers.
    state : str
        "starting", "running", "working", "ending", or how long it has been idle.
    runs : str
        Number of drivers of submitted runs.
    problem : str
        What keeps its pods from running; empty if nothing does.
    """

    name: str
    age: str
    desired: int
    ready: int
    owner: str
    state: str
    runs: str
    problem: str = ""


async def rows(where: dict[str, Any]) -> tuple[str, list[ClusterRow]]:
    """Return the name of a namespace, and its Dask clusters.

    Raises
    ------
    ClusterError
        If Kubernetes refuses or does not respond.
    """
    async with connected(**where) as api:
        try:
            clusters = await api.list("DaskCluster")
        except ObjectMissingError:  # there is no operator
            return api.namespace, []
        groups = await api.list("DaskWorkerGroup")
        pods = await api.list("Pod", CLUSTER_LABEL)
        deployments = await api.list("Deployment", CLUSTER_LABEL)
        own = {
            one["metadata"]["name"]: [
                [
                    each
                    for each in objects
                    if _cluster_of(each) == one["metadata"]["name"]
                ]
                for objects in (pods, deployments)
            ]
            for one in clusters
        }
        problems = [await _problem(api, *own[name]) for name in own]
        idle = await asyncio.gather(
            *(asyncio.to_thread(_idle_since, name, where, own[name][0]) for name in own)
        )
        now = dt.datetime.now(tz=dt.UTC)
        found = [
            row_of(
                one,
                groups,
                own[one["metadata"]["name"]][0],
                now=now,
                idle_since=since,
                problem="" if problem is None else problem.message,
            )
            for one, since, problem in zip(clusters, idle, problems, strict=True)
        ]
        return api.namespace, found


async def delete(name: str, where: dict[str, Any]) -> None:
    """Delete a Dask cluster of any owner, and the searches that run on it.

    Raises
    ------
    ClusterNotFoundError
        If there is none of that name.
    ClusterError
        If Kubernetes refuses or does not respond.
    """
    async with connected(**where) as api:
        if await api.get("DaskCluster", name) is None:
            msg = (
                f"there is no Dask cluster {name!r} in namespace {api.namespace!r}: list them "
                "with dask-hpsearch clusters"
            )
            raise ClusterNotFoundError(msg)
        await delete_cluster(api, name, _DELETE_TIMEOUT)


def row_of(
    cluster: Manifest,
    groups: list[Manifest],
    pods: list[Manifest],
    *,
    now: dt.datetime,
    idle_since: float | None = None,
    problem: str = "",
) -> ClusterRow:
    """Return the row of a Dask cluster.

    Parameters
    ----------
    cluster : dict
        The DaskCluster as Kubernetes has it.
    groups : list of dict
        All DaskWorkerGroups of the namespace.
    pods : list of dict
        The pods of the Dask cluster.
    now : datetime
    idle_since : float, optional
        Time of the last work, in seconds since the epoch; 0: now; None: unknown.
    problem : str
    """
    metadata = cluster["metadata"]
    name = metadata["name"]
    ready = Counter(_part_of(pod) for pod in pods if is_ready(pod))
    desired = sum(
        one["spec"]["worker"]["replicas"]
        for one in groups
        if one["spec"].get("cluster") == name
    )
    drivers = sum(
        _part_of(pod) == COMPONENT and pod["status"].get("phase") in _ACTIVE
        for pod in pods
    )
    return ClusterRow(
        name=name,
        age=_format_duration(
            now - dt.datetime.fromisoformat(metadata["creationTimestamp"])
        ),
        desired=desired,
        ready=ready["worker"],
        owner=(metadata.get("annotations") or {}).get(OWNER_ANNOTATION, "unknown"),
        state=_state(cluster, ready["scheduler"], idle_since, now),
        runs=str(drivers),
        problem=problem,
    )


def _state(
    cluster: Manifest, schedulers: int, idle_since: float | None, now: dt.datetime
) -> str:
    if "deletionTimestamp" in cluster["metadata"]:
        return "ending"
    if not schedulers:
        return "starting"
    if not idle_since:
        return "running" if idle_since is None else "working"
    idle = now - dt.datetime.fromtimestamp(idle_since, tz=dt.UTC)
    timeout = cluster["spec"].get("idleTimeout")
    after = dt.timedelta(seconds=timeout or 0)
    ends = f", ends after {_format_duration(after)}" if timeout else ""
    return f"idle for {_format_duration(idle)}{ends}"


def _idle_since(name: str, where: dict[str, Any], pods: list[Manifest]) -> float | None:
    """Return since when a scheduler has been idle; None if it does not respond."""
    if not any(is_ready(pod) and _part_of(pod) == "scheduler" for pod in pods):
        return None
    forward = PortForward(f"{name}-scheduler", [HTTP_PORT], where)
    try:
        port = forward.start().port(HTTP_PORT)
        url = f"http://127.0.0.1:{port}/api/v1/check_idle"
        with urllib.request.urlopen(url, timeout=_RESPONSE_TIMEOUT) as answer:
            return float(json.loads(answer.read())["idle_since"])
    except (ClusterError, OSError, ValueError, KeyError) as error:
        _logger.debug("%s does not say whether it is idle: %s", name, error)
        return None
    finally:
        forward.close()


async def _problem(
    api: KubernetesApi, pods: list[Manifest], deployments: list[Manifest]
) -> Problem | None:
    present = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    found = [await problem_of_pod(api, pod) for pod in present if not is_ready(pod)]
    current = [one for one in found if one is not None and not one.over]
    return worst([*current, *map(deployment_problem, deployments)])


def _cluster_of(one: Manifest) -> str:
    return str(one["metadata"]["labels"][CLUSTER_LABEL])


def _part_of(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"].get(COMPONENT_LABEL, ""))


def _format_duration(time: dt.timedelta) -> str:
    seconds = max(time.total_seconds(), 0.0)
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
