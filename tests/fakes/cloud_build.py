"""Cloud Build: builds that are queued, run, write a log into a bucket, and push.

A build moves on when it is looked at. What it builds is the archive that really lies in
the bucket; what it pushes is named by that archive's hash.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import uuid
from typing import TYPE_CHECKING, Any

from google.cloud.devtools import cloudbuild_v1 as v1
from google.longrunning.operations_pb2 import Operation

from tests.fakes.request_rules import check as check_fields
from tests.fakes.serving import Method, Operations, Refused
from tests.gcs.held import content_of, names_in, put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.fakes.artifact_registry import FakeRegistry

_STATUS = v1.Build.Status
_FAILURES = v1.Build.FailureInfo.FailureType
_TAG = re.compile(r"[\w][\w.-]{0,127}")
_FILTER = re.compile(r'tags="([^"]*)"')
_ENDED = (_STATUS.SUCCESS, _STATUS.FAILURE, _STATUS.TIMEOUT, _STATUS.CANCELLED)
DEFAULT_ACCOUNT = "123456789-compute@developer.gserviceaccount.com"
LINES = ("Already have image: gcr.io/cloud-builders/docker", "Step 1/9 : FROM python")


class FakeBuilds:
    """The builds of all projects, by their ids.

    Parameters
    ----------
    operations : Operations
    registry : FakeRegistry
        Where images are pushed to.
    storage_port : int
        Of the emulator that holds sources and logs.

    Attributes
    ----------
    builds : dict
    lines : sequence of str
        What a build writes while it runs.
    exit_code : int
        Of the step; 0: it goes well.
    never_ends : bool
        Whether builds stay at work.
    may_push : bool
    restricted : set of str
        Locations in which this project may not build.
    default_account : str
        As which builds run that name no account.
    may_see_logs_bucket : bool
        Whether the account of builds has storage.buckets.get there.
    may_not_act_as : set of str
        Accounts as which the user may not let builds run.
    digest : str or None
        Of what is pushed; None: made from the source.
    """

    name = "google.devtools.cloudbuild.v1.CloudBuild"

    def __init__(
        self, operations: Operations, registry: FakeRegistry, storage_port: int
    ) -> None:
        self.builds: dict[str, v1.Build] = {}
        self.lines: Sequence[str] = LINES
        self.exit_code = 0
        self.never_ends = False
        self.may_push = True
        self.digest: str | None = None
        self.restricted: set[str] = set()
        self.default_account = DEFAULT_ACCOUNT
        self.may_not_act_as: set[str] = set()
        self.may_see_logs_bucket = True
        self._operations, self._registry = operations, registry
        self._port = storage_port

    def methods(self) -> Mapping[str, Method]:
        """Methods that clients of ours call."""
        build = v1.Build
        return {
            "CreateBuild": Method(v1.CreateBuildRequest, Operation, self._create),
            "GetBuild": Method(v1.GetBuildRequest, build, self._get),
            "ListBuilds": Method(
                v1.ListBuildsRequest, v1.ListBuildsResponse, self._list
            ),
            "CancelBuild": Method(v1.CancelBuildRequest, build, self._cancel),
        }

    def _create(self, request: Any) -> Operation:
        asked = request.build
        if not all(_TAG.fullmatch(tag) for tag in asked.tags):
            raise Refused("INVALID_ARGUMENT", f"invalid tags {list(asked.tags)}")
        if not asked.steps:
            raise Refused("INVALID_ARGUMENT", "a build needs steps")
        check_fields(asked)
        self._check_place(request)
        number = str(uuid.uuid4())
        build = v1.Build(
            asked,
            id=number,
            name=f"{request.parent}/builds/{number}",
            project_id=request.project_id,
            status=_STATUS.QUEUED,
            log_url=f"https://console.cloud.google.com/cloud-build/builds/{number}",
        )
        self.builds[number] = build
        metadata = v1.BuildOperationMetadata(build=build)
        name = f"operations/build/{request.project_id}/{number}"
        return self._operations.begin(name, build, metadata=metadata, looks=10**9)

    def _check_place(self, request: Any) -> None:
        """Refuse what a project or a user may not."""
        if request.parent.rpartition("/")[2] in self.restricted:
            message = (
                "due to quota restrictions, cannot run builds in this region, see "
                "https://cloud.google.com/build/docs/locations#restricted_regions_for_some_projects"
            )
            raise Refused("FAILED_PRECONDITION", message)
        named = request.build.service_account
        account = named.rpartition("/")[2] or self.default_account
        if account in self.may_not_act_as:
            path = f"projects/{request.project_id}/serviceAccounts/{account}"
            message = (
                f"caller does not have permission to act as service account {path}"
            )
            raise Refused("PERMISSION_DENIED", message)
        if not self.may_see_logs_bucket:  # GoogleCloudPlatform/cloud-builders #280
            logs = request.build.logs_bucket
            bucket = logs.removeprefix("gs://").partition("/")[0]
            message = (
                f'invalid logs bucket "{logs}": builder service account does not have '
                f'access to logs bucket "{bucket}"'
            )
            raise Refused("INVALID_ARGUMENT", message)

    def _get(self, request: Any) -> v1.Build:
        build = self._found(request.id, request.name)
        if build.status == _STATUS.QUEUED:
            build.status = build.steps[0].status = _STATUS.WORKING
            self._log(build, "starting build", self.lines[0][:10])
        elif build.status == _STATUS.WORKING and not self.never_ends:
            self._end(build)
        return build

    def _list(self, request: Any) -> v1.ListBuildsResponse:
        tags = set(_FILTER.findall(request.filter))
        builds = [
            one
            for one in self.builds.values()
            if tags <= set(one.tags) and one.name.startswith(f"{request.parent}/")
        ]
        return v1.ListBuildsResponse(builds=builds)

    def _cancel(self, request: Any) -> v1.Build:
        build = self._found(request.id, request.name)
        if build.status in _ENDED:
            raise Refused("FAILED_PRECONDITION", "the build has ended")
        build.status = build.steps[0].status = _STATUS.CANCELLED
        return build

    def _found(self, number: str, name: str) -> v1.Build:
        """Return a build; a name says its location, too, and must be right."""
        found = self.builds.get(number)
        if found is None or name not in ("", found.name):
            raise Refused("NOT_FOUND", f"build {name or number} not found")
        return found

    def _end(self, build: v1.Build) -> None:
        step = build.steps[0]
        names = self._names(build)
        if names is None:
            step.status = _STATUS.QUEUED
            self._fail(build, _FAILURES.FETCH_SOURCE_FAILED, "no source")
            return
        lines = self.lines
        if "Dockerfile" not in names:
            lines, self.exit_code = [*lines, "unable to find Dockerfile"], 1
        if self.exit_code:
            step.status, step.exit_code = _STATUS.FAILURE, self.exit_code
            lines = [*lines, f"The command returned a non-zero code: {self.exit_code}"]
            self._log(build, "starting build", *lines, "ERROR")
            detail = "Build step failure: build step 0 failed"
            self._fail(build, _FAILURES.USER_BUILD_STEP, detail)
            return
        step.status = _STATUS.SUCCESS
        self._log(build, "starting build", *lines, "PUSH", "DONE")
        self._push(build)

    def _push(self, build: v1.Build) -> None:
        image = build.images[0]
        denied = 'denied: Permission "artifactregistry.repositories.uploadArtifacts"'
        try:
            if not self.may_push:
                raise Refused("PERMISSION_DENIED", denied)
            digest = self.digest or f"sha256:{self._hash(build)}"
            self._registry.push(image, digest)
        except Refused as refusal:
            self._fail(build, _FAILURES.PUSH_FAILED, str(refusal))
            return
        build.status = _STATUS.SUCCESS
        build.results = v1.Results(images=[v1.BuiltImage(name=image, digest=digest)])

    def _fail(self, build: v1.Build, kind: Any, detail: str) -> None:
        build.status = _STATUS.FAILURE
        build.status_detail = detail
        build.failure_info = v1.Build.FailureInfo(type_=kind, detail=detail)

    def _log(self, build: v1.Build, *lines: str) -> None:
        """Write the log as it is now, cut within a line while it goes on."""
        bucket, _, folder = build.logs_bucket.removeprefix("gs://").partition("/")
        name = f"{folder}/log-{build.id}.txt".lstrip("/")
        put(self._port, bucket, name, "\n".join(lines).encode())

    def _names(self, build: v1.Build) -> list[str] | None:
        source = build.source.storage_source
        if source.object_ not in names_in(self._port, source.bucket):
            return None
        with tarfile.open(fileobj=io.BytesIO(self._content(build))) as tar:
            return tar.getnames()

    def _hash(self, build: v1.Build) -> str:
        return hashlib.sha256(self._content(build)).hexdigest()

    def _content(self, build: v1.Build) -> bytes:
        source = build.source.storage_source
        return content_of(self._port, source.bucket, source.object_)
