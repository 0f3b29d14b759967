"""What a search spends: its workers' time at a cluster's prices, and a limit to that."""

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
    """What a cluster costs by the hour, in US dollars.

    A cluster that has one (``cluster.tariff``) makes searches on it tell their cost.

    Attributes
    ----------
    fixed_usd_hour : float
        As long as it is there, whatever runs.
    worker_usd_hour : float
        For each worker.
    dated : str
        Day of the prices, as ``2026-03-01``.
    """

    fixed_usd_hour: float
    worker_usd_hour: float
    dated: str = ""


class CostMeter:
    """Adds up what a search has spent so far.

    Parameters
    ----------
    tariff : Tariff
    spent_usd : float
        What earlier drivers of the same run have spent.
    limit_usd : float, optional
        What it may spend.
    clock : callable
        Seconds that never run backwards.
    """

    def __init__(
        self,
        tariff: Tariff,
        *,
        spent_usd: float = 0.0,
        limit_usd: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tariff = tariff
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
        rate = self.tariff.fixed_usd_hour + self._workers * self.tariff.worker_usd_hour
        self._usd += hours * rate
        return self._usd


class Budget:
    """Stops a search that has spent what it may, and lets its workers go.

    Parameters
    ----------
    meter : CostMeter
    cluster : object, optional
        A Dask cluster; without one nobody can be let go.

    Attributes
    ----------
    stop : callable or None
        Ends the search, for a reason; set once it can.
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
                "the search has spent about $%.2f, and may spend $%.2f: it is stopped, "
                "and its workers go",
                usd,
                self.meter.limit_usd,
            )
            stop("max_cost")
            # Scaling asks Kubernetes, and whoever counts must not wait for that.
            self._thread = threading.Thread(
                target=self._scale_to_zero, name="dask-hpsearch-budget", daemon=True
            )
            self._thread.start()
        return usd

    def close(self) -> None:
        """Wait until the workers have been told to go, if that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _scale_to_zero(self) -> None:
        if self._cluster is None:
            _logger.warning(
                "this client has no cluster: scale it down where you made it"
            )
            return
        try:
            self._cluster.scale(0)
        except Exception:
            _logger.exception("the cluster could not be scaled to zero: do it yourself")
