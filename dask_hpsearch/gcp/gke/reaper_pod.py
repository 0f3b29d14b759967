"""Manifests of the pod in which `dask_hpsearch.gcp.gke.reaper` runs.

Its service account has no permissions in Kubernetes. Its permissions in Google Cloud are
bound to that account by Workload Identity: see `role_commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.manifests import (
    POD_SECURITY,
    SCRATCH,
    container_security,
    pod_security,
)
from dask_hpsearch.gcp.gke.reaper import CHECK_INTERVAL, PERMISSIONS

if TYPE_CHECKING:
    from dask_hpsearch.config.gke import GKESpec

Manifest = dict[str, Any]

NAMESPACE = "dask-hpsearch-system"
NAME = "reaper"
ROLE = "daskHpsearchReaper"
_MANAGED = {"app.kubernetes.io/managed-by": "dask-hpsearch"}
SELECTOR = {"app.kubernetes.io/name": "dask-hpsearch-reaper"}
_READY = f"{SCRATCH}/ready"  # its time is that of the last successful check
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
        made("ServiceAccount", "v1", NAME, automountServiceAccountToken=False),
        made("NetworkPolicy", "networking.k8s.io/v1", NAME, spec=policy),
        made("Deployment", "apps/v1", NAME, spec=_deployment(spec, image, interval)),
    ]


def role_commands(spec: GKESpec, project_number: str = "PROJECT_NUMBER") -> list[str]:
    """Return the commands that allow the reaper to delete its own GKE cluster only.

    Parameters
    ----------
    spec : GKESpec
    project_number : str
        As ``gcloud projects describe PROJECT --format='value(projectNumber)'`` has it.
    """
    member = (
        f"principal://iam.googleapis.com/projects/{project_number}/locations/global/"
        f"workloadIdentityPools/{spec.workload_pool}/subject/ns/{NAMESPACE}/sa/{NAME}"
    )
    # Operations have names of their own; of GKE clusters, this one only.
    condition = (
        "expression=resource.type != 'container.googleapis.com/Cluster' || "
        f"resource.name == '{spec.path}',title=one-cluster"
    )
    return [
        (
            f"gcloud iam roles create {ROLE} --project={spec.project} "
            f"--permissions={','.join(PERMISSIONS)}"
        ),
        (
            f'gcloud projects add-iam-policy-binding {spec.project} --member="{member}" '
            f'--role=projects/{spec.project}/roles/{ROLE} --condition="{condition}"'
        ),
    ]


def _deployment(spec: GKESpec, image: str, interval: float) -> Manifest:
    command = ["python", "-m", "dask_hpsearch.gcp.gke.reaper", spec.path]
    command += ["--every", f"{interval:g}", "--ready", _READY]
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
            **_checked_within(_FRESH_TIME),
            "initialDelaySeconds": 3,
            "periodSeconds": 5,
        },
        "livenessProbe": {
            **_checked_within(_HUNG_TIME),
            "initialDelaySeconds": _FRESH_TIME,
            "periodSeconds": 60,
        },
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }
    pod = {
        "serviceAccountName": NAME,
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


def _checked_within(seconds: int) -> Manifest:
    program = (
        "import os, sys, time; "
        f"sys.exit(time.time() - os.stat('{_READY}').st_mtime > {seconds})"
    )
    return {"exec": {"command": ["python", "-c", program]}, "timeoutSeconds": 10}
