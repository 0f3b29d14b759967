"""Manifests of the pod in which `dask_hpsearch.gcp.gke.reaper` runs.

Its service account has no permissions in Kubernetes. Its permissions in Google Cloud are
bound to that account by Workload Identity: see `roles` and `bindings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.manifests import (
    POD_SECURITY,
    SCRATCH,
    container_security,
    pod_security,
)
from dask_hpsearch.gcp.gke.reaper import (
    CHECK_INTERVAL,
    CLUSTER_PERMISSIONS,
    OPERATION_PERMISSIONS,
)
from dask_hpsearch.gcp.iam.bindings import Binding, CustomRole
from dask_hpsearch.gcp.iam.conditions import one_cluster

if TYPE_CHECKING:
    from dask_hpsearch.config.gke import GKESpec

Manifest = dict[str, Any]

NAMESPACE = "dask-hpsearch-system"
NAME = "reaper"
# Roles that include its permissions, for all GKE clusters of the project.
_ADMIN = frozenset(
    {
        "roles/container.admin",
        "roles/container.clusterAdmin",
        "roles/editor",
        "roles/owner",
    }
)
_MANAGED = {"app.kubernetes.io/managed-by": "dask-hpsearch"}
SELECTOR = {"app.kubernetes.io/name": "dask-hpsearch-reaper"}
_READY = f"{SCRATCH}/ready"  # its time is that of the last successful check
_ALIVE = f"{SCRATCH}/alive"  # that of the last check, also one that Google refused
_FRESH_TIME = 300
_HUNG_TIME = 900  # then Kubernetes restarts it; Google may not respond for a while
# The program needs one CPU second until its first check, two on slow machines;
# `dask_hpsearch.deploy.bootstrap` waits for that check.
_CPU, _MEMORY = "100m", "256Mi"


def manifests(
    spec: GKESpec, image: str, *, interval: float = CHECK_INTERVAL
) -> list[Manifest]:
    """Return the reaper's manifests, in the order in which they are created.

    Parameters
    ----------
    spec : GKESpec
    image : str
    interval : float
        Seconds between two checks.
    """

    def made(kind: str, api_version: str, name: str, **content: Any) -> Manifest:
        metadata: Manifest = {"name": name, "labels": _MANAGED | SELECTOR}
        if kind == "Namespace":
            metadata["labels"] |= POD_SECURITY
        else:
            metadata["namespace"] = NAMESPACE
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": metadata,
            **content,
        }

    policy = {"podSelector": {"matchLabels": SELECTOR}, "policyTypes": ["Ingress"]}
    return [
        made("Namespace", "v1", NAMESPACE),
        made("ServiceAccount", "v1", account(spec), automountServiceAccountToken=False),
        made("NetworkPolicy", "networking.k8s.io/v1", NAME, spec=policy),
        made("Deployment", "apps/v1", NAME, spec=_deployment(spec, image, interval)),
    ]


def account(spec: GKESpec) -> str:
    """Return the name of the reaper's service account, in `NAMESPACE`.

    IAM does not distinguish accounts of the same namespace and name in different GKE
    clusters of a project, so the name contains that of the GKE cluster.
    """
    return f"{NAME}-{spec.name}-{spec.location}"


def roles(spec: GKESpec) -> tuple[CustomRole, CustomRole]:
    """Return the custom roles of the reaper: for its GKE cluster, and for operations."""
    project, role_id = spec.project, "daskHpsearchReaper"
    return (
        CustomRole(
            project, role_id, "Dask searches: delete a GKE cluster", CLUSTER_PERMISSIONS
        ),
        CustomRole(
            project,
            f"{role_id}Operations",
            "Dask searches: read operations of GKE",
            OPERATION_PERMISSIONS,
        ),
    )


def bindings(spec: GKESpec, project_number: str) -> tuple[Binding, Binding]:
    """Return the bindings that allow the reaper to delete its own GKE cluster only.

    Parameters
    ----------
    spec : GKESpec
    project_number : str
        As ``gcloud projects describe PROJECT --format='value(projectNumber)'`` has it.
    """
    member = (
        f"principal://iam.googleapis.com/projects/{project_number}/locations/global/"
        f"workloadIdentityPools/{spec.workload_pool}/subject/ns/{NAMESPACE}/sa/"
        f"{account(spec)}"
    )
    cluster_role, operations_role = roles(spec)
    return (
        Binding(
            "the reaper may not delete the GKE cluster when it expires",
            spec.project,
            cluster_role.name,
            member,
            condition=one_cluster(spec.path),
            wider_roles=_ADMIN,
        ),
        Binding(
            "the reaper may not see when its operations have ended",
            spec.project,
            operations_role.name,
            member,
            wider_roles=_ADMIN,
        ),
    )


def role_commands(spec: GKESpec, project_number: str = "PROJECT_NUMBER") -> list[str]:
    """Return the commands that create the reaper's roles and bind them.

    Parameters
    ----------
    spec : GKESpec
    project_number : str
        As for `bindings`.
    """
    return [
        *(role.create_command for role in roles(spec)),
        *(one.command for one in bindings(spec, project_number)),
    ]


def _deployment(spec: GKESpec, image: str, interval: float) -> Manifest:
    command = ["python", "-m", "dask_hpsearch.gcp.gke.reaper", spec.path]
    command += ["--every", f"{interval:g}", "--ready", _READY, "--alive", _ALIVE]
    if spec.endpoints.container:
        command += ["--endpoint", spec.endpoints.container]
    resources = {"cpu": _CPU, "memory": _MEMORY}
    container = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": command,
        "env": [{"name": "HOME", "value": SCRATCH}],
        "resources": {"requests": resources, "limits": dict(resources)},
        "readinessProbe": {
            **_checked_within(_FRESH_TIME, _READY),
            "initialDelaySeconds": 3,
            "periodSeconds": 5,
        },
        # Without permissions it is not ready, but alive: it must not be restarted, with longer
        # pauses each time, until it has them.
        "livenessProbe": {
            **_checked_within(_HUNG_TIME, _ALIVE),
            "initialDelaySeconds": _FRESH_TIME,
            "periodSeconds": 60,
        },
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }
    pod = {
        "serviceAccountName": account(spec),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "10Mi"}}],
    }
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": SELECTOR},
        "template": {"metadata": {"labels": _MANAGED | SELECTOR}, "spec": pod},
    }


def _checked_within(seconds: int, file: str) -> Manifest:
    program = (
        "import os, sys, time; "
        f"sys.exit(time.time() - os.stat('{file}').st_mtime > {seconds})"
    )
    return {"exec": {"command": ["python", "-c", program]}, "timeoutSeconds": 10}
