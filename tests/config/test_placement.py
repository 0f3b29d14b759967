"""Driver, scheduler and a worker find room on a spec's nodes, as nodes have been measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec, driver_job
from dask_hpsearch.clusters.kubernetes.manifests import dask_cluster
from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.config.machines import Room, disk_types, machine
from dask_hpsearch.config.placement import system_nodes
from dask_hpsearch.config.quantities import cpu_millis, memory_bytes
from dask_hpsearch.exceptions import SpecError
from dask_hpsearch.gcp.pricing.prices import load_prices
from tests.fakes.node_capacity import GIB, MEASURED, Node, node

if TYPE_CHECKING:
    from dask_hpsearch.config.gke import GKESpec

SPECS = Path(__file__).parents[2] / "cluster_specs"
IMAGE = "localhost/x@sha256:" + "0" * 64
JOB = DriverJobSpec("run", "run-1", "the.program", {}, "key")
# The sizes of the price table's families, as Google has them.
CPUS: dict[str, dict[str, list[int]]] = {
    "e2": {
        "standard": [2, 4, 8, 16, 32],
        "highmem": [2, 4, 8, 16],
        "highcpu": [2, 4, 8, 16, 32],
    },
    "n2": {
        key: [2, 4, 8, 16, 32, 48, 64, 80] for key in ("standard", "highmem", "highcpu")
    },
    "n2d": {
        key: [2, 4, 8, 16, 32, 48, 64, 80, 96]
        for key in ("standard", "highmem", "highcpu")
    },
    "n4": {
        key: [2, 4, 8, 16, 32, 48, 64, 80] for key in ("standard", "highmem", "highcpu")
    },
    "c3": {key: [4, 8, 22, 44, 88, 176] for key in ("standard", "highmem", "highcpu")},
}
TYPES = [
    f"{family}-{shape}-{cpus}"
    for family, shapes in CPUS.items()
    for shape, sizes in shapes.items()
    for cpus in sizes
]
TOO_SMALL = {"e2-highcpu-2", "n2-highcpu-2", "n2d-highcpu-2"}  # for any worker
# Two of kube-dns and other pods of which a cluster has one: they are on system nodes.
CLUSTERS_OWN = (1000, GIB)


def pool_of(machine_type: str, **fields: Any) -> dict[str, Any]:
    """Return a pool of a machine type, with a disk that it takes."""
    disks = disk_types(machine_type)
    disk = "pd-balanced" if "pd-balanced" in disks else disks[0]
    return {"machine_type": machine_type, "disk_type": disk, **fields}


def room_of(machine_type: str) -> Room:
    """Return what the package says that a node has for pods."""
    size = machine(machine_type)
    assert size is not None
    return size.room


def nodes(machine_type: str, count: int) -> list[Node]:
    """Return so many new nodes."""
    size = machine(machine_type)
    assert size is not None
    return [node(machine_type, size.cpus, size.memory / GIB) for _ in range(count)]


def pods(spec: GKESpec) -> dict[str, tuple[int, int]]:
    """Return what the pods of a cluster and of a submitted run request, by their manifests."""
    dask = spec.cluster_spec(IMAGE)
    cluster = dask_cluster("a", "here", dask, 1)
    job = driver_job("a", "here", dask, JOB)
    manifests = {
        "scheduler": cluster["spec"]["scheduler"]["spec"],
        "worker": cluster["spec"]["worker"]["spec"],
        "driver": job["spec"]["template"]["spec"],
    }
    return {name: _requested(pod) for name, pod in manifests.items()}


def _requested(pod: dict[str, Any]) -> tuple[int, int]:
    asked = [one["resources"]["requests"] for one in pod["containers"]]
    return (
        sum(cpu_millis(one["cpu"]) for one in asked),
        sum(memory_bytes(one["memory"]) for one in asked),
    )


def scheduled(spec: GKESpec) -> dict[str, bool]:
    """Put all pods on the spec's nodes, each on the first that has room."""
    system, workers = spec.pools.system, spec.pools.workers
    asked = pods(spec)
    on_system = nodes(system.machine_type, system.max_nodes)
    on_workers = nodes(workers.machine_type, 1)
    assert any(one.put(*CLUSTERS_OWN) for one in on_system)
    return {
        "scheduler": any(one.put(*asked["scheduler"]) for one in on_system),
        "driver": any(one.put(*asked["driver"]) for one in on_system),
        "worker": any(one.put(*asked["worker"]) for one in on_workers),
    }


ALL = {"scheduler": True, "driver": True, "worker": True}


@pytest.mark.parametrize("file", ["gke-spot.yaml", "gke-on-demand.yaml"])
def test_a_submitted_run_finds_room_with_an_unchanged_spec(file: str) -> None:
    """Driver, scheduler and a worker; the driver on a node that the autoscaler adds."""
    spec = load_gke_spec(SPECS / file)

    assert scheduled(spec) == ALL
    assert system_nodes(spec.dask, spec.pools) == 2


def test_every_family_of_the_price_table_is_tried() -> None:
    """A family that is added to the table is added here."""
    assert set(load_prices().machines) == set(CPUS)


@pytest.mark.parametrize("machine_type", TYPES)
def test_the_system_pools_pods_fit_or_the_spec_is_refused(machine_type: str) -> None:
    """On every machine that has a price; a machine that is too small is named."""
    pools = {"system": pool_of(machine_type)}
    try:
        spec = load_gke_spec(SPECS / "gke-spot.yaml", pools=pools)
    except SpecError as error:
        assert machine_type in str(error)  # noqa: PT017 (both outcomes are right)
        assert not nodes(machine_type, 1)[0].put(1000, 4 * GIB)
    else:
        assert scheduled(spec) == ALL


@pytest.mark.parametrize("machine_type", [one for one in TYPES if one not in TOO_SMALL])
def test_the_largest_worker_that_a_spec_accepts_fits(machine_type: str) -> None:
    """And so does the driver, which is as large only if a system node has the room."""
    room = room_of(machine_type)
    workers = {"cpu": f"{room.cpu}m", "memory": f"{room.memory >> 20}Mi", "slots": 1}
    for system in ({}, {"system": pool_of(machine_type)}):
        try:
            spec = load_gke_spec(
                SPECS / "gke-spot.yaml",
                pools={"workers": pool_of(machine_type), **system},
                dask={"workers": workers},
            )
        except SpecError:
            assert not nodes(machine_type, 1)[0].put(600, GIB)
        else:
            assert scheduled(spec) == ALL


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_driver_has_what_a_small_pool_leaves(most: int) -> None:
    """Beside scheduler and the cluster's own pods on one node, or on a node of its own."""
    spec = load_gke_spec(SPECS / "gke-spot.yaml", pools={"system": {"max_nodes": most}})

    assert scheduled(spec) == ALL
    assert system_nodes(spec.dask, spec.pools) == min(most, 2)


@pytest.mark.parametrize("machine_type", sorted(TOO_SMALL))
def test_no_worker_fits_on_the_smallest_machines(machine_type: str) -> None:
    """Half a GiB is the least that a worker needs."""
    assert room_of(machine_type).memory < GIB // 2


@pytest.mark.parametrize("machine_type", MEASURED)
def test_measured_nodes_are_as_measured(machine_type: str) -> None:
    """The package's table agrees with the nodes that were read."""
    gib, millis, left = MEASURED[machine_type]
    size = machine(machine_type)

    assert size is not None
    assert size.memory == gib * GIB
    assert size.allocatable == Room(millis, int(left * GIB))


@pytest.mark.parametrize(
    "machine_type", [one for one in MEASURED if not one.startswith("n1")]
)
def test_what_is_not_measured_is_reckoned_with_care(machine_type: str) -> None:
    """A family of the same sizes without measurements has a little less, never more."""
    _, millis, left = MEASURED[machine_type]
    size = machine("n2d-" + machine_type.partition("-")[2])

    assert size is not None
    assert size.allocatable.cpu == millis
    assert 0.99 * left * GIB < size.allocatable.memory <= left * GIB
