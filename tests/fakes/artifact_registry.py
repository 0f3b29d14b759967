"""Artifact Registry: repositories of Docker images, their versions and tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.cloud import artifactregistry_v1 as v1
from google.longrunning.operations_pb2 import Operation
from google.protobuf.empty_pb2 import Empty

from tests.fakes.serving import Method, Operations, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

# As https://google.aip.dev/128 has it, which is as Kubernetes has it.
_ANNOTATION = re.compile(r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")
_REPOSITORY_ID = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class FakeRegistry:
    """Repositories, versions and tags by their resource names.

    Parameters
    ----------
    operations : Operations
    most_repositories : int
        The project's quota.

    Attributes
    ----------
    repositories, versions, tags : dict
    operation_fails : Refused or None
        How the next operation ends, if not well.
    """

    name = "google.devtools.artifactregistry.v1.ArtifactRegistry"

    def __init__(self, operations: Operations, *, most_repositories: int = 10) -> None:
        self.repositories: dict[str, v1.Repository] = {}
        self.versions: dict[str, v1.Version] = {}
        self.tags: dict[str, v1.Tag] = {}
        self.operation_fails: Refused | None = None
        self._operations = operations
        self._most = most_repositories
        self._count = 0

    def methods(self) -> Mapping[str, Method]:
        """Methods that clients of ours call."""
        repository, version = v1.Repository, v1.Version
        return {
            "GetRepository": Method(
                v1.GetRepositoryRequest, repository, self._get_repository
            ),
            "CreateRepository": Method(
                v1.CreateRepositoryRequest, Operation, self._create_repository
            ),
            "DeleteRepository": Method(
                v1.DeleteRepositoryRequest, Operation, self._delete_repository
            ),
            "ListPackages": Method(
                v1.ListPackagesRequest, v1.ListPackagesResponse, self._list_packages
            ),
            "ListVersions": Method(
                v1.ListVersionsRequest, v1.ListVersionsResponse, self._list_versions
            ),
            "GetVersion": Method(v1.GetVersionRequest, version, self._get_version),
            "UpdateVersion": Method(
                v1.UpdateVersionRequest, version, self._update_version
            ),
            "DeleteVersion": Method(
                v1.DeleteVersionRequest, Operation, self._delete_version
            ),
            "GetTag": Method(v1.GetTagRequest, v1.Tag, self._get_tag),
        }

    def push(self, image: str, digest: str) -> str:
        """Push an image, as ``HOST/PROJECT/REPOSITORY/NAME:TAG``; return its version."""
        host, project, repository, rest = image.split("/")
        name, _, tag = rest.partition(":")
        location = host.removesuffix("-docker.pkg.dev")
        parent = f"projects/{project}/locations/{location}/repositories/{repository}"
        if parent not in self.repositories:
            raise Refused("NOT_FOUND", f"repository {parent} not found")
        package = f"{parent}/packages/{name}"
        version = f"{package}/versions/{digest}"
        self.versions.setdefault(version, v1.Version(name=version))
        if tag:
            path = f"{package}/tags/{tag}"
            self.tags[path] = v1.Tag(name=path, version=version)
        return version

    def _get_repository(self, request: Any) -> v1.Repository:
        return _found(self.repositories, request.name)

    def _create_repository(self, request: Any) -> Operation:
        name = f"{request.parent}/repositories/{request.repository_id}"
        if not _REPOSITORY_ID.fullmatch(request.repository_id):
            raise Refused("INVALID_ARGUMENT", f"bad id {request.repository_id!r}")
        if not request.repository.format_:
            raise Refused("INVALID_ARGUMENT", "format must be set")
        if name in self.repositories:
            raise Refused("ALREADY_EXISTS", "the repository already exists")
        if len(self.repositories) >= self._most:
            raise Refused("RESOURCE_EXHAUSTED", "Quota exceeded: repositories")
        made = v1.Repository(request.repository, name=name)
        if self.operation_fails is None:
            self.repositories[name] = made
        return self._operation(request.parent, made)

    def _delete_repository(self, request: Any) -> Operation:
        _found(self.repositories, request.name)
        del self.repositories[request.name]
        for kept in (self.versions, self.tags):
            for name in [one for one in kept if one.startswith(f"{request.name}/")]:
                del kept[name]
        return self._operation(request.name.split("/repositories")[0], Empty())

    def _list_packages(self, request: Any) -> v1.ListPackagesResponse:
        _found(self.repositories, request.parent)
        names = {
            name.partition("/versions/")[0]
            for name in self.versions
            if name.startswith(f"{request.parent}/")
        }
        return v1.ListPackagesResponse(
            packages=[v1.Package(name=name) for name in sorted(names)]
        )

    def _list_versions(self, request: Any) -> v1.ListVersionsResponse:
        found = [
            version
            for name, version in sorted(self.versions.items())
            if name.startswith(f"{request.parent}/versions/")
        ]
        if not found:
            raise Refused("NOT_FOUND", f"package {request.parent} not found")
        return v1.ListVersionsResponse(versions=found)

    def _get_version(self, request: Any) -> v1.Version:
        return _found(self.versions, request.name)

    def _update_version(self, request: Any) -> v1.Version:
        version = _found(self.versions, request.version.name)
        if list(request.update_mask.paths) != ["annotations"]:
            raise Refused("INVALID_ARGUMENT", "only annotations can be updated")
        for name in request.version.annotations:
            if not _ANNOTATION.fullmatch(name):
                raise Refused("INVALID_ARGUMENT", f"invalid annotation {name!r}")
        version.annotations = request.version.annotations
        return version

    def _delete_version(self, request: Any) -> Operation:
        _found(self.versions, request.name)
        tags = [name for name, tag in self.tags.items() if tag.version == request.name]
        if tags and not request.force:
            raise Refused("FAILED_PRECONDITION", "the version has tags")
        del self.versions[request.name]
        for name in tags:
            del self.tags[name]
        return self._operation(request.name.split("/repositories")[0], Empty())

    def _get_tag(self, request: Any) -> v1.Tag:
        return _found(self.tags, request.name)

    def _operation(self, parent: str, result: Any) -> Operation:
        self._count += 1
        error, self.operation_fails = self.operation_fails, None
        name = f"{parent}/operations/{self._count}"
        return self._operations.begin(name, result, error=error)


def _found(kept: Mapping[str, Any], name: str) -> Any:
    if name not in kept:
        raise Refused("NOT_FOUND", f"{name} not found")
    return kept[name]
