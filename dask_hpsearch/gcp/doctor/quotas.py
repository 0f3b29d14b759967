"""Whether there are the machines that a spec asks for, and a quota for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.config.machines import machine
from dask_hpsearch.gcp.doctor.findings import Finding, UnseenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import Pool
    from dask_hpsearch.gcp.rest import GoogleRest

_SHARED = ("e2", "n1")  # families that the quota of plain CPUS is for
_SSD = ("pd-balanced", "pd-ssd")
_SPOT = "PREEMPTIBLE_CPUS"


def check_machines(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether the zones have the machine types."""
    for machine_type in dict.fromkeys(_machine_types(spec)):
        for zone in spec.node_zones:
            base = f"/compute/v1/projects/{spec.project}/zones/{zone}"
            answer = rest.get("compute", f"{base}/machineTypes/{machine_type}")
            if answer.missing:
                yield Finding(
                    "machine type",
                    f"there is no {machine_type} in {zone}: choose another, or a zone "
                    "that has it",
                    f"gcloud compute machine-types list --project={spec.project} "
                    f"--filter=name={machine_type}",
                )
            elif not answer.ok:
                raise UnseenError.of(answer, "machine types")


def _machine_types(spec: GKESpec) -> tuple[str, str]:
    return spec.pools.system.machine_type, spec.pools.workers.machine_type


def check_quotas(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Look whether the quotas of the region have room for the cluster at its largest."""
    base = f"/compute/v1/projects/{spec.project}/regions/{spec.region}"
    answer = rest.get("compute", base)
    if not answer.ok:
        raise UnseenError.of(answer, f"quotas in {spec.region}")
    quotas = {str(one["metric"]): one for one in answer.body.get("quotas", [])}
    for metric, wanted in needs(spec, quotas).items():
        found = quotas.get(metric)
        if found is None or wanted <= found["limit"] - found["usage"]:
            continue
        preferred = round(found["usage"] + wanted)
        yield Finding(
            "quota",
            f"{metric} in {spec.region}: the cluster may need {wanted:g}, of "
            f"{found['limit']:g} are {found['limit'] - found['usage']:g} free",
            f"gcloud beta quotas preferences create --project={spec.project} "
            f"--service=compute.googleapis.com --dimensions=region={spec.region} "
            f"--quota-id={metric.replace('_', '-')}-per-project-region "
            f"--preferred-value={preferred}",
        )


def needs(spec: GKESpec, quotas: Mapping[str, Any]) -> dict[str, float]:
    """Return what a cluster needs of each quota at its largest.

    The nodes that stay count as many as there are at least, those of workers as many as
    there may be. Spot machines have a quota of their own only where it is not 0.
    """
    wanted: dict[str, float] = {}

    def add(metric: str, amount: float) -> None:
        wanted[metric] = wanted.get(metric, 0.0) + amount

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
    return wanted


def _cpus_metric(pool: Pool, quotas: Mapping[str, Any]) -> str:
    if pool.spot and quotas.get(_SPOT, {}).get("limit", 0):
        return _SPOT
    family = pool.machine_type.partition("-")[0]
    return "CPUS" if family in _SHARED else f"{family.upper()}_CPUS"
