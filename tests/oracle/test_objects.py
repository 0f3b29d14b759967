from __future__ import annotations

import copy
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score

from dask_hpsearch import DaskSearchCV
from tests.oracle.estimators import Picky
from tests.oracle.kinds import DEPTHS, KINDS, THRESHOLDS, build, tree

if TYPE_CHECKING:
    from distributed import Client

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data


@pytest.mark.parametrize("kind", KINDS)
def test_classes_defined_here_and_now(kind: str, oracle: Oracle, iris: Data) -> None:
    """Estimators and scorers need not be importable by the workers."""
    shift = 0.5

    class Shifted(Picky):
        def predict(self, X: Any) -> Any:
            return super().predict(X + shift)

    def scoring(estimator: Any, X: Any, y: Any) -> float:
        return float(np.mean(estimator.predict(X) == y)) - shift

    found = oracle.check(
        partial(build, kind, Shifted(), THRESHOLDS, scoring=scoring), *iris
    )

    assert type(found.best_estimator_) is Shifted


def test_search_class_defined_here_and_now(oracle: Oracle, iris: Data) -> None:
    """A user's search may be a subclass with a fit of its own."""

    class Noted(GridSearchCV):
        def fit(self, X: Any, y: Any = None, **params: Any) -> Noted:
            self.note_ = f"{len(X)} samples"
            return super().fit(X, y, **params)

        def best_depth(self) -> int:
            return int(self.best_params_["max_depth"])

    found = oracle.check(partial(Noted, tree(), DEPTHS), *iris)

    assert type(found.search_) is Noted
    assert found.search_.best_depth() == found.best_params_["max_depth"]


def test_search_class_with_parallel_work_of_its_own(client: Client, iris: Data) -> None:
    """What a fit around the search's does in parallel does not take its slots."""

    class Compared(GridSearchCV):
        def fit(self, X: Any, y: Any = None, **params: Any) -> Compared:
            self.default_ = cross_val_score(self.estimator, X, y).mean()
            inner = GridSearchCV(self.estimator, THRESHOLDS).fit(X, y)
            self.inner_ = inner.best_score_
            return super().fit(X, y, **params)

    def process(estimator: Any, X: Any, y: Any) -> int:
        return os.getpid()

    search = Compared(Picky(), THRESHOLDS, scoring=process)

    found = DaskSearchCV(search, client=client).fit(*iris)

    assert found.default_ < found.inner_
    assert os.getpid() not in found.cv_results_["split0_test_score"]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
@pytest.mark.parametrize("pre_dispatch", [1, 4, "all", "2*n_jobs"])
def test_jobs(n_jobs: int, pre_dispatch: Any, oracle: Oracle, iris: Data) -> None:
    """What the user said of jobs stays on the search and changes no result."""
    options = {"n_jobs": n_jobs, "pre_dispatch": pre_dispatch}

    found = oracle.check(partial(GridSearchCV, tree(), DEPTHS, **options), *iris)

    assert found.search_.n_jobs == n_jobs


@pytest.mark.parametrize("n_jobs", [None, -1])
def test_parallel_estimators(n_jobs: int | None, oracle: Oracle, iris: Data) -> None:
    """Estimators that are parallel themselves give the same inside a slot."""
    forest = RandomForestClassifier(2, random_state=0, n_jobs=n_jobs)
    bags = BaggingClassifier(forest, 2, random_state=0, n_jobs=n_jobs)

    # A refit, and its predictions, would start processes here for two small bags.
    oracle.check(
        partial(GridSearchCV, bags, {"max_samples": [0.5, 0.9]}, refit=False), *iris
    )
    # The sum of two trees does not depend on which thread is first.
    oracle.check(partial(GridSearchCV, forest, {"max_depth": [1, 3]}, cv=2), *iris)


def test_search_in_a_search(oracle: Oracle, iris: Data) -> None:
    """The estimator may be a search itself; it runs inside each fit."""
    inner = RandomizedSearchCV(tree(), DEPTHS, n_iter=2, cv=2, random_state=0)
    grid = {"estimator__criterion": ["gini", "entropy"]}

    oracle.check(partial(GridSearchCV, inner, grid, cv=2), *iris)


def test_fitted_before(oracle: Oracle, iris: Data) -> None:
    """A search that was fitted already keeps its own results; ours are new."""
    X, y = iris
    earlier = GridSearchCV(tree(), DEPTHS, cv=2).fit(X[:50], y[:50])
    kept = earlier.cv_results_

    oracle.check(lambda: copy.copy(earlier), X, y)

    assert earlier.cv_results_ is kept


def test_mutable_search_values(oracle: Oracle, iris: Data) -> None:
    """Dicts, arrays, tuples and None are values like any other."""
    grid = {
        "class_weight": [None, "balanced", {0: 1, 1: 2, 2: 1}],
        "monotonic_cst": [None, np.array([1, 0, 0, 0])],
    }

    # Monotonic constraints are for two classes.
    X, y = iris
    oracle.check(
        partial(GridSearchCV, tree(), grid, error_score=0), X, np.minimum(y, 1)
    )
