"""Estimators that the image of the tests has too."""

from __future__ import annotations

import http
import os
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any, Self

from sklearn.base import BaseEstimator, ClassifierMixin

ROWS = 20  # of the tests' data


class Sleeper(ClassifierMixin, BaseEstimator):
    """Takes its time, and says in its pod's log when it has begun and ended."""

    def __init__(self, number: int = 0, seconds: float = 0.2) -> None:
        self.number = number
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = [0, 1]
        say(f"began {self.number} {len(y)} {int(X[0][0])}")
        self.rest()
        say(f"ended {self.number} {len(y)} {int(X[0][0])}")
        return self

    def rest(self) -> None:
        """Wait."""
        time.sleep(self.seconds)

    def predict(self, X: Any) -> Any:
        return [0] * len(X)

    def score(self, X: Any, y: Any) -> float:
        return 1.0 / (1 + self.number)


class Hurried(Sleeper):
    """Takes its time only until the bucket has an object: ``sign``, its path there."""

    def __init__(self, number: int = 0, seconds: float = 0.2, sign: str = "") -> None:
        super().__init__(number, seconds)
        self.sign = sign

    def rest(self) -> None:
        if self.seconds and not exists(self.sign):
            super().rest()


class Glutton(Sleeper):
    """Uses more memory than its slot has."""

    def fit(self, X: Any, y: Any) -> Self:
        if self.number == 1:
            self.eaten_ = b"x" * (2 * 2**30)
        return super().fit(X, y)


class Hoarder(Sleeper):
    """Writes more than its worker's disk may hold."""

    def fit(self, X: Any, y: Any) -> Self:
        if self.number == 1:
            with tempfile.NamedTemporaryFile() as file:
                for _ in range(1536):
                    file.write(bytes(2**20))
                file.flush()
                time.sleep(120)
        return super().fit(X, y)


class Swelling(Sleeper):
    """Uses more memory than its pod has when it is fitted to all rows: in its refit."""

    def fit(self, X: Any, y: Any) -> Self:
        if len(X) == ROWS:
            self.eaten_ = [b"x" * 2**27 for _ in range(64)]
        return super().fit(X, y)


def say(words: str) -> None:
    """Write a line that a test finds in the pod's log."""
    sys.stdout.write(f"fit {words} {socket.gethostname()}\n")
    sys.stdout.flush()


def exists(path: str) -> bool:
    """Whether there is an object in the bucket that pods reach."""
    bucket, _, name = path.partition("/")
    url = f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/{bucket}/o/{name}"
    try:
        urllib.request.urlopen(url, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.NOT_FOUND:
            raise
        return False
    return True
