"""Checks that the spec's machine types exist, and that quotas suffice for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.config.machines import machine
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import Pool
    from dask_hpsearch.gcp.rest import GoogleRest

_SHARED = ("e2", "n1")  # families that count for the quota CPUS
_SSD = ("pd-balanced", "pd-ssd")
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
    """Check that the region's quotas suffice for the GKE cluster at its maximum size."""
    base = f"/compute/v1/projects/{spec.project}/regions/{spec.region}"
    response = rest.get("compute", base)
    if not response.ok:
        raise UncheckedError.of(response, f"quotas in {spec.region}")
    quotas = {str(one["metric"]): one for one in response.body.get("quotas", [])}
    for metric, needed in needs(spec, quotas).items():
        found = quotas.get(metric)
        if found is None or needed <= found["limit"] - found["usage"]:
            continue
        preferred = round(found["usage"] + needed)
        yield Finding(
            "quota",
            f"{metric} in {spec.region}: the GKE cluster may need {needed:g}, but only "
            f"{found['limit'] - found['usage']:g} of {found['limit']:g} are available",
            f"gcloud beta quotas preferences create --project={spec.project} "
            f"--service=compute.googleapis.com --dimensions=region={spec.region} "
            f"--quota-id={metric.replace('_', '-')}-per-project-region "
            f"--preferred-value={preferred}",
        )


def needs(spec: GKESpec, quotas: Mapping[str, Any]) -> dict[str, float]:
    """Return what the GKE cluster needs of each quota at its maximum size.

    That is the minimum of system nodes, and the maximum of worker nodes. Spot machines have
    a separate quota only where it is not 0.
    """
    needed: dict[str, float] = {}

    def add(metric: str, amount: float) -> None:
        needed[metric] = needed.get(metric, 0.0) + amount

    pools: tuple[tuple[Pool, int], ...] = (
        (spec.pools.system, spec.pools.system.min_nodes),
        (spec.pools.workers, spec.pools.workers.max_nodes),
    )
    for pool, count in pools:
        add("INSTANCES", count)
        disks = "SSD_TOTAL_GB" if pool.disk_type in _SSD else "DISKS_TOTAL_GB"
        add(disks, count * pool.disk_gb)
        size = machine(pool.machine_type)
        if size is not None:
            add(_cpus_metric(pool, quotas), count * size.cpus)
    return needed


def _cpus_metric(pool: Pool, quotas: Mapping[str, Any]) -> str:
    if pool.spot and quotas.get(_SPOT, {}).get("limit", 0):
        return _SPOT
    family = pool.machine_type.partition("-")[0]
    return "CPUS" if family in _SHARED else f"{family.upper()}_CPUS"
