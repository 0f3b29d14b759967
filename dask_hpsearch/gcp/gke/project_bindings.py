"""The IAM bindings of pods in their project: checked and made."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from google.auth.exceptions import GoogleAuthError

from dask_hpsearch.exceptions import CloudUnreachableError
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.identities import workload_bindings
from dask_hpsearch.gcp.iam.policies import (
    add_bindings,
    ensure_role,
    lacks_pool,
    read_policy,
    read_role,
    role_problem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.iam.bindings import Binding, CustomRole
    from dask_hpsearch.gcp.rest import GoogleRest


@dataclass(frozen=True, slots=True)
class BindingState:
    """Which roles and bindings a project lacks, or may lack.

    Attributes
    ----------
    roles : dict
        Commands by the roles that they mend.
    bindings : tuple of Binding
    unknown : str
        Why it could not be checked; empty: it was.
    """

    roles: dict[CustomRole, str] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    unknown: str = ""

    @property
    def complete(self) -> bool:
        """Whether it was checked, and nothing is missing."""
        return not (self.bindings or self.unknown)

    @property
    def commands(self) -> list[str]:
        """The commands that make what is missing."""
        return [*self.roles.values(), *(one.command for one in self.bindings)]


@dataclass(frozen=True, slots=True)
class ProjectBindings:
    """The IAM policies of a spec's project and bucket.

    Attributes
    ----------
    spec : GKESpec
    rest : GoogleRest
    """

    spec: GKESpec
    rest: GoogleRest

    def check(self) -> BindingState:
        """Return what is missing, according to the policies."""
        try:
            path = f"/v3/projects/{self.spec.project}"
            found = self.rest.get("cloudresourcemanager", path)
            if not found.ok:
                return self._unknown(found.reason)
            number = str(found.body["name"]).rpartition("/")[2]
            needed = workload_bindings(self.spec, number)
            missing: list[Binding] = []
            for bucket, group in _by_policy(needed):
                policy = read_policy(self.rest, self.spec.project, bucket)
                if not policy.ok:
                    return self._unknown(policy.reason, number)
                present = policy.body.get("bindings", [])
                missing += [one for one in group if not one.is_granted_by(present)]
            return BindingState(self._role_commands(missing), tuple(missing))
        except (GoogleAuthError, CloudUnreachableError) as error:
            return self._unknown(str(error))

    def _unknown(self, reason: str, number: str = "PROJECT_NUMBER") -> BindingState:
        """Return that nothing is known, with everything that may be missing."""
        roles = reaper_pod.roles(self.spec) if self.spec.reaper else ()
        commands = {role: role.create_command for role in roles}
        return BindingState(commands, workload_bindings(self.spec, number), reason)

    def _role_commands(self, missing: Iterable[Binding]) -> dict[CustomRole, str]:
        names = {one.role for one in missing}
        roles = [role for role in reaper_pod.roles(self.spec) if role.name in names]
        found = {role: role_problem(role, read_role(self.rest, role)) for role in roles}
        return {role: one[1] for role, one in found.items() if one is not None}

    def make(self, state: BindingState) -> str:
        """Make what is missing: roles first; return Google's first refusal, if any."""
        try:
            responses = [ensure_role(self.rest, role) for role in state.roles]
            for bucket, group in _by_policy(state.bindings):
                responses.append(
                    add_bindings(self.rest, self.spec.project, bucket, group)
                )
        except (GoogleAuthError, CloudUnreachableError) as error:
            return str(error)
        refused = [one.reason for one in responses if not (one.ok or lacks_pool(one))]
        return refused[0] if refused else ""


def _by_policy(
    bindings: Iterable[Binding],
) -> list[tuple[str | None, list[Binding]]]:
    """Group bindings by the bucket that they are for; None: the project."""
    ordered = sorted(bindings, key=lambda one: one.bucket or "")
    return [
        (bucket or None, list(group))
        for bucket, group in groupby(ordered, lambda one: one.bucket or "")
    ]
