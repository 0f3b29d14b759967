"""What a GKE cluster costs: before it is made, and so far.

By list prices, for what costs most: the cluster's fee, its nodes and their disks. Not in
it: what a bucket and a registry hold, builds, logs, traffic out of the region, taxes.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.budget import Tariff
from dask_hpsearch.config.machines import machine
from dask_hpsearch.config.quantities import cpu_millis, memory_bytes
from dask_hpsearch.gcp.pricing.prices import Prices, load_prices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import Pool

_HOUR_S = 3600.0
NOT_INCLUDED = (
    "not included: storage and registry, builds, logs, traffic out of the region, taxes"
)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a GKE cluster costs by the hour, in US dollars.

    Attributes
    ----------
    fee_usd_hour : float
        For the cluster itself. The first zonal cluster of a billing account has it back.
    system_usd_hour : float
        The nodes that stay.
    worker_usd_hour : float
        For each worker.
    initial, most : int
        Workers to begin with, and at most.
    initial_usd_hour, most_usd_hour : float
        All of it, with that many workers.
    ttl_hours : float
        After which the cluster deletes itself.
    dated : date
        Of the prices.
    warning : str
        That the prices are old; empty if they are not.
    """

    fee_usd_hour: float
    system_usd_hour: float
    worker_usd_hour: float
    initial: int
    most: int
    initial_usd_hour: float
    most_usd_hour: float
    ttl_hours: float
    dated: dt.date
    warning: str = ""

    @property
    def idle_usd_hour(self) -> float:
        """All of it, without workers."""
        return self.fee_usd_hour + self.system_usd_hour

    @property
    def most_usd(self) -> float:
        """All of it with as many workers as may be, until it deletes itself."""
        return self.most_usd_hour * self.ttl_hours

    @property
    def tariff(self) -> Tariff:
        """What searches on it count with."""
        return Tariff(self.idle_usd_hour, self.worker_usd_hour, self.dated.isoformat())

    def __str__(self) -> str:
        lines = [
            (
                f"about ${self.idle_usd_hour:.2f} an hour while it stands idle "
                f"(${self.fee_usd_hour:.2f} for the cluster, ${self.system_usd_hour:.2f} for "
                "nodes that stay)"
            ),
            (
                f"and ${self.worker_usd_hour:.2f} an hour for each worker: "
                f"${self.initial_usd_hour:.2f} with {self.initial}, "
                f"${self.most_usd_hour:.2f} with {self.most}, the most"
            ),
            (
                f"so at most ${self.most_usd:.2f} until it deletes itself, after "
                f"{self.ttl_hours:g} hours"
            ),
            f"list prices of {self.dated}; {NOT_INCLUDED}",
        ]
        if self.warning:
            lines.append(self.warning)
        return "\n".join(lines)


def estimate(
    spec: GKESpec, *, prices: Prices | None = None, today: dt.date | None = None
) -> CostEstimate:
    """Estimate what a spec's GKE cluster costs.

    Parameters
    ----------
    spec : GKESpec
    prices : Prices, optional
        Default: the table that comes with the package.
    today : date, optional
        To tell whether the prices are old.

    Returns
    -------
    CostEstimate
        ``print`` shows it in words.

    Raises
    ------
    PriceUnknownError
        If the table lacks one of its machine types or disks.
    """
    prices = prices or load_prices()
    workers = spec.dask.workers
    system = spec.pools.system.min_nodes * node_hour(spec, spec.pools.system, prices)
    node = node_hour(spec, spec.pools.workers, prices)
    idle = prices.cluster_hour + system

    def with_workers(count: int) -> float:
        return idle + nodes_for(spec, count) * node

    return CostEstimate(
        fee_usd_hour=prices.cluster_hour,
        system_usd_hour=system,
        worker_usd_hour=node / workers_per_node(spec),
        initial=workers.initial,
        most=workers.max,
        initial_usd_hour=with_workers(workers.initial),
        most_usd_hour=with_workers(workers.max),
        ttl_hours=spec.ttl_hours,
        dated=prices.dated,
        warning=prices.warning(today or dt.datetime.now(dt.UTC).date()),
    )


def cost_so_far(
    spec: GKESpec,
    *,
    created: float,
    nodes: Iterable[tuple[str, float]],
    now: float,
    prices: Prices | None = None,
) -> float:
    """Add up what a GKE cluster has cost at least.

    Nodes that are gone are not seen by whoever looks now: for a search, its run's
    ``progress()`` has what its workers cost as they came and went.

    Parameters
    ----------
    spec : GKESpec
    created : float
        When the cluster was, in seconds since the epoch.
    nodes : iterable of (str, float)
        Of each node that is there: its pool, ``"system"`` or ``"workers"``, and when it
        was created.
    now : float
    prices : Prices, optional
        Default: the table that comes with the package.

    Returns
    -------
    float
        US dollars, of the fee, of the nodes that are there, and of those that must have
        been there all the time.

    Raises
    ------
    PriceUnknownError
        If the table lacks one of its machine types or disks.
    """
    prices = prices or load_prices()
    hours = max(now - created, 0.0) / _HOUR_S
    there = {"system": 0.0, "workers": 0.0}
    for pool, since in nodes:
        there[pool] += max(now - since, 0.0) / _HOUR_S
    system = max(there["system"], hours * spec.pools.system.min_nodes)
    workers = max(there["workers"], hours * spec.pools.workers.min_nodes)
    return (
        hours * prices.cluster_hour
        + system * node_hour(spec, spec.pools.system, prices)
        + workers * node_hour(spec, spec.pools.workers, prices)
    )


def node_hour(spec: GKESpec, pool: Pool, prices: Prices) -> float:
    """Price of the hour of one node of a pool, with its disk."""
    machine_hour = prices.machine_hour(pool.machine_type, spec.region, spot=pool.spot)
    return machine_hour + prices.disk_hour(pool.disk_type, pool.disk_gb, spec.region)


def workers_per_node(spec: GKESpec) -> int:
    """How many workers find room on one node."""
    workers = spec.dask.workers
    node = machine(spec.pools.workers.machine_type)
    if workers.one_per_node or node is None:
        return 1
    by_cpu = node.pod_cpu_millis // cpu_millis(workers.cpu)
    by_memory = node.pod_memory // memory_bytes(workers.memory)
    return max(min(by_cpu, by_memory), 1)


def nodes_for(spec: GKESpec, workers: int) -> int:
    """How many nodes so many workers need, of those that there may be."""
    pool = spec.pools.workers
    wanted = math.ceil(workers / workers_per_node(spec))
    return min(max(wanted, pool.min_nodes), pool.max_nodes)
