"""Who the pods of a GKE cluster are at Google, and the IAM bindings that they need.

IAM knows a pod by its namespace and service account: the same names in another GKE cluster
of the project are the same principal. Conditions limit what such a principal may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.iam.bindings import Binding
from dask_hpsearch.gcp.iam.conditions import one_folder

if TYPE_CHECKING:
    from dask_hpsearch.config.gke import GKESpec

BUCKET_ROLE = "roles/storage.objectUser"
WIDER_BUCKET_ROLES = frozenset({"roles/storage.objectAdmin", "roles/storage.admin"})


def workload_bindings(spec: GKESpec, project_number: str) -> tuple[Binding, ...]:
    """Return all bindings that need the project's identity pool.

    Parameters
    ----------
    spec : GKESpec
    project_number : str
        As for `dask_hpsearch.gcp.gke.reaper_pod.bindings`.
    """
    if not spec.workload_identity:
        return ()
    reaper = reaper_pod.bindings(spec, project_number) if spec.reaper else ()
    return (pods_binding(spec, project_number), *reaper)


def pods_binding(spec: GKESpec, project_number: str) -> Binding:
    """Return the binding that allows pods to use the store's folder of the bucket.

    Parameters
    ----------
    spec : GKESpec
    project_number : str
        As for `dask_hpsearch.gcp.gke.reaper_pod.bindings`.
    """
    folders = _folders(spec.store)
    member, wider = _pods(spec, project_number)
    return Binding(
        f"pods of the namespace {spec.namespace!r} may not use "
        f"{spec.store.rstrip('/')!r}",
        spec.project,
        BUCKET_ROLE,
        member,
        bucket=spec.bucket,
        condition=one_folder(spec.bucket, folders[-1]) if folders else None,
        wider_roles=WIDER_BUCKET_ROLES,
        wider_members=frozenset(wider),
        wider_conditions=tuple(
            one_folder(spec.bucket, folder).expression for folder in folders[:-1]
        ),
    )


def _folders(store: str) -> list[str]:
    """Return the store's folder within its bucket, after all folders that contain it."""
    parts = store.removeprefix("gs://").rstrip("/").split("/")[1:]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _pods(spec: GKESpec, number: str) -> tuple[str, list[str]]:
    """Return the principal of the namespace's pods, and others that include the pods."""
    if not spec.workload_identity:
        return f"serviceAccount:{spec.nodes_run_as}", []
    pool = (
        f"//iam.googleapis.com/projects/{number}/locations/global/"
        f"workloadIdentityPools/{spec.workload_pool}"
    )
    cluster = f"https://container.googleapis.com/v1/{spec.path}"
    wider = [
        f"principalSet:{pool}/*",
        f"principalSet:{pool}/kubernetes.cluster/{cluster}",
    ]
    account = spec.dask.service_account
    if account:
        wider.append(f"principal:{pool}/subject/ns/{spec.namespace}/sa/{account}")
    return f"principalSet:{pool}/namespace/{spec.namespace}", wider
