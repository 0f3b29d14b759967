"""Whether bucket and network are there, and who may use the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.doctor.findings import Finding, UnseenError
from dask_hpsearch.gcp.doctor.permissions import bindings_of, build_account
from dask_hpsearch.gcp.doctor.project import number_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

ROLE = "roles/storage.objectUser"
_ENOUGH = (ROLE, "roles/storage.objectAdmin", "roles/storage.admin")
# Roles of the whole project that contain what a build needs of a bucket.
_BUILDERS = ("roles/cloudbuild.builds.builder", "roles/editor", "roles/owner")
_NEEDS = tuple(
    f"storage.objects.{what}" for what in ("create", "delete", "get", "list", "update")
)


def check_bucket(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether there is the bucket, where it is, and whether the user may use it."""
    answer = rest.get("storage", f"/storage/v1/b/{spec.bucket}")
    if answer.missing:
        yield Finding(
            "bucket",
            f"there is no bucket {spec.bucket!r}",
            f"gcloud storage buckets create gs://{spec.bucket} --project={spec.project} "
            f"--location={spec.region} --uniform-bucket-level-access",
        )
        return
    if answer.ok:
        yield from _judge_bucket(spec, answer.body)
    path = f"/storage/v1/b/{spec.bucket}/iam/testPermissions"
    held = rest.get("storage", path, permissions=list(_NEEDS))
    if not held.ok:
        raise UnseenError.of(held, f"what you may do in the bucket {spec.bucket!r}")
    lacking = set(_NEEDS) - set(held.body.get("permissions", []))
    if lacking:
        yield Finding(
            "bucket role",
            f"you lack {', '.join(sorted(lacking))} on the bucket {spec.bucket!r}",
            _bind(spec, "user:YOU"),
        )


def _judge_bucket(spec: GKESpec, bucket: dict[str, Any]) -> Iterator[Finding]:
    uniform = bucket.get("iamConfiguration", {}).get("uniformBucketLevelAccess", {})
    if spec.workload_identity and not uniform.get("enabled", False):
        yield Finding(
            "bucket",
            f"the bucket {spec.bucket!r} has rights for single objects, and so none can "
            "be given to pods",
            f"gcloud storage buckets update gs://{spec.bucket} "
            "--uniform-bucket-level-access",
        )
    location = str(bucket.get("location", spec.region)).lower()
    if location not in {spec.region, spec.region.partition("-")[0]}:
        yield Finding(
            "bucket",
            f"the bucket {spec.bucket!r} is in {location}, the nodes are in "
            f"{spec.region}: reading is slow, and traffic is paid for",
            f"gcloud storage buckets create gs://ANOTHER --project={spec.project} "
            f"--location={spec.region} --uniform-bucket-level-access",
        )


def check_pods_access(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether pods and builds may use the bucket."""
    answer = rest.get("storage", f"/storage/v1/b/{spec.bucket}/iam")
    if answer.missing:  # check_bucket has said it
        return
    if not answer.ok:
        raise UnseenError.of(answer, f"who may use the bucket {spec.bucket!r}")
    members = _members(answer.body.get("bindings", []), _ENOUGH)
    pods = pods_member(spec, number_of(spec, rest))
    ways = {pods, *_other_ways(spec, pods)}
    if not members & ways and not _by_project(spec, rest, _ENOUGH) & ways:
        what = "Workload Identity" if spec.workload_identity else "node account"
        yield Finding(
            what,
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
    """Return the name that pods of the spec's namespace have in IAM."""
    if not spec.workload_identity:
        return f"serviceAccount:{spec.nodes_run_as}"
    return (
        f"principalSet://iam.googleapis.com/projects/{number}/locations/global/"
        f"workloadIdentityPools/{spec.workload_pool}/namespace/{spec.namespace}"
    )


def _other_ways(spec: GKESpec, pods: str) -> set[str]:
    """Names that contain those pods, or are those of their account alone."""
    if not spec.workload_identity:
        return set()
    pool = pods.rpartition("/namespace/")[0]
    account = spec.dask.service_account
    subject = pool.replace("principalSet://", "principal://", 1)
    single = f"{subject}/subject/ns/{spec.namespace}/sa/{account}"
    return {f"{pool}/*"} | ({single} if account else set())


def _members(bindings: Iterable[dict[str, Any]], roles: Container[str]) -> set[str]:
    """Return who has one of some roles."""
    return {
        member
        for one in bindings
        if one["role"] in roles
        for member in one.get("members", [])
    }


def _by_project(spec: GKESpec, rest: GoogleRest, roles: Container[str]) -> set[str]:
    """Return who has one of some roles for all buckets of the project."""
    return _members(bindings_of(spec, rest), roles)


def _bind(spec: GKESpec, member: str) -> str:
    return (
        f"gcloud storage buckets add-iam-policy-binding gs://{spec.bucket} "
        f"--member={member} --role={ROLE}"
    )


def check_network(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether there is the network, and whether its nodes reach Google."""
    network = spec.network.network.rpartition("/")[2]
    base = f"/compute/v1/projects/{spec.project}"
    answer = rest.get("compute", f"{base}/global/networks/{network}")
    if answer.missing:
        yield Finding(
            "network",
            f"there is no network {network!r} in project {spec.project!r}",
            f"gcloud compute networks create {network} --project={spec.project}",
        )
        return
    if not answer.ok:
        raise UnseenError.of(answer, "the network")
    part = (spec.network.subnetwork or network).rpartition("/")[2]
    found = rest.get("compute", f"{base}/regions/{spec.region}/subnetworks/{part}")
    if found.missing:
        yield Finding(
            "network",
            f"there is no subnetwork {part!r} in {spec.region}",
            f"gcloud compute networks subnets create {part} --project={spec.project} "
            f"--network={network} --region={spec.region} --range=10.0.0.0/20 "
            "--enable-private-ip-google-access",
        )
    elif not found.ok:
        raise UnseenError.of(found, "the subnetwork")
    elif spec.network.private_nodes and not found.body.get("privateIpGoogleAccess"):
        yield Finding(
            "network",
            f"nodes in the subnetwork {part!r} have no address of their own, and so do "
            "not reach the registry or the bucket",
            f"gcloud compute networks subnets update {part} --project={spec.project} "
            f"--region={spec.region} --enable-private-ip-google-access",
        )
