"""IAM bindings of a GKE cluster's pods: checked, made or printed, and waited for.

They need the project's identity pool, which GKE creates together with the first GKE cluster:
so this comes after the creation, and an absent binding deletes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING

from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.exceptions import CloudRightsError, MissingBindingsError
from dask_hpsearch.gcp.api_errors import no_credentials
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.identities import workload_bindings
from dask_hpsearch.gcp.iam.policies import (
    add_bindings,
    ensure_role,
    lacks_pool,
    read_policy,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.gcp.iam.bindings import Binding, CustomRole
    from dask_hpsearch.gcp.rest import GoogleRest, Response

TIMEOUT = 600.0  # for a person to run the commands, and for Google to see their effect
_POLL_INTERVAL = 10.0
_SAY_INTERVAL = 60.0
_UNKNOWN_NUMBER = "PROJECT_NUMBER"


@dataclass(frozen=True, slots=True)
class _Needs:
    """What the pods still need.

    Attributes
    ----------
    roles : tuple of CustomRole
        Those that do not exist, or lack a permission.
    bindings : tuple of Binding
    unknown : str
        Why it could not be checked; empty: it was.
    """

    roles: tuple[CustomRole, ...] = ()
    bindings: tuple[Binding, ...] = ()
    unknown: str = ""

    def __bool__(self) -> bool:
        return bool(self.roles or self.bindings)


def ensure_bindings(context: DeployContext, *, created: bool, bind: bool) -> bool:
    """Make sure that a GKE cluster's pods have their IAM bindings.

    Missing bindings are made, if the user wants and may do that; else the commands that
    make them are printed, and waited for.

    Parameters
    ----------
    context : DeployContext
    created : bool
        Whether the GKE cluster was just created.
    bind : bool
        Whether to change the project's IAM policy.

    Returns
    -------
    bool
        Whether bindings may be so new that they have no effect yet.

    Raises
    ------
    MissingBindingsError
        If bindings are still missing after ten minutes. The GKE cluster stays.
    """
    spec, rest = context.spec, context.clients.rest
    if rest is None or not spec.workload_identity:
        return False
    from google.auth.exceptions import GoogleAuthError

    try:
        return _ensure(context, rest, created=created, bind=bind)
    except GoogleAuthError as error:
        raise no_credentials("check the IAM bindings of pods", error) from error


def _ensure(
    context: DeployContext, rest: GoogleRest, *, created: bool, bind: bool
) -> bool:
    number = _project_number(context, rest)
    needs = _missing(context, rest, number)
    if needs.unknown:
        if created:
            context.say(_unknown_text(context, number, needs.unknown))
        return created
    if not needs:
        return False
    if bind:
        context.say("setting the IAM bindings of its pods")
        refused = _make(rest, context, needs)
        needs = _missing(context, rest, number)
        if refused:
            context.say(f"not allowed to set all of them: {refused}")
    if needs:
        context.say(_missing_text(needs))
        _wait(context, rest, number, bind=bind)
    return True


def _wait(context: DeployContext, rest: GoogleRest, number: str, *, bind: bool) -> None:
    """Wait until nothing is missing.

    Raises
    ------
    MissingBindingsError
    """
    deadline = Deadline(TIMEOUT, context.clock.now)
    silent = Deadline(_SAY_INTERVAL, context.clock.now)
    while needs := _missing(context, rest, number):
        if deadline.expired:
            raise MissingBindingsError(_timeout_text(context, needs))
        if silent.expired:
            silent = Deadline(_SAY_INTERVAL, context.clock.now)
            count = len(needs.roles) + len(needs.bindings)
            context.say(
                f"waiting for {count} IAM roles and bindings, for "
                f"{deadline.remaining / 60:.0f} more minutes"
            )
        context.clock.sleep(_POLL_INTERVAL)
        if bind:  # the identity pool may have appeared by now
            _make(rest, context, needs)


def _missing(context: DeployContext, rest: GoogleRest, number: str) -> _Needs:
    """Return what the pods lack, according to the policies of project and bucket."""
    spec = context.spec
    bindings: list[Binding] = []
    for bucket, group in _by_policy(workload_bindings(spec, number)):
        policy = read_policy(rest, spec.project, bucket)
        if not policy.ok:
            return _Needs(unknown=policy.reason)
        present = policy.body.get("bindings", [])
        bindings += [one for one in group if not one.is_granted_by(present)]
    needed = {one.role for one in bindings}
    roles = [role for role in _roles(context) if role.name in needed]
    return _Needs(
        tuple(role for role in roles if not _is_complete(rest, role)), tuple(bindings)
    )


def _roles(context: DeployContext) -> tuple[CustomRole, ...]:
    return reaper_pod.roles(context.spec) if context.spec.reaper else ()


def _is_complete(rest: GoogleRest, role: CustomRole) -> bool:
    found = rest.get("iam", f"/v1/{role.name}")
    held = found.body.get("includedPermissions", [])
    deleted = found.body.get("deleted", False)
    return found.ok and not deleted and set(role.permissions) <= set(held)


def _by_policy(
    bindings: Iterable[Binding],
) -> list[tuple[str | None, list[Binding]]]:
    """Group bindings by the bucket that they are for; None: the project."""
    ordered = sorted(bindings, key=lambda one: one.bucket or "")
    return [
        (bucket or None, list(group))
        for bucket, group in groupby(ordered, lambda one: one.bucket or "")
    ]


def _make(rest: GoogleRest, context: DeployContext, needs: _Needs) -> str:
    """Create roles, then add bindings; return Google's first refusal, if any."""
    responses: list[Response] = [ensure_role(rest, role) for role in needs.roles]
    for bucket, group in _by_policy(needs.bindings):
        responses.append(add_bindings(rest, context.spec.project, bucket, group))
    refused = [one.reason for one in responses if not one.ok and not lacks_pool(one)]
    return refused[0] if refused else ""


def _project_number(context: DeployContext, rest: GoogleRest) -> str:
    path = f"/v3/projects/{context.spec.project}"
    response = rest.get("cloudresourcemanager", path)
    if response.status == HTTPStatus.UNAUTHORIZED:
        msg = f"Google does not accept your credentials: {response.reason}"
        raise CloudRightsError(msg)
    return str(response.body.get("name", _UNKNOWN_NUMBER)).rpartition("/")[2]


def _commands(roles: Iterable[CustomRole], bindings: Iterable[Binding]) -> str:
    lines = [role.create_command for role in roles]
    lines += [one.command for one in bindings]
    return "\n".join(f"    {line}" for line in lines)


def _missing_text(needs: _Needs) -> str:
    problems = "; ".join(dict.fromkeys(one.problem for one in needs.bindings))
    return (
        f"IAM bindings are missing: {problems}. Run these commands, or let the project's "
        f"owner do it; the next {TIMEOUT / 60:.0f} minutes are for that:\n"
        f"{_commands(needs.roles, needs.bindings)}"
    )


def _unknown_text(context: DeployContext, number: str, reason: str) -> str:
    needed = workload_bindings(context.spec, number)
    return (
        f"the IAM bindings of its pods could not be checked ({reason}). If they do not "
        f"exist yet, let the project's owner run:\n{_commands(_roles(context), needed)}"
    )


def _timeout_text(context: DeployContext, needs: _Needs) -> str:
    return (
        f"IAM bindings are still missing after {TIMEOUT / 60:.0f} minutes. The GKE cluster "
        f"{context.spec.path} stays, costs money, and does not end by itself without them. "
        f"Run:\n{_commands(needs.roles, needs.bindings)}\n"
        "and then the same call again, or remove the GKE cluster with dask-hpsearch down"
    )
