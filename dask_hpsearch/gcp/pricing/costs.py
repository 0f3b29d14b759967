"""Estimates what a GKE cluster costs, before it is created and so far.

From list prices of its largest costs: the fee, the nodes and their disks. Not included:
storage, registry, builds, logs, traffic out of the region, taxes.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.budget import Tariff
from dask_hpsearch.config.machines import machine
from dask_hpsearch.config.placement import system_nodes
from dask_hpsearch.config.quantities import cpu_millis, memory_bytes
from dask_hpsearch.exceptions import PriceUnknownError
from dask_hpsearch.gcp.pricing.prices import Prices, load_prices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import Pool

_HOUR = 3600.0
_SAME_HOURS = 0.1  # a difference that is not mentioned
NOT_INCLUDED = (
    "not included: storage and registry, builds, logs, traffic out of the region, taxes"
)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """The hourly cost of a GKE cluster, in US dollars.

    Attributes
    ----------
    fee_usd_hour : float
        For the GKE cluster itself. It is refunded for the first zonal one of a billing
        account.
    system_usd_hour : float
        For the system nodes.
    worker_usd_hour : float
        For each worker.
    initial, maximum : int
        Numbers of workers.
    initial_usd_hour, maximum_usd_hour : float
        Total with that many workers.
    ttl_hours : float
        Hours until it deletes itself: the spec's, or those until the later end of one that
        exists.
    driver_usd_hour : float
        For the system node that the driver of a submitted run adds; 0 if it fits beside the
        scheduler.
    all_nodes : tuple of int
        Numbers of system and worker nodes that the node pools allow.
    all_nodes_usd_hour : float
        Total with that many nodes. A GKE cluster with several Dask clusters may have them.
    dated : date
        Date of the prices.
    warning : str
        Says that the prices are old; empty if they are not.
    """

    fee_usd_hour: float
    system_usd_hour: float
    worker_usd_hour: float
    initial: int
    maximum: int
    initial_usd_hour: float
    maximum_usd_hour: float
    ttl_hours: float
    driver_usd_hour: float
    all_nodes: tuple[int, int]
    all_nodes_usd_hour: float
    dated: dt.date
    warning: str = ""

    @property
    def idle_usd_hour(self) -> float:
        """Total without workers."""
        return self.fee_usd_hour + self.system_usd_hour

    @property
    def maximum_usd(self) -> float:
        """Total with the maximum number of workers all the time, until it deletes itself."""
        return self.maximum_usd_hour * self.ttl_hours

    @property
    def all_nodes_usd(self) -> float:
        """Total with all nodes that its pools allow all the time, until it deletes itself."""
        return self.all_nodes_usd_hour * self.ttl_hours

    @property
    def tariff(self) -> Tariff:
        """The prices from which searches estimate their cost."""
        return Tariff(
            self.idle_usd_hour,
            self.worker_usd_hour,
            self.dated.isoformat(),
            self.driver_usd_hour,
        )

    def __str__(self) -> str:
        lines = [
            (
                f"about ${self.idle_usd_hour:.2f} an hour while it is idle "
                f"(${self.fee_usd_hour:.2f} for the GKE cluster, "
                f"${self.system_usd_hour:.2f} for system nodes)"
            ),
            (
                f"and ${self.worker_usd_hour:.2f} an hour for each worker: "
                f"${self.initial_usd_hour:.2f} with {self.initial}, "
                f"${self.maximum_usd_hour:.2f} with the maximum of {self.maximum}"
            ),
            *self._driver_line(),
            (
                f"in total about ${self.maximum_usd:.2f}, with {self.maximum} workers all the time "
                f"until it deletes itself, after {self.ttl_hours:g} hours"
            ),
            (
                "with all nodes that its pools allow ({} system, {} workers): ".format(
                    *self.all_nodes
                )
                + f"${self.all_nodes_usd_hour:.2f} an hour, ${self.all_nodes_usd:.2f} until "
                "then; each search that uses it again moves its end later"
            ),
            f"list prices of {self.dated}; {NOT_INCLUDED}",
        ]
        if self.warning:
            lines.append(self.warning)
        return "\n".join(lines)

    def _driver_line(self) -> list[str]:
        if not self.driver_usd_hour:
            return []
        return [
            (
                f"and ${self.driver_usd_hour:.2f} an hour for the driver of a submitted run, "
                "which adds a system node"
            )
        ]


def estimate(
    spec: GKESpec,
    *,
    prices: Prices | None = None,
    today: dt.date | None = None,
    hours_left: float | None = None,
) -> CostEstimate:
    """Estimate what a spec's GKE cluster costs.

    Parameters
    ----------
    spec : GKESpec
    prices : Prices, optional
        Default: the table that comes with the package.
    today : date, optional
        For the age of the prices.
    hours_left : float, optional
        Hours until the end of a GKE cluster that exists. A later end than the spec's stays.

    Returns
    -------
    CostEstimate
        ``print`` shows it as text.

    Raises
    ------
    PriceUnknownError
        If the table lacks one of its machine types or disks.
    """
    prices = prices or load_prices()
    workers = spec.dask.workers
    pools = spec.pools
    system_node = node_hour(spec, pools.system, prices)
    system = pools.system.min_nodes * system_node
    added = system_nodes(spec.dask, pools) - pools.system.min_nodes
    node = node_hour(spec, spec.pools.workers, prices)
    idle = prices.cluster_hour + system

    def with_workers(count: int) -> float:
        return idle + nodes_for(spec, count) * node

    return CostEstimate(
        fee_usd_hour=prices.cluster_hour,
        system_usd_hour=system,
        worker_usd_hour=node / workers_per_node(spec),
        initial=workers.initial,
        maximum=workers.max,
        initial_usd_hour=with_workers(workers.initial),
        maximum_usd_hour=with_workers(workers.max),
        ttl_hours=max(spec.ttl_hours, hours_left or 0.0),
        driver_usd_hour=added * system_node,
        all_nodes=(pools.system.max_nodes, pools.workers.max_nodes),
        all_nodes_usd_hour=prices.cluster_hour
        + pools.system.max_nodes * system_node
        + pools.workers.max_nodes * node,
        dated=prices.dated,
        warning=prices.warning(today or dt.datetime.now(dt.UTC).date()),
    )


def later_end(
    spec: GKESpec,
    expires_at: float | None,
    *,
    now: float,
    prices: Prices | None = None,
) -> list[str]:
    """Say what an existing GKE cluster costs that ends later than the spec says.

    Parameters
    ----------
    spec : GKESpec
    expires_at : float or None
        End of the GKE cluster, in seconds since the epoch.
    now : float
    prices : Prices, optional
        Default: the table that comes with the package.

    Returns
    -------
    list of str
        Lines to print; none if it ends when the spec says, or sooner.
    """
    hours = 0.0 if expires_at is None else (expires_at - now) / _HOUR
    if hours <= spec.ttl_hours + _SAME_HOURS:
        return []
    lines = [
        (
            f"it ends in {hours:.1f} hours, later than ttl_hours {spec.ttl_hours:g}, because "
            "an earlier use has moved its end"
        )
    ]
    try:
        found = estimate(spec, prices=prices, hours_left=hours)
    except PriceUnknownError:
        return lines
    return [
        *lines,
        (
            f"until then it costs about ${found.idle_usd_hour * hours:.2f} while it is idle, and "
            f"${found.maximum_usd:.2f} with {found.maximum} workers all the time"
        ),
    ]


def cost_so_far(
    spec: GKESpec,
    *,
    created: float,
    nodes: Iterable[tuple[str, float]],
    now: float,
    prices: Prices | None = None,
) -> float:
    """Return the least that a GKE cluster has cost.

    Nodes that were removed are not counted. The ``progress()`` of a run includes the cost
    of all its workers.

    Parameters
    ----------
    spec : GKESpec
    created : float
        In seconds since the epoch.
    nodes : iterable of (str, float)
        The node pool (``"system"`` or ``"workers"``) and the creation time of each node.
    now : float
    prices : Prices, optional
        Default: the table that comes with the package.

    Returns
    -------
    float
        US dollars: the fee, the present nodes, and the minimum of nodes since the creation.

    Raises
    ------
    PriceUnknownError
        If the table lacks one of its machine types or disks.
    """
    prices = prices or load_prices()
    hours = max(now - created, 0.0) / _HOUR
    used = {"system": 0.0, "workers": 0.0}
    for pool, since in nodes:
        used[pool] += max(now - since, 0.0) / _HOUR
    system = max(used["system"], hours * spec.pools.system.min_nodes)
    workers = max(used["workers"], hours * spec.pools.workers.min_nodes)
    return (
        hours * prices.cluster_hour
        + system * node_hour(spec, spec.pools.system, prices)
        + workers * node_hour(spec, spec.pools.workers, prices)
    )


def node_hour(spec: GKESpec, pool: Pool, prices: Prices) -> float:
    """Return the hourly price of a node, with its disk."""
    machine_hour = prices.machine_hour(pool.machine_type, spec.region, spot=pool.spot)
    return machine_hour + prices.disk_hour(pool.disk_type, pool.disk_gb, spec.region)


def workers_per_node(spec: GKESpec) -> int:
    """Return how many workers fit on a node."""
    workers = spec.dask.workers
    node = machine(spec.pools.workers.machine_type)
    if workers.one_per_node or node is None:
        return 1
    by_cpu = node.pod_cpu_millis // cpu_millis(workers.cpu)
    by_memory = node.pod_memory // memory_bytes(workers.memory)
    return max(min(by_cpu, by_memory), 1)


def nodes_for(spec: GKESpec, workers: int) -> int:
    """Return how many nodes some workers need, within the limits of the node pool."""
    pool = spec.pools.workers
    needed = math.ceil(workers / workers_per_node(spec))
    return min(max(needed, pool.min_nodes), pool.max_nodes)
