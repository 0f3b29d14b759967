"""Images in Artifact Registry: found by a tag of their content, annotated, removed.

An image is managed if its version has the annotation of dask-hpsearch, a repository if it
has the label. Nothing else is changed or deleted. GKE clusters whose image has the same
content share it: it is removed with the last one that uses it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.cloud import artifactregistry_v1 as registry_v1
from google.protobuf.field_mask_pb2 import FieldMask

from dask_hpsearch.exceptions import CloudError, ImageBuildError
from dask_hpsearch.gcp.api_errors import map_google_errors
from dask_hpsearch.gcp.retry import TRANSIENT, with_retries, without_retries
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_logger = logging.getLogger(__name__)
IMAGE = "dask-hpsearch"
MANAGED_BY, MANAGER = "managed-by", "dask-hpsearch"
SERVICE = "artifactregistry.googleapis.com"
_USED_BY = "used-by-"
_ATTEMPTS = 3
_ADMIN = "roles/artifactregistry.admin"
_REPO_ADMIN = "roles/artifactregistry.repoAdmin"


@dataclass(frozen=True, slots=True)
class ImageRepository:
    """A repository of images, and the GKE cluster that uses them.

    Attributes
    ----------
    project, location : str
        The location is a region, as ``europe-west4``.
    repository : str
        Its name in Artifact Registry.
    image : str
        The image's name in a pod's spec, without tag and digest.
    user : str
        The GKE cluster that uses the image, unique in the repository's region:
        ``NAME.ZONE``, as ``searches.a``, or ``NAME.region``.
    labels : mapping
        Of a repository that is created here.
    """

    project: str
    location: str
    repository: str
    image: str
    user: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def parent(self) -> str:
        """The location's resource name."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def resource(self) -> str:
        """The repository's resource name."""
        return f"{self.parent}/repositories/{self.repository}"

    @property
    def package(self) -> str:
        """The resource name of the package of all image versions."""
        return f"{self.resource}/packages/{IMAGE}"


@dataclass(frozen=True, slots=True)
class RemovedImages:
    """Resource names of what was removed, and of what remains."""

    removed: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Registry:
    """The images of a repository.

    Attributes
    ----------
    client : ArtifactRegistryClient
    repository : ImageRepository
    retry : Retry
    """

    client: Any
    repository: ImageRepository
    retry: Retry = field(default_factory=Retry)

    def find(self, tag: str) -> str | None:
        """Return the digest of the image that has a tag; None if there is none.

        Raises
        ------
        CloudError
            If Google refuses or does not respond.
        """
        name = f"{self.repository.package}/tags/{tag}"
        with map_google_errors(
            "look up the image", self.repository.project, SERVICE, _REPO_ADMIN
        ):
            try:
                found = self.client.get_tag(name=name, **with_retries(self.retry))
            except exceptions.NotFound:
                return None
        return str(found.version.rpartition("/")[2])

    def ensure_repository(self) -> bool:
        """Create the repository unless it exists.

        Returns
        -------
        bool
            Whether this call created it.

        Raises
        ------
        ImageBuildError
            If one of that name is not a standard repository of Docker images.
        CloudError
            If Google refuses; nothing is left then.
        """
        with map_google_errors(
            f"create the repository {self.repository.repository!r}",
            self.repository.project,
            SERVICE,
            _ADMIN,
        ):
            found, created = self._get_repository(), False
            if found is None:
                found, created = self._create()
        kinds = registry_v1.Repository
        standard = {kinds.Mode.MODE_UNSPECIFIED, kinds.Mode.STANDARD_REPOSITORY}
        if found.format_ != kinds.Format.DOCKER or found.mode not in standard:
            msg = (
                f"{self.repository.resource} must be a standard repository of Docker images, "
                f"got {found.format_.name}, {found.mode.name}: name another one in the spec "
                "(registry)"
            )
            raise ImageBuildError(msg)
        return created

    def _create(self) -> tuple[Any, bool]:
        """Create it; a request whose response was lost may have done so, too."""
        kinds = registry_v1.Repository
        request_body = kinds(
            format_=kinds.Format.DOCKER,
            mode=kinds.Mode.STANDARD_REPOSITORY,
            description="Images that dask-hpsearch built for its Dask clusters",
            labels={**self.repository.labels, MANAGED_BY: MANAGER},
        )
        request = registry_v1.CreateRepositoryRequest(
            parent=self.repository.parent,
            repository_id=self.repository.repository,
            repository=request_body,
        )
        for remaining_attempts in reversed(range(_ATTEMPTS)):
            try:
                operation = self.client.create_repository(
                    request, **without_retries(self.retry)
                )
                return operation.result(timeout=self.retry.deadline), True
            except exceptions.AlreadyExists:
                return self._get_repository(), False
            except TRANSIENT:
                found = self._get_repository()
                if found is not None:
                    return found, _is_managed(found.labels)
                if not remaining_attempts:
                    raise
            except BaseException:
                self.remove_repository()
                raise
        raise AssertionError  # the last try returns or raises

    def mark(self, digest: str, *, built: bool) -> None:
        """Annotate an image as managed, and as used by this GKE cluster.

        An image that was pushed by other means is not changed. Without the permission to
        annotate, the image can still be used, but is not removed with the GKE cluster.

        Parameters
        ----------
        digest : str
        built : bool
            Whether this call has built it.
        """
        name = f"{self.repository.package}/versions/{digest}"
        try:
            with map_google_errors(
                "annotate the image", self.repository.project, SERVICE, _REPO_ADMIN
            ):
                version = self.client.get_version(name=name, **with_retries(self.retry))
                before = dict(version.annotations)
                if built or _is_managed(before):
                    used = {
                        MANAGED_BY: MANAGER,
                        _USED_BY + self.repository.user: "true",
                    }
                    self._annotate(version, before | used)
        except CloudError as error:
            _logger.warning(
                "%s is not annotated and will not be removed: %s", name, error
            )

    def remove(self) -> RemovedImages:
        """Remove what only this GKE cluster used: managed images, then the repository.

        Returns
        -------
        RemovedImages
            Images that are not managed, or that other GKE clusters use, remain.

        Raises
        ------
        CloudError
            If Google refuses.
        """
        with map_google_errors(
            "remove images", self.repository.project, SERVICE, _REPO_ADMIN
        ):
            repository = self._get_repository()
            if repository is None:
                return RemovedImages()
            removed: list[str] = []
            remaining: list[str] = []
            for version in self._versions():
                is_removed = self._remove_version(version)
                (removed if is_removed else remaining).append(version.name)
            is_removed = self._remove_repository(repository)
            (removed if is_removed else remaining).append(self.repository.resource)
            return RemovedImages(tuple(removed), tuple(remaining))

    def remove_repository(self) -> None:
        """Undo the creation of a repository, unless it has received images meanwhile."""
        try:
            with map_google_errors(
                "remove the repository", self.repository.project, SERVICE, _ADMIN
            ):
                repository = self._get_repository()
                if repository is not None:
                    self._remove_repository(repository)
        except CloudError as error:
            _logger.warning("%s is left behind: %s", self.repository.resource, error)

    def _get_repository(self) -> Any:
        name = self.repository.resource
        try:
            return self.client.get_repository(name=name, **with_retries(self.retry))
        except exceptions.NotFound:
            return None

    def _versions(self) -> list[Any]:
        name, options = self.repository.package, with_retries(self.retry)
        try:
            return list(self.client.list_versions(parent=name, **options))
        except exceptions.NotFound:
            return []

    def _remove_version(self, version: Any) -> bool:
        annotations = dict(version.annotations)
        if not _is_managed(annotations):
            return False
        used_here = self._pop_user(annotations)
        if any(name.startswith(_USED_BY) for name in annotations):
            if used_here is not None:
                self._annotate(version, annotations)
            return False
        # force: with its tags
        request = registry_v1.DeleteVersionRequest(name=version.name, force=True)
        self._wait_until_deleted(
            lambda: self.client.delete_version(request, **self._deleting)
        )
        return True

    def _pop_user(self, annotations: dict[str, str]) -> str | None:
        """Remove the annotation of this GKE cluster, or the older one without zone.

        The older one stays if there is a newer one: it belongs to another GKE cluster of
        that name.
        """
        key = _USED_BY + self.repository.user
        old = key.partition(".")[0]
        return annotations.pop(key if key in annotations else old, None)

    def _annotate(self, version: Any, annotations: Mapping[str, str]) -> None:
        if dict(version.annotations) != annotations:
            changed = registry_v1.Version(name=version.name, annotations=annotations)
            mask = FieldMask(paths=["annotations"])
            self.client.update_version(
                version=changed, update_mask=mask, **with_retries(self.retry)
            )

    def _remove_repository(self, repository: Any) -> bool:
        """Remove a repository that is managed and empty."""
        if not _is_managed(repository.labels) or not self._is_empty():
            return False
        name = self.repository.resource
        self._wait_until_deleted(
            lambda: self.client.delete_repository(name=name, **self._deleting)
        )
        return True

    def _is_empty(self) -> bool:
        options = with_retries(self.retry)
        packages = self.client.list_packages(parent=self.repository.resource, **options)
        return not any(
            True
            for package in packages
            for _ in self.client.list_versions(parent=package.name, **options)
        )

    @property
    def _deleting(self) -> dict[str, Any]:
        return with_retries(self.retry)  # a repetition finds nothing, which is success

    def _wait_until_deleted(self, delete: Callable[[], Any]) -> None:
        try:
            delete().result(timeout=self.retry.deadline)
        except exceptions.NotFound:
            return


def _is_managed(labels: Mapping[str, str]) -> bool:
    return labels.get(MANAGED_BY) == MANAGER
