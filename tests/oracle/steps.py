"""Steps of a user's own, each with a log in which every fit leaves a line."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class LoggedStep(TransformerMixin, BaseEstimator):
    """Scales its input, and logs each fit.

    Parameters
    ----------
    log : str
        A file, which every fit appends to.
    factor : float
    seconds : float
        How long a fit takes.
    """

    def __init__(
        self, log: str = "", factor: float = 2.0, seconds: float = 0.0
    ) -> None:
        self.log = log
        self.factor = factor
        self.seconds = seconds

    def fit(self, X: Any, y: Any = None) -> Self:
        """Log the fit."""
        del y
        if self.log:
            with Path(self.log).open("a") as file:
                file.write("fitted\n")
        time.sleep(self.seconds)
        self.factor_ = self.factor * self.drawn()
        self.n_features_in_ = X.shape[1]
        return self

    def drawn(self) -> float:
        """Return a number of which all that is computed depends."""
        return 1.0

    def transform(self, X: Any) -> Any:
        """Return another array, or frame."""
        return X * self.factor_


class DrawsFromNumpy(LoggedStep):
    """Draws from numpy's global generator."""

    def drawn(self) -> float:
        """Draw."""
        return float(np.random.uniform(0.5, 1.5))  # noqa: NPY002


class DrawsFromPython(LoggedStep):
    """Draws from Python's global generator."""

    def drawn(self) -> float:
        """Draw."""
        return random.uniform(0.5, 1.5)


class DrawsFromItsOwn(LoggedStep):
    """Makes a generator without a seed."""

    def drawn(self) -> float:
        """Draw."""
        return float(np.random.default_rng().uniform(0.5, 1.5))


class DrawsSometimes(LoggedStep):
    """Draws for some parameters only."""

    def drawn(self) -> float:
        """Draw if the factor is large."""
        return random.random() if self.factor > 2 else 1.0


class FailsSometimes(LoggedStep):
    """Fails for some parameters."""

    def drawn(self) -> float:
        """Fail if the factor is large."""
        if self.factor > 2:
            msg = "too large"
            raise ValueError(msg)
        return 1.0


class HoldsAGenerator(LoggedStep):
    """Has a generator as a parameter, which a plain search advances from fit to fit."""

    def __init__(self, log: str = "", rng: Any = None) -> None:
        super().__init__(log)
        self.rng = rng

    def drawn(self) -> float:
        """Draw."""
        return float(self.rng.uniform(0.5, 1.5))


class ChangesItself(LoggedStep):
    """Counts how often it has transformed, and computes with that."""

    def transform(self, X: Any) -> Any:
        """Transform a little differently each time."""
        self.n_calls_ = getattr(self, "n_calls_", 0) + 1
        return X * self.factor_ + self.n_calls_


class ReturnsItsInput(LoggedStep):
    """Transforms nothing."""

    def transform(self, X: Any) -> Any:
        """Return the very input."""
        return X


class ReturnsAView(LoggedStep):
    """Selects columns without a copy."""

    def transform(self, X: Any) -> Any:
        """Return some of the columns."""
        return X[:, :2]


class WritesToItsInput(LoggedStep):
    """Transforms in place, and returns a copy."""

    def transform(self, X: Any) -> Any:
        """Alter the input."""
        X *= self.factor_
        return X.copy()


class KeepsItsInput(LoggedStep):
    """Keeps a reference to the training data, as neighbours do."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Keep the data."""
        super().fit(X, y)
        self.X_ = X
        return self


class KeepsItsOutput(LoggedStep):
    """Keeps a view of what it returns."""

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Keep the output's first rows."""
        del params
        output = self.fit(X, y).transform(X)
        self.first_ = output[:3]
        return output


class Bare:
    """Has what a pipeline needs of a step, and no parameters."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn nothing."""
        del X, y
        return self

    def transform(self, X: Any) -> Any:
        """Return another array."""
        return X * 2


class Converts(LoggedStep):
    """Keeps its parameter as another object than the given one."""

    def __init__(self, columns: Any = None) -> None:
        super().__init__()
        self.columns = columns

    @property
    def columns(self) -> Any:
        """Columns that are selected."""
        return self._columns

    @columns.setter
    def columns(self, columns: Any) -> None:
        self._columns = None if columns is None else list(columns)

    def transform(self, X: Any) -> Any:
        """Select columns."""
        return X[:, self.columns] * self.factor_


class NotesItsParameters(LoggedStep):
    """Computes with more than its parameters."""

    n_set = 0

    def set_params(self, **params: Any) -> Self:
        """Note that parameters were set."""
        self.n_set += 1
        super().set_params(**params)
        return self

    def transform(self, X: Any) -> Any:
        """Select a column more for each time that parameters were set."""
        return X[:, : 1 + self.n_set] * self.factor_


def doubled_in_place(X: Any) -> Any:
    """Alter the input, and return it."""
    X *= 2
    return X


def squared(X: Any) -> Any:
    """Return squares."""
    return X**2


def jittered(X: Any) -> Any:
    """Return the input with noise."""
    return X + np.random.normal(size=X.shape)  # noqa: NPY002


def lengths(texts: Any) -> Any:
    """Return the lengths of texts."""
    return np.array([[len(text)] for text in texts])
