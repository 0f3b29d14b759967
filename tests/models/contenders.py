"""Models of known quality, and rows to compare them on."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

N_ROWS = 400


class Guess(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Right on the given share of rows, whose first feature says how hard they are."""

    def __init__(self, right: float = 0.5, fails: str = "") -> None:
        self.right = right
        self.fails = fails

    def fit(self, X: Any, y: Any) -> Guess:
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        if self.fails:
            raise RuntimeError(self.fails)
        truth = X[:, 1].astype(int)
        return np.where(X[:, 0] < self.right, truth, 1 - truth)

    def predict_proba(self, X: Any) -> Any:
        positive = 0.1 + 0.8 * self.predict(X)
        return np.column_stack([1 - positive, positive])


def rows(n_rows: int = N_ROWS) -> tuple[Any, Any]:
    """Return X, whose second feature is the truth, and y."""
    y = np.arange(n_rows) % 2
    hardness = np.random.default_rng(0).permutation(np.linspace(0, 1, n_rows))
    return np.column_stack([hardness, y]), y


X, y = rows()


def guess(right: float, **options: Any) -> Guess:
    """Return a fitted model with this accuracy."""
    return Guess(right, **options).fit(X, y)
