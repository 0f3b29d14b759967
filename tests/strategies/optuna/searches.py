"""OptunaSearchCV objects for tests, and what two fitted ones must have in common."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna_integration import OptunaSearchCV
from sklearn.svm import SVC

from dask_hpsearch import DaskSearchCV
from tests.estimators import Deed, flowers

if TYPE_CHECKING:
    from collections.abc import Mapping

X, y = flowers()
SPACE = {
    "C": FloatDistribution(1e-3, 10, log=True),
    "coef0": FloatDistribution(0.0, 1.0, step=0.25),
    "degree": IntDistribution(1, 5, step=2),
    "cache_size": IntDistribution(1, 64, log=True),
    "kernel": CategoricalDistribution(["rbf", "linear", "poly"]),
}
NUMBERS = {"number": IntDistribution(0, 70)}


def optuna_search(
    estimator: Any = None, space: Mapping[str, Any] = SPACE, **options: Any
) -> Any:
    """Make a search; the warning that its class is experimental is known."""
    options = {"n_trials": 12, "random_state": 0, "cv": 3, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return OptunaSearchCV(estimator or SVC(), dict(space), **options)


def deeds(log: object = None, **options: Any) -> Any:
    """Make a search whose fits note themselves."""
    deed = Deed(client=os.getpid(), log=None if log is None else str(log))
    options = {"n_trials": 12, "random_state": 0, "cv": 3, **options}
    return optuna_search(deed, NUMBERS, **options)


def study_with(sampler: Any = None, pruner: Any = None, **options: Any) -> Any:
    """Make a study to be maximized; without a pruner it does not prune."""
    return optuna.create_study(
        direction="maximize",
        sampler=sampler or optuna.samplers.TPESampler(seed=0),
        pruner=pruner or optuna.pruners.NopPruner(),
        study_name="the study",  # Hyperband's brackets depend on it
        **options,
    )


def fitted(search: Any, client: Any, **options: Any) -> Any:
    """Fit a search on a cluster; return the search itself."""
    return DaskSearchCV(search, client=client, **options).fit(X, y).search_


def contents(trial: Any) -> dict[str, Any]:
    """Return what a trial has, times apart; NaN is equal to itself."""
    kept = {
        "number": trial.number,
        "state": trial.state,
        "params": trial.params,
        "distributions": trial.distributions,
        "value": trial.value,
        "intermediate_values": trial.intermediate_values,
        "system_attrs": trial.system_attrs,
        "user_attrs": {
            name: value
            for name, value in trial.user_attrs.items()
            if "time" not in name
        },
    }
    np.testing.assert_equal(kept, kept)  # of a kind that it can compare
    return kept


def assert_same(plain: Any, ours: Any) -> None:
    """Assert that two fitted searches are equal, times apart."""
    assert len(plain.trials_) == len(ours.trials_)
    for left, right in zip(plain.trials_, ours.trials_, strict=True):
        np.testing.assert_equal(contents(right), contents(left))
    assert list(plain.study_.user_attrs) == list(ours.study_.user_attrs)
    for name in (
        "best_index_",
        "best_params_",
        "best_score_",
        "n_splits_",
        "n_trials_",
    ):
        assert getattr(plain, name) == getattr(ours, name)
    np.testing.assert_array_equal(plain.sample_indices_, ours.sample_indices_)
    assert type(plain.scorer_) is type(ours.scorer_)
    assert set(vars(plain)) == set(vars(ours))
