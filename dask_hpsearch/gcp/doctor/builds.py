"""Checks who may start builds, and what builds need of the bucket besides its objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.doctor.permissions import bindings_of, build_account
from dask_hpsearch.gcp.images.build_account import act_as_command, build_account_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

_ACT_AS = "iam.serviceAccounts.actAs"
_READER = "roles/storage.legacyBucketReader"
# Roles that include storage.buckets.get: of the bucket, and of the project.
_BUCKET_READERS = (
    _READER,
    "roles/storage.legacyBucketWriter",
    "roles/storage.legacyBucketOwner",
    "roles/storage.bucketViewer",
    "roles/storage.admin",
)
_PROJECT_READERS = (
    "roles/storage.bucketViewer",
    "roles/storage.admin",
    "roles/cloudbuild.builds.builder",
    "roles/editor",
    "roles/owner",
)


def check_act_as(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the user may start builds that run as their account."""
    if spec.image is not None:
        return
    account = build_account(spec, rest)
    path = f"/v1/projects/{spec.project}/serviceAccounts/{account}"
    response = rest.post(
        "iam", f"{path}:testIamPermissions", {"permissions": [_ACT_AS]}
    )
    if not response.ok:
        raise UncheckedError.of(response, f"whether you may act as {account}")
    if _ACT_AS in response.body.get("permissions", []):
        return
    problem = f"builds run as {account}, and you lack {_ACT_AS} on it"
    command = act_as_command(spec.project, account)
    if spec.build_service_account is None:
        problem += (
            "; better, create an account for builds alone, which can do less, and set "
            "build_service_account in the spec: "
            + build_account_command(spec.project, spec.bucket)
        )
    yield Finding("build account", problem, command)


def check_logs_bucket(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that builds may look at the bucket in which they keep their logs.

    A build that logs to Cloud Storage only is refused if its account lacks
    storage.buckets.get, which roles on objects do not include.
    """
    if spec.image is not None:
        return
    path = f"/storage/v1/b/{spec.bucket}/iam"
    # Without this version, policies with conditions are refused.
    response = rest.get("storage", path, optionsRequestedPolicyVersion=3)
    if response.missing:  # check_bucket reports it
        return
    if not response.ok:
        raise UncheckedError.of(response, f"who may use the bucket {spec.bucket!r}")
    account = build_account(spec, rest)
    member = f"serviceAccount:{account}"
    if _holds(response.body.get("bindings", []), _BUCKET_READERS, member) or _holds(
        bindings_of(spec, rest), _PROJECT_READERS, member
    ):
        return
    yield Finding(
        "build account",
        f"builds run as {account}, which lacks storage.buckets.get on the bucket "
        f"{spec.bucket!r} of their logs",
        f"gcloud storage buckets add-iam-policy-binding gs://{spec.bucket} "
        f"--member={member} --role={_READER}",
    )


def _holds(bindings: list[dict[str, Any]], roles: tuple[str, ...], member: str) -> bool:
    return any(
        one["role"] in roles and member in one.get("members", []) for one in bindings
    )
