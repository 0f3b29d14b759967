"""Very short fits: what is measured is the way there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.case import Case, Entry


def data(quick: bool) -> tuple[Any, Any]:  # noqa: FBT001 (all cases have this form)
    """Return scikit-learn's digits, whole in any case."""
    del quick
    return load_digits(return_X_y=True)


def search(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return a grid of 400 candidates on 5 splits."""
    del inner_n_jobs
    grid = {"gaussiannb__var_smoothing": np.logspace(-12, 0, 40 if quick else 400)}
    estimator = make_pipeline(StandardScaler(), GaussianNB())
    return module.GridSearchCV(estimator, grid, cv=5, refit=False)


CASE = Case(
    name="short",
    title="2,000 fits of about 3 ms: StandardScaler and GaussianNB on the digits",
    data=data,
    search=search,
    entries=(
        Entry("dask_hpsearch"),
        Entry("dask_hpsearch, all steps"),
        Entry("loky"),
        Entry("dask-ml", rare=True),
        Entry("joblib-dask", rare=True),
    ),
)
