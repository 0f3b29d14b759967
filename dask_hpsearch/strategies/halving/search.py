"""`AsyncHalvingSearchCV`: successive halving that promotes as soon as a rung allows it."""

from __future__ import annotations

import time
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterSampler
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._split import _yields_constant_splits
from sklearn.utils import check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_method_params, _num_samples

from dask_hpsearch.strategies.halving.continued_fits import (
    classes_of,
    train_by_passes,
)
from dask_hpsearch.strategies.halving.plain import run_here
from dask_hpsearch.strategies.halving.rungs import (
    N_SAMPLES,
    PARTIAL_FIT,
    Rungs,
    exhausting_min_resources,
    n_rungs,
    rung_resources,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SEEDS = 2**31 - 1
_POSITIVE_INTEGER = Interval(Integral, 0, None, closed="neither")
_CONSTRAINTS: dict[str, Any] = {
    **BaseSearchCV._parameter_constraints,  # noqa: SLF001 (as its subclasses do)
    "param_distributions": [dict, list],
    "n_candidates": [_POSITIVE_INTEGER, StrOptions({"exhaust"})],
    "factor": [Interval(Real, 1, None, closed="neither")],
    "resource": [str],
    "max_resources": [_POSITIVE_INTEGER, StrOptions({"auto"})],
    "min_resources": [_POSITIVE_INTEGER, StrOptions({"exhaust", "smallest"})],
    "warm_start": ["boolean"],
    "random_state": ["random_state"],
}
del _CONSTRAINTS["pre_dispatch"]


class AsyncHalvingSearchCV(BaseSearchCV):  # type: ignore[misc]
    """Search by asynchronous successive halving (ASHA).

    Candidates are drawn at random and trained with few resources; the best go on with
    more. scikit-learn's ``HalvingRandomSearchCV`` waits for all candidates of an iteration
    before it promotes the best. This search does not wait: a candidate that is among the
    top ``1 / factor`` of those that have finished on its rung is promoted at once, and
    otherwise a new candidate begins.

    In a `DaskSearchCV`, it uses all slots of a cluster. Alone, it trains one candidate
    after the other, with ``n_jobs`` splits at the same time; `DaskSearchCV` with one slot
    finds the same.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict or list of dict
        As for scikit-learn's ``RandomizedSearchCV``.
    n_candidates : "exhaust" or int
        Number of candidates to draw. "exhaust": as many as the resources of the lowest
        rung go into ``max_resources``.
    factor : int or float
        The top ``1 / factor`` of a rung is promoted, to ``factor`` times the resources.
    resource : str
        What a higher rung has more of: ``"n_samples"``; an integer parameter of the
        estimator, such as ``"max_iter"`` or ``"n_estimators"``; or ``"partial_fit"``, the
        number of passes over the training data by the estimator's ``partial_fit``.
    max_resources : "auto" or int
        The most resources of a candidate. "auto": all samples.
    min_resources : {"smallest", "exhaust"} or int
        The resources of the lowest rung. "smallest": one, or a few samples of each class
        and split. "exhaust": such that the highest rung uses ``max_resources``; then
        ``n_candidates`` must be a number.
    warm_start : bool
        Whether a promoted candidate goes on with its models of the rung below, one for
        each split, where the resource is ``max_iter``, ``max_epochs`` or ``n_estimators``
        of an estimator (or of a pipeline's last step) that has a parameter
        ``warm_start``. A model that goes on may differ from one that is trained anew,
        just as with ``warm_start=True`` of the estimator: for example, a multi-layer
        perceptron begins again with its optimizer. Other resources train anew;
        ``"partial_fit"`` always goes on.
    cv : int, splitter or iterable
        Must give the same splits each time, as scikit-learn's halving demands.
    scoring, refit, error_score, return_train_score, n_jobs, verbose
        As for scikit-learn's searches. If there are several scores, ``refit`` must name
        the one that decides. A candidate with a failed fit and ``error_score=nan`` is not
        promoted.
    random_state : int, RandomState or None
        Seed of the candidates and of the subsamples.

    Attributes
    ----------
    cv_results_ : dict
        One row for each candidate on each rung, lowest rung first, with the columns
        ``iter`` (the rung) and ``n_resources``.
    best_index_, best_params_, best_score_, best_estimator_
        The best of the highest rung that has a score. It is refitted with that rung's
        parameters on all data (for ``"partial_fit"``: with that rung's passes).
    n_resources_, n_candidates_ : list of int
        Resources and number of candidates of each rung.
    n_iterations_ : int
        Number of rungs.
    n_remaining_candidates_ : int
        As in scikit-learn: ``ceil(n_candidates_[-1] / factor)``.
    min_resources_, max_resources_ : int

    Notes
    -----
    There is no ``aggressive_elimination``: it repeats the lowest rung with the same
    resources, and a promotion would train the same model again.

    References
    ----------
    Li et al., "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934.

    Examples
    --------
    >>> from dask_hpsearch import AsyncHalvingSearchCV, DaskSearchCV
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import SGDClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> search = AsyncHalvingSearchCV(
    ...     SGDClassifier(random_state=0),
    ...     {"alpha": loguniform(1e-6, 1e-1)},
    ...     n_candidates=9,
    ...     resource="partial_fit",
    ...     max_resources=9,
    ...     random_state=0,
    ... )
    >>> found = DaskSearchCV(search).fit(X, y)
    >>> found.n_resources_
    [1, 3, 9]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = _CONSTRAINTS
    refit: Any
    max_resources_: Any
    min_resources_: Any

    def __init__(
        self,
        estimator: Any,
        param_distributions: dict[str, Any] | list[dict[str, Any]],
        *,
        n_candidates: int | str = "exhaust",
        factor: float = 3,
        resource: str = N_SAMPLES,
        max_resources: int | str = "auto",
        min_resources: int | str = "smallest",
        warm_start: bool = True,
        cv: Any = 5,
        scoring: Any = None,
        refit: Any = True,
        error_score: Any = np.nan,
        return_train_score: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_candidates = n_candidates
        self.factor = factor
        self.resource = resource
        self.max_resources = max_resources
        self.min_resources = min_resources
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Run the search.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        **params
            As scikit-learn's searches take them: ``groups``, ``sample_weight``, …

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the resource, or its amount, does not go with the estimator or the data.
        """
        self._requested_refit = self.refit
        if self.resource != PARTIAL_FIT or self.refit is False:
            super().fit(X, y, **params)
            return self
        # scikit-learn would refit by the estimator's fit.
        self.refit = False
        try:
            super().fit(X, y, **params)
        finally:
            self.refit = self._requested_refit
        self._choose_best()
        self._refit_by_passes(X, y, params)
        return self

    @property
    def requested_refit(self) -> Any:
        """The ``refit`` of the user, also while the search runs."""
        return self._requested_refit

    def _choose_best(self) -> None:
        """Set the attributes of the best candidate as scikit-learn does."""
        metric = self.refit if self.multimetric_ else "score"
        self.best_index_ = self._select_best_index(self.refit, metric, self.cv_results_)
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        if callable(self.refit):
            self.__dict__.pop("best_score_", None)
        else:
            scores = self.cv_results_[f"mean_test_{metric}"]
            self.best_score_ = scores[self.best_index_]

    def _refit_by_passes(self, X: Any, y: Any, params: dict[str, Any]) -> None:
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        fit_params = self._get_routed_params_for_fit(params).estimator.fit
        best = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        n_passes = int(self.cv_results_["n_resources"][self.best_index_])
        began = time.time()
        classes = classes_of(best, y)
        train_by_passes(best, n_passes, X, y, classes=classes, **fit_params)
        self.refit_time_ = time.time() - began
        self.best_estimator_ = best
        if hasattr(best, "feature_names_in_"):
            self.feature_names_in_ = best.feature_names_in_

    def draw(self) -> Rungs:
        """Draw the candidates, and lay out the rungs; the input is checked before.

        Raises
        ------
        ValueError
            If the resource is one of the searched parameters.
        """
        n_candidates: Any = self.n_candidates
        if n_candidates == "exhaust":
            n_candidates = self.max_resources_ // self.min_resources_
        sampler = ParameterSampler(
            self.param_distributions, n_candidates, random_state=self.random_state
        )
        candidates = list(sampler)
        if any(self.resource in candidate for candidate in candidates):
            msg = (
                f"the resource {self.resource!r} is one of the searched parameters: remove "
                "it from param_distributions, or choose another resource"
            )
            raise ValueError(msg)
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = int(check_random_state(seed).randint(_SEEDS))
        return self._laid_out(candidates, seed)

    def _laid_out(self, candidates: Sequence[Mapping[str, Any]], seed: Any) -> Rungs:
        """Lay out the rungs of candidates that were drawn."""
        sizes: dict[str, Any] = {
            "max_resources": self.max_resources_,
            "factor": self.factor,
        }
        if self.min_resources == "exhaust":
            self.min_resources_ = exhausting_min_resources(
                len(candidates), min_resources=self.min_resources_, **sizes
            )
        sizes["min_resources"] = self.min_resources_
        number = n_rungs(len(candidates), **sizes)
        return Rungs(
            candidates=[dict(one) for one in candidates],
            resources=rung_resources(number, **sizes),
            resource=self.resource,
            factor=self.factor,
            n_samples=self._n_samples_orig,
            seed=seed,
        )

    def with_candidates(
        self, rungs: Rungs, candidates: Sequence[Mapping[str, Any]]
    ) -> Rungs:
        """Lay out rungs again, with the stored candidates of their lowest rung."""
        given = [
            {
                name: value
                for name, value in one.items()
                if name != self.resource or not rungs.is_parameter
            }
            for one in candidates
        ]
        return self._laid_out(given, rungs.seed)

    def note_rungs(self, rungs: Rungs, n_candidates: list[int]) -> None:
        """Set the attributes that describe the rungs.

        Parameters
        ----------
        rungs : Rungs
        n_candidates : list of int
            Candidates of each rung that has any.
        """
        self.n_candidates_ = n_candidates
        self.n_iterations_ = len(n_candidates)
        self.n_resources_ = rungs.resources[: len(n_candidates)]
        self.n_remaining_candidates_ = int(-(-n_candidates[-1] // self.factor))

    def _check_input_parameters(
        self, X: Any, y: Any, split_params: dict[str, Any]
    ) -> None:
        """Check what depends on data and estimator; set the resources."""
        if not _yields_constant_splits(self._checked_cv_orig):
            msg = (
                "cv must give the same splits each time: set its random_state to an "
                "integer, or shuffle=False"
            )
            raise ValueError(msg)
        self._check_resource()
        self._n_samples_orig = _num_samples(X)
        self.max_resources_ = self.max_resources
        if self.max_resources == "auto":
            self.max_resources_ = self._n_samples_orig
        self.min_resources_ = self.min_resources
        if self.min_resources in {"smallest", "exhaust"}:
            self.min_resources_ = 1
            if self.resource == N_SAMPLES:
                self.min_resources_ = self._fewest_samples(X, y, split_params)
        if self.min_resources_ > self.max_resources_:
            msg = (
                f"min_resources must be at most max_resources, got {self.min_resources_} "
                f"and {self.max_resources_}"
            )
            raise ValueError(msg)

    def _check_resource(self) -> None:
        if self.resource == PARTIAL_FIT:
            if not hasattr(self.estimator, PARTIAL_FIT):
                msg = (
                    f"resource='partial_fit' needs an estimator with this method, and "
                    f"{type(self.estimator).__name__} has none: use 'n_samples' or a "
                    "parameter of the estimator"
                )
                raise ValueError(msg)
        elif (
            self.resource != N_SAMPLES
            and self.resource not in self.estimator.get_params()
        ):
            msg = (
                f"resource must be 'n_samples', 'partial_fit' or a parameter of "
                f"{type(self.estimator).__name__}, got {self.resource!r}"
            )
            raise ValueError(msg)
        if self.resource != N_SAMPLES and self.max_resources == "auto":
            msg = (
                f"max_resources must be a number if the resource is {self.resource!r}, "
                "got 'auto'"
            )
            raise ValueError(msg)
        if self.min_resources == self.n_candidates == "exhaust":
            msg = (
                "n_candidates and min_resources cannot both be 'exhaust': one of them must "
                "be a number"
            )
            raise ValueError(msg)

    def _fewest_samples(self, X: Any, y: Any, split_params: dict[str, Any]) -> int:
        """Return what scikit-learn's halving takes as the fewest samples."""
        fewest = 2 * int(self._checked_cv_orig.get_n_splits(X, y, **split_params))
        if is_classifier(self.estimator):
            check_classification_targets(y)
            fewest *= len(np.unique(y))
        return fewest

    def _run_search(self, evaluate_candidates: Callable[..., Any]) -> None:
        run_here(self, evaluate_candidates, self.draw())

    def _select_best_index(
        self, refit: Any, refit_metric: Any, results: Mapping[str, Any]
    ) -> int:
        """Select the best of the highest rung that has a score."""
        if callable(refit):
            return int(BaseSearchCV._select_best_index(refit, refit_metric, results))  # noqa: SLF001
        scores = results[f"mean_test_{refit_metric}"]
        rung = results["iter"]
        known = ~np.isnan(scores)
        if not known.any():
            return int(np.flatnonzero(rung == rung.max())[0])
        highest = np.flatnonzero(known & (rung == rung[known].max()))
        return int(highest[np.argmax(scores[highest])])
