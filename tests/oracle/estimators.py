"""Estimators, searches, scorers and distributions that workers import by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import ParameterGrid, ShuffleSplit
from sklearn.model_selection._search import BaseSearchCV

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Picky(ClassifierMixin, BaseEstimator):
    """Splits the third column at a threshold; refuses some thresholds."""

    def __init__(self, threshold: float = 0, refuses: tuple[float, ...] = ()) -> None:
        self.threshold = threshold
        self.refuses = refuses

    def fit(self, X: Any, y: Any) -> Picky:
        if self.threshold in self.refuses:
            msg = f"no fit with threshold={self.threshold}"
            raise ArithmeticError(msg)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return self.classes_[(X[:, 2] > self.threshold).astype(int)]


class Minimal(BaseEstimator):
    """Only what a search needs at the least: fit and score."""

    def __init__(self, constant: float = 0) -> None:
        self.constant = constant

    def fit(self, X: Any, y: Any = None) -> Minimal:
        self.mean_ = np.mean(X)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return -abs(float(np.mean(X)) - self.constant)


class Tinted(ClassifierMixin, BaseEstimator):
    """Takes metadata of its own: one colour for each sample, and a word."""

    def __init__(self, weight: float = 1) -> None:
        self.weight = weight

    def fit(
        self, X: Any, y: Any, colour: Any = None, word: str | None = None
    ) -> Tinted:
        self.classes_ = np.unique(y)
        self.tint_ = 0.0 if colour is None else self.weight * float(np.mean(colour))
        self.word_ = word
        return self

    def predict(self, X: Any) -> Any:
        found = (X[:, 2] > 1 + self.tint_).astype(int)
        return self.classes_[found + (self.word_ == "loud")]

    def score(self, X: Any, y: Any, colour: Any = None) -> float:
        bonus = 0.0 if colour is None else float(np.mean(colour))
        return float(np.mean(self.predict(X) == y)) + bonus


class Loud(Picky):
    """Warns whenever it is fitted."""

    def __init__(self, word: str = "") -> None:
        super().__init__()
        self.word = word

    def fit(self, X: Any, y: Any) -> Picky:
        warnings.warn(f"fitting {self.word}", UserWarning, stacklevel=1)
        return super().fit(X, y)


class NeedsFrame(Picky):
    """Works with a DataFrame only, as after set_output(transform="pandas")."""

    def predict(self, X: Any) -> Any:
        return super().predict(X[list(X.columns)].to_numpy())


class ThriceSearchCV(BaseSearchCV):
    """Evaluates a grid, then its best again with another cv, then all of it again."""

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid

    def _run_search(self, evaluate_candidates: Callable[..., Any]) -> None:
        candidates = list(ParameterGrid(self.param_grid))
        first = evaluate_candidates(candidates, more_results={"round": [0, 0, 0]})
        name = next(key for key in first if key.startswith("rank_test_"))
        best = int(np.argmin(first[name]))
        again = ShuffleSplit(self.n_splits_, random_state=0)
        evaluate_candidates([candidates[best]], again, more_results={"round": [1]})
        evaluate_candidates(candidates, more_results={"round": [2, 2, 2]})


class GlobalUniform:
    """A distribution that draws from numpy's global state, whatever it is given."""

    def rvs(self, random_state: Any = None) -> float:
        return float(np.random.uniform(0.5, 5))  # noqa: NPY002


class Counting:
    """A distribution without randomness: each draw is the next number."""

    def __init__(self) -> None:
        self.drawn = 0

    def rvs(self, random_state: Any = None) -> int:
        self.drawn += 1
        return self.drawn


def float_score(estimator: Any, X: Any, y: Any) -> float:
    """Score as a float."""
    return float(accuracy_score(y, estimator.predict(X))) / 2


def dict_score(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Score twice, as a dict."""
    hits = estimator.predict(X) == y
    return {"accuracy": float(np.mean(hits)), "misses": -float(np.sum(~hits))}


def refuses_two(estimator: Any, X: Any, y: Any) -> float:
    """Score as a float, unless the threshold is two."""
    if estimator.threshold == 2:
        msg = "no score for a threshold of two"
        raise LookupError(msg)
    return float_score(estimator, X, y)


def first_of_the_worst(results: Mapping[str, Any]) -> int:
    """Pick the candidate to refit, as a callable ``refit`` does."""
    rank = next(key for key in results if key.startswith("rank_test_"))
    return int(np.argmax(results[rank]))


def share_right(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
    """Metric for ``make_scorer``."""
    return float(np.average(y_true == y_pred, weights=sample_weight))


share_right_scorer = make_scorer(share_right)
