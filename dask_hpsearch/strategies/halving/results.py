"""Lets scikit-learn build ``cv_results_`` from the known fits of a halving search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dask_hpsearch.strategies.halving.rungs import Rungs


@dataclass(frozen=True, slots=True)
class Row:
    """A row of ``cv_results_``: a candidate on a rung.

    Attributes
    ----------
    rung : int
    params : dict
    results : list of dict
        Of the candidate's splits, in order.
    """

    rung: int
    params: dict[str, Any]
    results: list[dict[str, Any]]


def build_results(
    search: Any,
    evaluate: Callable[..., Any],
    rungs: Rungs,
    rows: Sequence[Row],
    *,
    splits: list[tuple[Any, Any]],
) -> None:
    """Have scikit-learn build its results in one call, and describe the rungs.

    In one call, scikit-learn's check for a search whose every fit has failed counts all
    rungs together.

    Parameters
    ----------
    search : AsyncHalvingSearchCV
    evaluate : callable
        ``evaluate_candidates`` of the search.
    rungs : Rungs
    rows : sequence of Row
        Lowest rung first.
    splits : list of (train, test)
    """
    counts = [0] * (1 + max(row.rung for row in rows))
    columns: dict[str, list[int]] = {}
    for row in rows:
        counts[row.rung] += 1
        for name, values in rungs.columns(row.rung, 1).items():
            columns.setdefault(name, []).extend(values)
    known = [result for row in rows for result in row.results]
    parallel = sklearn_adapter.parallel_of(evaluate)
    verbose, search.verbose = search.verbose, 0  # the fits have run
    try:
        with sklearn_adapter.answering(parallel, lambda _: known):
            evaluate(
                [row.params for row in rows],
                cv=sklearn_adapter.FixedSplits(splits),
                more_results=columns,
            )
    finally:
        search.verbose = verbose
    search.note_rungs(rungs, counts)
