"""Checks that the spec's machine types exist, and that quotas suffice for them.

Which quotas count is read from the region's and the project's answers: only metrics that
they list are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.config.machines import machine
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import Pool
    from dask_hpsearch.gcp.rest import GoogleRest

    Quotas = Mapping[str, Mapping[str, Any]]

_SHARED = ("e2", "n1")  # families that count for the quota CPUS
# The quotas of disk space, by disk type.
_DISKS = {
    "pd-standard": "DISKS_TOTAL_GB",
    "pd-balanced": "SSD_TOTAL_GB",
    "pd-ssd": "SSD_TOTAL_GB",
    "hyperdisk-balanced": "HDB_TOTAL_GB",
}
_SPOT = "PREEMPTIBLE_CPUS"


def check_machines(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that the zones have the machine types."""
    for machine_type in dict.fromkeys(_machine_types(spec)):
        for zone in spec.node_zones:
            base = f"/compute/v1/projects/{spec.project}/zones/{zone}"
            response = rest.get("compute", f"{base}/machineTypes/{machine_type}")
            if response.missing:
                yield Finding(
                    "machine type",
                    f"there is no {machine_type} in {zone}: choose another, or a zone "
                    "that has it",
                    f"gcloud compute machine-types list --project={spec.project} "
                    f"--filter=name={machine_type}",
                )
            elif not response.ok:
                raise UncheckedError.of(response, "machine types")


def _machine_types(spec: GKESpec) -> tuple[str, str]:
    return spec.pools.system.machine_type, spec.pools.workers.machine_type


def check_quotas(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that quotas suffice for the GKE cluster at its maximum size.

    Those of the region, and those of the project for all regions together: a new project
    often has as little as 12 CPUs.
    """
    base = f"/compute/v1/projects/{spec.project}"
    for path, where, needs in (
        (f"{base}/regions/{spec.region}", spec.region, regional_needs),
        (base, "", global_needs),
    ):
        response = rest.get("compute", path)
        if not response.ok:
            subject = f"quotas in {where}" if where else "quotas for all regions"
            raise UncheckedError.of(response, subject)
        quotas = {str(one["metric"]): one for one in response.body.get("quotas", [])}
        for metric, needed in needs(spec, quotas).items():
            found = quotas.get(metric)
            if found is not None and needed > found["limit"] - found["usage"]:
                yield _shortage(spec, metric, where, needed, found)


def regional_needs(spec: GKESpec, quotas: Quotas) -> dict[str, float]:
    """Return what the GKE cluster needs of a region's quotas at its maximum size.

    Spot machines have a separate quota only where it is not 0; others count for the quota of
    their family, or for CPUS.
    """
    needed: dict[str, float] = {}

    def add(metric: str, amount: float) -> None:
        needed[metric] = needed.get(metric, 0.0) + amount

    for pool in (spec.pools.system, spec.pools.workers):
        count = pool.max_nodes
        add("INSTANCES", count)
        if not spec.network.private_nodes:
            add("IN_USE_ADDRESSES", count)
        add(_DISKS[pool.disk_type], count * pool.disk_gb)
        size = machine(pool.machine_type)
        if size is not None:
            add(_cpus_metric(pool, quotas), count * size.cpus)
    return needed


def global_needs(spec: GKESpec, quotas: Quotas) -> dict[str, float]:
    """Return what the GKE cluster needs of the project's quotas for all regions."""
    del quotas  # all machines count
    sizes = [
        (machine(pool.machine_type), pool.max_nodes)
        for pool in (spec.pools.system, spec.pools.workers)
    ]
    cpus = sum(count * size.cpus for size, count in sizes if size is not None)
    return {"CPUS_ALL_REGIONS": float(cpus)}


def _cpus_metric(pool: Pool, quotas: Quotas) -> str:
    if pool.spot and quotas.get(_SPOT, {}).get("limit", 0):
        return _SPOT
    family = pool.machine_type.partition("-")[0]
    return "CPUS" if family in _SHARED else f"{family.upper()}_CPUS"


def _shortage(
    spec: GKESpec, metric: str, region: str, needed: float, found: Mapping[str, Any]
) -> Finding:
    free = found["limit"] - found["usage"]
    name = metric.replace("_", "-")
    if region:
        quota = f"--dimensions=region={region} --quota-id={name}-per-project-region"
    else:
        quota = f"--quota-id={name}-per-project"
    return Finding(
        "quota",
        f"{metric} {f'in {region}' if region else 'of the project'}: the GKE cluster may need "
        f"{needed:g}, but only {free:g} of {found['limit']:g} are available",
        f"gcloud beta quotas preferences create --project={spec.project} "
        f"--service=compute.googleapis.com {quota} "
        f"--preferred-value={round(found['usage'] + needed)}",
    )
