"""The scores of a trial, as OptunaSearchCV stores and returns them."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import UnsupportedSearchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Arrays = Mapping[str, np.ndarray[tuple[int], np.dtype[Any]]]

_OF_SPLITS = ("test_score", "train_score")


def scores_of(
    results: Sequence[dict[str, Any]], *, error_score: Any, n_splits: int
) -> Arrays:
    """Return the arrays of a trial whose fits have all ended.

    As in ``_Objective.__call__`` of optuna_integration, a trial whose fits have all failed
    has NaN or ``error_score`` everywhere.

    Raises
    ------
    UnsupportedSearchError
        If the scoring function returns several scores.
    """
    try:
        found = sklearn_adapter.cross_validated(results, error_score=error_score)
    except ValueError:
        nothing = np.array([np.nan] * n_splits)
        failed = np.array([np.nan if error_score is None else error_score] * n_splits)
        return {"fit_time": nothing, "score_time": nothing, "test_score": failed}
    if "test_score" not in found:
        names = (name.removeprefix("test_") for name in found if "test_" in name)
        raise UnsupportedSearchError(several_scores(names))
    return found


def several_scores(names: Iterable[str]) -> str:
    """Return the message for a search with several scores."""
    return (
        "OptunaSearchCV optimizes one score, and its scoring gives several "
        f"({', '.join(names)}): name one, scoring=..."
    )


def partial_scores(results: Mapping[int, dict[str, Any]], *, n_splits: int) -> Arrays:
    """Return the arrays of a trial that ended early; NaN for splits that have not ended."""

    def values(key: str) -> np.ndarray[tuple[int], np.dtype[Any]]:
        one = (results.get(split, {}).get(key) for split in range(n_splits))
        numbers = (np.nan if not isinstance(value, Real) else value for value in one)
        return np.array(list(numbers), dtype=float)

    found = {
        "fit_time": values("fit_time"),
        "score_time": values("score_time"),
        "test_score": values("test_scores"),
    }
    if any("train_scores" in result for result in results.values()):
        found["train_score"] = values("train_scores")
    return found


def store_scores(trial: Any, scores: Arrays) -> None:
    """Set a trial's user attributes as ``_Objective._store_scores`` does."""
    with warnings.catch_warnings():
        # Of splits that are all NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, array in scores.items():
            if name in _OF_SPLITS:
                for split, score in enumerate(array):
                    trial.set_user_attr(f"split{split}_{name}", score)
            trial.set_user_attr(f"mean_{name}", np.nanmean(array))
            trial.set_user_attr(f"std_{name}", np.nanstd(array))


def report_to_terminator(trial: Any, scores: Arrays) -> None:
    """Keep the scores of the splits for Optuna's terminator, as OptunaSearchCV does."""
    from optuna.terminator import report_cross_validation_scores

    values = scores["test_score"].tolist()
    if len(values) > 1:
        with (
            warnings.catch_warnings()
        ):  # it is deprecated, and the user did not call it
            warnings.simplefilter("ignore", FutureWarning)
            report_cross_validation_scores(trial, values)
