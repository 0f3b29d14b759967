"""What Google's roles permit, as far as the fakes ask for it; and a user who has some of them.

The permissions are those of Google's reference of IAM roles (cloud.google.com/iam/docs/roles-permissions).
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_ROLE = re.compile(r"^\| `(roles/[\w.]+)` \|", re.MULTILINE)


def _all(service: str, verbs: str) -> set[str]:
    """Return permissions: ``"clusters: get list"`` of ``"container"``."""
    found = set()
    for line in verbs.split(";"):
        resource, _, names = line.strip().partition(":")
        found |= {f"{service}.{resource}.{name}" for name in names.split()}
    return found


ROLES: dict[str, set[str]] = {
    "roles/viewer": (
        _all("resourcemanager", "projects: get")
        | _all("serviceusage", "services: get list")
        | _all("compute", "projects: get; regions: get; machineTypes: get")
        | _all("compute", "networks: get; subnetworks: get")
        | _all("iam", "serviceAccounts: get; roles: get")
        | _all("cloudbuild", "builds: get list")
        | _all("container", "clusters: get list; operations: get")
    ),
    "roles/iam.securityReviewer": (
        _all("resourcemanager", "projects: getIamPolicy")
        | _all("storage", "buckets: getIamPolicy")
    ),
    "roles/container.admin": (
        _all("container", "clusters: create delete get list update connect")
        | _all("container", "operations: get; deployments: create")
        | _all("container", "clusterRoleBindings: create")
    ),
    "roles/cloudbuild.builds.editor": _all(
        "cloudbuild", "builds: create get list update"
    ),
    "roles/artifactregistry.admin": (
        _all("artifactregistry", "repositories: create get delete; tags: get")
        | _all("artifactregistry", "packages: list; versions: get list delete update")
    ),
    "roles/serviceusage.serviceUsageConsumer": _all("serviceusage", "services: use"),
    "roles/iam.serviceAccountUser": _all("iam", "serviceAccounts: actAs"),
    "roles/storage.objectUser": _all(
        "storage", "objects: create delete get list update"
    ),
}

# Of methods of GKE, Cloud Build and Artifact Registry.
METHODS = {
    "ListClusters": "container.clusters.list",
    "GetCluster": "container.clusters.get",
    "CreateCluster": "container.clusters.create",
    "DeleteCluster": "container.clusters.delete",
    "SetLabels": "container.clusters.update",
    "CreateNodePool": "container.clusters.update",
    "DeleteNodePool": "container.clusters.update",
    "SetNodePoolAutoscaling": "container.clusters.update",
    "SetNodePoolSize": "container.clusters.update",
    "GetOperation": "container.operations.get",
    "CreateBuild": "cloudbuild.builds.create",
    "GetBuild": "cloudbuild.builds.get",
    "ListBuilds": "cloudbuild.builds.list",
    "CancelBuild": "cloudbuild.builds.update",
    "GetRepository": "artifactregistry.repositories.get",
    "CreateRepository": "artifactregistry.repositories.create",
    "DeleteRepository": "artifactregistry.repositories.delete",
    "ListPackages": "artifactregistry.packages.list",
    "ListVersions": "artifactregistry.versions.list",
    "GetVersion": "artifactregistry.versions.get",
    "UpdateVersion": "artifactregistry.versions.update",
    "DeleteVersion": "artifactregistry.versions.delete",
    "GetTag": "artifactregistry.tags.get",
}


class AllBut(AbstractSet[str]):
    """All permissions but those of some roles, as `FakeProject.lacking` has them.

    Parameters
    ----------
    roles : iterable of str
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self._held = frozenset().union(*(ROLES[one] for one in roles))

    def __contains__(self, permission: object) -> bool:
        """Whether the user lacks a permission."""
        return permission not in self._held

    def __iter__(self) -> Iterator[str]:
        """Raise: the fake does not list all permissions."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Refuse, as `__iter__`."""
        raise NotImplementedError


def documented_roles(page: Path) -> list[str]:
    """Return the roles in the tables of a page of the documentation."""
    return _ROLE.findall(page.read_text("utf-8"))
