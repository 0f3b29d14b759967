"""What a search costs: the tariff of its cluster, the meter, and the limit to it."""

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
    """Return what adds up the cost of a search; None if the prices are not known.

    Parameters
    ----------
    settings : Settings
    spent_usd : float
        What earlier drivers of its run have spent.
    earlier_usd : float
        The part of it that was spent before the run was resumed after a stop, or
        extended: the limit does not count that.
    """
    if settings.tariff is None:
        return None
    limit_usd = settings.max_cost_usd
    return CostMeter(
        Tariff(**settings.tariff),
        spent_usd=spent_usd,
        limit_usd=None if limit_usd is None else limit_usd + earlier_usd,
    )


def tariff_of(client: Client | None) -> dict[str, Any] | None:
    """Return the tariff of the cluster that a client, or else the current one, is of."""
    tariff = features_of(client or current_client()).tariff
    return asdict(tariff) if isinstance(tariff, Tariff) else None


@contextmanager
def budget_of(meter: CostMeter | None, cluster: Any) -> Iterator[Budget | None]:
    """Yield what stops a search at its limit, and then scales its cluster to zero.

    None if the prices are not known.
    """
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
    """Return what shows how many slots there are, and what they have cost so far."""

    def show_slots(workers: int, slots: int, running: int) -> None:
        progress.slots_changed(workers=workers, slots=slots, running=running)
        if budget is not None:
            progress.spent(budget.count(workers))

    return show_slots
