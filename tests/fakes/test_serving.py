"""The fakes answer as Google's services do, through Google's own clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.api_core import exceptions
from google.cloud import artifactregistry_v1 as registry_v1
from google.cloud.devtools import cloudbuild_v1 as builds_v1
from google.protobuf.field_mask_pb2 import FieldMask

from tests.fakes.google_cloud import ImageServices, image_services
from tests.fakes.serving import Refused
from tests.gcs.held import content_of, new_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gcs.proxy import Proxy

PARENT = "projects/some-project/locations/europe-west4"
REPOSITORY = f"{PARENT}/repositories/images"
IMAGE = "europe-west4-docker.pkg.dev/some-project/images/own"
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def cloud(gcs: Proxy) -> Iterator[ImageServices]:
    """Fakes that hold nothing yet."""
    with image_services(gcs.port) as services:
        yield services


def create(cloud: ImageServices) -> registry_v1.Repository:
    """Create a repository and wait for the operation's end."""
    docker = registry_v1.Repository(format_=registry_v1.Repository.Format.DOCKER)
    operation = cloud.clients["registry"].create_repository(
        parent=PARENT, repository_id="images", repository=docker
    )
    return operation.result(timeout=10)


def test_a_repository_is_created_once(cloud: ImageServices) -> None:
    """A second one of the name is refused, as Google refuses it."""
    assert create(cloud).name == REPOSITORY

    with pytest.raises(exceptions.AlreadyExists):
        create(cloud)


def test_an_operation_may_fail(cloud: ImageServices) -> None:
    """Then there is no repository."""
    cloud.registry.operation_fails = Refused("INTERNAL", "an internal error")

    with pytest.raises(exceptions.GoogleAPICallError, match="internal error"):
        create(cloud)

    assert cloud.registry.repositories == {}


def test_a_quota_of_repositories(cloud: ImageServices) -> None:
    """It is told by the code that Google uses."""
    for number in range(10):
        name = f"{PARENT}/repositories/r{number}"
        cloud.registry.repositories[name] = registry_v1.Repository(name=name)

    with pytest.raises(exceptions.ResourceExhausted, match="Quota"):
        create(cloud)


def test_tags_lead_to_versions(cloud: ImageServices) -> None:
    """A pushed image is found by its tag, and not deleted while it has one."""
    create(cloud)
    version = cloud.registry.push(f"{IMAGE}:1", DIGEST)
    client = cloud.clients["registry"]
    package = f"{REPOSITORY}/packages/own"

    assert client.get_tag(name=f"{package}/tags/1").version == version
    assert [one.name for one in client.list_versions(parent=package)] == [version]
    assert [one.name for one in client.list_packages(parent=REPOSITORY)] == [package]
    with pytest.raises(exceptions.FailedPrecondition):
        client.delete_version(name=version)
    with pytest.raises(exceptions.NotFound):
        client.get_tag(name=f"{package}/tags/2")


def test_annotations_are_kept(cloud: ImageServices) -> None:
    """And nothing else of a version can be changed."""
    create(cloud)
    name = cloud.registry.push(f"{IMAGE}:1", DIGEST)
    client = cloud.clients["registry"]
    changed = registry_v1.Version(name=name, annotations={"a": "b"})

    client.update_version(version=changed, update_mask=FieldMask(paths=["annotations"]))

    assert dict(client.get_version(name=name).annotations) == {"a": "b"}
    with pytest.raises(exceptions.InvalidArgument):
        client.update_version(version=changed, update_mask=FieldMask(paths=["name"]))


def begin(cloud: ImageServices, bucket: str, **changes: object) -> str:
    """Begin a build of an archive that is not there; return its id."""
    source = builds_v1.StorageSource(bucket=bucket, object_="source.tgz")
    asked = {
        "source": builds_v1.Source(storage_source=source),
        "steps": [builds_v1.BuildStep(id="image", name="docker")],
        "images": [f"{IMAGE}:1"],
        "logs_bucket": f"gs://{bucket}/logs",
        "tags": ["a-tag"],
    }
    build = builds_v1.Build(**(asked | changes))
    request = builds_v1.CreateBuildRequest(
        parent=PARENT, project_id="some-project", build=build
    )
    return cloud.clients["builds"].create_build(request).metadata.build.id


def look(cloud: ImageServices, number: str) -> builds_v1.Build:
    """Look at a build once."""
    return cloud.clients["builds"].get_build(project_id="some-project", id=number)


def test_a_build_without_its_source_fails(cloud: ImageServices, gcs: Proxy) -> None:
    """Queued, at work, and then it says why."""
    bucket = new_bucket(gcs.port)
    number = begin(cloud, bucket)

    states = [look(cloud, number).status.name for _ in range(2)]

    assert states == ["WORKING", "FAILURE"]
    assert look(cloud, number).failure_info.type_.name == "FETCH_SOURCE_FAILED"


def test_a_build_writes_its_log_into_the_bucket(
    cloud: ImageServices, gcs: Proxy
) -> None:
    """While it works."""
    bucket = new_bucket(gcs.port)
    number = begin(cloud, bucket)

    look(cloud, number)

    log = content_of(gcs.port, bucket, f"logs/log-{number}.txt")
    assert log.startswith(b"starting build")


def test_builds_are_found_by_their_tags(cloud: ImageServices, gcs: Proxy) -> None:
    """Those that carry it, and no others."""
    bucket = new_bucket(gcs.port)
    number = begin(cloud, bucket)
    begin(cloud, bucket, tags=["another"])
    request = builds_v1.ListBuildsRequest(
        parent=PARENT, project_id="some-project", filter='tags="a-tag"'
    )

    found = [one.id for one in cloud.clients["builds"].list_builds(request)]

    assert found == [number]


def test_a_cancelled_build_stays_so(cloud: ImageServices, gcs: Proxy) -> None:
    """It can be cancelled once."""
    number = begin(cloud, new_bucket(gcs.port))
    client = cloud.clients["builds"]

    client.cancel_build(project_id="some-project", id=number)

    assert look(cloud, number).status.name == "CANCELLED"
    with pytest.raises(exceptions.FailedPrecondition):
        client.cancel_build(project_id="some-project", id=number)


def test_a_bad_tag_is_refused(cloud: ImageServices, gcs: Proxy) -> None:
    """As Cloud Build refuses it."""
    with pytest.raises(exceptions.InvalidArgument, match="tags"):
        begin(cloud, new_bucket(gcs.port), tags=["no good"])


def test_a_refusal_carries_its_reason(cloud: ImageServices) -> None:
    """Google's clients read it from where Google puts it."""
    refusal = Refused("PERMISSION_DENIED", "no", "SERVICE_DISABLED", service="x")
    cloud.traffic.fail("GetRepository", refusal)

    with pytest.raises(exceptions.PermissionDenied) as caught:
        cloud.clients["registry"].get_repository(name=REPOSITORY)

    assert caught.value.reason == "SERVICE_DISABLED"
    assert caught.value.metadata["service"] == "x"


def test_an_answer_can_be_lost(cloud: ImageServices) -> None:
    """What was asked for has happened all the same."""
    lost = Refused("UNAVAILABLE", "lost")
    cloud.traffic.fail("CreateRepository", lost, after=True)

    with pytest.raises(exceptions.ServiceUnavailable):
        create(cloud)

    assert REPOSITORY in cloud.registry.repositories
