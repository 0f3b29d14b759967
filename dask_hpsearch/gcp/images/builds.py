"""Builds of Cloud Build: requested, followed to their end, their failures explained."""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.cloud.devtools import cloudbuild_v1 as builds_v1
from google.protobuf.duration_pb2 import Duration

from dask_hpsearch.concurrency import Clock, poll_until
from dask_hpsearch.exceptions import ImageBuildError, ObjectNotFoundError, StoreError
from dask_hpsearch.gcp.api_errors import map_google_errors
from dask_hpsearch.gcp.images.build_refusals import map_build_refusals
from dask_hpsearch.gcp.retry import TRANSIENT, with_retries, without_retries
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.gcp.images.registry import ImageRepository
    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
SERVICE = "cloudbuild.googleapis.com"
TAG = "dask-hpsearch"
_EDITOR = "roles/cloudbuild.builds.editor"
_BUILDER = "gcr.io/cloud-builders/docker"
_TIMEOUT = 1800
_QUEUE_TIMEOUT = 600
_ATTEMPTS = 3
_LAST_LINES = 15
_STATUS = builds_v1.Build.Status
_RUNNING = {_STATUS.PENDING, _STATUS.QUEUED, _STATUS.WORKING, _STATUS.STATUS_UNKNOWN}
_FAILED = {_STATUS.FAILURE, _STATUS.TIMEOUT, _STATUS.INTERNAL_ERROR}
_TYPES = builds_v1.Build.FailureInfo.FailureType
_NOT_PUSHED = {_TYPES.PUSH_FAILED, _TYPES.PUSH_NOT_AUTHORIZED}
_REASONS = {
    _STATUS.TIMEOUT: f"it took longer than {_TIMEOUT} s",
    _STATUS.EXPIRED: f"it waited longer than {_QUEUE_TIMEOUT} s for a machine",
    _STATUS.CANCELLED: "it was cancelled",
    _STATUS.INTERNAL_ERROR: "Cloud Build itself failed; try again",
}


@dataclass(frozen=True, slots=True)
class BuildFiles:
    """The source of a build, and the folder of its log.

    Attributes
    ----------
    folder : str
        ``gs://`` URL of the folder of both.
    source : str
        Name of the archive in it.
    generation : int
        The uploaded version.
    """

    folder: str
    source: str
    generation: int


def build_request(
    repository: ImageRepository,
    tag: str,
    files: BuildFiles,
    *,
    python: str,
    service_account: str | None = None,
) -> builds_v1.Build:
    """Build the message that requests the build of an image.

    Parameters
    ----------
    repository : ImageRepository
    tag : str
        Of the image.
    files : BuildFiles
    python : str
        Version of Python in the image, as ``3.11``.
    service_account : str, optional
        Address of the service account of builds; default: that of the project.
    """
    image = f"{repository.image}:{tag}"
    bucket, _, path = files.folder.removeprefix("gs://").partition("/")
    source = builds_v1.StorageSource(
        bucket=bucket,
        object_=f"{path}/{files.source}".lstrip("/"),
        generation=files.generation,
    )
    arguments = [
        "build",
        "--tag",
        image,
        "--build-arg",
        f"PYTHON_VERSION={python}",
        ".",
    ]
    options = builds_v1.BuildOptions(
        logging=builds_v1.BuildOptions.LoggingMode.GCS_ONLY,
        log_streaming_option=builds_v1.BuildOptions.LogStreamingOption.STREAM_ON,
        source_provenance_hash=[builds_v1.Hash.HashType.SHA256],
    )
    account = f"projects/{repository.project}/serviceAccounts/{service_account}"
    return builds_v1.Build(
        source=builds_v1.Source(storage_source=source),
        steps=[builds_v1.BuildStep(id="image", name=_BUILDER, args=arguments)],
        images=[image],
        tags=[TAG, tag],
        timeout=Duration(seconds=_TIMEOUT),
        queue_ttl=Duration(seconds=_QUEUE_TIMEOUT),
        logs_bucket=files.folder,
        service_account=account if service_account else "",
        options=options,
    )


@dataclass(frozen=True, slots=True)
class Builds:
    """The builds of images for a repository.

    Attributes
    ----------
    client : CloudBuildClient
    repository : ImageRepository
    retry : Retry
    location : str, optional
        Where builds run: a region or "global"; default: the repository's region.
    """

    client: Any
    repository: ImageRepository
    retry: Retry = field(default_factory=Retry)
    location: str | None = None

    @property
    def parent(self) -> str:
        """The resource name of the location of builds."""
        location = self.location or self.repository.location
        return f"projects/{self.repository.project}/locations/{location}"

    def start(self, build: builds_v1.Build) -> builds_v1.Build:
        """Start a build once, even if responses are lost.

        Returns
        -------
        Build
            With its id.

        Raises
        ------
        RestrictedRegionError
            If the project may not build in this location.
        CloudError
            If Google refuses for another reason.
        """
        attempt_tag = f"try-{uuid.uuid4().hex}"
        request = builds_v1.CreateBuildRequest(
            parent=self.parent,
            project_id=self.repository.project,
            build=build,
        )
        request.build.tags.append(attempt_tag)  # the caller's build stays as it is
        with (
            map_google_errors(
                "start a build", self.repository.project, SERVICE, _EDITOR
            ),
            map_build_refusals(build, self.repository.project, self.parent),
        ):
            for remaining_attempts in reversed(range(_ATTEMPTS)):
                try:
                    operation = self.client.create_build(
                        request, **without_retries(self.retry)
                    )
                except TRANSIENT:
                    found = self._list_tagged(attempt_tag)
                    if found:
                        return found[0]
                    if not remaining_attempts:
                        raise
                else:
                    started: builds_v1.Build = operation.metadata.build
                    return started
        raise AssertionError  # the last try returns or raises

    def find_running(self, tag: str) -> builds_v1.Build | None:
        """Return a running build of the same image, by any client; None if there is none."""
        with map_google_errors(
            "list builds", self.repository.project, SERVICE, _EDITOR
        ):
            for build in self._list_tagged(tag):
                if TAG in build.tags and build.status in _RUNNING:
                    return build
        return None

    def follow(
        self,
        build: builds_v1.Build,
        store: Store,
        *,
        say: Callable[[str], None],
        wait: Callable[[float], None] = time.sleep,
        poll_interval: float = 1.0,
    ) -> str:
        """Wait until a build ends, and pass on the lines of its log meanwhile.

        Parameters
        ----------
        build : Build
        store : Store
            The folder of its log.
        say : callable
            Given each line.
        wait : callable
            Sleeps for some seconds.
        poll_interval : float
            Seconds between two requests for its status.

        Returns
        -------
        str
            The image's digest.

        Raises
        ------
        ImageBuildError
            If the build failed; with the last lines of the failed step.
        CloudError
            If Google refuses or does not respond.
        """
        log = _Log(store, log_name(build), say)
        request = builds_v1.GetBuildRequest(
            name=self._name(build), project_id=self.repository.project, id=build.id
        )

        def check() -> builds_v1.Build:
            with map_google_errors(
                "get the status of the build", self.repository.project, SERVICE, _EDITOR
            ):
                found: builds_v1.Build = self.client.get_build(
                    request, **with_retries(self.retry)
                )
            log.read(whole=found.status not in _RUNNING)
            return found

        ended = poll_until(
            check,
            lambda found: found.status not in _RUNNING,
            timeout=None,
            interval=poll_interval,
            clock=Clock(sleep=wait),
        )
        return _digest(ended, log.lines)

    def cancel(self, build: builds_v1.Build) -> None:
        """Cancel a build, unless it has ended; an error is logged."""
        request = builds_v1.CancelBuildRequest(
            name=self._name(build), project_id=self.repository.project, id=build.id
        )
        try:
            self.client.cancel_build(request, **with_retries(self.retry))
        except exceptions.FailedPrecondition:
            return
        except exceptions.GoogleAPIError as error:
            _logger.warning("the build %s may still run: %s", build.id, error)

    def _list_tagged(self, tag: str) -> list[builds_v1.Build]:
        request = builds_v1.ListBuildsRequest(
            parent=self.parent,
            project_id=self.repository.project,
            filter=f'tags="{tag}"',
        )
        return list(self.client.list_builds(request, **with_retries(self.retry)))

    def _name(self, build: builds_v1.Build) -> str:
        return f"{self.parent}/builds/{build.id}"


def log_name(build: builds_v1.Build) -> str:
    """Return the name of the object that holds a build's log."""
    return f"log-{build.id}.txt"


def _digest(build: builds_v1.Build, lines: list[str]) -> str:
    """Return the digest of the image that a build has pushed."""
    if build.status != _STATUS.SUCCESS:
        raise ImageBuildError(failure_text(build, lines))
    digests = [one.digest for one in build.results.images]
    if len(digests) != 1:
        msg = (
            f"the build {build.id} must push one image, got {len(digests)}: build again"
        )
        raise ImageBuildError(msg)
    return str(digests[0])


def failure_text(build: builds_v1.Build, lines: list[str]) -> str:
    """Return why a build failed: the step, its last lines, and Google's message.

    Parameters
    ----------
    build : Build
    lines : list of str
        Its log.
    """
    said = build.failure_info.detail or build.status_detail
    reason = _REASONS.get(_STATUS(build.status), said or _STATUS(build.status).name)
    numbered = list(enumerate(build.steps))
    failed = [(number, step) for number, step in numbered if step.status in _FAILED]
    head = f"the build {build.id} failed: {reason}"
    if failed:
        number, step = failed[0]
        code = f" with exit code {step.exit_code}" if step.exit_code else ""
        head = f"step {step.id!r} of the build {build.id} failed{code}: {reason}"
        lines = lines_of_step(lines, number)
    if build.failure_info.type_ in _NOT_PUSHED:
        head += _push_advice(build)
    return "\n".join([head, *lines[-_LAST_LINES:]])


def _push_advice(build: builds_v1.Build) -> str:
    account = build.service_account.rpartition("/")[2] or "the build's service account"
    image = build.images[0] if build.images else "the image"
    return (
        f". If {account} may not push {image}, ask the project's owner to grant it "
        "roles/artifactregistry.writer: dask-hpsearch doctor shows the command"
    )


def lines_of_step(lines: list[str], number: int) -> list[str]:
    """Select the lines of a step from a log, without Cloud Build's prefix.

    The log of a build with one step names no step: then all lines are the step's.
    """
    start = re.compile(rf'Step #{number}(?: - "[^"]*")?: ?(.*)')
    found = [match[1] for line in lines if (match := start.match(line))]
    return found or lines


class _Log:
    """The log of a build: an object that grows until the build ends."""

    def __init__(self, store: Store, name: str, say: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._store, self._name, self._say = store, name, say
        self._content = b""

    def read(self, *, whole: bool) -> None:
        """Pass on new lines; with ``whole`` also a last one without newline.

        A build does not fail because its log cannot be read.
        """
        try:
            sizes = [one.nbytes for one in self._store.list(self._name)]
            if sizes and sizes[0] > len(self._content):
                self._content = self._store.read(self._name)
        except ObjectNotFoundError:  # between two versions
            return
        except StoreError as error:
            _logger.warning("the build's log cannot be read: %s", error)
        end = None if whole else self._content.rfind(b"\n") + 1
        lines = self._content[:end].decode(errors="replace").splitlines()
        for line in lines[len(self.lines) :]:
            self._say(line)
        self.lines = lines
