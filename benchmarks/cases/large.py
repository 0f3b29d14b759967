"""Large data: what is measured is how X reaches the fits, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import SGDClassifier

from benchmarks.case import Case, Entry


def data(quick: bool) -> tuple[Any, Any]:  # noqa: FBT001 (all cases have this form)
    """Return 1,000,000 rows of 50 float64 (400 MB); 20,000 rows if quick."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000 if quick else 1_000_000, 50))
    y = (X @ rng.standard_normal(50) + rng.standard_normal(len(X)) > 0).astype(int)
    return X, y


def search(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return 8 candidates on 3 splits."""
    del quick, inner_n_jobs
    estimator = SGDClassifier(max_iter=5, tol=None, random_state=0)
    grid = {"alpha": np.logspace(-6, -2, 8)}
    return module.GridSearchCV(estimator, grid, cv=3, refit=False)


CASE = Case(
    name="large",
    title="24 SGDClassifier fits of about a second on 400 MB of X",
    data=data,
    search=search,
    entries=(
        Entry("dask_hpsearch"),
        Entry("loky"),
        Entry("dask-ml", rare=True),
        Entry("joblib-dask", rare=True),
    ),
)
