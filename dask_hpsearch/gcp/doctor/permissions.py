"""Checks the permissions of the user, the nodes, the reaper and the builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.api_errors import grant_command
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.doctor.project import number_of
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.reaper import PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

# The permissions that the user needs, by a role that includes them.
USER_PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "roles/container.admin": (
        "container.clusters.create",
        "container.clusters.delete",
        "container.clusters.get",
        "container.clusters.list",
        "container.clusters.update",
        "container.clusters.connect",
        "container.operations.get",
        "container.deployments.create",
        "container.clusterRoleBindings.create",
    ),
    "roles/cloudbuild.builds.editor": (
        "cloudbuild.builds.create",
        "cloudbuild.builds.get",
        "cloudbuild.builds.list",
        "cloudbuild.builds.update",
    ),
    "roles/artifactregistry.admin": (
        "artifactregistry.repositories.create",
        "artifactregistry.repositories.get",
        "artifactregistry.repositories.delete",
        "artifactregistry.tags.get",
        "artifactregistry.versions.list",
        "artifactregistry.versions.delete",
        "artifactregistry.versions.update",
    ),
}
_NODE_ROLES = (
    "roles/container.defaultNodeServiceAccount",
    "roles/artifactregistry.reader",
)
# Each of these includes the permissions of the first one.
_READERS = (
    "roles/artifactregistry.reader",
    "roles/artifactregistry.writer",
    "roles/artifactregistry.repoAdmin",
    "roles/artifactregistry.admin",
)
_ENOUGH: Mapping[str, tuple[str, ...]] = {
    "roles/container.defaultNodeServiceAccount": (
        "roles/container.defaultNodeServiceAccount",
        "roles/container.nodeServiceAccount",
        "roles/editor",
        "roles/owner",
    ),
    "roles/artifactregistry.reader": (
        *_READERS,
        "roles/viewer",
        "roles/editor",
        "roles/owner",
    ),
    "roles/artifactregistry.writer": (
        *_READERS[1:],
        "roles/cloudbuild.builds.builder",
        "roles/editor",
        "roles/owner",
    ),
}


def check_user(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check the user's permissions in the project."""
    required = [one for group in USER_PERMISSIONS.values() for one in group]
    path = f"/v3/projects/{spec.project}:testIamPermissions"
    response = rest.post("cloudresourcemanager", path, {"permissions": required})
    if not response.ok:
        raise UncheckedError.of(response, "your permissions in the project")
    held = set(response.body.get("permissions", []))
    for role, group in USER_PERMISSIONS.items():
        missing = [one for one in group if one not in held]
        if missing:
            yield Finding(
                "permission",
                f"you lack {', '.join(missing)} in project {spec.project!r}",
                grant_command(spec.project, role),
            )


def check_node_account(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the nodes' service account exists, its roles, and who may use it."""
    address = spec.nodes_run_as
    path = f"/v1/projects/{spec.project}/serviceAccounts/{address}"
    response = rest.get("iam", path)
    if response.missing:
        name = address.partition("@")[0]
        yield Finding(
            "node account",
            f"there is no service account {address} for the nodes",
            f"gcloud iam service-accounts create {name} --project={spec.project}",
        )
        return
    if not response.ok:
        raise UncheckedError.of(response, f"the service account {address}")
    permission = "iam.serviceAccounts.actAs"
    allowed = rest.post(
        "iam", f"{path}:testIamPermissions", {"permissions": [permission]}
    )
    if allowed.ok and permission not in allowed.body.get("permissions", []):
        yield Finding(
            "permission",
            f"you are not allowed to act as {address}: you lack {permission} on it",
            f"gcloud iam service-accounts add-iam-policy-binding {address} "
            f"--project={spec.project} --member=user:YOU "
            "--role=roles/iam.serviceAccountUser",
        )
    bindings = bindings_of(spec, rest)
    for role in _NODE_ROLES:
        yield from _check_role(spec, "node account", bindings, address, role)


def check_reaper(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the reaper may delete its GKE cluster."""
    if not spec.reaper:
        return
    create, bind = reaper_pod.role_commands(spec, number_of(spec, rest))
    role = f"projects/{spec.project}/roles/{reaper_pod.ROLE}"
    response = rest.get("iam", f"/v1/{role}")
    if not response.ok and not response.missing:
        raise UncheckedError.of(response, f"the role {reaper_pod.ROLE}")
    held = set(response.body.get("includedPermissions", []))
    missing = [one for one in PERMISSIONS if one not in held]
    if response.missing or response.body.get("deleted", False):
        yield Finding(
            "reaper",
            f"there is no role {reaper_pod.ROLE}, with which the reaper deletes the GKE cluster",
            create,
        )
    elif missing:
        yield Finding(
            "reaper",
            f"the role {reaper_pod.ROLE} lacks {', '.join(missing)}",
            create.replace("roles create", "roles update", 1),
        )
    member = f"/subject/ns/{reaper_pod.NAMESPACE}/sa/{reaper_pod.NAME}"
    if not any(
        one["role"] in {role, "roles/container.admin"}
        and any(
            name.endswith(member) and f"/{spec.workload_pool}/" in name
            for name in one.get("members", [])
        )
        for one in bindings_of(spec, rest)
    ):
        yield Finding(
            "reaper",
            "the reaper may not delete the GKE cluster when it expires",
            bind,
        )


def check_build_account(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that builds may push images."""
    if spec.image is None:
        address = build_account(spec, rest)
        role = "roles/artifactregistry.writer"
        yield from _check_role(
            spec, "build account", bindings_of(spec, rest), address, role
        )


def build_account(spec: GKESpec, rest: GoogleRest) -> str:
    """Return the address of the service account of builds."""
    if spec.build_service_account is not None:
        return spec.build_service_account
    parent = f"/v1/projects/{spec.project}/locations/{spec.region}"
    response = rest.get("cloudbuild", f"{parent}/defaultServiceAccount")
    if not response.ok:
        raise UncheckedError.of(response, "the service account of builds")
    return str(response.body["serviceAccountEmail"]).rpartition("/")[2]


def bindings_of(spec: GKESpec, rest: GoogleRest) -> list[dict[str, Any]]:
    """Return the role bindings of the project."""
    path = f"/v3/projects/{spec.project}:getIamPolicy"
    # Without this version, bindings with a condition have other names.
    options = {"options": {"requestedPolicyVersion": 3}}
    response = rest.post("cloudresourcemanager", path, options)
    if not response.ok:
        raise UncheckedError.of(response, "the project's role bindings")
    found: list[dict[str, Any]] = response.body.get("bindings", [])
    return found


def _check_role(
    spec: GKESpec, about: str, bindings: list[dict[str, Any]], address: str, role: str
) -> Iterator[Finding]:
    member = f"serviceAccount:{address}"
    enough = _ENOUGH[role]
    if not any(
        one["role"] in enough and member in one.get("members", []) for one in bindings
    ):
        yield Finding(
            about,
            f"{address} lacks {role} in project {spec.project!r}, unless a folder or an "
            "organization grants it",
            grant_command(spec.project, role, member),
        )
