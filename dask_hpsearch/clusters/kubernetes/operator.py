"""Installs the Dask operator of the installed dask_kubernetes, with few rights."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError
from dask_hpsearch.clusters.kubernetes.diagnosis import deployment_problem, pod_problem
from dask_hpsearch.clusters.kubernetes.manifests import (
    OPERATOR_LABEL,
    POD_SECURITY,
    SCRATCH,
    container_security,
    pod_security,
)
from dask_hpsearch.concurrency import Deadline, poll_until_async
from dask_hpsearch.exceptions import (
    ClusterError,
    KubernetesRightsError,
    OperatorMissingError,
    PodStartError,
)
from dask_hpsearch.extras import install_command

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

Manifest = dict[str, Any]

NAME = "dask-operator"
NAMESPACE = "dask-operator"
_MANAGED = {"app.kubernetes.io/managed-by": "dask-hpsearch"}
_HEALTH_PORT = 8080
_POLL_INTERVAL = 0.5
_CRDS = "operator/deployment/helm/dask-kubernetes-operator/crds"

# What the controller of dask-kubernetes 2026.3.0 does, handler by handler; its own chart
# asks for "*" on pods, services, deployments and events, and for more.
RULES: tuple[Manifest, ...] = (
    # kopf watches these, and notes on them what it has handled; clusters, groups and
    # pods of jobs are created by the controller, clusters are deleted when idle.
    {
        "apiGroups": ["kubernetes.dask.org"],
        "resources": ["daskclusters"],
        "verbs": ["get", "list", "watch", "patch", "create", "delete"],
    },
    {
        "apiGroups": ["kubernetes.dask.org"],
        "resources": ["daskworkergroups"],
        "verbs": ["get", "list", "watch", "patch", "create"],
    },
    {
        "apiGroups": ["kubernetes.dask.org"],
        "resources": ["daskautoscalers"],
        "verbs": ["get", "list", "watch", "patch"],
    },
    {
        "apiGroups": ["kubernetes.dask.org"],
        "resources": ["daskjobs", "daskjobs/status"],
        "verbs": ["get", "list", "watch", "patch"],
    },
    # Of jobs, whose pods it creates and watches; of clusters, it looks at the scheduler's.
    {
        "apiGroups": [""],
        "resources": ["pods"],
        "verbs": ["get", "list", "watch", "patch", "create"],
    },
    {
        "apiGroups": [""],
        "resources": ["services"],
        "verbs": ["get", "list", "watch", "patch", "create"],
    },
    # A scheduler and each worker are a Deployment.
    {
        "apiGroups": ["apps"],
        "resources": ["deployments"],
        "verbs": ["get", "list", "create", "delete"],
    },
    # kopf posts what it does, and follows namespaces and kinds of resources.
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "verbs": ["list", "watch"],
    },
)


@dataclass(frozen=True, slots=True)
class OperatorStatus:
    """What is there of the operator.

    Attributes
    ----------
    definitions : int
        How many of the four kinds of resources Kubernetes knows.
    image : str or None
        What it runs on; None if it is not installed by us.
    version : str or None
        Version of dask_kubernetes that it was installed from.
    ready : bool
        Whether it acts.
    """

    definitions: int
    image: str | None
    version: str | None
    ready: bool


async def install(api: KubernetesApi, image: str, *, timeout: float = 120.0) -> None:
    """Install the operator, or make the one that is there the same.

    Parameters
    ----------
    api : KubernetesApi
    image : str
        An image with dask_kubernetes, as ``dask-hpsearch image build`` makes it.
    timeout : float
        Seconds until it must be ready.

    Raises
    ------
    ClusterError
        If another Dask operator is there, or ours does not start.
    """
    definitions = crds()
    await _refuse_another(api, definitions)
    for one in definitions:
        await api.apply(_labelled(one))
    for one in manifests(image):
        await api.apply(one)
    deadline = Deadline(timeout)
    while not (await status(api)).ready:
        await _check_start(api, image, late=deadline.expired)
        await asyncio.sleep(_POLL_INTERVAL)


async def status(api: KubernetesApi) -> OperatorStatus:
    """Look what is there."""
    known = [await api.get(one["kind"], one["metadata"]["name"]) for one in crds()]
    place = api.in_namespace(NAMESPACE)
    deployment = await place.get("Deployment", NAME)
    there = sum(one is not None for one in known)
    if deployment is None:
        return OperatorStatus(there, None, None, ready=False)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    now = deployment.get("status", {})
    current = now.get("observedGeneration") == deployment["metadata"]["generation"]
    ready = current and now.get("updatedReplicas") == now.get("availableReplicas") == 1
    labels = deployment["metadata"]["labels"]
    made_by = labels.get("app.kubernetes.io/version")
    return OperatorStatus(there, container["image"], made_by, ready=bool(ready))


async def is_starting(api: KubernetesApi) -> bool:
    """Whether it is about to act: there, not ready, and nothing keeps it from running.

    False too if this user may not see.
    """
    place = api.in_namespace(NAMESPACE)
    try:
        if (await status(api)).ready:
            return False
        pods = await place.list("Pod", f"{OPERATOR_LABEL}=true")
    except KubernetesRightsError:
        return False
    return any(pod_problem(pod) is None for pod in pods)


async def remove(api: KubernetesApi, *, timeout: float = 60.0) -> None:
    """Remove the operator, and the kinds of resources that it brought.

    Raises
    ------
    ClusterError
        If there are Dask clusters, which would be left without anybody to end them.
    """
    clusters = await _all_clusters(api)
    if clusters:
        msg = (
            f"there are Dask clusters: {', '.join(clusters)}. Close them first; without "
            "the operator nothing ends them"
        )
        raise ClusterError(msg)
    for one in reversed(manifests("none:0")):
        await api.in_namespace(NAMESPACE).delete(one["kind"], one["metadata"]["name"])
    for one in crds():
        await api.delete(one["kind"], one["metadata"]["name"])
    await poll_until_async(
        lambda: api.get("Namespace", NAMESPACE),
        lambda found: found is None,
        timeout=timeout,
        interval=_POLL_INTERVAL,
        on_timeout=lambda _: ClusterError(
            f"namespace {NAMESPACE} is still there after {timeout:g} s: look at it with "
            f"kubectl describe namespace {NAMESPACE}"
        ),
    )


def crds() -> list[Manifest]:
    """Return the definitions that the installed dask_kubernetes brings.

    Raises
    ------
    OperatorMissingError
        If it is not installed.
    """
    found = importlib.util.find_spec("dask_kubernetes")
    places = list((found.submodule_search_locations or []) if found else [])
    if not places:
        msg = f"dask_kubernetes is not installed: {install_command('kubernetes')}"
        raise OperatorMissingError(msg)
    files = sorted((Path(places[0]) / _CRDS).glob("*.yaml"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [yaml.load(file.read_text("utf-8"), loader) for file in files]  # noqa: S506


def manifests(image: str) -> list[Manifest]:
    """Return all that the operator is, but for its definitions."""
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": NAME,
    }
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}

    def made(kind: str, api_version: str, **content: Any) -> Manifest:
        metadata: Manifest = {"name": NAME, "labels": _labels()}
        if kind == "Namespace":
            metadata["labels"] |= POD_SECURITY
        if kind in ("ServiceAccount", "Deployment"):
            metadata["namespace"] = NAMESPACE
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": metadata,
            **content,
        }

    rbac = "rbac.authorization.k8s.io/v1"
    return [
        made("Namespace", "v1"),
        made("ServiceAccount", "v1", automountServiceAccountToken=False),
        made("ClusterRole", rbac, rules=list(RULES)),
        made("ClusterRoleBinding", rbac, roleRef=role, subjects=[account]),
        made("Deployment", "apps/v1", spec=_deployment(image)),
    ]


def _deployment(image: str) -> Manifest:
    resources = {"cpu": "200m", "memory": "512Mi"}
    health = {"httpGet": {"path": "/healthz", "port": _HEALTH_PORT}}
    container = {
        "name": "operator",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            *("kopf", "run", "--module", "dask_kubernetes.operator.controller"),
            *("--standalone", "--all-namespaces"),
            f"--liveness=http://0.0.0.0:{_HEALTH_PORT}/healthz",
        ],
        "env": [
            {"name": "HOME", "value": SCRATCH},
            {"name": "LOGNAME", "value": "dask"},
        ],
        "securityContext": container_security(),
        "resources": {"requests": resources, "limits": dict(resources)},
        "livenessProbe": {**health, "initialDelaySeconds": 60, "timeoutSeconds": 10},
        "readinessProbe": {**health, "periodSeconds": 1, "timeoutSeconds": 5},
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }
    pod = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": True,  # acting on Kubernetes is what it is for
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [container],
        "terminationGracePeriodSeconds": 10,
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "100Mi"}}],
    }
    selector = {OPERATOR_LABEL: "true"}
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # two at once would act twice
        "selector": {"matchLabels": selector},
        "template": {"metadata": {"labels": selector | _MANAGED}, "spec": pod},
    }


def _labels() -> dict[str, str]:
    made_by = version("dask-kubernetes")
    return _MANAGED | {OPERATOR_LABEL: "true", "app.kubernetes.io/version": made_by}


def _labelled(definition: Manifest) -> Manifest:
    metadata = definition["metadata"]
    labels = {**metadata.get("labels", {}), **_labels()}
    return definition | {"metadata": metadata | {"labels": labels}}


async def _refuse_another(api: KubernetesApi, definitions: list[Manifest]) -> None:
    for one in definitions:
        there = await api.get(one["kind"], one["metadata"]["name"])
        labels = (there or {}).get("metadata", {}).get("labels") or {}
        if there is not None and OPERATOR_LABEL not in labels:
            msg = (
                f"{one['metadata']['name']} is there, from another installation of a Dask "
                "operator: use that one (kube_cluster works with it), or remove it first; "
                "two of them would make every worker twice"
            )
            raise ClusterError(msg)


async def _check_start(api: KubernetesApi, image: str, *, late: bool) -> None:
    place = api.in_namespace(NAMESPACE)
    problems = [
        pod_problem(pod)
        for pod in await place.list("Pod", f"{OPERATOR_LABEL}=true")
        if not pod["metadata"].get("deletionTimestamp")
        and pod["spec"]["containers"][0]["image"] == image  # not one that is replaced
    ]
    deployment = await place.get("Deployment", NAME)
    if deployment is not None:
        problems.append(deployment_problem(deployment))
    reasons = [
        one.message for one in problems if one and (late or one.outlook != "wait")
    ]
    if reasons or late:
        reason = reasons[0] if reasons else "it is not ready in time"
        msg = f"the Dask operator does not start: {reason}"
        raise PodStartError(msg)


async def _all_clusters(api: KubernetesApi) -> list[str]:
    try:
        everywhere = api.in_namespace("")
        found = await everywhere.list("DaskCluster")
    except ObjectMissingError:
        return []
    return [
        f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in found
    ]
