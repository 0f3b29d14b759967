"""The reaper's pod: what is applied to Kubernetes, and what runs in it.

Its Kubernetes account has no rights in Kubernetes. What it may do at Google is bound to
that account by Workload Identity: see `role_commands`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.manifests import (
    SCRATCH,
    container_security,
    pod_security,
)
from dask_hpsearch.gcp.reaping import PERMISSIONS, watch
from dask_hpsearch.gcp.waiting import Clock, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.config.gke import GKESpec

Manifest = dict[str, Any]

NAMESPACE = "dask-hpsearch-system"
NAME = "reaper"
ROLE = "daskHpsearchReaper"
_MANAGED = {"app.kubernetes.io/managed-by": "dask-hpsearch"}
SELECTOR = {"app.kubernetes.io/name": "dask-hpsearch-reaper"}
_READY = f"{SCRATCH}/ready"  # as old as the last look that went well
_FRESH_S = 300
# Emptying the pool comes first, and must not hold up the rest.
LIMITS = Limits(change_s=60.0, delete_s=2400.0)


def manifests(spec: GKESpec, image: str) -> list[Manifest]:
    """Return all that the reaper is, in the order in which it is created."""

    def made(kind: str, api_version: str, name: str, **content: Any) -> Manifest:
        metadata: Manifest = {"name": name, "labels": _MANAGED | SELECTOR}
        if kind != "Namespace":
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
        made("Deployment", "apps/v1", NAME, spec=_deployment(spec, image)),
    ]


def role_commands(spec: GKESpec, project_number: str = "PROJECT_NUMBER") -> list[str]:
    """Return the commands that let the reaper end its own cluster, and nothing else.

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
    # Operations have names of their own; of clusters, this one alone.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Look after one GKE cluster, in a pod, until its time is over."""
    from dask_hpsearch.gcp.clients import cluster_manager
    from dask_hpsearch.gcp.gke import GKEClusters

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", help="projects/P/locations/L/clusters/C")
    parser.add_argument("--endpoint", help="where GKE's API is reached")
    parser.add_argument("--ready", type=Path, default=Path(_READY))
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    project = arguments.path.split("/")[1]
    clock = Clock()
    client = cluster_manager(arguments.endpoint)
    clusters = GKEClusters(client, project, clock=clock, limits=LIMITS)
    watch(clusters, arguments.path, clock, ready=arguments.ready.touch)
    return 0


def _deployment(spec: GKESpec, image: str) -> Manifest:
    command = ["python", "-m", "dask_hpsearch.gcp.reaper", spec.path]
    if spec.endpoints.container:
        command += ["--endpoint", spec.endpoints.container]
    fresh = (
        "import os, sys, time; "
        f"sys.exit(time.time() - os.stat('{_READY}').st_mtime > {_FRESH_S})"
    )
    resources = {"cpu": "50m", "memory": "256Mi"}
    container = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": command,
        "env": [{"name": "HOME", "value": SCRATCH}],
        "resources": {"requests": resources, "limits": dict(resources)},
        "readinessProbe": {
            "exec": {"command": ["python", "-c", fresh]},
            "initialDelaySeconds": 3,
            "periodSeconds": 5,
            "timeoutSeconds": 10,
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


if __name__ == "__main__":
    raise SystemExit(main())
