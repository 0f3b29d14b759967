"""Checks bucket and network: that they exist, where, and who may use the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.doctor.permissions import bindings_of, build_account
from dask_hpsearch.gcp.doctor.project import number_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

ROLE = "roles/storage.objectUser"
_ENOUGH = (ROLE, "roles/storage.objectAdmin", "roles/storage.admin")
# Roles of the project that include what a build needs of a bucket.
_BUILDERS = ("roles/cloudbuild.builds.builder", "roles/editor", "roles/owner")
_PERMISSIONS = tuple(
    f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")
)


def check_bucket(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the bucket exists in the region, and that the user may use it."""
    response = rest.get("storage", f"/storage/v1/b/{spec.bucket}")
    if response.missing:
        yield Finding(
            "bucket",
            f"there is no bucket {spec.bucket!r}",
            f"gcloud storage buckets create gs://{spec.bucket} --project={spec.project} "
            f"--location={spec.region} --uniform-bucket-level-access",
        )
        return
    if response.ok:
        yield from _check_settings(spec, response.body)
    path = f"/storage/v1/b/{spec.bucket}/iam/testPermissions"
    held = rest.get("storage", path, permissions=list(_PERMISSIONS))
    if not held.ok:
        raise UncheckedError.of(held, f"your permissions in the bucket {spec.bucket!r}")
    missing = set(_PERMISSIONS) - set(held.body.get("permissions", []))
    if missing:
        yield Finding(
            "bucket role",
            f"you lack {', '.join(sorted(missing))} on the bucket {spec.bucket!r}",
            _bind(spec, "user:YOU"),
        )


def _check_settings(spec: GKESpec, bucket: dict[str, Any]) -> Iterator[Finding]:
    uniform = bucket.get("iamConfiguration", {}).get("uniformBucketLevelAccess", {})
    if spec.workload_identity and not uniform.get("enabled", False):
        yield Finding(
            "bucket",
            f"the bucket {spec.bucket!r} has fine-grained access, which cannot grant roles to "
            "pods",
            f"gcloud storage buckets update gs://{spec.bucket} "
            "--uniform-bucket-level-access",
        )
    location = str(bucket.get("location", spec.region)).lower()
    if location not in {spec.region, spec.region.partition("-")[0]}:
        yield Finding(
            "bucket",
            f"the bucket {spec.bucket!r} is in {location}, the nodes are in "
            f"{spec.region}: reads are slow, and their traffic is billed",
            f"gcloud storage buckets create gs://ANOTHER --project={spec.project} "
            f"--location={spec.region} --uniform-bucket-level-access",
        )


def check_pods_access(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that pods and builds may use the bucket."""
    response = rest.get("storage", f"/storage/v1/b/{spec.bucket}/iam")
    if response.missing:  # check_bucket reports it
        return
    if not response.ok:
        raise UncheckedError.of(response, f"who may use the bucket {spec.bucket!r}")
    members = _members(response.body.get("bindings", []), _ENOUGH)
    pods = pods_member(spec, number_of(spec, rest))
    names = {pods, *_other_names(spec, pods)}
    if not members & names and not _by_project(spec, rest, _ENOUGH) & names:
        about = "Workload Identity" if spec.workload_identity else "node account"
        yield Finding(
            about,
            f"pods of the namespace {spec.namespace!r} may not use the bucket "
            f"{spec.bucket!r}",
            _bind(spec, pods),
        )
    if spec.image is None:
        builder = f"serviceAccount:{build_account(spec, rest)}"
        enough = (*_ENOUGH, *_BUILDERS)
        if builder not in members and builder not in _by_project(spec, rest, enough):
            yield Finding(
                "build account",
                f"builds may not read their sources from the bucket {spec.bucket!r}, nor "
                "write their logs there",
                _bind(spec, builder),
            )


def pods_member(spec: GKESpec, number: str) -> str:
    """Return the IAM principal of the pods of the spec's namespace."""
    if not spec.workload_identity:
        return f"serviceAccount:{spec.nodes_run_as}"
    return (
        f"principalSet://iam.googleapis.com/projects/{number}/locations/global/"
        f"workloadIdentityPools/{spec.workload_pool}/namespace/{spec.namespace}"
    )


def _other_names(spec: GKESpec, pods: str) -> set[str]:
    """Return IAM principals that include those pods, or only their service account."""
    if not spec.workload_identity:
        return set()
    pool = pods.rpartition("/namespace/")[0]
    account = spec.dask.service_account
    subject = pool.replace("principalSet://", "principal://", 1)
    single = f"{subject}/subject/ns/{spec.namespace}/sa/{account}"
    return {f"{pool}/*"} | ({single} if account else set())


def _members(bindings: Iterable[dict[str, Any]], roles: Container[str]) -> set[str]:
    """Return the members that have one of some roles."""
    return {
        member
        for one in bindings
        if one["role"] in roles
        for member in one.get("members", [])
    }


def _by_project(spec: GKESpec, rest: GoogleRest, roles: Container[str]) -> set[str]:
    """Return the members that have one of some roles in the project."""
    return _members(bindings_of(spec, rest), roles)


def _bind(spec: GKESpec, member: str) -> str:
    return (
        f"gcloud storage buckets add-iam-policy-binding gs://{spec.bucket} "
        f"--member={member} --role={ROLE}"
    )


def check_network(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the network exists, and that its nodes reach Google's APIs."""
    network = spec.network.network.rpartition("/")[2]
    base = f"/compute/v1/projects/{spec.project}"
    response = rest.get("compute", f"{base}/global/networks/{network}")
    if response.missing:
        yield Finding(
            "network",
            f"there is no network {network!r} in project {spec.project!r}",
            f"gcloud compute networks create {network} --project={spec.project}",
        )
        return
    if not response.ok:
        raise UncheckedError.of(response, "the network")
    subnetwork = (spec.network.subnetwork or network).rpartition("/")[2]
    found = rest.get(
        "compute", f"{base}/regions/{spec.region}/subnetworks/{subnetwork}"
    )
    if found.missing:
        yield Finding(
            "network",
            f"there is no subnetwork {subnetwork!r} in {spec.region}",
            f"gcloud compute networks subnets create {subnetwork} --project={spec.project} "
            f"--network={network} --region={spec.region} --range=10.0.0.0/20 "
            "--enable-private-ip-google-access",
        )
    elif not found.ok:
        raise UncheckedError.of(found, "the subnetwork")
    elif spec.network.private_nodes and not found.body.get("privateIpGoogleAccess"):
        yield Finding(
            "network",
            f"nodes in the subnetwork {subnetwork!r} have no external address, and cannot "
            "reach the registry or the bucket",
            f"gcloud compute networks subnets update {subnetwork} --project={spec.project} "
            f"--region={spec.region} --enable-private-ip-google-access",
        )
