"""Allow policies of IAM: how they are read and set, and what they allow.

Google refuses a change of a policy that another client has changed since it was read, conditions in a policy
of an older version, and principals of an identity pool that does not exist yet.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tests.fakes.conditions import (
    ConditionSyntaxError,
    Resource,
    cluster,
    holds,
    project,
)
from tests.fakes.serving import Refused, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Binding = dict[str, Any]
_POOL = re.compile(r"(?:/|^serviceAccount:)([^/\[]+\.svc\.id\.goog)[/\[]")
_CONDITIONS_VERSION = 3


class RestRefused(Exception):  # noqa: N818 (a refusal)
    """What a REST service answers instead of a result."""

    def __init__(self, status: HTTPStatus, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


@dataclass(slots=True)
class FakePolicy:
    """The allow policy of one resource.

    Attributes
    ----------
    roles : dict
        Members by role, where no condition is set.
    conditional : list of dict
        Bindings with a condition.
    changes : int
        How often it was set.
    meddle : callable, optional
        Called once before the next change, as if somebody else were quicker.
    """

    roles: dict[str, list[str]] = field(default_factory=dict)
    conditional: list[Binding] = field(default_factory=list)
    changes: int = 0
    meddle: Any = None

    @property
    def bindings(self) -> list[Binding]:
        """All of it."""
        plain = [{"role": role, "members": list(m)} for role, m in self.roles.items()]
        return [*plain, *(dict(one) for one in self.conditional)]

    @property
    def etag(self) -> str:
        """Of this state."""
        return hashlib.sha256(repr(self.bindings).encode()).hexdigest()[:12]

    def read(self, version: int, *, strict: bool) -> dict[str, Any]:
        """Return it as a caller sees it that knows policies up to a version.

        Parameters
        ----------
        version : int
        strict : bool
            Whether conditions are an error for older callers, as with Cloud Storage; else
            they see names of roles that do not exist, as with projects.
        """
        conditional = [dict(one) for one in self.conditional]
        if conditional and version < _CONDITIONS_VERSION:
            if strict:
                message = "Requested policy version is lower than the policy's."
                raise RestRefused(HTTPStatus.PRECONDITION_FAILED, message)
            for one in conditional:
                condition = one.pop("condition")
                digest = hashlib.sha256(repr(condition).encode()).hexdigest()[:20]
                one["role"] = f"{one['role']}_withcond_{digest}"
        plain = [{"role": role, "members": list(m)} for role, m in self.roles.items()]
        shown = min(version, _CONDITIONS_VERSION) if conditional else 1
        bindings = [*plain, *conditional]
        return {"bindings": bindings, "etag": self.etag, "version": shown}

    def write(self, policy: Mapping[str, Any], pools: Iterable[str]) -> dict[str, Any]:
        """Replace it, unless Google would refuse that.

        Parameters
        ----------
        policy : mapping
        pools : iterable of str
            Identity pools that exist.
        """
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle(self)
        if policy.get("etag", self.etag) != self.etag:
            message = "There were concurrent policy changes. Please retry."
            raise RestRefused(HTTPStatus.CONFLICT, message)
        bindings = [dict(one) for one in policy.get("bindings", [])]
        had = bool(self.conditional)
        has = any("condition" in one for one in bindings)
        if (had or has) and policy.get("version", 1) < _CONDITIONS_VERSION:
            message = "A policy with conditions must have version 3."
            raise RestRefused(HTTPStatus.BAD_REQUEST, message)
        self._check(bindings, set(pools))
        self.roles.clear()
        self.conditional.clear()
        for one in bindings:
            if one.get("condition"):
                self.conditional.append(one)
            else:
                members = self.roles.setdefault(one["role"], [])
                members += [name for name in one["members"] if name not in members]
        self.changes += 1
        return self.read(_CONDITIONS_VERSION, strict=False)

    @staticmethod
    def _check(bindings: Iterable[Binding], pools: set[str]) -> None:
        for one in bindings:
            for member in one["members"]:
                for pool in _POOL.findall(member):
                    if pool not in pools:
                        message = (
                            f"Identity Pool does not exist ({pool}). Please check that you "
                            "specified a valid resource name as returned in the `name` "
                            "attribute in the configuration API."
                        )
                        raise RestRefused(HTTPStatus.BAD_REQUEST, message)
            if one.get("condition"):
                try:
                    holds(one["condition"]["expression"], Resource("", ""))
                except ConditionSyntaxError as error:
                    message = f"Condition expression compilation failed: {error}"
                    raise RestRefused(HTTPStatus.BAD_REQUEST, message) from error

    def allows(
        self,
        permissions_of: Mapping[str, Iterable[str]],
        member: str,
        permission: str,
        resource: Resource,
    ) -> bool:
        """Whether somebody may do something with a resource.

        Parameters
        ----------
        permissions_of : mapping
            Permissions by role.
        member : str
        permission : str
        resource : Resource
        """
        return any(
            member in one["members"]
            and permission in permissions_of.get(one["role"], ())
            and (
                "condition" not in one
                or holds(one["condition"]["expression"], resource)
            )
            for one in self.bindings
        )


# Permissions of GKE's methods; operations are resources of no type that IAM knows.
_PERMISSIONS = {
    "GetCluster": "container.clusters.get",
    "DeleteCluster": "container.clusters.delete",
    "SetLabels": "container.clusters.update",
    "SetNodePoolAutoscaling": "container.clusters.update",
    "SetNodePoolSize": "container.clusters.update",
    "GetOperation": "container.operations.get",
    "ListClusters": "container.clusters.list",
}


class GuardedTraffic(Traffic):
    """GKE as one account sees it: what it may not do is refused.

    Parameters
    ----------
    policy : FakePolicy
        Of the project.
    permissions_of : mapping
        Permissions by role.
    member : str
        Who asks.
    """

    __slots__ = ("_member", "_permissions_of", "_policy")

    def __init__(
        self,
        policy: FakePolicy,
        permissions_of: Mapping[str, Iterable[str]],
        member: str,
    ) -> None:
        super().__init__()
        self._policy, self._permissions_of = policy, permissions_of
        self._member = member

    def answer(self, name: str, method: Any, request: Any) -> Any:
        """Answer, or refuse as IAM does."""
        permission = _PERMISSIONS[name]
        path = getattr(request, "name", "") or request.parent
        resource = project(path.split("/")[1])
        if "/clusters/" in path:
            resource = cluster(path.partition("/nodePools/")[0])
        if not self._policy.allows(
            self._permissions_of, self._member, permission, resource
        ):
            message = f'Required "{permission}" permission(s) for "{path}".'
            raise Refused("PERMISSION_DENIED", message, "IAM_PERMISSION_DENIED")
        return super().answer(name, method, request)
