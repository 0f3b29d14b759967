"""The cost of a search: the time of its workers at a cluster's prices, and a limit to it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger(__name__)
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of a cluster by the hour, in US dollars.

    Searches on a cluster with a tariff (``cluster.tariff``) report their cost.

    Attributes
    ----------
    fixed_usd_hour : float
        Of the cluster itself, as long as it exists.
    worker_usd_hour : float
        Of each worker.
    dated : str
        Day of the prices, as ``2026-03-01``.
    driver_usd_hour : float
        Of the node that the driver of a submitted run adds, if it runs in the cluster.
    """

    fixed_usd_hour: float
    worker_usd_hour: float
    dated: str = ""
    driver_usd_hour: float = 0.0


class CostMeter:
    """Adds up the cost of a search.

    Parameters
    ----------
    tariff : Tariff
    spent_usd : float
        Cost of the run's earlier drivers.
    limit_usd : float, optional
        Most that the run may cost.
    with_driver : bool
        Whether the search's driver runs in the cluster, as a Job does.
    clock : callable
        A monotonic clock, in seconds.
    """

    def __init__(
        self,
        tariff: Tariff,
        *,
        spent_usd: float = 0.0,
        limit_usd: float | None = None,
        with_driver: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tariff = tariff
        self._base_usd_hour = tariff.fixed_usd_hour
        if with_driver:
            self._base_usd_hour += tariff.driver_usd_hour
        self.limit_usd = limit_usd
        self._clock = clock
        self._lock = threading.Lock()
        self._usd = spent_usd
        self._workers = 0
        self._since = clock()

    def count(self, workers: int) -> float:
        """Note how many workers there are from now on; return dollars so far."""
        with self._lock:
            usd = self._add()
            self._workers = workers
            return usd

    @property
    def usd(self) -> float:
        """Dollars so far."""
        with self._lock:
            return self._add()

    @property
    def is_over(self) -> bool:
        """Whether the limit is reached."""
        return self.limit_usd is not None and self.usd >= self.limit_usd

    def _add(self) -> float:
        now = self._clock()
        hours, self._since = (now - self._since) / _HOUR_S, now
        rate = self._base_usd_hour + self._workers * self.tariff.worker_usd_hour
        self._usd += hours * rate
        return self._usd


class Budget:
    """Stops a search that has reached its cost limit, and scales its cluster to zero.

    Parameters
    ----------
    meter : CostMeter
    cluster : object, optional
        A Dask cluster; without one, no worker can be removed.

    Attributes
    ----------
    stop : callable or None
        Ends the search for a reason; set once the engine runs.
    """

    def __init__(self, meter: CostMeter, cluster: Any = None) -> None:
        self.meter = meter
        self.stop: Callable[[str], None] | None = None
        self._cluster = cluster
        self._thread: threading.Thread | None = None

    def count(self, workers: int) -> float:
        """Note how many workers there are; return dollars so far."""
        usd = self.meter.count(workers)
        stop = self.stop
        if stop is not None and self.meter.is_over and self._thread is None:
            _logger.warning(
                "the search has cost about $%.2f, its limit is $%.2f: it is stopped, and "
                "its cluster is scaled to zero workers",
                usd,
                self.meter.limit_usd,
            )
            stop("max_cost")
            # Scaling is a request to Kubernetes; the caller must not wait for it.
            self._thread = threading.Thread(
                target=self._scale_to_zero, name="dask-hpsearch-budget", daemon=True
            )
            self._thread.start()
        return usd

    def close(self) -> None:
        """Wait until the cluster has been scaled, if that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _scale_to_zero(self) -> None:
        if self._cluster is None:
            _logger.warning(
                "the client has no cluster object: scale the cluster down where you created it"
            )
            return
        try:
            self._cluster.scale(0)
        except Exception:
            _logger.exception(
                "the cluster could not be scaled to zero: run cluster.scale(0) yourself"
            )
