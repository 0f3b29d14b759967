"""Estimators that the image of the tests has too."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any, Self

from sklearn.base import BaseEstimator, ClassifierMixin


class Sleeper(ClassifierMixin, BaseEstimator):
    """Takes its time, and says in its pod's log when it has begun and ended."""

    def __init__(self, number: int = 0, seconds: float = 0.2) -> None:
        self.number = number
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = [0, 1]
        say(f"began {self.number} {len(y)} {int(X[0][0])}")
        time.sleep(self.seconds)
        say(f"ended {self.number} {len(y)} {int(X[0][0])}")
        return self

    def predict(self, X: Any) -> Any:
        return [0] * len(X)

    def score(self, X: Any, y: Any) -> float:
        return 1.0 / (1 + self.number)


class Glutton(Sleeper):
    """Uses more memory than its slot has."""

    def fit(self, X: Any, y: Any) -> Self:
        if self.number == 1:
            self.eaten_ = b"x" * (2 * 2**30)
        return super().fit(X, y)


def say(words: str) -> None:
    """Write a line that a test finds in the pod's log."""
    sys.stdout.write(f"fit {words} {socket.gethostname()}\n")
    sys.stdout.flush()
