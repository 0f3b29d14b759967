"""Kernels of the script, compiled in each process; which one is a parameter's value."""

from __future__ import annotations

from typing import Any, Self

import numba
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from tests.libraries.case import Case, flowers
from tests.libraries.scripts.every_way import check


@numba.njit
def nearest(X: np.ndarray, centres: np.ndarray, power: float) -> np.ndarray:
    """Find the nearest centre of each sample."""
    found = np.empty(len(X), np.int64)
    for i in range(len(X)):
        found[i] = (np.abs(X[i] - centres) ** power).sum(axis=1).argmin()
    return found


@numba.njit(parallel=True)
def nearest_in_parallel(X: np.ndarray, centres: np.ndarray, power: float) -> np.ndarray:
    """Do the same in threads."""
    found = np.empty(len(X), np.int64)
    for i in numba.prange(len(X)):
        found[i] = (np.abs(X[i] - centres) ** power).sum(axis=1).argmin()
    return found


class NearestMean(ClassifierMixin, BaseEstimator):
    def __init__(self, power: float = 2.0, kernel: Any = nearest) -> None:
        self.power = power
        self.kernel = kernel

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        self.centres_ = np.array([X[y == one].mean(axis=0) for one in self.classes_])
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.kernel(np.asarray(X), self.centres_, self.power)]


if __name__ == "__main__":
    check(
        Case(
            name="numba",
            estimator=NearestMean,
            space={"power": [0.5, 2.0], "kernel": [nearest, nearest_in_parallel]},
            data=flowers,
        )
    )
