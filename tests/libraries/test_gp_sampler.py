"""Optuna's sampler by Gaussian processes, which needs PyTorch."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import pytest
from distributed import Client, LocalCluster
from optuna.distributions import FloatDistribution
from optuna.samplers import GPSampler
from optuna_integration import OptunaSearchCV
from sklearn.datasets import load_iris
from sklearn.svm import SVC
from skopt import BayesSearchCV
from skopt.space import Categorical, Real

from dask_hpsearch import DaskSearchCV, local_cluster

X, y = load_iris(return_X_y=True)
N_TRIALS = 14


def bayes() -> Any:
    """Make a search over a continuous, logarithmic and a categorical parameter."""
    space = {
        "C": Real(1e-3, 1e3, prior="log-uniform"),
        "kernel": Categorical(["rbf", "linear"]),
    }
    return BayesSearchCV(
        SVC(), space, n_iter=N_TRIALS, cv=3, random_state=0, refit=False
    )


def study_search(seed: int) -> Any:
    """Make a search on a study with a sampler by Gaussian processes."""
    study = optuna.create_study(
        direction="maximize",
        sampler=GPSampler(seed=seed, n_startup_trials=5, deterministic_objective=True),
        pruner=optuna.pruners.NopPruner(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = {"C": FloatDistribution(1e-3, 1e3, log=True)}
        return OptunaSearchCV(
            SVC(), space, n_trials=N_TRIALS, cv=3, study=study, refit=False
        )


@pytest.mark.parametrize("sampler", ["gp", GPSampler(seed=0)], ids=["name", "own"])
def test_it_chooses_the_candidates_of_another_search(
    sampler: Any, cluster: LocalCluster
) -> None:
    """More often than not near the best ones, after its first random trials."""
    with Client(cluster, set_as_default=False) as client:
        found = DaskSearchCV(bayes(), client=client, sampler=sampler).fit(X, y)

    results = found.cv_results_
    assert len(results["params"]) == N_TRIALS
    assert found.best_score_ >= 0.97


def test_a_study_with_it_is_that_of_a_plain_fit() -> None:
    """With a seed and one slot."""
    plain = study_search(3).fit(X, y)

    with (
        local_cluster(1, 1, dashboard_address=None) as cluster,
        cluster.get_client() as client,
    ):
        ours = DaskSearchCV(study_search(3), client=client).fit(X, y).search_

    assert [trial.params for trial in ours.trials_] == [
        trial.params for trial in plain.trials_
    ]
    assert [trial.value for trial in ours.trials_] == [
        trial.value for trial in plain.trials_
    ]


def test_trials_of_all_slots_differ(cluster: LocalCluster) -> None:
    """Those that run count as if they had a low score."""
    with Client(cluster, set_as_default=False) as client:
        ours = DaskSearchCV(study_search(0), client=client).fit(X, y).search_

    values = [trial.params["C"] for trial in ours.trials_]
    assert len(set(values)) == N_TRIALS
    assert [trial.state.name for trial in ours.trials_] == ["COMPLETE"] * N_TRIALS
