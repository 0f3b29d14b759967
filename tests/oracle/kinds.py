"""Every kind of search, over the same small space of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
)
from sklearn.tree import DecisionTreeClassifier
from skopt import BayesSearchCV
from skopt.learning import ExtraTreesRegressor

from tests.oracle.estimators import ThriceSearchCV

if TYPE_CHECKING:
    import numpy as np

    Data = tuple[np.ndarray, np.ndarray]

DEPTHS = {"max_depth": [1, 2, 3]}
THRESHOLDS = {"threshold": [1, 2, 3]}  # of Picky
MULTIMETRIC = ("grid", "random", "bayes", "thrice")
CALLABLE_REFIT = ("grid", "random", "halving-grid", "halving-random", "thrice")
KINDS = ("grid", "random", "halving-grid", "halving-random", "bayes", "thrice")

# skopt's default of a hundred trees takes seconds for what is not under test.
QUICK_MODEL = {
    "base_estimator": ExtraTreesRegressor(n_estimators=3, random_state=0),
    "acq_func": "EI",
    "acq_optimizer_kwargs": {"n_points": 20},
    "n_initial_points": 2,
}


def tree() -> DecisionTreeClassifier:
    """Make the classifier that most tests search over, by its depth."""
    return DecisionTreeClassifier(random_state=0)


def build(
    kind: str, estimator: Any, space: dict[str, list[Any]], **options: Any
) -> Any:
    """Make a search of a kind; ``space`` has three candidates."""
    options = {"cv": 3, **options}
    seeded = {"random_state": 0, **options}
    match kind:
        case "grid":
            return GridSearchCV(estimator, space, **options)
        case "random":
            return RandomizedSearchCV(estimator, space, **{"n_iter": 3, **seeded})
        case "halving-grid":
            return HalvingGridSearchCV(estimator, space, **{"factor": 2, **seeded})
        case "halving-random":
            halving = {"factor": 2, "n_candidates": 3, **seeded}
            return HalvingRandomSearchCV(estimator, space, **halving)
        case "bayes":
            bayes = {"n_iter": 3, "optimizer_kwargs": QUICK_MODEL, **seeded}
            return BayesSearchCV(estimator, space, **bayes)
        case "thrice":
            return ThriceSearchCV(estimator, space, **options)
    raise AssertionError(kind)
