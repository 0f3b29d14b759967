"""Models whose scores follow from what they were trained on, and that note their calls."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from tests.estimators import Deed

_DEADLY = 0.9


class Curve(BaseEstimator):
    """Learns along a curve; its score depends on each block that it has seen, and their order.

    Parameters
    ----------
    level, speed : float
        Where the curve ends, and how fast it gets there.
    log : str, optional
        File to which a line is added for each call of ``partial_fit``.
    seconds : float
        Time that a call takes.
    fails_at : int, optional
        The call that raises an error.
    nbytes : int
        Size of the model.
    gate, gate_after : str or None, int
        Calls after so many wait for this file.
    """

    def __init__(
        self,
        level: float = 0.5,
        speed: float = 0.5,
        *,
        log: str | None = None,
        seconds: float = 0.0,
        fails_at: int | None = None,
        nbytes: int = 0,
        gate: str | None = None,
        gate_after: int = 1,
    ) -> None:
        self.level = level
        self.speed = speed
        self.log = log
        self.seconds = seconds
        self.fails_at = fails_at
        self.nbytes = nbytes
        self.gate = gate
        self.gate_after = gate_after

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from one block alone; searches that train by blocks do not call it."""
        self.calls_ = 0
        return self.partial_fit(X, y)

    def partial_fit(self, X: np.ndarray, y: np.ndarray, **more: Any) -> Self:
        """Learn from a block."""
        calls = getattr(self, "calls_", 0) + 1
        if calls == self.fails_at:
            msg = f"no more than {calls - 1} calls"
            raise ArithmeticError(msg)
        if self.log is not None:
            entry = {"level": self.level, "speed": self.speed, "calls": calls}
            with Path(self.log).open("a") as file:
                file.write(json.dumps(entry | {"t": time.time()}) + "\n")
        if self.gate is not None and calls > self.gate_after:
            while not Path(self.gate).exists():
                time.sleep(0.01)
        time.sleep(self.seconds)
        self.calls_ = calls
        self.blocks_ = [*getattr(self, "blocks_", []), float(X[0, 0])]
        self.sum_ = 0.9 * getattr(self, "sum_", 0.0) + X.sum() + 2 * y.sum()
        self.more_ = sorted(more)
        self.filler_ = np.full(self.nbytes // 8, float(calls))
        return self

    def score(self, X: np.ndarray, y: np.ndarray) -> float:
        """Return the place on the curve, a little above or below it."""
        noise = np.sin(self.sum_ + X.sum() + y.sum()) / 20
        return float(self.level * (1 - np.exp(-self.speed * self.calls_ / 5)) + noise)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the number of calls for each row."""
        return np.full(len(X), self.calls_)


class Slow(Curve):
    """Takes as many seconds for a call as its level, if that is above one."""

    def partial_fit(self, X: np.ndarray, y: np.ndarray, **more: Any) -> Self:
        """Learn from a block."""
        if self.level > 1:
            time.sleep(self.level)
        return super().partial_fit(X, y, **more)


class Deadly(Curve):
    """Kills its process or hangs, by its speed, if its level is high."""

    def partial_fit(self, X: np.ndarray, y: np.ndarray, **more: Any) -> Self:
        """Learn from a block, or do a deed."""
        if self.level > _DEADLY:
            Deed(deed="kill" if self.speed > 1 else "hang").fit(X, y)
        return super().partial_fit(X, y, **more)


class Density(BaseEstimator):
    """Learns without a target."""

    def __init__(self, width: float = 1.0) -> None:
        self.width = width

    def fit(self, X: np.ndarray, y: None = None) -> Self:
        """Learn from all data."""
        return self.partial_fit(X, y)

    def partial_fit(self, X: np.ndarray, y: None = None) -> Self:
        """Learn from a block."""
        assert y is None
        self.rows_ = getattr(self, "rows_", 0) + len(X)
        return self

    def score(self, X: np.ndarray, y: None = None) -> float:
        """Return a score without a target."""
        assert y is None
        return self.width + len(X)


def begun_in(log: Path | str) -> dict[tuple[float, float, int], list[float]]:
    """Return when each call of each model began, by the model's parameters."""
    found: dict[tuple[float, float, int], list[float]] = {}
    if Path(log).exists():
        for line in Path(log).read_text().splitlines():
            one = json.loads(line)
            key = one["level"], one["speed"], one["calls"]
            found.setdefault(key, []).append(one["t"])
    return found


def calls_in(log: Path | str) -> Counter[tuple[float, float, int]]:
    """Count how often each call of each model was made, by the model's parameters."""
    return Counter({call: len(times) for call, times in begun_in(log).items()})
