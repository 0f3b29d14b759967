"""Which pods of a spec fit on which nodes, by what nodes have for pods.

Schedulers and drivers run on nodes of the system pool, beside the pods that a GKE cluster has
once; workers on nodes of their own pool. An autoscaler adds nodes up to a pool's maximum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.config.machines import Room, machine, requests_of
from dask_hpsearch.config.quantities import cpu_millis, cpu_text, memory_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.config.cluster import (
        ClusterFields,
        Driver,
        Scheduler,
        Workers,
    )
    from dask_hpsearch.config.gke_parts import Pools

_CPU_STEP = 100  # thousandths: a size that is cut is easy to read
_MIB = 2**20
_LEAST = Room(100, 512 * _MIB)  # of a driver whose size is not given


def size_problems(dask: ClusterFields, pools: Pools) -> list[str]:
    """Return the pods that are larger than the nodes of their pool."""
    problems = []
    for name, pod, pool, pool_name in (
        ("workers", dask.workers, pools.workers, "workers"),
        ("scheduler", dask.scheduler, pools.system, "system"),
        ("driver", dask.driver, pools.system, "system"),
    ):
        node = machine(pool.machine_type)
        if node is not None and not node.room.fits(_requested(pod)):
            problems.append(
                f"dask.{name} does not fit on a {pool.machine_type} of "
                f"pools.{pool_name}, which has {node.room} for pods"
            )
    return problems or _crowded(dask, pools)


def driver_size(dask: ClusterFields, pools: Pools) -> dict[str, str]:
    """Return a worker's size, or the part of it that fits on a node of the system pool.

    A driver may need a node of its own, which the autoscaler adds. If the pool is too small for
    that, a driver has what the scheduler leaves.
    """
    worker, room = _requested(dask.workers), _driver_room(dask, pools)
    if room is None or room.fits(worker):
        return {}
    spared = room - requests_of("spare")
    cpu = max(min(worker.cpu, spared.cpu) // _CPU_STEP * _CPU_STEP, _LEAST.cpu)
    memory = max(min(worker.memory, spared.memory), _LEAST.memory)
    return {"cpu": cpu_text(cpu), "memory": f"{memory // _MIB}Mi"}


def driver_request(dask: ClusterFields, pools: Pools) -> Room:
    """Return what the driver of a submitted run requests."""
    size = driver_size(dask, pools)
    cpu = dask.driver.cpu or size.get("cpu") or dask.workers.cpu
    memory = dask.driver.memory or size.get("memory") or dask.workers.memory
    return Room(cpu_millis(cpu), memory_bytes(memory))


def system_nodes(dask: ClusterFields, pools: Pools) -> int:
    """Return how many nodes of the system pool a Dask cluster and one driver need."""
    pool = pools.system
    node = machine(pool.machine_type)
    if node is None:
        return pool.min_nodes
    rests = _place(node.room, [*_permanent(dask), driver_request(dask, pools)])
    return min(max(len(rests), pool.min_nodes), pool.max_nodes)


def _crowded(dask: ClusterFields, pools: Pools) -> list[str]:
    """Return that no driver has room on the system pool's nodes."""
    pool, room = pools.system, _driver_room(dask, pools)
    given = _requested(dask.driver)
    least = Room(given.cpu or _LEAST.cpu, given.memory or _LEAST.memory)
    if room is None or room.fits(least):
        return []
    return [
        (
            f"pools.system: its nodes ({pool.machine_type}, at most {pool.max_nodes}) have "
            f"{room} beside the scheduler, which is too little for the driver of a submitted "
            "run: raise max_nodes, or choose a larger machine_type"
        )
    ]


def _driver_room(dask: ClusterFields, pools: Pools) -> Room | None:
    """Return the largest room that the system pool has for a driver; None: unknown."""
    pool = pools.system
    node = machine(pool.machine_type)
    if node is None:
        return None
    rests = _place(node.room, _permanent(dask))
    if len(rests) < pool.max_nodes:
        return node.room
    return max(rests[: pool.max_nodes], key=lambda rest: (rest.memory, rest.cpu))


def _place(room: Room, pods: Sequence[Room]) -> list[Room]:
    """Put each pod on the first node that has room; return what the nodes have left."""
    rests: list[Room] = []
    for pod in pods:
        for number, rest in enumerate(rests):
            if rest.fits(pod):
                rests[number] = rest - pod
                break
        else:
            rests.append(room - pod)
    return rests


def _permanent(dask: ClusterFields) -> list[Room]:
    """Return the requests of the pods that are on system nodes all the time."""
    return [requests_of("every_cluster"), _requested(dask.scheduler)]


def _requested(pod: Scheduler | Workers | Driver) -> Room:
    """Return a pod's request; 0 where it is not given."""
    return Room(
        cpu_millis(pod.cpu) if pod.cpu else 0,
        memory_bytes(pod.memory) if pod.memory else 0,
    )
