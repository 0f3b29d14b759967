"""On one slot, an OptunaSearchCV is fitted exactly as by its own fit."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna import pruners, samplers
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.model_selection import GroupKFold

from dask_hpsearch import DaskSearchCV, local_cluster
from tests.estimators import Deed
from tests.strategies.optuna.searches import (
    SPACE,
    X,
    assert_same,
    fitted,
    optuna_search,
    study_with,
    y,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

STEPS = {
    "alpha": FloatDistribution(1e-8, 1e3, log=True),
    "penalty": CategoricalDistribution(["l1", "l2"]),
}
# OptunaSearchCV's own fit warns so of each trial.
pytestmark = pytest.mark.filterwarnings("ignore:`optuna.terminator`:FutureWarning")


@pytest.fixture(scope="module")
def slot() -> Iterator[Client]:
    """A client of a cluster with one slot."""
    with local_cluster(1, 1, dashboard_address=":0") as cluster:
        client = cluster.get_client()
        with client:
            yield client


def both(make: Any, slot: Client, **params: Any) -> tuple[Any, Any]:
    """Fit a search by itself, and an equal one on a slot."""
    plain = make().fit(X, y, **params)
    ours = DaskSearchCV(make(), client=slot).fit(X, y, **params)
    assert ours.backend_ == "trials"
    return plain, ours.search_


@pytest.mark.parametrize("kind", ["default", "TPE", "random", "QMC", "grid"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_trials_are_those_of_its_own_loop(kind: str, slot: Client) -> None:
    """Parameters of all kinds, values, states and attributes, for several samplers."""
    grid = {"kernel": ["rbf", "poly"], "degree": [1, 3]}
    space = {name: SPACE[name] for name in grid} if kind == "grid" else SPACE

    def sampler() -> Any:
        return {
            "TPE": lambda: samplers.TPESampler(seed=1, multivariate=False),
            "random": lambda: samplers.RandomSampler(seed=1),
            "QMC": lambda: samplers.QMCSampler(seed=1),
            "grid": lambda: samplers.GridSampler(grid, seed=1),
        }[kind]()

    def make() -> Any:
        study = None if kind == "default" else study_with(sampler())
        return optuna_search(space=space, study=study, return_train_score=True)

    plain, ours = both(make, slot)

    assert_same(plain, ours)
    np.testing.assert_array_equal(plain.predict(X), ours.predict(X))


@pytest.mark.parametrize(
    "pruner",
    [
        pruners.MedianPruner(n_startup_trials=2),
        pruners.SuccessiveHalvingPruner(),
        pruners.HyperbandPruner(max_resource=6),
        pruners.NopPruner(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_partial_fit_is_pruned_as_by_its_own_loop(pruner: Any, slot: Client) -> None:
    """The same steps, reported values and decisions."""

    def make() -> Any:
        return optuna_search(
            SGDClassifier(random_state=0),
            STEPS,
            study=study_with(pruner=copy.deepcopy(pruner)),  # some keep a state
            enable_pruning=True,
            max_iter=6,
            return_train_score=True,
        )

    plain, ours = both(make, slot)

    assert_same(plain, ours)
    states = {trial.state.name for trial in ours.trials_}
    assert ("PRUNED" in states) != isinstance(pruner, pruners.NopPruner)


def test_partial_fit_of_a_regressor_has_no_classes(slot: Client) -> None:
    """As in its own fit."""

    def make() -> Any:
        space = {"alpha": STEPS["alpha"]}
        options: dict[str, Any] = {"n_trials": 4, "max_iter": 3, "enable_pruning": True}
        return optuna_search(SGDRegressor(random_state=0), space, **options)

    assert_same(*both(make, slot))


def test_samples_and_arguments_of_fit_are_drawn_as_by_its_own_fit(slot: Client) -> None:
    """A part of the samples, with their groups and weights; the refit has all."""

    def make() -> Any:
        return optuna_search(subsample=0.5, cv=GroupKFold(2), n_trials=5)

    rng = np.random.default_rng(0)
    groups, weights = np.arange(len(y)) % 4, rng.uniform(0.5, 2, len(y))
    plain, ours = both(make, slot, groups=groups, sample_weight=weights)

    assert_same(plain, ours)
    assert len(ours.sample_indices_) == len(y) // 2
    np.testing.assert_array_equal(
        plain.best_estimator_.dual_coef_, ours.best_estimator_.dual_coef_
    )


@pytest.mark.parametrize("error_score", [np.nan, 0.125])
def test_failing_fits_get_the_error_score(error_score: float, slot: Client) -> None:
    """A trial whose every fit fails has failed, unless the score is a number."""

    def make() -> Any:
        space = {"deed": CategoricalDistribution(["fit", "raise"])}
        return optuna_search(Deed(), space, error_score=error_score, n_trials=6)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # its mean of nothing
        plain, ours = both(make, slot)

    assert_same(plain, ours)
    states = {trial.state.name for trial in ours.trials_}
    assert ("FAIL" in states) == np.isnan(error_score)


def test_errors_that_are_caught_end_their_trial_only(slot: Client) -> None:
    """And others end the search, with the error of the fit."""
    space = {"deed": CategoricalDistribution(["fit", "raise"])}

    class Refusing(Deed):
        def fit(self, X: Any, y: Any) -> Any:
            if self.deed == "raise":
                msg = "not a ValueError"
                raise RuntimeError(msg)
            return super().fit(X, y)

    def make(**options: Any) -> Any:
        return optuna_search(
            Refusing(), space, error_score="raise", n_trials=6, **options
        )

    ours = fitted(make(catch=RuntimeError, refit=False), slot)

    plain = make(catch=(RuntimeError,), refit=False).fit(X, y)
    assert [one.state for one in ours.trials_] == [one.state for one in plain.trials_]
    with pytest.raises(RuntimeError, match="not a ValueError"):
        fitted(make(), slot)


def test_a_study_goes_on_with_what_it_has(slot: Client) -> None:
    """Trials that it had, and one that waits with parameters of the user's."""

    def make() -> Any:
        study = study_with()
        optuna_search(study=study, n_trials=3).fit(X, y)
        study.enqueue_trial({"kernel": "linear", "C": 0.5})
        return optuna_search(study=study, n_trials=8)

    plain, ours = both(make, slot)

    assert_same(plain, ours)
    assert ours.n_trials_ == 11


def test_a_stop_by_a_callback_is_obeyed(slot: Client) -> None:
    """Callbacks get the study and the trial, in the driver."""
    seen: list[int] = []

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        seen.append(trial.number)
        if trial.number == 3:
            study.stop()

    ours = fitted(optuna_search(callbacks=[stop], n_trials=None), slot)

    assert seen == [0, 1, 2, 3]
    assert ours.n_trials_ == 4
