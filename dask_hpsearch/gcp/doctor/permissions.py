"""Checks the permissions of the user, the nodes, the reaper and the builds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.api_errors import grant_command
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.doctor.project import number_of
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.iam.bindings import Binding, CustomRole, binding_command
from dask_hpsearch.gcp.iam.conditions import Condition
from dask_hpsearch.gcp.iam.policies import read_policy, read_role, role_problem

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
    if response.body.get("disabled", False):
        yield Finding(
            "node account",
            f"the service account {address} of the nodes is disabled",
            f"gcloud iam service-accounts enable {address} --project={spec.project}",
        )
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
    """Check that the reaper may delete its own GKE cluster, and no other."""
    if not spec.reaper:
        return
    for role in reaper_pod.roles(spec):
        yield from _check_custom_role(role, rest)
    present = bindings_of(spec, rest)
    bindings = reaper_pod.bindings(spec, number_of(spec, rest))
    wide = _too_wide(bindings[0], present)
    narrow = [one for one in present if one not in wide]
    missing = [one for one in bindings if not one.is_granted_by(narrow)]
    if wide:
        yield _narrowing(bindings[0], wide, missing)
        return
    for one in missing:
        yield Finding("reaper", one.problem, one.command, one.needs_pool)


def _check_custom_role(role: CustomRole, rest: GoogleRest) -> Iterator[Finding]:
    response = read_role(rest, role)
    if not response.ok and not response.missing:
        raise UncheckedError.of(response, f"the role {role.role_id}")
    found = role_problem(role, response)
    if found is not None:
        problem, command = found
        # Its bindings wait for the identity pool: then the role is created with them.
        yield Finding(
            "reaper", f"{problem}, which the reaper needs", command, needs_pool=True
        )


def _too_wide(binding: Binding, present: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the bindings that grant the role, or a wider one, for other clusters too."""
    roles = binding.wider_roles | {binding.role}
    return [
        one
        for one in present
        if one["role"] in roles
        and binding.member in one.get("members", [])
        and not (one.get("condition") and binding.is_granted_by([one]))
    ]


def _narrowing(
    binding: Binding, wide: list[dict[str, Any]], missing: list[Binding]
) -> Finding:
    """Return the finding of bindings that are too wide."""
    commands, described = [one.command for one in missing], []
    for one in wide:
        condition = None
        how = f"{one['role']} is bound without a condition"
        if one.get("condition"):
            title, expression = (
                str(one["condition"].get(key, "")) for key in ("title", "expression")
            )
            condition = Condition(title, expression)
            how = f"{one['role']} is bound under the condition {expression!r}"
        described.append(how)
        commands.append(
            binding_command("remove", replace(binding, role=one["role"]), condition)
        )
    return Finding(
        "reaper",
        "the reaper may delete other GKE clusters of the project too: "
        f"{'; '.join(described)}",
        " && ".join(commands),
        binding.needs_pool,
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
    response = read_policy(rest, spec.project)
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
