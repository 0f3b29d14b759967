"""The image of a GKE cluster: found by a tag of its content, or built by Cloud Build.

The build context of `dask_hpsearch.images.context` is uploaded to Cloud Storage as an
archive, built by Cloud Build, and the image pushed to Artifact Registry. The archive and the
build's log are removed at the end, also after an error.
"""

from __future__ import annotations

import gzip
import logging
import re
import tarfile
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import remote_files
from dask_hpsearch.exceptions import CorruptObjectError, ImageBuildError, StoreError
from dask_hpsearch.gcp.clients import builds_client, registry_client
from dask_hpsearch.gcp.images.build_refusals import RestrictedRegionError
from dask_hpsearch.gcp.images.builds import (
    BuildFiles,
    Builds,
    build_request,
    log_name,
)
from dask_hpsearch.gcp.images.registry import ImageRepository, Registry, RemovedImages
from dask_hpsearch.images.context import lay_out
from dask_hpsearch.localfs.checksums import checksum, kind_of
from dask_hpsearch.stores import open_store
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.images.context import Context
    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
_FOLDER = "dask-hpsearch-builds"
_BUILD_FILE = re.compile(r"source-[\w.-]+-[0-9a-f]{8}\.tgz|log-[0-9a-f-]{36}\.txt")


def ensure_image(
    spec: GKESpec,
    *,
    builds: Any = None,
    registry: Any = None,
    retry: Retry | None = None,
    say: Callable[[str], None] = _logger.info,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Return the image of a spec; build it if there is none of the same content.

    Parameters
    ----------
    spec : GKESpec
        The image contains its requirements and modules, and the client's versions. If it
        names an image, that is returned.
    builds : CloudBuildClient, optional
        Default: one with Application Default Credentials; a user's requests count for the
        spec's project.
    registry : ArtifactRegistryClient, optional
        As ``builds``.
    retry : Retry, optional
        How single requests are repeated.
    say : callable
        Given each line of the build's log as it comes; default: the log of this module.
    wait : callable
        Sleeps for some seconds between two requests for the build's status.

    Returns
    -------
    str
        The image by its digest.

    Raises
    ------
    ImageBuildError
        If the build failed; with the last lines of the failed step.
    CloudError
        If Google refuses; the message says how to fix it.
    StoreError
        If the bucket cannot be used.

    Notes
    -----
    After an error or an interruption, nothing is left: no archive, no build, no repository
    that was created for it. If another client is building the same content, its build is
    waited for.
    """
    if spec.image is not None:
        return spec.image
    repository, retry = repository_of(spec), retry or Retry()
    images = Registry(registry or _registry_client(spec), repository, retry)
    with tempfile.TemporaryDirectory(prefix="dask-hpsearch-image-") as folder:
        context = lay_out(
            Path(folder) / "context",
            requirements=spec.dask.requirements,
            modules=[Path(module) for module in spec.dask.modules],
        )
        tag = context.tag.rpartition(":")[2]
        digest = images.find(tag)
        built = digest is None
        if digest is None:
            say(f"building the image {repository.image}:{tag}")
            client = builds or _builds_client(spec)
            builder = _ImageBuilder(
                _places(Builds(client, repository, retry), spec.build_location),
                images,
                _build_store(spec),
                spec.build_service_account,
                say,
                wait,
            )
            digest = builder.build(context, tag)
    images.mark(digest, built=built)
    return f"{repository.image}@{digest}"


def remove_images(
    spec: GKESpec, *, registry: Any = None, retry: Retry | None = None
) -> RemovedImages:
    """Remove the images and build files that only a spec's GKE cluster has used.

    Parameters
    ----------
    spec : GKESpec
    registry : ArtifactRegistryClient, optional
    retry : Retry, optional

    Returns
    -------
    RemovedImages
        Images that were pushed by other means, or that other GKE clusters use, remain.

    Raises
    ------
    CloudError
        If Google refuses.
    """
    client = registry or _registry_client(spec)
    images = Registry(client, repository_of(spec), retry or Retry()).remove()
    with suppress(StoreError):  # there is no bucket
        store = _build_store(spec)
        for one in store.list():
            _delete(store, one.name)
    return images


def repository_of(spec: GKESpec) -> ImageRepository:
    """Return the repository of a spec's images."""
    # Two zones of a region may have GKE clusters of the same name. An annotation has at most
    # 63 characters, so that the region, which is the repository's, is omitted.
    zone = spec.location.removeprefix(spec.region).lstrip("-") or "region"
    return ImageRepository(
        project=spec.project,
        location=spec.region,
        repository=spec.registry,
        image=spec.image_name,
        user=f"{spec.name}.{zone}",
        labels=spec.labels,
    )


def _places(builds: Builds, location: str | None) -> tuple[Builds, ...]:
    """Return the spec's location for builds; if it has none, the region, then "global"."""
    if location is not None:
        return (replace(builds, location=location),)
    return builds, replace(builds, location="global")


@dataclass(frozen=True, slots=True)
class _ImageBuilder:
    """Builds an image, and removes what was created for the build.

    Attributes
    ----------
    places : tuple of Builds
        Where to build: the first location in which the project may build.
    """

    places: tuple[Builds, ...]
    images: Registry
    store: Store
    service_account: str | None
    say: Callable[[str], None]
    wait: Callable[[float], None]

    def build(self, context: Context, tag: str) -> str:
        """Create the repository if necessary, build, and return the digest."""
        created = self.images.ensure_repository()
        try:
            for builds in self.places:
                running = builds.find_running(tag)
                if running is not None:
                    self.say(f"waiting for the running build {running.id}")
                    digest = self._follow(builds, running)
                    _delete_files(self.store, running)
                    return digest
            return self._run_build(context, tag)
        except BaseException:
            if created:
                self.images.remove_repository()
            raise

    def _run_build(self, context: Context, tag: str) -> str:
        name = f"source-{tag}-{uuid.uuid4().hex[:8]}.tgz"
        builds, running = self.places[0], None
        try:
            build = build_request(
                self.images.repository,
                tag,
                _upload(context, self.store, name),
                python=context.python,
                service_account=self.service_account,
            )
            builds, running = self._start(build)
            return self._follow(builds, running)
        except ImageBuildError:  # it has ended
            raise
        except BaseException:
            if running is not None:
                builds.cancel(running)
            raise
        finally:
            _delete(self.store, name)
            if running is not None:
                _delete(self.store, log_name(running))

    def _start(self, build: Any) -> tuple[Builds, Any]:
        """Start a build in the first location in which the project may build."""
        for builds, following in zip(
            self.places, (*self.places[1:], None), strict=True
        ):
            try:
                return builds, builds.start(build)
            except RestrictedRegionError:
                if following is None:
                    raise
                self.say(
                    f"Cloud Build does not build in {builds.parent.rpartition('/')[2]} for "
                    f"this project; building in {following.location}"
                )
        raise AssertionError  # the last location returns or raises

    def _follow(self, builds: Builds, running: Any) -> str:
        return builds.follow(running, self.store, say=self.say, wait=self.wait)


def _upload(context: Context, store: Store, name: str) -> BuildFiles:
    """Upload the context; the build uses that version only."""
    archive = context.folder.parent / name
    pack(context.folder, archive)
    store.send(name, archive)
    pinned = remote_files.pin(f"{store.url}/{name}")
    if checksum(archive, kind_of(pinned.checksum)) != pinned.checksum:
        msg = (
            f"{pinned.url} differs from what was uploaded: check which accounts may write to "
            "the bucket, or use another one"
        )
        raise CorruptObjectError(msg)
    return BuildFiles(store.url, name, int(pinned.generation))


def pack(folder: Path, archive: Path) -> None:
    """Write a folder into an archive whose bytes depend on its content only."""

    def normalized(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(
                path, str(path.relative_to(folder)), recursive=False, filter=normalized
            )


def _build_store(spec: GKESpec) -> Store:
    """Return the folder of build files, in the bucket of the runs."""
    return open_store(f"gs://{spec.bucket}/{_FOLDER}/{spec.location}/{spec.name}")


def _delete_files(store: Store, build: Any) -> None:
    """Delete the files of a build that another client has started."""
    _delete(store, build.source.storage_source.object_.rpartition("/")[2])
    _delete(store, log_name(build))


def _delete(store: Store, name: str) -> None:
    """Delete a file, if its name is that of a build file."""
    if not _BUILD_FILE.fullmatch(name):
        return
    try:
        store.delete(name)
    except StoreError as error:
        _logger.warning("%s/%s is left behind: %s", store.url, name, error)


def _registry_client(spec: GKESpec) -> Any:
    return registry_client(spec.endpoints.artifactregistry, project=spec.project)


def _builds_client(spec: GKESpec) -> Any:
    return builds_client(spec.endpoints.cloudbuild, project=spec.project)
