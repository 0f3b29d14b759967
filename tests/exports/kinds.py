"""A search of each kind that a journal records, and what is known of its candidates."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from dask_ml.model_selection import HyperbandSearchCV
from optuna.pruners import MedianPruner
from scipy.stats import loguniform, randint
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
)
from sklearn.tree import DecisionTreeClassifier
from skopt import BayesSearchCV

from dask_hpsearch import AsyncHalvingSearchCV
from tests.estimators import Deed, TicketDeed, flowers
from tests.strategies.incremental.models import Curve
from tests.strategies.optuna.searches import deeds, study_with

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch import CandidateResult

X, y = flowers()
_RNG = np.random.default_rng(2)
CURVES = {"level": _RNG.uniform(0.3, 1, 50), "speed": _RNG.uniform(0.1, 5, 50)}
TREE = DecisionTreeClassifier(random_state=0)
NUMBERS = {"number": list(range(6))}
SPACE = {
    "max_depth": randint(1, 9),
    "ccp_alpha": loguniform(1e-4, 1e-1),
    "criterion": ["gini", "entropy"],
    "class_weight": [None, {0: 1, 1: 2, 2: 1}],
}
KINDS = (
    "grid",
    "failing",
    "several scores",
    "randomized",
    "halving",
    "asynchronous halving",
    "bayes",
    "optuna, pruned",
    "hyperband",
)


def search_of(kind: str) -> Any:  # noqa: PLR0911 (one for each kind)
    """Make a search of a kind."""
    deed = Deed(client=os.getpid())
    if kind == "grid":
        return GridSearchCV(deed, NUMBERS, cv=3, return_train_score=True)
    if kind == "failing":
        return GridSearchCV(deed, {"number": [0, 1], "deed": ["raise", "fit"]}, cv=2)
    if kind == "several scores":
        two = ["accuracy", "balanced_accuracy"]
        return GridSearchCV(TREE, {"max_depth": [1, 2, 3]}, scoring=two, refit=two[1])
    if kind == "randomized":
        return RandomizedSearchCV(TREE, SPACE, n_iter=8, cv=3, random_state=0)
    if kind == "halving":
        return HalvingGridSearchCV(
            deed, NUMBERS, cv=2, factor=2, min_resources=10, random_state=0
        )
    if kind == "asynchronous halving":
        return AsyncHalvingSearchCV(
            TREE,
            SPACE,
            n_candidates=6,
            cv=2,
            factor=2,
            min_resources=20,
            random_state=0,
        )
    if kind == "bayes":
        space = {"number": (0, 20)}
        return BayesSearchCV(deed, space, n_iter=5, cv=2, random_state=0)
    if kind == "optuna, pruned":
        pruner = MedianPruner(n_startup_trials=2, n_warmup_steps=0)
        return deeds(study=study_with(pruner=pruner), n_trials=8)
    return HyperbandSearchCV(
        Curve(), CURVES, max_iter=4, aggressiveness=2, random_state=0
    )


class GatedSearch:
    """A search of 12 candidates, with one fit each, of which only as many end as a test lets.

    Parameters
    ----------
    folder : Path
    n_fits : int
        How many fits may end at first; `let` lets more.

    Attributes
    ----------
    search : GridSearchCV
    """

    def __init__(self, folder: Path, n_fits: int) -> None:
        self._tickets = folder / "tickets"
        self._tickets.mkdir()
        self.let(n_fits)
        deed = TicketDeed(folder=str(self._tickets), client=os.getpid())
        one_split = ShuffleSplit(1, random_state=0)
        self.search = GridSearchCV(deed, {"number": list(range(12))}, cv=one_split)

    def let(self, n_fits: int) -> None:
        """Let so many fits end, counted from the first."""
        new = self._tickets / "new"
        new.write_text(str(n_fits), encoding="ascii")
        new.replace(self._tickets / "limit")


def known_of(candidates: list[CandidateResult]) -> dict[str, Any]:
    """Return what is known of candidates, times and true parameters apart."""
    return {
        one.name: (
            sorted(one.params),
            str(one.state),
            dict(one.extra),
            one.digest,
            # A fit that still runs when its candidate is dropped adds a score later.
            None if one.state == "dropped" else _scores_of(one),
        )
        for one in candidates
    }


def _scores_of(one: CandidateResult) -> tuple[Any, ...]:
    return (
        _text(one.split_scores),
        _text(one.train_scores),
        one.mean_scores if not _has_nan(one) else None,
        one.score,
    )


def _has_nan(one: CandidateResult) -> bool:
    return any(map(math.isnan, one.mean_scores.values()))


def _text(scores: Any) -> str:
    return str({name: list(map(float, values)) for name, values in scores.items()})
