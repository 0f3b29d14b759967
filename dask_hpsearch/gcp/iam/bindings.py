"""Role bindings and custom roles, as pure values: compared, merged, printed as commands."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.iam.conditions import Condition, same_expression

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CONDITIONS_VERSION = 3  # of policies that may have conditions
_POOL_SUFFIX = ".svc.id.goog"  # of the identity pools of GKE


@dataclass(frozen=True, slots=True)
class CustomRole:
    """A role that a project defines itself.

    Attributes
    ----------
    project : str
    role_id : str
        As ``daskHpsearchReaper``.
    title : str
    permissions : tuple of str
    """

    project: str
    role_id: str
    title: str
    permissions: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its resource name, which bindings use."""
        return f"projects/{self.project}/roles/{self.role_id}"

    @property
    def create_command(self) -> str:
        """The command that creates it."""
        return self._command("create", f" --permissions={','.join(self.permissions)}")

    @property
    def update_command(self) -> str:
        """The command that gives it its permissions."""
        return self._command("update", f" --permissions={','.join(self.permissions)}")

    @property
    def undelete_command(self) -> str:
        """The command that restores it after it was deleted."""
        return self._command("undelete", "")

    def _command(self, verb: str, options: str) -> str:
        return (
            f"gcloud iam roles {verb} {self.role_id} --project={self.project}{options}"
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """A role that a principal needs on a project or a bucket.

    Attributes
    ----------
    problem : str
        What is not possible without it, as "the pods may not read their data".
    project : str
    role, member : str
    bucket : str or None
        None: the role is granted on the project.
    condition : Condition or None
    wider_roles, wider_members : frozenset of str
        Roles that include the role, principals that include the member.
    wider_conditions : tuple of str
        Other expressions that allow what is needed.
    """

    problem: str
    project: str
    role: str
    member: str
    bucket: str | None = None
    condition: Condition | None = None
    wider_roles: frozenset[str] = frozenset()
    wider_members: frozenset[str] = frozenset()
    wider_conditions: tuple[str, ...] = ()

    @property
    def needs_pool(self) -> bool:
        """Whether IAM refuses it until the project's identity pool exists."""
        return f"{_POOL_SUFFIX}/" in self.member

    def is_granted_by(self, bindings: Iterable[Mapping[str, Any]]) -> bool:
        """Whether one of a policy's bindings grants at least this."""
        roles = self.wider_roles | {self.role}
        members = self.wider_members | {self.member}
        return any(
            one["role"] in roles
            and not members.isdisjoint(one.get("members", ()))
            and self._allows(one.get("condition"))
            for one in bindings
        )

    def without_condition(self, bindings: Iterable[Mapping[str, Any]]) -> list[Binding]:
        """Return a policy's bindings that grant this, and more, as they have no condition."""
        roles = self.wider_roles | {self.role}
        members = self.wider_members | {self.member}
        return [
            Binding(self.problem, self.project, one["role"], member, bucket=self.bucket)
            for one in bindings
            if one["role"] in roles and not one.get("condition")
            for member in one.get("members", ())
            if member in members
        ]

    def _allows(self, condition: Mapping[str, str] | None) -> bool:
        if not condition:
            return True
        expected = [self.condition.expression] if self.condition else []
        return any(
            same_expression(condition["expression"], one)
            for one in (*expected, *self.wider_conditions)
        )

    @property
    def command(self) -> str:
        """The command that grants it."""
        return binding_command("add", self, self.condition)


def binding_command(verb: str, binding: Binding, condition: Condition | None) -> str:
    """Return the command that adds or removes a binding.

    Parameters
    ----------
    verb : {"add", "remove"}
    binding : Binding
    condition : Condition or None
        Instead of the binding's own.
    """
    if binding.bucket is not None:
        condition_option = f' --condition="{condition.argument}"' if condition else ""
        if verb == "remove" and condition is None:  # else gcloud asks which one
            condition_option = " --condition=None"
        return (
            f"gcloud storage buckets {verb}-iam-policy-binding gs://{binding.bucket} "
            f"--member={binding.member} --role={binding.role}{condition_option}"
        )
    # Without the option, gcloud asks for a condition if another binding has one.
    argument = f'"{condition.argument}"' if condition else "None"
    return (
        f"gcloud projects {verb}-iam-policy-binding {binding.project} "
        f'--member="{binding.member}" --role={binding.role} --condition={argument}'
    )


def merged(policy: Mapping[str, Any], added: Sequence[Binding]) -> dict[str, Any]:
    """Return a policy with more bindings; all of its own stay, conditions included.

    Parameters
    ----------
    policy : mapping
        As an API returns it for version 3, with its etag.
    added : sequence of Binding
    """
    result = copy.deepcopy(dict(policy))
    result["version"] = CONDITIONS_VERSION
    bindings: list[dict[str, Any]] = result.setdefault("bindings", [])
    for one in added:
        condition = one.condition.body if one.condition else None
        for existing in bindings:
            if existing["role"] == one.role and existing.get("condition") == condition:
                members = existing.setdefault("members", [])
                if one.member not in members:
                    members.append(one.member)
                break
        else:
            new: dict[str, Any] = {"role": one.role, "members": [one.member]}
            bindings.append(new | ({"condition": condition} if condition else {}))
    return result
