"""The cost of a search: the tariff of its cluster, the meter, and the limit."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dask_hpsearch.budget import Budget, CostMeter, Tariff
from dask_hpsearch.data.collections import current_client
from dask_hpsearch.engine.cluster_features import features_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.progress import SearchProgress


def meter_of(
    settings: Settings, spent_usd: float = 0.0, earlier_usd: float = 0.0
) -> CostMeter | None:
    """Return the meter of a search; None if the cluster's prices are not known.

    Parameters
    ----------
    settings : Settings
    spent_usd : float
        Cost of the run's earlier drivers.
    earlier_usd : float
        The part of it from before the run was resumed after a stop, or extended: the
        limit does not count it.
    """
    if settings.tariff is None:
        return None
    limit_usd = settings.max_cost_usd
    return CostMeter(
        Tariff(**settings.tariff),
        spent_usd=spent_usd,
        limit_usd=None if limit_usd is None else limit_usd + earlier_usd,
        with_driver=settings.cluster is not None,
    )


def tariff_of(client: Client | None) -> dict[str, Any] | None:
    """Return the tariff of the client's cluster, by default the current client's."""
    tariff = features_of(client or current_client()).tariff
    return asdict(tariff) if isinstance(tariff, Tariff) else None


@contextmanager
def budget_of(meter: CostMeter | None, cluster: Any) -> Iterator[Budget | None]:
    """Yield the budget, which stops a search at its limit; None without a meter."""
    if meter is None:
        yield None
        return
    budget = Budget(meter, cluster)
    try:
        yield budget
    finally:
        budget.close()


def shown_slots(
    progress: SearchProgress, budget: Budget | None
) -> Callable[[int, int, int], None]:
    """Return a function that shows the number of slots, and the cost so far."""

    def show_slots(workers: int, slots: int, running: int) -> None:
        progress.slots_changed(workers=workers, slots=slots, running=running)
        if budget is not None:
            progress.spent(budget.count(workers))

    return show_slots
