"""What builds, image streaming and a new project's quotas lack is named, with its mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.rest import GoogleRest
from tests.fakes.project import (
    BUCKET,
    BUILDER,
    NODES,
    PROJECT,
    SERVICES,
    FakeProject,
    project_at,
)
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.gcp.doctor.findings import Report

# The defect; what takes it away from a project that has all; words of its mend.
DEFECTS: dict[str, tuple[Callable[[FakeProject], Any], str]] = {
    "the user may not use the builds' account": (
        lambda one: one.may_not_act_as.add(BUILDER),
        (
            f"gcloud iam service-accounts add-iam-policy-binding {BUILDER} "
            f"--project={PROJECT} --member=user:YOU --role=roles/iam.serviceAccountUser"
        ),
    ),
    "builds may not look at the bucket of their logs": (
        lambda one: one.roles.pop("roles/storage.bucketViewer"),
        (
            f"gcloud storage buckets add-iam-policy-binding gs://{BUCKET} "
            f"--member=serviceAccount:{BUILDER} --role=roles/storage.legacyBucketReader"
        ),
    ),
    "the API of image streaming is not enabled": (
        lambda one: one.enabled.discard("containerfilesystem.googleapis.com"),
        f"gcloud services enable containerfilesystem.googleapis.com --project={PROJECT}",
    ),
    "the nodes may not stream images": (
        lambda one: one.roles.pop("roles/serviceusage.serviceUsageConsumer"),
        (
            f"--member=serviceAccount:{NODES} "
            "--role=roles/serviceusage.serviceUsageConsumer"
        ),
    ),
    "a new project has few CPUs in all regions": (
        lambda one: one.project_quotas.update(CPUS_ALL_REGIONS=(12, 0)),
        (
            "--service=compute.googleapis.com --quota-id=CPUS-ALL-REGIONS-per-project "
            "--preferred-value=92"
        ),
    ),
    "too few disks": (
        lambda one: one.quotas.update(SSD_TOTAL_GB=(500, 0)),
        "--quota-id=SSD-TOTAL-GB-per-project-region --preferred-value=1300",
    ),
    "too few machines": (
        lambda one: one.quotas.update(INSTANCES=(8, 0)),
        "--quota-id=INSTANCES-per-project-region --preferred-value=13",
    ),
}


@pytest.fixture
def project() -> FakeProject:
    """A project that has all that it needs."""
    return FakeProject()


@pytest.fixture
def look(project: FakeProject) -> Iterator[Callable[..., Report]]:
    """Examine the project for a spec."""
    with (
        project_at(project) as url,
        AuthorizedSession(AnonymousCredentials()) as session,
    ):
        rest = GoogleRest(session, dict.fromkeys(SERVICES, url))
        yield lambda **changes: examine(spec(**changes), rest=rest)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_with_its_mend(
    defect: str, project: FakeProject, look: Callable[..., Report]
) -> None:
    """One finding, and the command that mends it."""
    make, mend = DEFECTS[defect]
    make(project)

    report = look()

    assert [mend in one.command for one in report.findings] == [True], report
    assert report.unchecked == ()


@pytest.mark.parametrize(
    ("pool", "metric", "needed"),
    [
        ({"machine_type": "c3-standard-8", "spot": False}, "C3_CPUS", 80),
        ({"machine_type": "n2d-standard-8", "spot": False}, "N2D_CPUS", 80),
        ({"machine_type": "e2-standard-8", "spot": False}, "CPUS", 92),
        ({"disk_type": "pd-standard"}, "DISKS_TOTAL_GB", 1000),
        (
            {"machine_type": "n4-standard-8", "disk_type": "hyperdisk-balanced"},
            "HDB_TOTAL_GB",
            1000,
        ),
    ],
)
def test_quotas_go_by_family_and_disk(
    project: FakeProject,
    look: Callable[..., Report],
    pool: dict[str, Any],
    metric: str,
    needed: int,
) -> None:
    """As the region's answer lists them; one that is not listed is not compared."""
    project.machine_types |= {
        f"{name}-standard-8" for name in ("c3", "n2d", "e2", "n4")
    }
    project.quotas.pop(metric, None)
    unlisted = look(pools={"workers": pool})
    project.quotas[metric] = (needed - 1, 0)

    (found,) = look(pools={"workers": pool}).findings

    assert unlisted.ok
    assert f"{metric} in europe-west4: the GKE cluster may need {needed}" in (
        found.problem
    )


def test_nodes_with_addresses_need_a_quota_of_addresses(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Private nodes have none."""
    project.quotas["IN_USE_ADDRESSES"] = (8, 0)

    (found,) = look(network={"private_nodes": False}).findings

    assert "IN_USE_ADDRESSES" in found.problem
    assert look().ok


def test_an_account_for_builds_alone_is_recommended(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Only to those who use Cloud Build's default, which can do much more."""
    account = f"own@{PROJECT}.iam.gserviceaccount.com"
    project.may_not_act_as |= {BUILDER, account}
    member = f"serviceAccount:{account}"
    project.roles["roles/artifactregistry.writer"].append(member)
    project.roles["roles/storage.admin"] = [member]

    (default,) = look().findings
    (own,) = look(build_service_account=account).findings

    assert "gcloud iam service-accounts create dask-hpsearch-builds" in default.problem
    assert "create" not in own.problem
    assert account in own.command


def test_whole_images_need_no_api_of_their_own(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A spec may do without image streaming."""
    project.enabled.discard("containerfilesystem.googleapis.com")
    project.roles.pop("roles/serviceusage.serviceUsageConsumer")
    off = {"image_streaming": False}

    assert look(pools={"system": off, "workers": off}).ok
