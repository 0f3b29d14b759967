"""Whether a project is there, is paid for, and has enabled what is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.gcp.api_errors import enable_command, grant_command
from dask_hpsearch.gcp.doctor.findings import Finding, UnseenError

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
    """Look whether there is such a project, and the user may see it."""
    answer = rest.get("cloudresourcemanager", f"/v3/projects/{spec.project}")
    if answer.disabled_api:
        yield not_enabled(spec, answer.disabled_api)
    elif not answer.ok:
        # For who may not see it, a project that is not there looks the same.
        yield Finding(
            "project",
            f"there is no project {spec.project!r}, or you may not see it "
            f"({answer.reason})",
            grant_command(spec.project, "roles/viewer"),
        )
    elif answer.body.get("state", "ACTIVE") != "ACTIVE":
        yield Finding(
            "project",
            f"the project {spec.project!r} is to be deleted",
            f"gcloud projects undelete {spec.project}",
        )


def number_of(spec: GKESpec, rest: GoogleRest) -> str:
    """Return the number of a project, by which some of its accounts are named."""
    answer = rest.get("cloudresourcemanager", f"/v3/projects/{spec.project}")
    if not answer.ok:
        raise UnseenError.of(answer, "the project's number")
    return str(answer.body.get("name", "")).rpartition("/")[2]


def check_billing(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether somebody pays."""
    answer = rest.get("cloudbilling", f"/v1/projects/{spec.project}/billingInfo")
    if not answer.ok:
        raise UnseenError.of(answer, "whether there is a billing account")
    if not answer.body.get("billingEnabled", False):
        yield Finding(
            "billing",
            f"the project {spec.project!r} has no billing account",
            f"gcloud billing projects link {spec.project} --billing-account=ACCOUNT",
        )


def check_apis(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look which APIs are not enabled."""
    path = f"/v1/projects/{spec.project}/services"
    names = [f"projects/{spec.project}/services/{api}" for api in APIS]
    answer = rest.get("serviceusage", f"{path}:batchGet", names=names)
    if not answer.ok:
        raise UnseenError.of(answer, "which APIs are enabled")
    enabled = {
        str(one["name"]).rpartition("/")[2]
        for one in answer.body.get("services", [])
        if one.get("state") == "ENABLED"
    }
    lacking = [api for api in APIS if api not in enabled]
    if lacking:
        yield not_enabled(spec, *lacking)


def not_enabled(spec: GKESpec, *apis: str) -> Finding:
    """Say which APIs are not enabled."""
    return Finding(
        "API",
        f"not enabled in project {spec.project!r}: {', '.join(apis)}",
        enable_command(spec.project, *apis),
    )
