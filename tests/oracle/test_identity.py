"""Values that an estimator knows by identity are the same objects in every fit."""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, cross_validate

if TYPE_CHECKING:
    from distributed import Client

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data


def known_values() -> tuple[type[BaseEstimator], dict[str, Any], Any]:
    """Return a class, values that it tells by identity, and a scorer that does so too.

    All are pickled by value, as those of a notebook are.
    """

    def linear(values: Any) -> Any:
        return values

    def squared(values: Any) -> Any:
        return values * values

    class Mode(enum.Enum):
        FAST = "fast"
        EXACT = "exact"

    class Sentinel:
        """A class that stands for itself."""

    class Token:
        """An object of its own."""

    token = Token()
    large = np.arange(100_000.0)
    names = [linear, squared, Mode.FAST, Mode.EXACT, Sentinel, token, large]

    class Knowing(ClassifierMixin, BaseEstimator):
        def __init__(self, value: Any = linear) -> None:
            self.value = value

        def fit(self, X: Any, y: Any, hint: Any = None) -> Self:
            self.classes_ = np.unique(y)
            self.place_ = [self.value is one for one in names].index(True)
            self.hinted_ = hint is None or hint is token
            return self

        def predict(self, X: Any) -> Any:
            return np.zeros(len(X), dtype=int)

    def scoring(estimator: Any, X: Any, y: Any) -> float:
        known = any(estimator.value is one for one in names)
        return estimator.place_ + 100.0 * known + 1000.0 * estimator.hinted_

    values = {
        "functions": [linear, squared],
        "members": list(Mode),
        "classes": [Sentinel, linear],
        "objects": [token],
        "arrays": [large],
    }
    for cls in (Token, Knowing):  # parameters are copied for each fit, these are not
        cls.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    return Knowing, values | {"hint": token}, scoring


@pytest.mark.parametrize("kind", ["functions", "members", "classes", "objects"])
@pytest.mark.parametrize("scorer", ["own", "none"])
def test_values_in_a_grid(kind: str, scorer: str, oracle: Oracle, iris: Data) -> None:
    """Estimator, parameters, scorer and fit parameters know the same objects."""
    Knowing, values, scoring = known_values()

    oracle.check(
        partial(
            GridSearchCV,
            Knowing(),
            {"value": values[kind]},
            cv=2,
            scoring=scoring if scorer == "own" else None,
            error_score="raise",
        ),
        *iris,
        hint=values["hint"],
    )


def test_values_of_calls(client: Client, iris: Data) -> None:
    """The joblib backend's fits and other calls know them too."""
    Knowing, values, scoring = known_values()

    def where(value: Any) -> list[bool]:
        return [value is one for one in values["functions"]]

    with joblib.parallel_config("dask_hpsearch", client=client):
        found = cross_validate(
            Knowing(values["hint"]),
            *iris,
            cv=2,
            scoring=scoring,
            params={"hint": values["hint"]},
            error_score="raise",
        )
        places = joblib.Parallel()(
            joblib.delayed(where)(value) for value in values["functions"] * 3
        )

    assert found["test_score"].tolist() == [1105.0, 1105.0]
    assert places == [[True, False], [False, True]] * 3
