"""An estimator that learns by iterations, and notes each of its fits."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from tests.estimators import do

if TYPE_CHECKING:
    from collections.abc import Iterable

# Candidate, split's data, iterations before and after.
Fit = tuple[int, int, int, int]


class Learner(ClassifierMixin, BaseEstimator):
    """Its score grows with its iterations, toward what its number allows.

    Parameters
    ----------
    number : int
        Names the candidate; higher is better in the end.
    max_iter : int
        Iterations of a fit; further ones if it goes on.
    warm_start : bool
    seconds : float
        Time that a fit sleeps in another process than the client's.
    fails : tuple of int
        Numbers of candidates whose fits fail.
    exits : tuple of int
        Numbers of candidates whose fits end their process, if it is not the client's.
    holds : tuple of int
        Numbers of candidates whose fits never end there.
    log : str, optional
        File to which fits are noted in other processes than the client's.
    client : int, optional
        The client's process.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        max_iter: int = 1,
        warm_start: bool = False,
        seconds: float = 0.0,
        fails: tuple[int, ...] = (),
        exits: tuple[int, ...] = (),
        holds: tuple[int, ...] = (),
        log: str | None = None,
        client: int | None = None,
    ) -> None:
        self.number = number
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.seconds = seconds
        self.fails = fails
        self.exits = exits
        self.holds = holds
        self.log = log
        self.client = client

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        if not (self.warm_start and hasattr(self, "n_done_")):
            self.n_done_ = 0
        return self._learn(X, y, self.max_iter)

    def partial_fit(
        self, X: np.ndarray, y: np.ndarray, classes: np.ndarray | None = None
    ) -> Self:
        if not hasattr(self, "n_done_"):
            assert classes is not None
            self.n_done_ = 0
        return self._learn(X, y, 1)

    def _learn(self, X: np.ndarray, y: np.ndarray, n_iter: int) -> Self:
        if self.number in self.fails:
            msg = f"candidate {self.number} fails"
            raise ValueError(msg)
        before = self.n_done_
        self.classes_ = np.unique(y)
        self.n_done_ += n_iter
        if os.getpid() != self.client:
            if self.number in self.exits:
                do("exit")
            if self.number in self.holds:
                do("hang")
            time.sleep(self.seconds)
            self._note([self.number, zlib.crc32(X.tobytes()), before, self.n_done_])
        return self

    def _note(self, fit: list[int]) -> None:
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(json.dumps([int(one) for one in fit]) + "\n")

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.full(len(X), self.classes_[self.number % len(self.classes_)])

    def score(self, X: np.ndarray, y: np.ndarray) -> float:
        learned = 1 - math.exp(-self.n_done_ / 5)
        return learned * self.number + float(X.mean()) * 1e-3


def fits_of(log: Any) -> Counter[Fit]:
    """Return how often each fit has ended."""
    if not Path(log).exists():
        return Counter()
    text = Path(log).read_text("ascii")
    lines: Iterable[str] = text[: text.rfind("\n") + 1].splitlines()
    return Counter(tuple(json.loads(line)) for line in lines)
