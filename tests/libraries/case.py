"""What a case of the matrix is: an estimator of a library, its space and its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_iris

from tests.oracle.kinds import build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EVERY_KIND = ("grid", "random", "halving-grid", "halving-random", "bayes")
# For libraries whose fits take seconds: one of each idea.
SOME_KINDS = ("grid", "random", "halving-random", "bayes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to use a library in a search.

    Attributes
    ----------
    name : str
        The library's, and what is special.
    estimator : callable
        Makes the estimator, each time from the same beginnings.
    space : mapping of str to list
        Three values of one parameter, or so.
    data : callable
        Makes X and y.
    fit_params : callable
        Makes what else ``fit`` takes.
    kinds : tuple of str
        Kinds of search to try, as `tests.oracle.kinds.build` names them.
    options : mapping of str to object
        Options of the search.
    fitted_name : str or None
        Attribute of the best estimator by which early stopping is seen, compared too.
    """

    name: str
    estimator: Callable[[], Any]
    space: Mapping[str, list[Any]]
    data: Callable[[], tuple[Any, Any]]
    fit_params: Callable[[], dict[str, Any]] = dict
    kinds: tuple[str, ...] = ("grid",)
    options: Mapping[str, Any] = field(default_factory=dict)
    fitted_name: str | None = None

    def search(self, kind: str) -> Any:
        """Make the search."""
        options = {"cv": 2, "error_score": "raise", **self.options}
        return build(kind, self.estimator(), dict(self.space), **options)


def flowers() -> tuple[np.ndarray, np.ndarray]:
    """120 irises of three classes, mixed."""
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:120]
    return X[order], y[order]


def float32_flowers() -> tuple[np.ndarray, np.ndarray]:
    """Make them as torch wants them."""
    X, y = flowers()
    return X.astype(np.float32), y.astype(np.int64)


def petals() -> tuple[np.ndarray, np.ndarray]:
    """Make a regression: a petal's width from its other measures."""
    X, _ = flowers()
    return X[:, :3], X[:, 3]


def tumours() -> tuple[np.ndarray, np.ndarray]:
    """200 tumours of two classes, unequal in number."""
    X, y = load_breast_cancer(return_X_y=True)
    return X[:200, :8], y[:200]


def shop() -> tuple[pd.DataFrame, np.ndarray]:
    """Make a frame with numbers, missing values, strings and categories."""
    rng = np.random.default_rng(0)
    n = 160
    city = rng.choice(["Bern", "Oslo", "Rome"], n)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": np.where(rng.random(n) < 0.1, np.nan, rng.normal(50, 9, n)),
            "city": pd.Categorical(city),
            "plan": pd.Categorical(rng.choice(["a", "b"], n), ordered=True),
        }
    )
    y = ((frame["age"] > 45) ^ (city == "Oslo")).to_numpy().astype(int)
    return frame, y


def weights(n_samples: int) -> np.ndarray:
    """Draw a weight for each sample."""
    return np.random.default_rng(1).uniform(0.5, 2.0, n_samples)
