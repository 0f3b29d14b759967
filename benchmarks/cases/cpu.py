"""CPU time of one fit, taken inside the fit.

The plain processes run side by side, as many as there are slots, so that all contenders
share caches and memory bandwidth alike; all have one BLAS thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.case import Case, Entry
from benchmarks.cases import forest, short

if TYPE_CHECKING:
    from typing import Self


class Timed(ClassifierMixin, BaseEstimator):
    """Fits another classifier and keeps the CPU time that its process spent."""

    def __init__(self, estimator: Any, repeat: int = 0) -> None:
        self.estimator = estimator
        self.repeat = repeat

    def fit(self, X: Any, y: Any) -> Self:
        """Fit a clone."""
        begun = time.process_time()
        self.estimator_ = clone(self.estimator).fit(X, y)
        self.cpu_s_ = time.process_time() - begun
        self.classes_ = self.estimator_.classes_
        return self


def cpu_s(estimator: Timed, X: Any, y: Any) -> float:
    """Score a fit by its CPU time."""
    del X, y
    return estimator.cpu_s_


def search_short(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return 100 equal candidates on 5 splits."""
    del inner_n_jobs
    estimator = make_pipeline(StandardScaler(), GaussianNB())
    return _search(module, estimator, repeats=10 if quick else 100)


def search_forest(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return 8 equal candidates on 5 splits."""
    estimator = RandomForestClassifier(
        n_estimators=10, n_jobs=inner_n_jobs, random_state=0
    )
    return _search(module, estimator, repeats=2 if quick else 8)


def _search(module: Any, estimator: Any, *, repeats: int) -> Any:
    return module.GridSearchCV(
        Timed(estimator),
        {"repeat": np.arange(repeats)},
        cv=5,
        scoring=cpu_s,
        refit=False,
    )


ENTRIES = (
    Entry("dask_hpsearch"),
    Entry("plain"),
    Entry("loky"),
    Entry("joblib-dask", rare=True),
)
CASES = (
    Case(
        name="cpu-short",
        title="CPU time of one fit of the case `short`",
        data=short.data,
        search=search_short,
        entries=ENTRIES,
    ),
    Case(
        name="cpu-forest",
        title="CPU time of one forest of 10 trees on 5,000 MNIST images",
        data=forest.data,
        search=search_forest,
        entries=ENTRIES,
    ),
)
