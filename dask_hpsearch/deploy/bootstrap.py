"""Prepares a new GKE cluster for Dask: namespace, Dask operator, reaper."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes import operator
from dask_hpsearch.clusters.kubernetes.api import KubernetesConflictError
from dask_hpsearch.clusters.kubernetes.diagnosis import last_lines, pod_problem
from dask_hpsearch.clusters.kubernetes.manifests import POD_SECURITY
from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.exceptions import (
    ClusterError,
    KubernetesRightsError,
    KubernetesUnreachableError,
    MissingBindingsError,
    PodStartError,
)
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.reaper import CHECK_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.config.gke import GKESpec

Manifest = dict[str, Any]
_POLL_INTERVAL = 1.0
_PERMISSIONS_TIMEOUT = 30.0
_FIRST_CHECK_TIMEOUT = 90.0
_NEW_BINDINGS_TIMEOUT = 600.0  # Google needs minutes to apply IAM bindings
_SAY_INTERVAL = 60.0
_REFUSED = "not allowed to"  # in the reaper's log, as `gcp.api_errors` words it
_MANAGED = {"app.kubernetes.io/managed-by": "dask-hpsearch"}


async def bootstrap(
    spec: GKESpec,
    image: str,
    kubeconfig: Path,
    *,
    say: Callable[[str], None],
    timeout: float,
    bindings_are_new: bool = False,
) -> None:
    """Install on a GKE cluster what Dask clusters need, as far as it is missing.

    Parameters
    ----------
    spec : GKESpec
    image : str
    kubeconfig : Path
    say : callable
        Given a line at each step.
    timeout : float
        Seconds for each step.
    bindings_are_new : bool
        Whether the reaper's IAM bindings may have no effect for some minutes yet.

    Raises
    ------
    ClusterError
        If a step fails.
    MissingBindingsError
        If the reaper runs, but lacks permissions.
    """
    say("waiting for its Kubernetes API")
    await _wait_for_api(kubeconfig, timeout)
    async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
        await _ensure_namespace(api, spec.namespace)
        await _ensure_operator(api, image, say=say, timeout=timeout)
        if spec.reaper:
            say("starting the reaper, which deletes the GKE cluster when it expires")
            checked_within = _NEW_BINDINGS_TIMEOUT if bindings_are_new else None
            await start_reaper(
                api,
                spec,
                image,
                timeout=timeout,
                checked_within=checked_within or _FIRST_CHECK_TIMEOUT,
                say=say,
            )


async def place_reaper(
    spec: GKESpec, image: str, kubeconfig: Path, *, timeout: float
) -> None:
    """Create the reaper, and do not wait until it works.

    Without permissions it repeats its check, and works as soon as it has them.

    Parameters
    ----------
    spec, image, kubeconfig, timeout
        As for `bootstrap`.

    Raises
    ------
    ClusterError
        If the Kubernetes API does not respond, or refuses.
    """
    await _wait_for_api(kubeconfig, timeout)
    async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
        for one in reaper_pod.manifests(spec, image):
            await api.apply(one)


async def start_reaper(
    api: KubernetesApi,
    spec: GKESpec,
    image: str,
    *,
    timeout: float,
    interval: float = CHECK_INTERVAL,
    checked_within: float = _FIRST_CHECK_TIMEOUT,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Start the reaper, and wait until it has checked its GKE cluster.

    Parameters
    ----------
    api : KubernetesApi
    spec : GKESpec
    image : str
    timeout : float
    interval : float
        Seconds between two of its checks.
    checked_within : float
        Seconds that its pod may run until the first successful check.
    say : callable
        Given a line now and then while that lasts.

    Raises
    ------
    PodStartError
        If it does not start; with the end of its log, and the commands that grant its
        permissions.
    MissingBindingsError
        If it starts, but Google refuses its requests; with the same commands.
    """
    for one in reaper_pod.manifests(spec, image, interval=interval):
        await api.apply(one)
    api = api.in_namespace(reaper_pod.NAMESPACE)
    deadline = Deadline(max(timeout, checked_within))
    silent = Deadline(_SAY_INTERVAL)
    running_since: dict[str, float] = {}
    while not await _is_ready(api):
        late = deadline.expired
        for pod in await _current_pods(api):
            problem = pod_problem(pod)
            if pod.get("status", {}).get("phase") == "Running":
                now = time.monotonic()
                since = running_since.setdefault(pod["metadata"]["name"], now)
                late = late or now - since > checked_within
                if silent.expired:
                    silent = Deadline(_SAY_INTERVAL)
                    say(
                        "waiting until the reaper's permissions take effect, for up to "
                        f"{(since + checked_within - now) / 60:.0f} more minutes"
                    )
            if late or (problem is not None and problem.outlook != "wait"):
                reason = (
                    problem.message if problem else "it has not checked its GKE cluster"
                )
                raise await _reaper_error(api, spec, pod, reason)
        if late:
            msg = (
                f"the reaper does not start: it has no pod after {timeout:g} s; look at it with "
                f"kubectl -n {reaper_pod.NAMESPACE} describe deployment {reaper_pod.NAME}"
            )
            raise PodStartError(msg)
        await asyncio.sleep(_POLL_INTERVAL)


async def _wait_for_api(kubeconfig: Path, timeout: float) -> None:
    """Wait for the API: DNS and permissions take a moment."""
    reachable = Deadline(timeout)
    permitted = Deadline(min(timeout, _PERMISSIONS_TIMEOUT))
    while True:
        try:
            async with kubernetes_api.connected(kubeconfig=str(kubeconfig)) as api:
                await api.list("Namespace")
        except KubernetesUnreachableError:
            if reachable.expired:
                raise
        except KubernetesRightsError:
            if permitted.expired:
                raise
        else:
            return
        await asyncio.sleep(_POLL_INTERVAL)


async def _ensure_operator(
    api: KubernetesApi, image: str, *, say: Callable[[str], None], timeout: float
) -> None:
    """Install the operator, unless one that others may use is running."""
    found = await operator.status(api)
    if found.ready and found.version == version("dask-kubernetes"):
        return
    say("installing the Dask operator")
    await operator.install(api, image, timeout=timeout)


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
        return  # another client was quicker


async def _is_ready(api: KubernetesApi) -> bool:
    found = await api.get("Deployment", reaper_pod.NAME)
    if found is None:
        return False
    status = found.get("status", {})
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(
        current
        and status.get("updatedReplicas") == status.get("availableReplicas") == 1
    )


async def _current_pods(api: KubernetesApi) -> list[Manifest]:
    labels = ",".join(f"{key}={value}" for key, value in reaper_pod.SELECTOR.items())
    return [
        pod
        for pod in await api.list("Pod", labels)
        if not pod["metadata"].get("deletionTimestamp")
    ]


async def _reaper_error(
    api: KubernetesApi, spec: GKESpec, pod: Manifest, reason: str
) -> PodStartError | MissingBindingsError:
    log = ""
    for previous in (False, True):
        try:
            log = log or await api.logs(
                pod["metadata"]["name"], lines=20, previous=previous
            )
        except ClusterError:
            continue
    commands = "\n".join(f"    {one}" for one in reaper_pod.role_commands(spec))
    text = (
        f"the reaper, which deletes this GKE cluster when it expires, does not work: {reason}. "
        f"The end of its log:\n{last_lines(log)}\nIf it lacks permissions, grant them:\n"
        f"{commands}\nOr set reaper: false in the spec, and delete expired GKE clusters "
        "yourself with dask-hpsearch sweep"
    )
    if _REFUSED not in log:
        return PodStartError(text)
    return MissingBindingsError(
        f"{text}. The GKE cluster stays, and costs money. The reaper stays too, but cannot delete "
        "the GKE cluster without these permissions: grant them and try again, or remove the GKE "
        "cluster with dask-hpsearch down"
    )
