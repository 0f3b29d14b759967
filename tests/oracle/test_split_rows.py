"""Estimators that write to their rows leave what they leave in a plain search."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

if TYPE_CHECKING:
    from tests.oracle.comparison import Oracle


class WritesToItsRows(Ridge):
    """Writes to its rows in every method that gets some, as some estimators do."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> WritesToItsRows:
        """Fit, and overwrite the data."""
        super().fit(X, y, sample_weight)
        X *= 0
        y += 1
        return self

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score, and overwrite the data."""
        found = float(super().score(X, y, sample_weight))
        X[:] = np.nan
        return found


@pytest.mark.parametrize("n_rows", [100, 9000], ids=["in-slot", "on-node"])
def test_a_search_of_estimators_that_write_equals_a_plain_one(
    oracle: Oracle, n_rows: int
) -> None:
    """Weights of rows, which are selected by scikit-learn, stay beside their rows."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(n_rows, 6)), rng.normal(size=n_rows)
    search = GridSearchCV(
        WritesToItsRows(), {"alpha": [0.1, 1.0, 10.0, 100.0]}, cv=KFold(4), refit=False
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle.check(lambda: search, X, y, sample_weight=rng.uniform(size=n_rows))
