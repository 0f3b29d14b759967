"""The image of a GKE cluster: found by its content's name, or built by Cloud Build.

The folder that `dask_hpsearch.images.context` lays out goes as an archive to Cloud Storage,
from there to Cloud Build, and the image to Artifact Registry. What lies in between, the
archive and the build's log, is removed at the end, whatever that is.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import remote_files
from dask_hpsearch.exceptions import CorruptObjectError, ImageBuildError, StoreError
from dask_hpsearch.gcp.api_errors import create_client
from dask_hpsearch.gcp.images.builds import BuildFiles, Builds, log_name, wanted
from dask_hpsearch.gcp.images.registry import ImagePlace, Registry, RemovedImages
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
_OURS = re.compile(r"source-[\w.-]+-[0-9a-f]{8}\.tgz|log-[0-9a-f-]{36}\.txt")


def ensure_image(
    spec: GKESpec,
    *,
    builds: Any = None,
    registry: Any = None,
    retry: Retry | None = None,
    say: Callable[[str], None] = _logger.info,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Return the image for a spec, built if there is none of the same content.

    Parameters
    ----------
    spec : GKESpec
        Its requirements and modules go into the image, with the client's own versions.
        One that names its image has that one.
    builds : CloudBuildClient, optional
        Default: one with Application Default Credentials.
    registry : ArtifactRegistryClient, optional
        The same.
    retry : Retry, optional
        How long to wait for answers.
    say : callable
        Given each line of the build's log as it comes; default: the log of this module.
    wait : callable
        Sleeps for some seconds between two looks at the build.

    Returns
    -------
    str
        The image's reference, by its digest.

    Raises
    ------
    ImageBuildError
        If the build failed; with the last lines of the step that did.
    CloudError
        If Google Cloud refuses; its kinds say why, and the command that mends it.
    StoreError
        If the bucket cannot be used.

    Notes
    -----
    Whatever fails, or is interrupted, leaves nothing behind: no archive, no build, no
    repository that was created for it. A build of the same content that somebody else
    has begun is waited for.
    """
    if spec.image is not None:
        return spec.image
    place, retry = place_of(spec), retry or Retry()
    images = Registry(registry or _registry_client(spec), place, retry)
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
            say(f"building the image {place.image}:{tag}")
            client = builds or _builds_client(spec)
            making = _Making(
                Builds(client, place, retry),
                images,
                _build_store(spec),
                spec.build_service_account,
                say,
                wait,
            )
            digest = making.make(context, tag)
    images.mark(digest, built=built)
    return f"{place.image}@{digest}"


def remove_images(
    spec: GKESpec, *, registry: Any = None, retry: Retry | None = None
) -> RemovedImages:
    """Remove the images, and the files of builds, that only a spec's GKE cluster has used.

    Parameters
    ----------
    spec : GKESpec
    registry : ArtifactRegistryClient, optional
    retry : Retry, optional

    Returns
    -------
    RemovedImages
        Resource names of what is gone, and of what is kept: images that somebody else has
        pushed, or that other GKE clusters use.

    Raises
    ------
    CloudError
        If Google Cloud refuses.
    """
    client = registry or _registry_client(spec)
    images = Registry(client, place_of(spec), retry or Retry()).remove()
    with suppress(StoreError):  # without a bucket there are no files
        store = _build_store(spec)
        for one in store.list():
            _delete(store, one.name)
    return images


def place_of(spec: GKESpec) -> ImagePlace:
    """Return where a spec's images are kept."""
    # Two zones of a region may have a GKE cluster of the same name each. A mark on an image
    # has no more than 63 letters: the region, which is the repository's, is left out.
    zone = spec.location.removeprefix(spec.region).lstrip("-") or "region"
    return ImagePlace(
        project=spec.project,
        location=spec.region,
        repository=spec.registry,
        image=spec.image_name,
        user=f"{spec.name}.{zone}",
        labels=spec.labels,
    )


@dataclass(frozen=True, slots=True)
class _Making:
    """How an image comes to be: what is created for it goes with it."""

    builds: Builds
    images: Registry
    store: Store
    service_account: str | None
    say: Callable[[str], None]
    wait: Callable[[float], None]

    def make(self, context: Context, tag: str) -> str:
        """Build in a repository that is there, or created for it; return the digest."""
        created = self.images.ensure_repository()
        try:
            running = self.builds.under_way(tag)
            if running is None:
                return self._built(context, tag)
            self.say(f"waiting for the build {running.id}, which is under way")
            digest = self._followed(running)
            _forget(self.store, running)
        except BaseException:
            if created:
                self.images.remove_repository()
            raise
        return digest

    def _built(self, context: Context, tag: str) -> str:
        name = f"source-{tag}-{uuid.uuid4().hex[:8]}.tgz"
        running = None
        try:
            build = wanted(
                self.images.place,
                tag,
                _upload(context, self.store, name),
                python=context.python,
                service_account=self.service_account,
            )
            running = self.builds.start(build)
            return self._followed(running)
        except ImageBuildError:  # it has ended
            raise
        except BaseException:
            if running is not None:
                self.builds.cancel(running)
            raise
        finally:
            _delete(self.store, name)
            if running is not None:
                _delete(self.store, log_name(running))

    def _followed(self, running: Any) -> str:
        return self.builds.follow(running, self.store, say=self.say, wait=self.wait)


def _upload(context: Context, store: Store, name: str) -> BuildFiles:
    """Upload the context; the build takes that version, and no other."""
    archive = context.folder.parent / name
    pack(context.folder, archive)
    store.send(name, archive)
    pinned = remote_files.pin(f"{store.url}/{name}")
    if checksum(archive, kind_of(pinned.checksum)) != pinned.checksum:
        msg = (
            f"{pinned.url} is not what was uploaded: somebody else writes there; use "
            "another bucket, or look who may write to it"
        )
        raise CorruptObjectError(msg)
    return BuildFiles(store.url, name, int(pinned.generation))


def pack(folder: Path, archive: Path) -> None:
    """Write a folder into an archive whose bytes depend on the content alone."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


def _build_store(spec: GKESpec) -> Store:
    """Return the folder of builds: in the bucket of the runs, beside them."""
    return open_store(f"gs://{spec.bucket}/{_FOLDER}/{spec.location}/{spec.name}")


def _forget(store: Store, build: Any) -> None:
    """Remove the files of a build that somebody else began."""
    _delete(store, build.source.storage_source.object_.rpartition("/")[2])
    _delete(store, log_name(build))


def _delete(store: Store, name: str) -> None:
    """Delete a build's file; what has another name is not ours."""
    if not _OURS.fullmatch(name):
        return
    try:
        store.delete(name)
    except StoreError as error:
        _logger.warning("%s/%s is left behind: %s", store.url, name, error)


def _registry_client(spec: GKESpec) -> Any:
    from google.cloud.artifactregistry_v1 import ArtifactRegistryClient

    options = _options(spec.endpoints.artifactregistry)
    return create_client(
        "open Artifact Registry", lambda: ArtifactRegistryClient(client_options=options)
    )


def _builds_client(spec: GKESpec) -> Any:
    from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient

    options = _options(spec.endpoints.cloudbuild)
    return create_client(
        "open Cloud Build", lambda: CloudBuildClient(client_options=options)
    )


def _options(endpoint: str | None) -> dict[str, str]:
    return {} if endpoint is None else {"api_endpoint": endpoint}
