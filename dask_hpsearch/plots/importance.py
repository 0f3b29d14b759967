"""How much of the scores' variance each parameter explains, by a forest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.plots.parameter_scale import ParameterScale
from dask_hpsearch.plots.search_data import Status
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dask_hpsearch.plots.search_data import FloatArray, SearchData

_LEAST_CANDIDATES = 4
_MOST_CANDIDATES = 2000
_TREES = 30
_TREES_FOR_SHARE = 100
_ROWS = 512  # at which a forest is asked what changes if a parameter does


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Importances:
    """Importances of parameters, the greatest first.

    Attributes
    ----------
    names : tuple of str
    samples : ndarray of shape (n_resamples, n_parameters)
        Of each resample of the candidates.
    explained : float
        Part of the variance of the scores of unseen candidates that the forest explains;
        0 if it explains none.
    """

    names: tuple[str, ...]
    samples: FloatArray
    explained: float


def importances_of(
    data: SearchData,
    *,
    scoring: str | None = None,
    params: Sequence[str] | None = None,
    n_resamples: int = 20,
    random_state: int = 0,
) -> Importances:
    """Fit forests to resampled candidates; return the total effect of each parameter.

    The total effect of a parameter is the part of the forest's variance that would be left
    if all other parameters were fixed: with its interactions, so that the effects of all
    may add up to more than 1. It is Jansen's estimate (Computer Physics Communications
    117, 1999) of Sobol's index, over the candidates' own values.

    Raises
    ------
    ValueError
        If fewer than four candidates are complete, or all have the same score.
    """
    name = data.score_name(scoring)
    rows = data.first_rung_rows()
    complete = data.has_status(Status.COMPLETE) & np.isfinite(data.mean_scores[name])
    rows = rows[complete[rows]]
    scores = data.mean_scores[name][rows]
    if len(rows) < _LEAST_CANDIDATES or np.ptp(scores) == 0:
        msg = (
            f"importances need {_LEAST_CANDIDATES} complete candidates with different "
            f"scores; there are {len(rows)}, with {len(np.unique(scores))} different scores"
        )
        raise ValueError(msg)
    rows = rows[:: -(-len(rows) // _MOST_CANDIDATES)]
    scores = np.clip(data.mean_scores[name][rows], *score_limits(scores))
    values: dict[str, Sequence[Any]] = {}
    for one in data.choose_parameters(params):
        of_all = data.values_of(one)
        values[one] = [of_all[row] for row in rows]
    columns, owners = _encoded(values)
    rng = np.random.default_rng(random_state)
    samples = np.array(
        [_total_effects(columns, owners, scores, rng) for _ in range(n_resamples)]
    )
    order = np.argsort(-samples.mean(axis=0), kind="stable")
    names = list(values)
    return Importances(
        names=tuple(names[place] for place in order),
        samples=samples[:, order],
        explained=_explained(columns, scores, random_state),
    )


def _encoded(
    values: Mapping[str, Sequence[Any]],
) -> tuple[FloatArray, list[list[int]]]:
    """Return values as numbers, and the columns of each parameter.

    Categories are columns of zeros and ones; what a candidate does not have is below all
    other values.
    """
    columns: list[FloatArray] = []
    owners = []
    for name, of_name in values.items():
        scale = ParameterScale.of(name, of_name)
        positions = scale.positions(of_name)
        first = len(columns)
        if scale.kind == "category":
            columns += [
                (positions == place).astype(np.float64)
                for place in range(len(scale.categories))
            ]
        else:
            columns.append(np.nan_to_num(scale.unit(positions), nan=-1.0))
        owners.append(list(range(first, len(columns))))
    return np.column_stack(columns), owners


def _total_effects(
    columns: FloatArray,
    owners: Sequence[Sequence[int]],
    scores: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the total effects by a forest of one resample."""
    chosen = rng.integers(len(scores), size=len(scores))
    forest = _forest(_TREES, rng).fit(columns[chosen], scores[chosen])
    at = rng.integers(len(scores), size=_ROWS)
    before = forest.predict(columns[at])
    variance = before.var()
    effects = np.zeros(len(owners))
    if variance <= 0:
        return effects
    for place, owned in enumerate(owners):
        changed = columns[at]
        others = rng.integers(len(scores), size=_ROWS)
        changed[:, owned] = columns[np.ix_(others, np.array(owned, dtype=np.int64))]
        differences = before - forest.predict(changed)
        effects[place] = np.mean(differences**2) / (2 * variance)
    return effects


def _forest(n_trees: int, rng: np.random.Generator, **options: Any) -> Any:
    from sklearn.ensemble import RandomForestRegressor  # slow to import

    return RandomForestRegressor(
        n_trees,
        min_samples_leaf=1,
        max_features=0.7,
        n_jobs=1,
        random_state=int(rng.integers(2**31)),
        **options,
    )


def _explained(columns: FloatArray, scores: FloatArray, random_state: int) -> float:
    """Return the part of the variance that a forest explains, out of bag."""
    rng = np.random.default_rng(random_state)
    forest = _forest(_TREES_FOR_SHARE, rng, oob_score=True).fit(columns, scores)
    return max(float(forest.oob_score_), 0.0)
