"""An estimator whose fits take a moment, so that a page can follow them."""

from __future__ import annotations

import time
from typing import Any, Self

from sklearn.base import BaseEstimator, ClassifierMixin


class Patient(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Waits in ``fit``; its score has a maximum."""

    def __init__(self, C: float = 1.0, seconds: float = 0.3) -> None:
        self.C = C
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> Self:
        time.sleep(self.seconds)
        self.classes_ = sorted(set(y))
        return self

    def score(self, X: Any, y: Any) -> float:
        return 0.9 - (self.C - 3) ** 2 / 1000
