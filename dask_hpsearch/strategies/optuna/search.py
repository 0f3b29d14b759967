"""Optuna's OptunaSearchCV as `execution.fit` drives a search of scikit-learn.

OptunaSearchCV's own ``fit`` prepares the search (checks, samples, splitter, scorer, study)
and its own ``_refit`` refits; what is between the two is a strategy.

Private parts of optuna_integration that are used: ``_refit``, ``_safe_indexing``,
``_check_fit_params``; ``fit`` with ``n_trials=0``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.strategies.optuna.scores import several_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

_WITHOUT_TRIALS = {
    "callbacks": None,
    "n_jobs": 1,
    "n_trials": 0,
    "refit": False,
    "timeout": None,
}


def is_optuna_search(search: Any) -> bool:
    """Whether an object is an OptunaSearchCV."""
    return any(
        base.__name__ == "OptunaSearchCV"
        and base.__module__.startswith("optuna_integration.")
        for base in type(search).__mro__
    )


@dataclass(frozen=True, slots=True)
class Samples:
    """What the trials of a search are evaluated on.

    Attributes
    ----------
    X, y, groups : array-like
        Of the drawn samples.
    fit_params : dict
    cv : object
        The checked splitter.
    """

    X: Any
    y: Any
    groups: Any
    fit_params: Mapping[str, Any]
    cv: Any


class OptunaFit:
    """One fit of an OptunaSearchCV.

    It has the methods by which the fit of a `BaseSearchCV` is driven.

    Parameters
    ----------
    search : OptunaSearchCV
        It is fitted itself.

    Attributes
    ----------
    samples : Samples
        Set by `fit`.
    """

    def __init__(self, search: Any) -> None:
        self.search = search
        self.samples: Samples | None = None

    def fit(self, X: Any, y: Any = None, groups: Any = None, **fit_params: Any) -> Any:
        """Fit the search."""
        search = self.search
        self._prepare(X, y, groups, fit_params)
        self.samples = self._drawn(X, y, groups, fit_params)
        self._check_input_parameters()
        self._run_search(lambda *_args, **_options: {})
        self.samples = None
        if search.refit:
            search._refit(X, y, **fit_params)  # noqa: SLF001
        return search

    def _check_input_parameters(self) -> None:
        """Refuse several scores; a hook replaces it."""
        scorers = getattr(self.search.scorer_, "_scorers", None)
        if isinstance(scorers, dict):
            raise UnsupportedSearchError(several_scores(scorers))

    def _run_search(self, evaluate: Any) -> None:
        """Never called: a hook replaces it."""
        raise AssertionError(evaluate)

    def _prepare(self, X: Any, y: Any, groups: Any, fit_params: dict[str, Any]) -> None:
        """Set what OptunaSearchCV sets before its first trial."""
        search = self.search
        own = {name: vars(search)[name] for name in _WITHOUT_TRIALS}
        vars(search).update(_WITHOUT_TRIALS)
        try:
            search.fit(X, y, groups, **fit_params)
        finally:
            vars(search).update(own)

    def _drawn(
        self, X: Any, y: Any, groups: Any, fit_params: dict[str, Any]
    ) -> Samples:
        """Return the samples that OptunaSearchCV has drawn."""
        from optuna_integration.sklearn import sklearn as library
        from sklearn.base import is_classifier
        from sklearn.model_selection import check_cv

        search = self.search
        indices = search.sample_indices_
        if len(indices) < library._num_samples(X):  # noqa: SLF001
            take = library._safe_indexing  # noqa: SLF001
            fit_params = library._check_fit_params(X, fit_params, indices)  # noqa: SLF001
            X, y, groups = (take(one, indices) for one in (X, y, groups))
        classifier = is_classifier(search.estimator)
        cv = check_cv(search.cv, y, classifier=classifier)
        return Samples(X, y, groups, fit_params, cv)
