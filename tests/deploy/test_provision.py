"""A GKE cluster is provisioned completely or not at all, and removed without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.cloud import artifactregistry_v1 as registry_v1
from google.cloud import container_v1 as v1

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.deploy.deprovision import (
    deprovision,
    deprovision_unused,
    is_in_use,
)
from dask_hpsearch.deploy.images import ensure_image
from dask_hpsearch.deploy.provision import provision
from dask_hpsearch.exceptions import (
    CloudError,
    CloudRightsError,
    ClusterError,
    ForeignResourceError,
    HPSearchError,
    ImageBuildError,
)
from dask_hpsearch.gcp.auth import kubeconfig_path
from dask_hpsearch.gcp.gke.labels import active_claims
from tests.deploy.contexts import context
from tests.fakes.serving import Refused
from tests.gcs.held import content_of, names_in, put

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.cloud import Cloud

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"
DENIED = Refused("PERMISSION_DENIED", "no", "IAM_PERMISSION_DENIED")
BUSY = Refused("UNAVAILABLE", "The service is currently unavailable.")
TYPES = v1.Operation.Type


def test_without_kubernetes_nothing_is_left(project: Cloud, bucket: str) -> None:
    """Image and GKE cluster were made; the step after them fails, and they go."""
    with pytest.raises(ClusterError):
        provision(context(project, bucket))

    assert [name for name, _ in project.traffic.calls].count("CreateCluster") == 1
    assert [name for name, _ in project.traffic.calls].count("CreateBuild") == 1
    assert project.ours(bucket) == []
    assert not kubeconfig_path(PATH).exists()


def test_a_failure_at_any_step_leaves_nothing(
    project: Cloud, bucket: str, tmp_path: Path
) -> None:
    """Whichever request fails once, of all that are made on the way up and down."""
    (tmp_path / "home").write_text("no folder: the last step fails, without Kubernetes")
    with pytest.raises(NotADirectoryError):
        provision(context(project, bucket))
    names = [name for name, _ in project.traffic.calls]
    down = len(names) - 1 - names[::-1].index("DeleteCluster")

    for number, name in enumerate(names):
        project.traffic.calls.clear()
        # What is refused on the way down cannot be removed; that is told, and so is how.
        # Nor can an image be that may not be marked as ours.
        told = number >= down - 1 or name in ("GetVersion", "UpdateVersion")
        refusal = BUSY if told else DENIED
        project.traffic.fail_at(number, refusal)
        with pytest.raises((HPSearchError, NotADirectoryError)):
            provision(context(project, bucket))
        assert project.ours(bucket) == [], (number, name)


def test_a_build_that_fails_makes_no_cluster(project: Cloud, bucket: str) -> None:
    """The error shows the failing step's lines; GKE was never asked for anything."""
    project.builds.exit_code = 1

    with pytest.raises(ImageBuildError, match="non-zero code"):
        provision(context(project, bucket))

    assert "CreateCluster" not in [name for name, _ in project.traffic.calls]
    assert project.ours(bucket) == []


def test_a_cluster_that_fails_takes_the_image_with_it(
    project: Cloud, bucket: str
) -> None:
    """An image that no GKE cluster uses is nothing to keep."""
    stockout = Refused("RESOURCE_EXHAUSTED", "Quota 'N2_CPUS' exceeded.")
    project.gke.fails[TYPES.CREATE_CLUSTER] = stockout

    with pytest.raises(CloudError, match="N2_CPUS"):
        provision(context(project, bucket))

    assert project.registry.versions == {}
    assert project.ours(bucket) == []


def test_a_taken_name_is_told_before_anything_is_built(
    project: Cloud, bucket: str
) -> None:
    """No build for a GKE cluster that can never be."""
    project.gke.add(PATH, resource_labels={"team": "theirs"})

    with pytest.raises(ForeignResourceError):
        provision(context(project, bucket))

    assert [name for name, _ in project.traffic.calls] == ["GetCluster"]
    assert list(project.gke.clusters) == [PATH]


def test_a_cluster_that_was_there_outlives_a_failure(
    project: Cloud, bucket: str
) -> None:
    """Somebody else may be using it: only what this call has made goes."""
    deployment = context(project, bucket)
    deployment.gke.ensure(deployment.spec, keep=True)

    with pytest.raises(ClusterError):
        provision(deployment)

    assert list(project.gke.clusters) == [PATH]


def test_all_goes_and_strangers_things_stay(project: Cloud, bucket: str) -> None:
    """Foreign clusters, pools, images and objects are as they were."""
    deployment = context(project, bucket)
    deployment.gke.ensure(deployment.spec)
    theirs = PATH.replace("searches", "theirs")
    project.gke.add(theirs, resource_labels={"managed-by": "terraform"})
    parent = deployment.spec.repository
    project.registry.repositories[parent] = registry_v1.Repository(
        name=parent, labels={"team": "theirs"}
    )
    image = project.registry.push(f"{deployment.spec.image_name}:theirs", "sha256:1")
    put(project.storage_port, bucket, "runs/precious", b"mine")
    put(
        project.storage_port,
        bucket,
        "dask-hpsearch-builds/europe-west4-a/searches/notes",
        b"mine",
    )

    result = deprovision(deployment)

    assert result.removed == (PATH,)
    assert any(image in line for line in result.remaining)
    assert list(project.gke.clusters) == [theirs]
    assert list(project.registry.versions) == [image]
    assert list(project.registry.repositories) == [parent]
    assert names_in(project.storage_port, bucket) == [
        "dask-hpsearch-builds/europe-west4-a/searches/notes",
        "runs/precious",
    ]
    assert content_of(project.storage_port, bucket, "runs/precious") == b"mine"


def test_what_is_left_is_listed(project: Cloud, bucket: str) -> None:
    """Another GKE cluster of ours, and who its owner is."""
    deployment = context(project, bucket)
    other = context(project, bucket, name="other", owner="ada")
    deployment.gke.ensure(deployment.spec)
    other.gke.ensure(other.spec)

    result = deprovision(deployment)

    (left,) = [line for line in result.remaining if "clusters/other" in line]
    assert "of ada" in left


def test_down_leaves_what_a_cluster_of_the_same_name_uses(
    project: Cloud, bucket: str
) -> None:
    """In another zone: its image, and the files of a build that is under way there."""
    here = context(project, bucket)
    there = context(project, bucket, location="europe-west4-b")
    for deployment in (here, there):
        deployment.gke.ensure(deployment.spec)
        ensure_image(deployment)
    (image,) = project.registry.versions
    build = f"dask-hpsearch-builds/europe-west4-b/searches/source-1-{'0' * 8}.tgz"
    put(project.storage_port, bucket, build, b"")

    first = deprovision(here)

    assert first.removed == (PATH,)
    assert any(image in line for line in first.remaining)
    assert list(project.registry.versions) == [image]
    assert names_in(project.storage_port, bucket) == [build]
    assert image in deprovision(there).removed
    assert project.ours(bucket) == []


def test_down_twice_is_no_fault(project: Cloud, bucket: str) -> None:
    """What is gone is gone."""
    deployment = context(project, bucket)
    deployment.gke.ensure(deployment.spec)

    assert deprovision(deployment).removed == (PATH,)
    assert deprovision(deployment).removed == ()


def test_what_cannot_be_removed_is_told(project: Cloud, bucket: str) -> None:
    """The first error stays the error; what is left behind is said with it."""
    project.traffic.fail("DeleteCluster", DENIED, times=100)

    with pytest.raises(ClusterError) as raised:
        provision(context(project, bucket))

    assert any("dask-hpsearch down" in note for note in raised.value.__notes__)
    assert PATH in project.gke.clusters


def test_rights_are_looked_at_first(project: Cloud, bucket: str) -> None:
    """Who may not even look is told so before an image is built."""
    project.traffic.fail("GetCluster", DENIED, times=100)

    with pytest.raises(CloudRightsError):
        provision(context(project, bucket))

    assert {name for name, _ in project.traffic.calls} == {"GetCluster"}


def test_a_cluster_whose_use_is_unknown_stays(project: Cloud, bucket: str) -> None:
    """Somebody's searches may be on it; a message says how to remove it."""
    own = context(project, bucket)
    own.gke.ensure(own.spec, keep=False)
    project.said.clear()

    assert is_in_use(own)

    assert "dask-hpsearch down" in project.said[-1]
    assert list(project.gke.clusters) == [PATH]


def test_a_cluster_that_is_gone_is_not_in_use(project: Cloud, bucket: str) -> None:
    """There is nothing that could be kept."""
    assert not is_in_use(context(project, bucket))


def test_a_cluster_that_others_are_about_to_use_stays(
    project: Cloud, bucket: str
) -> None:
    """Their Dask cluster is not there yet; who leaves takes his own claim along."""
    leaving, coming = context(project, bucket), context(project, bucket)
    for one in (leaving, coming):
        one.gke.ensure(one.spec, claim=one.claim)
    project.said.clear()

    deprovision_unused(leaving)

    (line,) = [line for line in project.said if "stays" in line]
    assert "about to be used" in line
    labels = project.gke.clusters[PATH].resource_labels
    assert active_claims(labels, project.time.now()) == {coming.claim}


def test_a_cluster_that_is_to_stay_by_now_stays(project: Cloud, bucket: str) -> None:
    """Who made it did not mean to keep it; another one does."""
    first, second = context(project, bucket), context(project, bucket)
    first.gke.ensure(first.spec, claim=first.claim)
    second.gke.ensure(second.spec, keep=True)

    deprovision_unused(first)

    assert list(project.gke.clusters) == [PATH]
    assert (
        active_claims(project.gke.clusters[PATH].resource_labels, project.time.now())
        == set()
    )


def test_who_fails_on_a_cluster_of_others_claims_it_no_longer(
    project: Cloud, bucket: str
) -> None:
    """Else it would stay for an hour, for nobody."""
    there = context(project, bucket)
    there.gke.ensure(there.spec, claim=there.claim)

    with pytest.raises(ClusterError):
        provision(context(project, bucket))

    labels = project.gke.clusters[PATH].resource_labels
    assert active_claims(labels, project.time.now()) == {there.claim}


def test_an_image_that_goes_with_an_old_cluster_is_built_again(
    project: Cloud, bucket: str
) -> None:
    """It was found just before those who remove the old GKE cluster removed it too."""
    old, new = context(project, bucket), context(project, bucket)
    old.gke.ensure(old.spec)
    project.clients.clusters.delete_cluster(v1.DeleteClusterRequest(name=PATH))
    removed: list[bool] = []

    def sleep(seconds: float) -> None:
        project.time.sleep(seconds)
        if project.registry.versions and not removed:
            removed.append(True)
            deprovision(old)

    new.options["clock"] = Clock(project.time.now, sleep)
    with pytest.raises(ClusterError):  # there is no Kubernetes
        provision(new)

    names = [name for name, _ in project.traffic.calls]
    assert names.count("CreateBuild") == 2
    assert project.ours(bucket) == []
