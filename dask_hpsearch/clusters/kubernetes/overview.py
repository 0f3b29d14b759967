"""The Dask clusters of a namespace at a glance, and the end of one."""

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
_END_WAIT_S = 120.0
_ANSWER_WAIT_S = 10.0
_LIVING = ("Pending", "Running")
_logger = logging.getLogger(__name__)
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One Dask cluster, in words.

    Attributes
    ----------
    name, age, owner : str
    wanted, ready : int
        How many workers it is to have, and has.
    state : str
        "starting", "working", or since when it has been idle, as far as that is known.
    runs : str
        How many drivers of submitted runs it has.
    problem : str
        What keeps its pods from running; empty if nothing does.
    """

    name: str
    age: str
    wanted: int
    ready: int
    owner: str
    state: str
    runs: str
    problem: str = ""


async def rows(where: dict[str, Any]) -> tuple[str, list[ClusterRow]]:
    """Look at all Dask clusters of a namespace; return its name, too.

    Raises
    ------
    ClusterError
        If Kubernetes does not tell.
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


async def end(name: str, where: dict[str, Any]) -> None:
    """End a Dask cluster of any owner, and the searches that run on it.

    Raises
    ------
    ClusterNotFoundError
        If there is none of that name.
    ClusterError
        If Kubernetes does not do it.
    """
    async with connected(**where) as api:
        if await api.get("DaskCluster", name) is None:
            msg = (
                f"there is no cluster {name!r} in namespace {api.namespace!r}: "
                "dask-hpsearch clusters lists those that there are"
            )
            raise ClusterNotFoundError(msg)
        await delete_cluster(api, name, _END_WAIT_S)


def row_of(
    cluster: Manifest,
    groups: list[Manifest],
    pods: list[Manifest],
    *,
    now: dt.datetime,
    idle_since: float | None = None,
    problem: str = "",
) -> ClusterRow:
    """Describe a cluster.

    Parameters
    ----------
    cluster : dict
        The DaskCluster as Kubernetes has it.
    groups : list of dict
        All DaskWorkerGroups of the namespace.
    pods : list of dict
        Those of the cluster.
    now : datetime
    idle_since : float, optional
        When there was work last, in seconds since the epoch; 0: now; None: not known.
    problem : str
    """
    metadata = cluster["metadata"]
    name = metadata["name"]
    ready = Counter(_part_of(pod) for pod in pods if is_ready(pod))
    wanted = sum(
        one["spec"]["worker"]["replicas"]
        for one in groups
        if one["spec"].get("cluster") == name
    )
    drivers = sum(
        _part_of(pod) == COMPONENT and pod["status"].get("phase") in _LIVING
        for pod in pods
    )
    return ClusterRow(
        name=name,
        age=_in_words(now - dt.datetime.fromisoformat(metadata["creationTimestamp"])),
        wanted=wanted,
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
    ends = f", ends after {_in_words(after)}" if timeout else ""
    return f"idle for {_in_words(idle)}{ends}"


def _idle_since(name: str, where: dict[str, Any], pods: list[Manifest]) -> float | None:
    """Ask a scheduler since when there has been nothing to do; None if it does not say."""
    if not any(is_ready(pod) and _part_of(pod) == "scheduler" for pod in pods):
        return None
    forward = PortForward(f"{name}-scheduler", [HTTP_PORT], where)
    try:
        port = forward.start().port(HTTP_PORT)
        url = f"http://127.0.0.1:{port}/api/v1/check_idle"
        with urllib.request.urlopen(url, timeout=_ANSWER_WAIT_S) as answer:
            return float(json.loads(answer.read())["idle_since"])
    except (ClusterError, OSError, ValueError, KeyError) as error:
        _logger.debug("%s does not say whether it is idle: %s", name, error)
        return None
    finally:
        forward.close()


async def _problem(
    api: KubernetesApi, pods: list[Manifest], deployments: list[Manifest]
) -> Problem | None:
    living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    found = [await problem_of_pod(api, pod) for pod in living if not is_ready(pod)]
    standing = [one for one in found if one is not None and not one.over]
    return worst([*standing, *map(deployment_problem, deployments)])


def _cluster_of(one: Manifest) -> str:
    return str(one["metadata"]["labels"][CLUSTER_LABEL])


def _part_of(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"].get(COMPONENT_LABEL, ""))


def _in_words(time: dt.timedelta) -> str:
    seconds = max(time.total_seconds(), 0.0)
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
