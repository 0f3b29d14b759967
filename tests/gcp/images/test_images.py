"""Images: built once, found again, and nothing is left of what went into them."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import artifactregistry_v1 as registry_v1

from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    CloudApiDisabledError,
    CloudError,
    CloudQuotaError,
    CloudRightsError,
    CloudUnreachableError,
    HPSearchError,
    ImageBuildError,
)
from dask_hpsearch.gcp.images.images import ensure_image, remove_images
from dask_hpsearch.stores.retry import Retry
from tests.fakes.google_cloud import ImageServices, image_services
from tests.fakes.serving import Refused
from tests.gcp.specs import spec
from tests.gcs.held import names_in, new_bucket, put, remove_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.gcs.proxy import Proxy

REPOSITORY = "projects/some-project/locations/europe-west4/repositories/dask-hpsearch"
RUNNING = ("QUEUED", "WORKING")
IMAGE = "europe-west4-docker.pkg.dev/some-project/dask-hpsearch/dask-hpsearch"
SHORT = Retry(timeout=5, deadline=0.3, initial=0.01, maximum=0.05)
DENIED = Refused(
    "PERMISSION_DENIED",
    "Permission 'artifactregistry.repositories.create' denied",
    "IAM_PERMISSION_DENIED",
    permission="artifactregistry.repositories.create",
)
DISABLED = Refused(
    "PERMISSION_DENIED",
    "Cloud Build API has not been used in project 1 before or it is disabled",
    "SERVICE_DISABLED",
    service="cloudbuild.googleapis.com",
)
BUSY = Refused("UNAVAILABLE", "The service is currently unavailable.")
SLOW = Refused("DEADLINE_EXCEEDED", "Deadline exceeded")
FULL = Refused("RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Build requests'")


@pytest.fixture
def cloud(gcs: Proxy) -> Iterator[ImageServices]:
    """Cloud Build and Artifact Registry of a project that has nothing yet."""
    with image_services(gcs.port) as services:
        yield services


@pytest.fixture
def bucket(gcs: Proxy) -> str:
    """A bucket of one test alone."""
    return new_bucket(gcs.port)


@pytest.fixture
def ensure(cloud: ImageServices, bucket: str) -> Callable[..., str]:
    """Ensure the image of a spec, and do not wait between two looks at a build."""

    def ensure(**changes: Any) -> str:
        options = {"retry": SHORT, "wait": lambda _: None, **cloud.clients}
        for name in ("say", "wait", "retry"):
            if name in changes:
                options[name] = changes.pop(name)
        changes.setdefault("store", f"gs://{bucket}/runs")
        return ensure_image(spec(**changes), **options)

    return ensure


def test_an_image_is_built_and_named_by_its_digest(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str
) -> None:
    """The request says what the spec says, field by field."""
    account = "builder@some-project.iam.gserviceaccount.com"

    image = ensure(build_service_account=account)

    (request,) = cloud.traffic.named("CreateBuild")
    (tag,) = [one.rpartition("/")[2] for one in cloud.registry.tags]
    build = request.build
    assert request.parent == "projects/some-project/locations/europe-west4"
    assert request.project_id == "some-project"
    assert list(build.images) == [f"{IMAGE}:{tag}"]
    assert build.source.storage_source.bucket == bucket
    assert build.source.storage_source.generation > 0
    folder = "dask-hpsearch-builds/europe-west4-a/searches"
    assert build.source.storage_source.object_.startswith(f"{folder}/source-{tag}-")
    assert build.logs_bucket == f"gs://{bucket}/{folder}"
    assert build.service_account == f"projects/some-project/serviceAccounts/{account}"
    assert build.options.logging.name == "GCS_ONLY"
    (step,) = build.steps
    assert list(step.args)[:3] == ["build", "--tag", f"{IMAGE}:{tag}"]
    assert {"dask-hpsearch", tag} <= set(build.tags)
    (version,) = cloud.registry.versions
    assert image == f"{IMAGE}@{version.rpartition('/')[2]}"


def test_a_project_that_may_not_build_in_its_region_builds_globally(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """As Google restricts new projects; it is said once, and the image is as elsewhere."""
    cloud.builds.restricted = {"europe-west4"}
    lines: list[str] = []

    image = ensure(say=lines.append)

    parents = [one.parent for one in cloud.traffic.named("CreateBuild")]
    home = "projects/some-project/locations"
    assert parents == [f"{home}/europe-west4", f"{home}/global"]
    for one in cloud.traffic.named("CreateBuild"):
        assert len([tag for tag in one.build.tags if tag.startswith("try-")]) == 1
    (build,) = cloud.builds.builds.values()
    assert build.name.startswith(f"{home}/global/builds/")
    assert image.startswith(f"{IMAGE}@sha256:")
    assert len([one for one in lines if "does not build in europe-west4" in one]) == 1
    assert names_in(gcs.port, bucket) == []


def test_a_spec_may_say_where_to_build(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """Then nothing is tried elsewhere; the error says what to change."""
    ensure(build_location="global")
    cloud.builds.restricted = {"us-east1"}
    dask = {"workers": {"cpu": 1, "memory": "1Gi", "slots": 1}, "requirements": ["six"]}

    with pytest.raises(CloudError, match=r"us-east1.*build_location: global"):
        ensure(build_location="us-east1", dask=dask)

    places = [
        one.parent.rpartition("/")[2] for one in cloud.traffic.named("CreateBuild")
    ]
    assert places == ["global", "us-east1"]


def test_a_running_build_is_found_where_it_runs(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str
) -> None:
    """Another client may have built globally, since the region was restricted."""
    cloud.builds.restricted = {"europe-west4"}
    cloud.builds.never_ends = True
    code = "import sys; from tests.gcp.client import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, cloud.address, f"gs://{bucket}/runs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for line in client.stdout:
            if "starting build" in line:
                break
        client.kill()
    cloud.builds.never_ends = False
    lines: list[str] = []

    ensure(say=lines.append)

    assert any("waiting for the running build" in line for line in lines)
    assert len(cloud.builds.builds) == 1


def test_the_account_as_which_builds_run_is_named(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """With the command that lets the user use it, and one for an account of its own."""
    cloud.builds.may_not_act_as = {cloud.builds.default_account}

    with pytest.raises(CloudRightsError) as raised:
        ensure()

    said = str(raised.value)
    account = cloud.builds.default_account
    assert f"builds run as {account} (Cloud Build's default account)" in said
    assert f"add-iam-policy-binding {account} --project=some-project" in said
    assert "service-accounts create dask-hpsearch-builds" in said
    assert "roles/storage.legacyBucketReader" in said
    assert cloud.registry.repositories == {}


def test_an_account_that_google_names_by_number_is_named_so(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """The command accepts it as well as an address."""
    number = "109095503163182759798"
    message = f"caller does not have permission to act as service account {number}"
    cloud.traffic.fail("CreateBuild", Refused("PERMISSION_DENIED", message))

    with pytest.raises(CloudRightsError, match=f"add-iam-policy-binding {number} "):
        ensure()


def test_the_account_of_the_spec_is_named_if_the_user_may_not_use_it(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """Then no other account is recommended."""
    account = "builder@some-project.iam.gserviceaccount.com"
    cloud.builds.may_not_act_as = {account}

    with pytest.raises(CloudRightsError) as raised:
        ensure(build_service_account=account)

    assert f"add-iam-policy-binding {account}" in str(raised.value)
    assert "dask-hpsearch-builds" not in str(raised.value)


def test_builds_that_may_not_see_the_bucket_of_their_logs_are_explained(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """Both roles that a build needs of the bucket; nothing is left there."""
    cloud.builds.may_see_logs_bucket = False
    account = "builder@some-project.iam.gserviceaccount.com"

    with pytest.raises(CloudRightsError) as raised:
        ensure(build_service_account=account)

    member = f"gs://{bucket} --member=serviceAccount:{account} --role=roles/storage."
    for role in ("objectUser", "legacyBucketReader"):
        assert f"{member}{role}" in str(raised.value)
    assert names_in(gcs.port, bucket) == []


def test_what_is_needed_for_a_build_alone_goes_with_it(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """The archive and the log are gone; the repository carries our labels."""
    ensure()

    assert names_in(gcs.port, bucket) == []
    labels = dict(cloud.registry.repositories[REPOSITORY].labels)
    assert labels == {"team": "research", "managed-by": "dask-hpsearch"}


def test_an_image_that_is_there_is_not_built_again(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """The same content is found; another one is another image."""
    first = ensure()

    assert ensure() == first
    assert len(cloud.traffic.named("CreateBuild")) == 1
    dask = {"workers": {"cpu": 1, "memory": "1Gi", "slots": 1}, "requirements": ["six"]}
    assert ensure(dask=dask) != first
    assert len(cloud.traffic.named("CreateBuild")) == 2


def test_a_spec_may_name_its_image(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """Then nobody is asked for anything."""
    assert ensure(image="example.org/own:1.2") == "example.org/own:1.2"
    assert cloud.traffic.calls == []


def test_the_users_modules_are_in_the_archive(
    cloud: ImageServices, ensure: Callable[..., str], tmp_path: Path
) -> None:
    """What is hidden, such as a file of passwords, is not."""
    (tmp_path / "mine").mkdir()
    for name in ("__init__.py", ".env"):
        (tmp_path / "mine" / name).write_text("PASSWORD = 'hunter2'\n")
    workers = {"cpu": 1, "memory": "1Gi", "slots": 1}
    seen: list[bytes] = []
    get = cloud.builds._content
    cloud.builds._content = lambda build: seen.append(get(build)) or seen[-1]

    ensure(dask={"workers": workers, "modules": [str(tmp_path / "mine")]})

    with tarfile.open(fileobj=io.BytesIO(seen[-1])) as archive:
        names = archive.getnames()
    assert "modules/mine/__init__.py" in names
    assert not any(".env" in name for name in names)


def test_the_log_is_passed_on_line_by_line(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """Each line once, and no half of one."""
    lines: list[str] = []
    cloud.builds.lines = ("Already have image", "Step 1/9 : FROM python", "Step 2/9")

    ensure(say=lines.append)

    assert lines[0].startswith("building the image")
    shown = ["starting build", *cloud.builds.lines, "PUSH", "DONE"]
    assert lines[1:] == shown


def test_what_a_killed_client_began_is_finished(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """Killed between the build's begin and its end: the next client waits for it."""
    cloud.builds.never_ends = True
    code = "import sys; from tests.gcp.client import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, cloud.address, f"gs://{bucket}/runs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for line in client.stdout:  # it says what the log says: the build has begun
            if "starting build" in line:
                break
        client.kill()
    assert len(names_in(gcs.port, bucket)) == 2
    cloud.builds.never_ends = False
    lines: list[str] = []

    ensure(say=lines.append)

    assert any("waiting for the running build" in line for line in lines)
    assert len(cloud.traffic.named("CreateBuild")) == 1
    assert names_in(gcs.port, bucket) == []


def test_an_interrupted_build_is_cancelled(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """Ctrl-C while it runs leaves nothing."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(wait=interrupt)

    assert_nothing_is_left(cloud, gcs, bucket)


def test_a_failed_build_shows_its_steps_last_lines(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """The error names the step and its exit code; nothing is left."""
    problem = "ERROR: No matching distribution found for nosuchpackage==1"
    cloud.builds.lines = (*(f"line {n}" for n in range(40)), problem)
    cloud.builds.exit_code = 1

    with pytest.raises(ImageBuildError) as caught:
        ensure()

    assert "step 'image'" in str(caught.value)
    assert "exit code 1" in str(caught.value)
    assert problem in str(caught.value)
    assert "line 5\n" not in str(caught.value)
    assert_nothing_is_left(cloud, gcs, bucket)


def test_a_denied_push_says_who_may_not(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """The error names the account and the role; nothing is left."""
    cloud.builds.may_push = False
    account = "builder@some-project.iam.gserviceaccount.com"

    with pytest.raises(ImageBuildError) as caught:
        ensure(build_service_account=account)

    assert account in str(caught.value)
    assert "roles/artifactregistry.writer" in str(caught.value)
    assert_nothing_is_left(cloud, gcs, bucket)


@pytest.mark.parametrize(
    ("method", "refusal", "kind", "mend"),
    [
        ("CreateRepository", DENIED, CloudRightsError, "roles/artifactregistry.admin"),
        ("GetTag", DENIED, CloudRightsError, "add-iam-policy-binding some-project"),
        (
            "CreateBuild",
            DISABLED,
            CloudApiDisabledError,
            "gcloud services enable cloudbuild.googleapis.com --project=some-project",
        ),
        ("CreateBuild", FULL, CloudQuotaError, "iam-admin/quotas?project=some-project"),
        ("CreateBuild", BUSY, CloudUnreachableError, "try again"),
        ("GetBuild", SLOW, CloudUnreachableError, "status.cloud.google.com"),
        ("ListBuilds", BUSY, CloudUnreachableError, "cloudbuild.googleapis.com"),
    ],
)
def test_a_refusal_says_the_way_out(
    method: str,
    refusal: Refused,
    kind: type[HPSearchError],
    mend: str,
    cloud: ImageServices,
    ensure: Callable[..., str],
    bucket: str,
    gcs: Proxy,
) -> None:
    """And nothing is left, whoever refuses."""
    cloud.traffic.fail(method, refusal, times=10**6)

    with pytest.raises(kind) as caught:
        ensure()

    assert mend in str(caught.value)
    cloud.traffic.faults.clear()
    assert_nothing_is_left(cloud, gcs, bucket)


def test_failing_at_any_call_leaves_nothing(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """A first run counts the calls; then each of them is refused once."""
    ensure()
    n_calls = len(cloud.traffic.calls)
    remove_images(spec(), registry=cloud.clients["registry"])
    ends = []
    for number in range(n_calls):
        cloud.traffic.calls.clear()
        cloud.traffic.fail_at(number, DENIED)
        try:
            ensure()
        except HPSearchError as error:
            ends.append(type(error))
            assert_nothing_is_left(cloud, gcs, bucket)
        else:  # the mark on the image, without which it can be used
            assert cloud.traffic.calls[number][0] in {"GetVersion", "UpdateVersion"}
            cloud.registry.repositories.clear()
            cloud.registry.versions.clear()
            cloud.registry.tags.clear()
    assert len(ends) >= n_calls - 2


@pytest.mark.parametrize("method", ["CreateRepository", "CreateBuild", "GetBuild"])
@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer-lost"])
def test_a_short_outage_is_not_noticed(
    method: str,
    after: bool,  # noqa: FBT001 (pytest hands it over by its name)
    cloud: ImageServices,
    ensure: Callable[..., str],
) -> None:
    """A request whose answer is lost is not carried out twice."""
    cloud.traffic.fail(method, BUSY, after=after)

    ensure()

    assert len(cloud.builds.builds) == 1
    assert len(cloud.registry.repositories) == 1


def test_a_repository_that_is_no_docker_repository_is_told(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """It is somebody's, and stays as it is."""
    theirs = registry_v1.Repository(
        name=REPOSITORY, format_=registry_v1.Repository.Format.PYTHON
    )
    cloud.registry.repositories[REPOSITORY] = theirs

    with pytest.raises(ImageBuildError, match="PYTHON"):
        ensure()

    assert cloud.registry.repositories == {REPOSITORY: theirs}


def test_a_missing_bucket_is_told(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """With the command that makes one; the repository is not left behind."""
    remove_bucket(gcs.port, bucket)

    with pytest.raises(BucketNotFoundError, match="gcloud storage buckets create"):
        ensure()

    assert cloud.registry.repositories == {}


def test_images_go_with_the_last_cluster_that_uses_them(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """Another cluster of the same content keeps them."""
    ensure(name="one")
    ensure(name="two")
    assert len(cloud.traffic.named("CreateBuild")) == 1

    first = remove_images(spec(name="one"), registry=cloud.clients["registry"])
    second = remove_images(spec(name="two"), registry=cloud.clients["registry"])

    assert first.removed == ()
    assert len(first.remaining) == 2
    assert second.remaining == ()
    assert cloud.registry.repositories == {}
    assert cloud.registry.versions == {}


@pytest.mark.parametrize(
    "other",
    [
        {"location": "europe-west4-b"},
        {"location": "europe-west4", "zones": ["europe-west4-a"]},
        {"name": "s"},
        {"name": "searches-a"},
    ],
    ids=str,
)
def test_clusters_of_one_name_in_two_places_are_two(
    other: dict[str, Any], cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """What one of them has used stays for the other, in whichever order they go."""
    for first, second in (({}, other), (other, {})):
        ensure()
        ensure(**other)

        assert (
            remove_images(spec(**first), registry=cloud.clients["registry"]).removed
            == ()
        )
        assert len(cloud.registry.versions) == 1
        remove_images(spec(**second), registry=cloud.clients["registry"])
        assert cloud.registry.versions == {}


def test_a_mark_has_room_for_the_longest_name(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """Where a region's name is the longest, too."""
    name = "a" * 40
    place = {
        "location": "northamerica-northeast1",
        "zones": ["northamerica-northeast1-a"],
    }

    ensure(name=name, **place)

    (version,) = cloud.registry.versions.values()
    assert f"used-by-{name}.region" in version.annotations


def test_a_mark_without_a_zone_is_of_the_cluster_that_has_no_other(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """As images have it that were marked before there were zones in marks."""
    ensure(location="europe-west4-b")
    (version,) = cloud.registry.versions.values()
    version.annotations["used-by-searches"] = "true"
    registry = cloud.clients["registry"]

    newer = remove_images(spec(location="europe-west4-b"), registry=registry)
    assert newer.removed == ()
    assert dict(version.annotations) == {
        "managed-by": "dask-hpsearch",
        "used-by-searches": "true",
    }
    remove_images(spec(), registry=registry)
    assert cloud.registry.versions == {}


def test_nothing_of_others_is_removed(
    cloud: ImageServices, ensure: Callable[..., str], bucket: str, gcs: Proxy
) -> None:
    """Images that somebody else has pushed, and objects that somebody else has put."""
    ensure()
    theirs = [
        cloud.registry.push(f"{IMAGE}:theirs", "sha256:" + "1" * 64),
        cloud.registry.push(f"{IMAGE}-other:1", "sha256:" + "2" * 64),
    ]
    put(
        gcs.port,
        bucket,
        "dask-hpsearch-builds/europe-west4-a/searches/notes.txt",
        b"theirs",
    )

    removed = remove_images(
        spec(store=f"gs://{bucket}/runs"), registry=cloud.clients["registry"]
    )

    assert len(removed.removed) == 1
    assert theirs[0] in removed.remaining
    assert sorted(cloud.registry.versions) == sorted(theirs)
    assert REPOSITORY in cloud.registry.repositories
    assert names_in(gcs.port, bucket) == [
        "dask-hpsearch-builds/europe-west4-a/searches/notes.txt"
    ]


def test_an_image_that_somebody_else_has_pushed_is_not_marked(
    cloud: ImageServices, ensure: Callable[..., str]
) -> None:
    """It is used, since it has the content's name, and left as it is."""
    image = ensure()
    (version,) = cloud.registry.versions.values()
    version.annotations = {}

    assert ensure() == image
    assert dict(version.annotations) == {}


def test_removing_what_is_gone_is_well(cloud: ImageServices) -> None:
    """There is nothing, and that is what was wanted."""
    removed = remove_images(spec(), registry=cloud.clients["registry"])

    assert (removed.removed, removed.remaining) == ((), ())


def assert_nothing_is_left(cloud: ImageServices, gcs: Proxy, bucket: str) -> None:
    """No repository, no image, no file of a build, no build that still runs."""
    assert cloud.registry.repositories == {}
    assert cloud.registry.versions == {}
    assert names_in(gcs.port, bucket) == []
    running = [
        one for one in cloud.builds.builds.values() if one.status.name in RUNNING
    ]
    assert running == []
