"""Whether the user, the nodes and the builds may do what they have to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.api_errors import grant_command
from dask_hpsearch.gcp.doctor.findings import Finding, UnseenError
from dask_hpsearch.gcp.doctor.project import number_of
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.reaper import PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

# Of each role, what is needed of it.
USER_NEEDS: Mapping[str, tuple[str, ...]] = {
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
# Any of these contains what the one that is asked for has.
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
    """Look what the user may not do in the project."""
    wanted = [one for needs in USER_NEEDS.values() for one in needs]
    path = f"/v3/projects/{spec.project}:testIamPermissions"
    answer = rest.post("cloudresourcemanager", path, {"permissions": wanted})
    if not answer.ok:
        raise UnseenError.of(answer, "what you may do in the project")
    held = set(answer.body.get("permissions", []))
    for role, needs in USER_NEEDS.items():
        lacking = [one for one in needs if one not in held]
        if lacking:
            yield Finding(
                "permission",
                f"you lack {', '.join(lacking)} in project {spec.project!r}",
                grant_command(spec.project, role),
            )


def check_node_account(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether there is the nodes' account, what it may do, and who may use it."""
    address = spec.nodes_run_as
    path = f"/v1/projects/{spec.project}/serviceAccounts/{address}"
    answer = rest.get("iam", path)
    if answer.missing:
        name = address.partition("@")[0]
        yield Finding(
            "node account",
            f"there is no service account {address}, which nodes are to run as",
            f"gcloud iam service-accounts create {name} --project={spec.project}",
        )
        return
    if not answer.ok:
        raise UnseenError.of(answer, f"the service account {address}")
    permission = "iam.serviceAccounts.actAs"
    allowed = rest.post(
        "iam", f"{path}:testIamPermissions", {"permissions": [permission]}
    )
    if allowed.ok and permission not in allowed.body.get("permissions", []):
        yield Finding(
            "permission",
            f"you may not let nodes run as {address}: you lack {permission} on it",
            f"gcloud iam service-accounts add-iam-policy-binding {address} "
            f"--project={spec.project} --member=user:YOU "
            "--role=roles/iam.serviceAccountUser",
        )
    bindings = bindings_of(spec, rest)
    for role in _NODE_ROLES:
        yield from _lacking(spec, "node account", bindings, address, role)


def check_reaper(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether what ends the GKE cluster when its time is over may do that."""
    if not spec.reaper:
        return
    create, bind = reaper_pod.role_commands(spec, number_of(spec, rest))
    role = f"projects/{spec.project}/roles/{reaper_pod.ROLE}"
    answer = rest.get("iam", f"/v1/{role}")
    if not answer.ok and not answer.missing:
        raise UnseenError.of(answer, f"the role {reaper_pod.ROLE}")
    held = set(answer.body.get("includedPermissions", []))
    lacking = [one for one in PERMISSIONS if one not in held]
    if answer.missing or answer.body.get("deleted", False):
        yield Finding(
            "reaper",
            f"there is no role {reaper_pod.ROLE}, with which the GKE cluster ends itself",
            create,
        )
    elif lacking:
        yield Finding(
            "reaper",
            f"the role {reaper_pod.ROLE} lacks {', '.join(lacking)}",
            create.replace("roles create", "roles update", 1),
        )
    member = f"/subject/ns/{reaper_pod.NAMESPACE}/sa/{reaper_pod.NAME}"
    if not any(
        one["role"] in {role, "roles/container.admin"}
        and any(
            who.endswith(member) and f"/{spec.workload_pool}/" in who
            for who in one.get("members", [])
        )
        for one in bindings_of(spec, rest)
    ):
        yield Finding(
            "reaper",
            "the pod that ends the GKE cluster when its time is over may not do that",
            bind,
        )


def check_build_account(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether builds may push images."""
    if spec.image is None:
        address = build_account(spec, rest)
        role = "roles/artifactregistry.writer"
        yield from _lacking(
            spec, "build account", bindings_of(spec, rest), address, role
        )


def build_account(spec: GKESpec, rest: GoogleRest) -> str:
    """Return the address of the account whose rights a build has."""
    if spec.build_service_account is not None:
        return spec.build_service_account
    place = f"/v1/projects/{spec.project}/locations/{spec.region}"
    answer = rest.get("cloudbuild", f"{place}/defaultServiceAccount")
    if not answer.ok:
        raise UnseenError.of(answer, "the account of builds")
    return str(answer.body["serviceAccountEmail"]).rpartition("/")[2]


def bindings_of(spec: GKESpec, rest: GoogleRest) -> list[dict[str, Any]]:
    """Return who has which role in the project."""
    path = f"/v3/projects/{spec.project}:getIamPolicy"
    # Without this version, bindings with a condition are told under other names.
    options = {"options": {"requestedPolicyVersion": 3}}
    answer = rest.post("cloudresourcemanager", path, options)
    if not answer.ok:
        raise UnseenError.of(answer, "the project's roles")
    found: list[dict[str, Any]] = answer.body.get("bindings", [])
    return found


def _lacking(
    spec: GKESpec, about: str, bindings: list[dict[str, Any]], address: str, role: str
) -> Iterator[Finding]:
    member = f"serviceAccount:{address}"
    enough = _ENOUGH[role]
    if not any(
        one["role"] in enough and member in one.get("members", []) for one in bindings
    ):
        yield Finding(
            about,
            f"{address} has not {role} in project {spec.project!r}, unless it comes from "
            "a folder or an organization",
            grant_command(spec.project, role, member),
        )
