"""Checks bucket and network: that they exist, where, and who may use the bucket."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.config.gke_parts import host_and_name
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.doctor.permissions import bindings_of, build_account
from dask_hpsearch.gcp.doctor.project import number_of
from dask_hpsearch.gcp.gke.identities import (
    BUCKET_ROLE,
    WIDER_BUCKET_ROLES,
    pods_binding,
)
from dask_hpsearch.gcp.iam.bindings import binding_command
from dask_hpsearch.gcp.iam.policies import read_policy

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.iam.bindings import Binding
    from dask_hpsearch.gcp.rest import GoogleRest

_ENOUGH = (BUCKET_ROLE, *WIDER_BUCKET_ROLES)
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
    continent = spec.region.partition("-")[0].replace("europe", "eu")
    if location not in {spec.region, continent}:
        yield Finding(
            "bucket",
            f"the bucket {spec.bucket!r} is in {location}, the nodes are in "
            f"{spec.region}: reads are slow, and their traffic is billed",
            f"gcloud storage buckets create gs://ANOTHER --project={spec.project} "
            f"--location={spec.region} --uniform-bucket-level-access",
        )


def check_pods_access(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that pods and builds may use the bucket."""
    response = read_policy(rest, spec.project, spec.bucket)
    if response.missing:  # check_bucket reports it
        return
    if not response.ok:
        raise UncheckedError.of(response, f"who may use the bucket {spec.bucket!r}")
    in_bucket = response.body.get("bindings", [])
    pods = pods_binding(spec, number_of(spec, rest))
    if pods.is_granted_by(in_bucket) or pods.is_granted_by(bindings_of(spec, rest)):
        yield from _check_folder(spec, rest, pods, in_bucket)
    else:
        yield Finding(_about(spec), pods.problem, pods.command, pods.needs_pool)
    if spec.image is None:
        builder = f"serviceAccount:{build_account(spec, rest)}"
        enough = (*_ENOUGH, *_BUILDERS)
        if builder not in _members(in_bucket, _ENOUGH) and builder not in _members(
            bindings_of(spec, rest), enough
        ):
            yield Finding(
                "build account",
                f"builds may not read their sources from the bucket {spec.bucket!r}, nor "
                "write their logs there",
                _bind(spec, builder),
            )


def _check_folder(
    spec: GKESpec, rest: GoogleRest, pods: Binding, in_bucket: list[dict[str, Any]]
) -> Iterator[Finding]:
    """Check that pods may use the store's folder only, if the store is a folder."""
    if pods.condition is None:
        return
    in_project = read_policy(rest, spec.project).body.get("bindings", [])
    wide = pods.without_condition(in_bucket)
    wide += replace(pods, bucket=None).without_condition(in_project)
    if not wide:
        return
    narrow = [one for one in in_bucket if one.get("condition")]
    commands = [] if pods.is_granted_by(narrow) else [pods.command]
    commands += [binding_command("remove", one, None) for one in wide]
    yield Finding(
        _about(spec),
        f"pods may use all of the bucket {spec.bucket!r}, not only {spec.store!r}: a role is "
        "bound without a condition. Unless others need it, replace it:",
        " && ".join(commands),
        optional=True,
    )


def _about(spec: GKESpec) -> str:
    return "Workload Identity" if spec.workload_identity else "node account"


def _members(bindings: Iterable[dict[str, Any]], roles: Container[str]) -> set[str]:
    """Return the members that have one of some roles."""
    return {
        member
        for one in bindings
        if one["role"] in roles
        for member in one.get("members", [])
    }


def _bind(spec: GKESpec, member: str) -> str:
    return (
        f"gcloud storage buckets add-iam-policy-binding gs://{spec.bucket} "
        f"--member={member} --role={BUCKET_ROLE}"
    )


def check_network(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the network exists, and that its nodes reach Google's APIs."""
    host, network = spec.network.network_parts(spec.project)
    response = rest.get(
        "compute", f"/compute/v1/projects/{host}/global/networks/{network}"
    )
    if response.missing:
        yield Finding(
            "network",
            f"there is no network {network!r} in project {host!r}",
            f"gcloud compute networks create {network} --project={host}",
        )
        return
    if not response.ok:
        raise UncheckedError.of(response, "the network")
    path = spec.network.subnetwork or network
    if "/" in path:
        host, subnetwork = host_and_name(path, spec.project)
    else:
        subnetwork = path
    found = rest.get(
        "compute",
        f"/compute/v1/projects/{host}/regions/{spec.region}/subnetworks/{subnetwork}",
    )
    if found.missing:
        yield Finding(
            "network",
            f"there is no subnetwork {subnetwork!r} in {spec.region} of project {host!r}",
            f"gcloud compute networks subnets create {subnetwork} --project={host} "
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
            f"gcloud compute networks subnets update {subnetwork} --project={host} "
            f"--region={spec.region} --enable-private-ip-google-access",
        )
