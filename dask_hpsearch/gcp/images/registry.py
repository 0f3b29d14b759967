"""Images in Artifact Registry: found by their content's name, marked as ours, removed.

An image is ours if its version carries our annotation, a repository if it carries our
label. Nothing else is changed or deleted. An image is shared by all GKE clusters that are
made from the same content: it goes with the last one that uses it.
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
MANAGED_BY, OURS = "managed-by", "dask-hpsearch"
SERVICE = "artifactregistry.googleapis.com"
_USED_BY = "used-by-"
_TRIES = 3
_ADMIN = "roles/artifactregistry.admin"
_REPO_ADMIN = "roles/artifactregistry.repoAdmin"


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """Where images of a project are kept, and for whom.

    Attributes
    ----------
    project, location : str
        The location is a region, as ``europe-west4``.
    repository : str
        Of Artifact Registry.
    image : str
        The image's name in a pod's spec, without tag and digest.
    user : str
        The GKE cluster that uses the image, told from all others that the repository's
        region has: ``NAME.ZONE``, as ``searches.a``, or ``NAME.region``.
    labels : mapping
        For a repository that is created here.
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
        """The resource name of all versions of our image."""
        return f"{self.resource}/packages/{IMAGE}"


@dataclass(frozen=True, slots=True)
class RemovedImages:
    """Resource names of what was removed, and of what remains."""

    removed: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Registry:
    """The images of one place.

    Attributes
    ----------
    client : ArtifactRegistryClient
    place : ImagePlace
    retry : Retry
    """

    client: Any
    place: ImagePlace
    retry: Retry = field(default_factory=Retry)

    def find(self, tag: str) -> str | None:
        """Return the digest of the image that has a tag; None if there is none.

        Raises
        ------
        CloudError
            If Google Cloud refuses to tell.
        """
        name = f"{self.place.package}/tags/{tag}"
        with map_google_errors(
            "look for the image", self.place.project, SERVICE, _REPO_ADMIN
        ):
            try:
                found = self.client.get_tag(name=name, **with_retries(self.retry))
            except exceptions.NotFound:
                return None
        return str(found.version.rpartition("/")[2])

    def ensure_repository(self) -> bool:
        """Create the repository unless it is there.

        Returns
        -------
        bool
            Whether this call created it.

        Raises
        ------
        ImageBuildError
            If one of that name holds something else than Docker images of its own.
        CloudError
            If Google Cloud refuses; nothing is left then.
        """
        with map_google_errors(
            f"create the repository {self.place.repository!r}",
            self.place.project,
            SERVICE,
            _ADMIN,
        ):
            found, created = self._repository(), False
            if found is None:
                found, created = self._create()
        kinds = registry_v1.Repository
        standard = {kinds.Mode.MODE_UNSPECIFIED, kinds.Mode.STANDARD_REPOSITORY}
        if found.format_ != kinds.Format.DOCKER or found.mode not in standard:
            msg = (
                f"{self.place.resource} takes no Docker images: it is "
                f"{found.format_.name}, {found.mode.name}; name another repository "
                "in the spec"
            )
            raise ImageBuildError(msg)
        return created

    def _create(self) -> tuple[Any, bool]:
        """Create it; a request whose answer was lost may have done so too."""
        kinds = registry_v1.Repository
        wanted = kinds(
            format_=kinds.Format.DOCKER,
            mode=kinds.Mode.STANDARD_REPOSITORY,
            description="Images that dask-hpsearch built for its Dask clusters",
            labels={**self.place.labels, MANAGED_BY: OURS},
        )
        request = registry_v1.CreateRepositoryRequest(
            parent=self.place.parent,
            repository_id=self.place.repository,
            repository=wanted,
        )
        for tries_left in reversed(range(_TRIES)):
            try:
                operation = self.client.create_repository(
                    request, **without_retries(self.retry)
                )
                return operation.result(timeout=self.retry.deadline), True
            except exceptions.AlreadyExists:
                return self._repository(), False
            except TRANSIENT:
                found = self._repository()
                if found is not None:
                    return found, _is_ours(found.labels)
                if not tries_left:
                    raise
            except BaseException:
                self.remove_repository()
                raise
        raise AssertionError  # the last try returns or raises

    def mark(self, digest: str, *, built: bool) -> None:
        """Note on an image that it is ours, and that this GKE cluster uses it.

        An image that somebody else has pushed is left as it is. Without the right to
        annotate, the image can be used all the same; it is not removed with the cluster.

        Parameters
        ----------
        digest : str
        built : bool
            Whether it was built here just now.
        """
        name = f"{self.place.package}/versions/{digest}"
        try:
            with map_google_errors(
                "annotate the image", self.place.project, SERVICE, _REPO_ADMIN
            ):
                version = self.client.get_version(name=name, **with_retries(self.retry))
                before = dict(version.annotations)
                if built or _is_ours(before):
                    used = {MANAGED_BY: OURS, _USED_BY + self.place.user: "true"}
                    self._annotate(version, before | used)
        except CloudError as error:
            _logger.warning("%s is not marked as ours: %s", name, error)

    def remove(self) -> RemovedImages:
        """Remove what this GKE cluster alone used: images of ours, then the repository.

        Returns
        -------
        RemovedImages
            Images of others, and those that other GKE clusters use, are kept.

        Raises
        ------
        CloudError
            If Google Cloud refuses.
        """
        with map_google_errors(
            "remove images", self.place.project, SERVICE, _REPO_ADMIN
        ):
            repository = self._repository()
            if repository is None:
                return RemovedImages()
            removed: list[str] = []
            remaining: list[str] = []
            for version in self._versions():
                is_removed = self._remove_version(version)
                (removed if is_removed else remaining).append(version.name)
            is_removed = self._remove_repository(repository)
            (removed if is_removed else remaining).append(self.place.resource)
            return RemovedImages(tuple(removed), tuple(remaining))

    def remove_repository(self) -> None:
        """Undo the creation of a repository, unless somebody has pushed to it meanwhile."""
        try:
            with map_google_errors(
                "remove the repository", self.place.project, SERVICE, _ADMIN
            ):
                repository = self._repository()
                if repository is not None:
                    self._remove_repository(repository)
        except CloudError as error:
            _logger.warning("%s is left behind: %s", self.place.resource, error)

    def _repository(self) -> Any:
        name = self.place.resource
        try:
            return self.client.get_repository(name=name, **with_retries(self.retry))
        except exceptions.NotFound:
            return None

    def _versions(self) -> list[Any]:
        name, options = self.place.package, with_retries(self.retry)
        try:
            return list(self.client.list_versions(parent=name, **options))
        except exceptions.NotFound:
            return []

    def _remove_version(self, version: Any) -> bool:
        notes = dict(version.annotations)
        if not _is_ours(notes):
            return False
        used_here = self._take_mark(notes)
        if any(name.startswith(_USED_BY) for name in notes):
            if used_here is not None:
                self._annotate(version, notes)
            return False
        # force: with its tags
        request = registry_v1.DeleteVersionRequest(name=version.name, force=True)
        self._until_gone(lambda: self.client.delete_version(request, **self._deleting))
        return True

    def _take_mark(self, notes: dict[str, str]) -> str | None:
        """Remove the mark of this GKE cluster, also one of old, which had no zone.

        One of old stays if there is a new one: it is of another cluster of that name.
        """
        mark = _USED_BY + self.place.user
        return notes.pop(mark if mark in notes else mark.partition(".")[0], None)

    def _annotate(self, version: Any, notes: Mapping[str, str]) -> None:
        if dict(version.annotations) != notes:
            changed = registry_v1.Version(name=version.name, annotations=notes)
            mask = FieldMask(paths=["annotations"])
            self.client.update_version(
                version=changed, update_mask=mask, **with_retries(self.retry)
            )

    def _remove_repository(self, repository: Any) -> bool:
        """Remove a repository that is ours and empty."""
        if not _is_ours(repository.labels) or not self._is_empty():
            return False
        name = self.place.resource
        self._until_gone(
            lambda: self.client.delete_repository(name=name, **self._deleting)
        )
        return True

    def _is_empty(self) -> bool:
        options = with_retries(self.retry)
        packages = self.client.list_packages(parent=self.place.resource, **options)
        return not any(
            True
            for package in packages
            for _ in self.client.list_versions(parent=package.name, **options)
        )

    @property
    def _deleting(self) -> dict[str, Any]:
        return with_retries(self.retry)  # a second one finds nothing, and that is well

    def _until_gone(self, delete: Callable[[], Any]) -> None:
        try:
            delete().result(timeout=self.retry.deadline)
        except exceptions.NotFound:
            return


def _is_ours(labels: Mapping[str, str]) -> bool:
    return labels.get(MANAGED_BY) == OURS
