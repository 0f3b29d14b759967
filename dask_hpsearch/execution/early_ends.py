"""Whether scores may drop a search's candidates, or end the search: the checks."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.strategies.halving.search import AsyncHalvingSearchCV
from dask_hpsearch.strategies.incremental.kinds import is_incremental
from dask_hpsearch.strategies.optuna.search import is_optuna_search

if TYPE_CHECKING:
    from dask_hpsearch.execution.settings import Settings


def check_stop_rules(
    *, stop_score: Any, patience: Any, may_remove: bool = False
) -> None:
    """Refuse values of ``stop_score`` and ``patience`` that mean nothing.

    Parameters
    ----------
    stop_score, patience : object
        As for `DaskSearchCV`.
    may_remove : bool
        Whether ``math.inf`` is a ``patience``: it removes the limit of a resumed run.

    Raises
    ------
    ValueError
        Names the parameter and its value.
    """
    number = isinstance(stop_score, Real) and not isinstance(stop_score, bool)
    if stop_score is not None and not (number and not math.isnan(stop_score)):
        msg = f"stop_score must be a number, got {stop_score!r}"
        raise ValueError(msg)
    if patience is None or (may_remove and patience == math.inf):
        return
    integer = isinstance(patience, Integral) and not isinstance(patience, bool)
    if not (integer and patience > 0):
        msg = f"patience must be a positive integer, got {patience!r}"
        raise ValueError(msg)


def check_early_ends(search: Any, settings: Settings) -> None:
    """Refuse ``racing``, ``stop_score`` and ``patience`` for searches that cannot have them.

    Raises
    ------
    UnsupportedSearchError
        If the search's scores cannot be compared, or it needs those of all candidates.
    ValueError
        If ``bayes_async=False`` leaves the candidates to skopt's own loop.
    """
    rules = {
        "racing=True": settings.racing,
        "stop_score": settings.stop_score is not None,
        "patience": settings.patience is not None,
    }
    asked = [name for name, given in rules.items() if given]
    if not asked:
        return
    kind = type(search).__name__
    drops = sklearn_adapter.is_halving(search) or is_incremental(search)
    if drops or isinstance(search, AsyncHalvingSearchCV):
        msg = (
            f"{asked[0]} cannot be used with {kind}: scores of its rungs cannot be "
            "compared, and it drops candidates by itself; use GridSearchCV or "
            f"RandomizedSearchCV, or leave out {asked[0]}"
        )
        raise UnsupportedSearchError(msg)
    if sklearn_adapter.has_several_scores(search) and not isinstance(search.refit, str):
        msg = (
            f"{asked[0]} needs one score to compare candidates by, and this search has "
            f"several with refit={search.refit!r}: name one of them, refit=..."
        )
        raise UnsupportedSearchError(msg)
    if settings.racing:
        _check_racing(search, bayes_async=settings.bayes_async)


def _check_racing(search: Any, *, bayes_async: bool | None) -> None:
    kind = type(search).__name__
    if is_optuna_search(search):
        msg = (
            "racing=True cannot be used with OptunaSearchCV, whose study has a pruner for "
            "that: give it one, study=optuna.create_study(direction='maximize', "
            "pruner=optuna.pruners.WilcoxonPruner()), and leave out racing"
        )
        raise UnsupportedSearchError(msg)
    if callable(search.refit):
        msg = (
            "racing=True cannot be used with a callable refit, which may choose a "
            "candidate that was dropped: use refit=True, or leave out racing"
        )
        raise UnsupportedSearchError(msg)
    if sklearn_adapter.is_bayes(search):
        if bayes_async is False:
            msg = (
                "racing=True needs bayes_async=True, got False: skopt's own loop needs "
                "the scores of all its candidates; leave out bayes_async"
            )
            raise ValueError(msg)
    elif not sklearn_adapter.evaluates_once(search):
        msg = (
            f"racing=True cannot be used with {kind}, whose own code may need the scores "
            "of all candidates: use GridSearchCV, RandomizedSearchCV or BayesSearchCV, or "
            "leave out racing"
        )
        raise UnsupportedSearchError(msg)
