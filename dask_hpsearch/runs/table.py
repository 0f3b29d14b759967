"""A run's candidates as a table that has the columns of ``cv_results_``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.extras import map_import_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import pandas as pd

    FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_TIMES = ("fit_time", "score_time")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate and the results of its finished fits.

    Attributes
    ----------
    call, number : int
        Its ordinals.
    params : dict
        Parameters to display.
    extra : dict
        What the search class adds, such as halving's ``n_resources``.
    results : dict
        By split.
    """

    call: int
    number: int
    params: dict[str, Any]
    extra: dict[str, Any]
    results: dict[int, dict[str, Any]] = field(default_factory=dict)


def tabulate(
    candidates: Sequence[Candidate],
    *,
    n_splits: int,
    dropped: Collection[tuple[int, int]] = (),
) -> pd.DataFrame:
    """Return the table: scikit-learn's columns in its order, then the ordinals.

    Times and scores of unfinished splits are NaN, and so are means over them.

    Parameters
    ----------
    candidates : sequence of Candidate
    n_splits : int
    dropped : collection of (int, int)
        Call and number of candidates that a race has dropped.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    with map_import_errors("trials()"):
        import pandas as pd
    if not candidates:
        return pd.DataFrame()
    candidates = sorted(candidates, key=lambda one: (one.call, one.number))
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in candidates for name in one.extra):
        columns[name] = [one.extra.get(name) for one in candidates]
    for name in _TIMES:
        times = _by_split(
            candidates, n_splits, lambda result, name=name: result.get(name)
        )
        columns[f"mean_{name}"], columns[f"std_{name}"] = _mean_and_std(times)
    for name in dict.fromkeys(name for one in candidates for name in one.params):
        values = [one.params.get(name, np.nan) for one in candidates]
        columns[f"param_{name}"] = pd.Series(_as_they_are(values))
    columns["params"] = [one.params for one in candidates]
    for name in _score_names(candidates):
        for kind in ("test", "train"):
            columns |= _scores(candidates, n_splits, kind, name)
    columns["call"] = [one.call for one in candidates]
    columns["candidate"] = [one.number for one in candidates]
    columns["n_fits"] = [len(one.results) for one in candidates]
    if dropped:
        columns["dropped"] = [
            (one.call, one.number) in dropped and len(one.results) < n_splits
            for one in candidates
        ]
    return pd.DataFrame(columns)


def _scores(
    candidates: Sequence[Candidate], n_splits: int, kind: str, name: str
) -> dict[str, Any]:
    """Return the columns of one scorer; none if no fit has such scores."""
    key = f"{kind}_scores"
    if not any(key in one for each in candidates for one in each.results.values()):
        return {}

    def score(result: dict[str, Any]) -> Any:
        scores = result.get(key)
        # A fit that failed may have one score for all scorers.
        return scores.get(name) if isinstance(scores, dict) else scores

    values = _by_split(candidates, n_splits, score)
    columns: dict[str, Any] = {
        f"split{split}_{kind}_{name}": values[:, split] for split in range(n_splits)
    }
    mean, std = _mean_and_std(values)
    columns |= {f"mean_{kind}_{name}": mean, f"std_{kind}_{name}": std}
    if kind == "test":
        whole = np.array([len(one.results) == n_splits for one in candidates])
        columns[f"rank_test_{name}"] = _ranks(mean, whole)
    return columns


def _score_names(candidates: Iterable[Candidate]) -> list[str]:
    """Names of the scorers, in their order; "score" where there is one."""
    scores = [
        result.get("test_scores")
        for one in candidates
        for result in one.results.values()
    ]
    named = dict.fromkeys(
        name for one in scores if isinstance(one, dict) for name in one
    )
    return list(named) or (["score"] if any(one is not None for one in scores) else [])


def _by_split(candidates: Sequence[Candidate], n_splits: int, value: Any) -> FloatArray:
    table = np.full((len(candidates), n_splits), np.nan)
    for row, one in enumerate(candidates):
        for split, result in one.results.items():
            found = value(result)
            table[row, split] = np.nan if found is None else found
    return table


def _mean_and_std(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Average over the splits as scikit-learn does, to the last digit."""
    mean = np.average(values, axis=1)
    with np.errstate(invalid="ignore"):  # an infinite score
        std = np.sqrt(np.average((values - mean[:, np.newaxis]) ** 2, axis=1))
    return mean, std


def _ranks(means: FloatArray, whole: np.ndarray[Any, Any]) -> Any:
    """Rank complete candidates as scikit-learn does: those that failed come last."""
    from scipy.stats import rankdata  # slow to import

    ranks = np.full(len(means), np.nan)
    known = means[whole]
    if np.isnan(known).all():
        ranks[whole] = 1
    else:
        worst = np.nanmin(known) - 1
        ranks[whole] = rankdata(-np.nan_to_num(known, nan=worst), method="min")
    return ranks.astype(np.int32) if whole.all() else ranks


def _as_they_are(values: list[Any]) -> Any:
    """Return a column that keeps None and integers, as numbers where all are."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1 and kinds <= {int, float, bool}:
        return np.array(values)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
