"""Installs the Dask operator of the installed dask_kubernetes, with few permissions."""

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

# The permissions that the handlers of dask-kubernetes 2026.3.0 need; its own chart requests
# "*" on pods, services, deployments and events, and more.
RULES: tuple[Manifest, ...] = (
    # kopf watches these, and annotates them; the controller creates clusters, groups and
    # pods of jobs, and deletes idle clusters.
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
    # It creates and watches the pods of jobs, and reads the scheduler's.
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
    # kopf posts events, and watches namespaces and resource definitions.
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
    """The state of the operator's installation.

    Attributes
    ----------
    definitions : int
        Number of its four custom resource definitions that are installed.
    image : str or None
        Its image; None if it was not installed by dask_hpsearch.
    version : str or None
        Version of dask_kubernetes from which it was installed.
    ready : bool
        Whether it is running.
    """

    definitions: int
    image: str | None
    version: str | None
    ready: bool


async def install(api: KubernetesApi, image: str, *, timeout: float = 120.0) -> None:
    """Install the operator, or update it.

    Parameters
    ----------
    api : KubernetesApi
    image : str
        An image with dask_kubernetes, as ``dask-hpsearch image build`` builds it.
    timeout : float
        Seconds until it must be ready.

    Raises
    ------
    ClusterError
        If there is another Dask operator, or this one does not start.
    """
    definitions = crds()
    await _check_no_other(api, definitions)
    for one in definitions:
        await api.apply(_labelled(one))
    for one in manifests(image):
        await api.apply(one)
    deadline = Deadline(timeout)
    while not (await status(api)).ready:
        await _check_start(api, image, late=deadline.expired)
        await asyncio.sleep(_POLL_INTERVAL)


async def status(api: KubernetesApi) -> OperatorStatus:
    """Return the state of the operator's installation."""
    known = [await api.get(one["kind"], one["metadata"]["name"]) for one in crds()]
    deployment = await api.in_namespace(NAMESPACE).get("Deployment", NAME)
    n_known = sum(one is not None for one in known)
    if deployment is None:
        return OperatorStatus(n_known, None, None, ready=False)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    state = deployment.get("status", {})
    current = state.get("observedGeneration") == deployment["metadata"]["generation"]
    ready = (
        current and state.get("updatedReplicas") == state.get("availableReplicas") == 1
    )
    labels = deployment["metadata"]["labels"]
    installed_from = labels.get("app.kubernetes.io/version")
    return OperatorStatus(
        n_known, container["image"], installed_from, ready=bool(ready)
    )


async def is_starting(api: KubernetesApi) -> bool:
    """Whether it is installed, not ready, and has a pod without problems.

    False also if this user may not read its pods.
    """
    try:
        if (await status(api)).ready:
            return False
        pods = await api.in_namespace(NAMESPACE).list("Pod", f"{OPERATOR_LABEL}=true")
    except KubernetesRightsError:
        return False
    return any(pod_problem(pod) is None for pod in pods)


async def remove(api: KubernetesApi, *, timeout: float = 60.0) -> None:
    """Remove the operator and its custom resource definitions.

    Raises
    ------
    ClusterError
        If there are Dask clusters, which could not be deleted without it.
    """
    clusters = await _all_clusters(api)
    if clusters:
        msg = (
            f"the Dask operator is needed to delete the Dask clusters {', '.join(clusters)}: "
            "close them first"
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
    """Return the custom resource definitions of the installed dask_kubernetes.

    Raises
    ------
    OperatorMissingError
        If it is not installed.
    """
    found = importlib.util.find_spec("dask_kubernetes")
    folders = list((found.submodule_search_locations or []) if found else [])
    if not folders:
        msg = f"dask_kubernetes is not installed: {install_command('kubernetes')}"
        raise OperatorMissingError(msg)
    files = sorted((Path(folders[0]) / _CRDS).glob("*.yaml"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [yaml.load(file.read_text("utf-8"), loader) for file in files]  # noqa: S506


def manifests(image: str) -> list[Manifest]:
    """Return the operator's manifests, without its custom resource definitions."""
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": NAME,
    }
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}

    def build(kind: str, api_version: str, **content: Any) -> Manifest:
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
        build("Namespace", "v1"),
        build("ServiceAccount", "v1", automountServiceAccountToken=False),
        build("ClusterRole", rbac, rules=list(RULES)),
        build("ClusterRoleBinding", rbac, roleRef=role, subjects=[account]),
        build("Deployment", "apps/v1", spec=_deployment(image)),
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
        "automountServiceAccountToken": True,  # it uses the Kubernetes API
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [container],
        "terminationGracePeriodSeconds": 10,
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "100Mi"}}],
    }
    selector = {OPERATOR_LABEL: "true"}
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # two at once would create everything twice
        "selector": {"matchLabels": selector},
        "template": {"metadata": {"labels": selector | _MANAGED}, "spec": pod},
    }


def _labels() -> dict[str, str]:
    installed_from = version("dask-kubernetes")
    return _MANAGED | {
        OPERATOR_LABEL: "true",
        "app.kubernetes.io/version": installed_from,
    }


def _labelled(definition: Manifest) -> Manifest:
    metadata = definition["metadata"]
    labels = {**metadata.get("labels", {}), **_labels()}
    return definition | {"metadata": metadata | {"labels": labels}}


async def _check_no_other(api: KubernetesApi, definitions: list[Manifest]) -> None:
    for one in definitions:
        found = await api.get(one["kind"], one["metadata"]["name"])
        labels = (found or {}).get("metadata", {}).get("labels") or {}
        if found is not None and OPERATOR_LABEL not in labels:
            msg = (
                f"{one['metadata']['name']} belongs to another installation of a Dask "
                "operator: use that operator (kube_cluster works with it), or remove it "
                "first; two operators would create every worker twice"
            )
            raise ClusterError(msg)


async def _check_start(api: KubernetesApi, image: str, *, late: bool) -> None:
    api = api.in_namespace(NAMESPACE)
    problems = [
        pod_problem(pod)
        for pod in await api.list("Pod", f"{OPERATOR_LABEL}=true")
        if not pod["metadata"].get("deletionTimestamp")
        and pod["spec"]["containers"][0]["image"]
        == image  # not one that is being replaced
    ]
    deployment = await api.get("Deployment", NAME)
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
