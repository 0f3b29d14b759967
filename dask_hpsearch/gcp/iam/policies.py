"""Reads allow policies and custom roles from Google, and changes them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.iam.bindings import CONDITIONS_VERSION, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.gcp.iam.bindings import Binding, CustomRole
    from dask_hpsearch.gcp.rest import GoogleRest, Response

_ATTEMPTS = 5  # others may change a policy at the same time
_CHANGED_MEANWHILE = (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED)
_NO_POOL = "Identity Pool does not exist"


def read_policy(rest: GoogleRest, project: str, bucket: str | None = None) -> Response:
    """Return the allow policy of a project, or of a bucket, with its conditions.

    Parameters
    ----------
    rest : GoogleRest
    project : str
    bucket : str, optional
    """
    if bucket is not None:
        path = f"/storage/v1/b/{bucket}/iam"
        query = {"optionsRequestedPolicyVersion": CONDITIONS_VERSION}
        return rest.get("storage", path, **query)
    options = {"options": {"requestedPolicyVersion": CONDITIONS_VERSION}}
    path = f"/v3/projects/{project}:getIamPolicy"
    return rest.post("cloudresourcemanager", path, options)


def add_bindings(
    rest: GoogleRest, project: str, bucket: str | None, added: Sequence[Binding]
) -> Response:
    """Add bindings to the policy of a project, or of a bucket.

    The policy is written with the etag that was read: if others have changed it meanwhile,
    it is read again.

    Returns
    -------
    Response
        The last response: the new policy, or Google's refusal.
    """
    for _ in range(_ATTEMPTS):
        response = read_policy(rest, project, bucket)
        if not response.ok:
            return response
        response = _write_policy(rest, project, bucket, merged(response.body, added))
        if response.status not in _CHANGED_MEANWHILE:
            return response
    return response


def _write_policy(
    rest: GoogleRest, project: str, bucket: str | None, policy: dict[str, Any]
) -> Response:
    if bucket is not None:
        return rest.put("storage", f"/storage/v1/b/{bucket}/iam", policy)
    path = f"/v3/projects/{project}:setIamPolicy"
    return rest.post("cloudresourcemanager", path, {"policy": policy})


def lacks_pool(response: Response) -> bool:
    """Whether Google refuses a binding because its identity pool does not exist yet."""
    return response.status == HTTPStatus.BAD_REQUEST and _NO_POOL in response.reason


def role_problem(role: CustomRole, response: Response) -> tuple[str, str] | None:
    """Return what is wrong with a custom role, and the command that mends it.

    Parameters
    ----------
    role : CustomRole
    response : Response
        Google's, to the request for the role.

    Returns
    -------
    (str, str) or None
        None: it exists and has its permissions.
    """
    if not response.ok:
        return f"there is no role {role.role_id}", role.create_command
    if response.body.get("deleted", False):
        return f"the role {role.role_id} is deleted", role.undelete_command
    held = response.body.get("includedPermissions", [])
    missing = [one for one in role.permissions if one not in held]
    if missing:
        return (
            f"the role {role.role_id} lacks {', '.join(missing)}",
            role.update_command,
        )
    return None


def read_role(rest: GoogleRest, role: CustomRole) -> Response:
    """Return a custom role."""
    return rest.get("iam", f"/v1/{role.name}")


def ensure_role(rest: GoogleRest, role: CustomRole) -> Response:
    """Create a custom role, restore it, or add the permissions that it lacks.

    Returns
    -------
    Response
        The last response: the role, or Google's refusal.
    """
    path = f"/v1/{role.name}"
    found = read_role(rest, role)
    if found.missing:
        content = {
            "title": role.title,
            "stage": "GA",
            "includedPermissions": list(role.permissions),
        }
        body = {"roleId": role.role_id, "role": content}
        created = rest.post("iam", f"/v1/projects/{role.project}/roles", body)
        if created.status != HTTPStatus.CONFLICT:  # another client was quicker
            return created
        found = read_role(rest, role)
    if found.ok and found.body.get("deleted", False):
        restored = rest.post("iam", f"{path}:undelete", {})
        if not restored.ok:
            return restored
    held = found.body.get("includedPermissions", [])
    missing = [one for one in role.permissions if one not in held]
    if not found.ok or not missing:
        return found
    body = {"includedPermissions": [*held, *missing]}
    return rest.patch("iam", path, body, updateMask="includedPermissions")
