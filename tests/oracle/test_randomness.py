from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import uniform
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import (
    BaseCrossValidator,
    GridSearchCV,
    KFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
)

from tests.oracle.estimators import Counting, GlobalUniform, Picky
from tests.oracle.kinds import KINDS, build

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

THRESHOLDS = {"threshold": [1, 2, 5]}
# Halving searches refuse splits that change from call to call.
ANY_SPLITS = ["grid", "random", "bayes", "thrice"]
SEEDED = ["random", "halving-grid", "halving-random", "bayes"]


@pytest.mark.parametrize("kind", KINDS)
def test_splits_given_as_a_list(kind: str, oracle: Oracle, iris: Data) -> None:
    """Splits may be index arrays, of different lengths."""
    order = np.random.default_rng(3).permutation(120)
    cv = [(order[:80], order[80:]), (order[40:], order[:40]), (order[::2], order[1::4])]

    found = oracle.check(partial(build, kind, Picky(), THRESHOLDS, cv=cv), *iris)

    assert found.n_splits_ == 3
    assert found.search_.cv is cv


@pytest.mark.parametrize("kind", KINDS)
def test_splits_given_as_a_generator(kind: str, oracle: Oracle, iris: Data) -> None:
    """A generator of splits is used up once, and comes back on the search."""
    splitter = KFold(4, shuffle=True, random_state=0)

    def make() -> Any:
        return build(kind, Picky(), THRESHOLDS, cv=splitter.split(*iris))

    found = oracle.check(make, *iris)

    assert found.n_splits_ == 4
    assert found.search_.cv is found.search.cv


def test_splits_given_as_masks(oracle: Oracle, iris: Data) -> None:
    """Splits may be boolean masks and lists too."""
    first = np.arange(120) < 70
    cv = [(first, ~first), (list(range(50)), list(range(50, 120)))]

    oracle.check(partial(GridSearchCV, Picky(), THRESHOLDS, cv=cv), *iris)


@pytest.mark.parametrize("kind", ANY_SPLITS)
@pytest.mark.parametrize(
    "make_cv",
    [
        partial(KFold, 3, shuffle=True),
        partial(ShuffleSplit, 4, test_size=0.3),
        partial(RepeatedStratifiedKFold, n_splits=2, n_repeats=2),
    ],
    ids=lambda make_cv: make_cv.func.__name__,
)
def test_unseeded_splits(
    kind: str,
    make_cv: Callable[[], BaseCrossValidator],
    oracle: Oracle,
    iris: Data,
) -> None:
    """Splits without a seed are drawn from numpy's global state, once a call."""
    oracle.check(lambda: build(kind, Picky(), THRESHOLDS, cv=make_cv()), *iris)


@pytest.mark.parametrize("kind", ANY_SPLITS)
def test_splits_from_a_random_state(kind: str, oracle: Oracle, iris: Data) -> None:
    """Splits drawn from a RandomState leave it where a plain fit leaves it."""

    def make() -> Any:
        cv = KFold(3, shuffle=True, random_state=np.random.RandomState(5))
        return build(kind, Picky(), THRESHOLDS, cv=cv)

    oracle.check(make, *iris)


@pytest.mark.parametrize("kind", SEEDED)
@pytest.mark.parametrize(
    "make_state",
    [lambda: None, lambda: 11, lambda: np.random.RandomState(11)],
    ids=["global", "integer", "RandomState"],
)
def test_random_state(
    kind: str, make_state: Callable[[], Any], oracle: Oracle, iris: Data
) -> None:
    """Candidates and subsamples are drawn as in a plain fit."""
    values = {"threshold": [1, 2, 3, 4, 5, 6]}

    oracle.check(lambda: build(kind, Picky(), values, random_state=make_state()), *iris)


@pytest.mark.parametrize("kind", ["random", "halving-random"])
@pytest.mark.parametrize(
    "make_distribution",
    [GlobalUniform, Counting, partial(uniform, 1, 4)],
    ids=["global", "counting", "scipy"],
)
def test_distributions(
    kind: str, make_distribution: Callable[[], Any], oracle: Oracle, iris: Data
) -> None:
    """Every draw is made once, also where random_state does not rule it."""

    def make() -> Any:
        return build(kind, Picky(), {"threshold": make_distribution()})

    oracle.check(make, *iris)


def test_seeds_as_search_values(oracle: Oracle, iris: Data) -> None:
    """A RandomState among the candidates starts every fit from the same state."""
    forest = RandomForestClassifier(n_estimators=3)

    def make() -> Any:
        states = [np.random.RandomState(0), np.random.RandomState(1), 2]
        return GridSearchCV(forest, {"random_state": states}, cv=2)

    oracle.check(make, *iris)
