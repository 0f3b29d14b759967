"""Checks that a project exists, has a billing account, and has enabled the APIs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.gcp.api_errors import enable_command, grant_command
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.iam.policies import read_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

APIS = (
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "iam.googleapis.com",
    "storage.googleapis.com",
)


def check_project(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the project exists and is visible to the user."""
    response = rest.get("cloudresourcemanager", f"/v3/projects/{spec.project}")
    if "USER_PROJECT_DENIED" in response.reason:
        yield Finding(
            "quota project",
            f"your requests count for the quota of project {spec.project!r}, which you may "
            "not use: you lack serviceusage.services.use",
            grant_command(spec.project, "roles/serviceusage.serviceUsageConsumer"),
        )
    elif response.disabled_api:
        yield not_enabled(spec, response.disabled_api)
    elif not response.ok:
        # Google responds the same for both.
        yield Finding(
            "project",
            f"there is no project {spec.project!r}, or you may not view it "
            f"({response.reason})",
            grant_command(spec.project, "roles/viewer"),
        )
    elif response.body.get("state", "ACTIVE") != "ACTIVE":
        yield Finding(
            "project",
            f"the project {spec.project!r} is scheduled for deletion",
            f"gcloud projects undelete {spec.project}",
        )


def number_of(spec: GKESpec, rest: GoogleRest) -> str:
    """Return the project number, which is part of the names of some accounts."""
    response = rest.get("cloudresourcemanager", f"/v3/projects/{spec.project}")
    if not response.ok:
        raise UncheckedError.of(response, "the project's number")
    return str(response.body.get("name", "")).rpartition("/")[2]


def pool_exists(spec: GKESpec, rest: GoogleRest) -> bool:
    """Whether the project's identity pool exists, or may exist.

    GKE creates it together with the first GKE cluster that has Workload Identity. It
    remains when that is deleted; then only bindings that name it show that it exists.
    """
    pool = f"/{spec.workload_pool}/"
    for policy in (
        read_policy(rest, spec.project),
        read_policy(rest, spec.project, spec.bucket),
    ):
        bindings = policy.body.get("bindings", [])
        members = [name for one in bindings for name in one.get("members", [])]
        if any(pool in name for name in members):
            return True
    path = f"/v1/projects/{spec.project}/locations/-/clusters"
    response = rest.get("container", path)
    return not response.ok or any(
        one.get("workloadIdentityConfig", {}).get("workloadPool") == spec.workload_pool
        for one in response.body.get("clusters", [])
    )


def check_billing(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the project has a billing account."""
    response = rest.get("cloudbilling", f"/v1/projects/{spec.project}/billingInfo")
    if not response.ok:
        raise UncheckedError.of(response, "whether there is a billing account")
    if not response.body.get("billingEnabled", False):
        yield Finding(
            "billing",
            f"the project {spec.project!r} has no billing account",
            f"gcloud billing projects link {spec.project} --billing-account=ACCOUNT",
        )


def check_apis(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the APIs are enabled."""
    path = f"/v1/projects/{spec.project}/services"
    names = [f"projects/{spec.project}/services/{api}" for api in APIS]
    response = rest.get("serviceusage", f"{path}:batchGet", names=names)
    if not response.ok:
        raise UncheckedError.of(response, "which APIs are enabled")
    enabled = {
        str(one["name"]).rpartition("/")[2]
        for one in response.body.get("services", [])
        if one.get("state") == "ENABLED"
    }
    missing = [api for api in APIS if api not in enabled]
    if missing:
        yield not_enabled(spec, *missing)


def not_enabled(spec: GKESpec, *apis: str) -> Finding:
    """Return the finding of APIs that are not enabled."""
    return Finding(
        "API",
        f"not enabled in project {spec.project!r}: {', '.join(apis)}",
        enable_command(spec.project, *apis),
    )
