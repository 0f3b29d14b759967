"""Cases of numba."""

from __future__ import annotations

from typing import Any, Self

import numba
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from tests.libraries.case import EVERY_KIND, Case, flowers


@numba.njit
def nearest(X: np.ndarray, centres: np.ndarray, power: float) -> np.ndarray:
    """Find the nearest centre of each sample, compiled in each process."""
    found = np.empty(len(X), np.int64)
    for i in range(len(X)):
        distances = (np.abs(X[i] - centres) ** power).sum(axis=1)
        found[i] = distances.argmin()
    return found


@numba.njit(parallel=True)
def nearest_in_parallel(X: np.ndarray, centres: np.ndarray, power: float) -> np.ndarray:
    """Do the same in threads."""
    found = np.empty(len(X), np.int64)
    for i in numba.prange(len(X)):
        distances = (np.abs(X[i] - centres) ** power).sum(axis=1)
        found[i] = distances.argmin()
    return found


class NearestMean(ClassifierMixin, BaseEstimator):
    """Predicts with a compiled kernel; which one is a parameter's value."""

    def __init__(self, power: float = 2.0, kernel: Any = nearest) -> None:
        self.power = power
        self.kernel = kernel

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        self.centres_ = np.array([X[y == one].mean(axis=0) for one in self.classes_])
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.kernel(np.asarray(X), self.centres_, self.power)]


CASES = (
    Case(
        name="numba",
        estimator=NearestMean,
        space={"power": [0.5, 1.0, 2.0]},
        data=flowers,
        kinds=EVERY_KIND,
    ),
    Case(
        name="numba-kernels-as-values",
        estimator=NearestMean,
        space={"kernel": [nearest, nearest_in_parallel]},
        data=flowers,
    ),
)
