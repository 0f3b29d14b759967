"""What a new GKE cluster gets before Dask: a namespace, the operator, the reaper."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes import operator
from dask_hpsearch.clusters.kubernetes.api import KubernetesConflictError
from dask_hpsearch.clusters.kubernetes.diagnosis import last_words, pod_problem
from dask_hpsearch.clusters.kubernetes.manifests import POD_SECURITY
from dask_hpsearch.exceptions import (
    ClusterError,
    KubernetesRightsError,
    KubernetesUnreachableError,
    PodStartError,
)
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.reaper import LOOK_EVERY_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.config.gke import GKESpec

Manifest = dict[str, Any]
_LOOK_EVERY_S = 1.0
_RIGHTS_WITHIN_S = 30.0
_LOOKS_WITHIN_S = 90.0  # rights that were just granted take a minute to spread
_MANAGED = {"app.kubernetes.io/managed-by": "dask-hpsearch"}


async def prepare(
    spec: GKESpec,
    image: str,
    kubeconfig: Path,
    *,
    say: Callable[[str], None],
    timeout_s: float,
) -> None:
    """Bring all that a Dask cluster needs onto a GKE cluster; nothing is done twice.

    Parameters
    ----------
    spec : GKESpec
    image : str
    kubeconfig : Path
    say : callable
        Given a line at each step.
    timeout_s : float
        Seconds for each step.

    Raises
    ------
    ClusterError
        If a step fails; its kinds say why.
    """
    say("waiting for its Kubernetes API")
    await _until_answered(kubeconfig, timeout_s)
    async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
        await _ensure_namespace(api, spec.namespace)
        await _ensure_operator(api, image, say=say, timeout_s=timeout_s)
        if spec.reaper:
            say("starting what ends the cluster when its time is over")
            await start_reaper(api, spec, image, timeout_s=timeout_s)


async def start_reaper(
    api: KubernetesApi,
    spec: GKESpec,
    image: str,
    *,
    timeout_s: float,
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Start the reaper, and wait until it has looked at its cluster.

    Parameters
    ----------
    api : KubernetesApi
    spec : GKESpec
    image : str
    timeout_s : float
    every_s : float
        Seconds between two of its looks.

    Raises
    ------
    PodStartError
        If it cannot; with what it says, and how to grant it what it needs.
    """
    for one in reaper_pod.manifests(spec, image, every_s=every_s):
        await api.apply(one)
    place = type(api)(api.connection, reaper_pod.NAMESPACE)
    until = time.monotonic() + timeout_s
    running: dict[str, float] = {}
    while not await _is_ready(place):
        late = time.monotonic() > until
        for pod in await _current_pods(place):
            problem = pod_problem(pod)
            if pod.get("status", {}).get("phase") == "Running":
                since = running.setdefault(pod["metadata"]["name"], time.monotonic())
                late = late or time.monotonic() - since > _LOOKS_WITHIN_S
            if late or (problem is not None and problem.outlook != "wait"):
                said = problem.message if problem else "it has not seen its cluster yet"
                raise await _reaper_error(place, spec, pod, said)
        if late:
            msg = f"the reaper does not start: there is no pod after {timeout_s:g} s"
            raise PodStartError(msg)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _until_answered(kubeconfig: Path, timeout_s: float) -> None:
    """Wait for the API: its name, and the user's rights, take a moment to spread."""
    began = time.monotonic()
    while True:
        try:
            async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
                await api.list("Namespace")
        except KubernetesUnreachableError:
            if time.monotonic() - began > timeout_s:
                raise
        except KubernetesRightsError:
            if time.monotonic() - began > min(timeout_s, _RIGHTS_WITHIN_S):
                raise
        else:
            return
        await asyncio.sleep(_LOOK_EVERY_S)


async def _ensure_operator(
    api: KubernetesApi, image: str, *, say: Callable[[str], None], timeout_s: float
) -> None:
    """Install the operator; one that acts stays as it is: clusters of others need it."""
    found = await operator.status(api)
    if found.ready and found.version == version("dask-kubernetes"):
        return
    say("installing the Dask operator")
    await operator.install(api, image, timeout_s=timeout_s)


async def _ensure_namespace(api: KubernetesApi, name: str) -> None:
    if await api.get("Namespace", name) is not None:
        return
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": _MANAGED | POD_SECURITY},
    }
    try:
        await api.create(manifest)
    except KubernetesConflictError:
        return  # another client of ours was quicker


async def _is_ready(place: KubernetesApi) -> bool:
    found = await place.get("Deployment", reaper_pod.NAME)
    if found is None:
        return False
    now = found.get("status", {})
    current = now.get("observedGeneration") == found["metadata"]["generation"]
    return bool(
        current and now.get("updatedReplicas") == now.get("availableReplicas") == 1
    )


async def _current_pods(place: KubernetesApi) -> list[Manifest]:
    labels = ",".join(f"{key}={value}" for key, value in reaper_pod.SELECTOR.items())
    return [
        pod
        for pod in await place.list("Pod", labels)
        if not pod["metadata"].get("deletionTimestamp")
    ]


async def _reaper_error(
    place: KubernetesApi, spec: GKESpec, pod: Manifest, said: str
) -> PodStartError:
    log = ""
    for previous in (False, True):
        try:
            log = log or await place.logs(
                pod["metadata"]["name"], lines=20, previous=previous
            )
        except ClusterError:
            continue
    commands = "\n".join(f"    {one}" for one in reaper_pod.role_commands(spec))
    return PodStartError(
        f"the reaper, which ends this GKE cluster when its time is over, does not work: "
        f"{said}. The end of its log:\n{last_words(log)}\nIf it lacks rights, grant "
        f"them:\n{commands}\nOr set reaper: false in the spec, and see to the end "
        "yourself (dask-hpsearch sweep)"
    )
