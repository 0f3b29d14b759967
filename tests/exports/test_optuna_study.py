"""A run as an Optuna study: what it reads back, and that nothing is doubled."""

from __future__ import annotations

import os
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from optuna.visualization import matplotlib as pictures
from scipy.stats import norm
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from skopt import BayesSearchCV
from skopt.space import Categorical, Real

from dask_hpsearch import DaskSearchCV, SearchRun
from tests.estimators import Deed, flowers
from tests.exports.kinds import KINDS, SPACE, TREE, GatedSearch, search_of
from tests.processes import wait_until
from tests.runs.kills import kill_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

X, y = flowers()
STATES = {"complete": "COMPLETE", "dropped": "PRUNED", "failed": "FAIL"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Optuna writes no lines."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def fitted(search: Any, client: Client, **options: Any) -> SearchRun:
    """Fit a search; return its run."""
    store = f"memory://{uuid.uuid4().hex}"
    own = DaskSearchCV(search, client=client, store=store, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of failing fits
        own.fit(X, y)
    assert own.run_url_ is not None
    return SearchRun.attach(own.run_url_)


def randomized(**options: Any) -> RandomizedSearchCV:
    """Make a search with each kind of parameter."""
    return RandomizedSearchCV(TREE, SPACE, n_iter=8, cv=3, random_state=0, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_in_a_database_reads_back_equal(
    kind: str, client: Client, tmp_path: Path
) -> None:
    """Parameters, scores, states and times of the candidates of each kind of search."""
    run = fitted(search_of(kind), client)
    storage = f"sqlite:///{tmp_path / 'studies.db'}"

    run.to_optuna(storage)
    study = optuna.load_study(study_name=run.run_id, storage=storage)

    _, candidates = run._candidates()
    refit = run._folder.manifest.traits["refit"]
    trials = {
        (
            one.user_attrs["dask_hpsearch"]["call"],
            one.user_attrs["dask_hpsearch"]["candidate"],
        ): one
        for one in study.trials
    }
    assert len(study.trials) == len(trials) == len(candidates)
    for one in candidates:
        trial = trials[one.call, one.number]
        name = refit if refit in one.mean_scores else next(iter(one.mean_scores))
        assert trial.params == dict(one.params)
        assert trial.state.name == STATES[one.state]
        if trial.state == TrialState.COMPLETE:
            assert trial.value == one.mean_scores[name]
        known = {
            split: score
            for split, score in enumerate(one.split_scores[name])
            if np.isfinite(score)
        }
        assert trial.intermediate_values == known
        assert trial.datetime_start.timestamp() == pytest.approx(one.started, abs=1e-5)
        assert trial.datetime_complete.timestamp() == pytest.approx(one.ended, abs=1e-5)
        assert trial.user_attrs["dask_hpsearch"]["run"] == run.run_id
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    ends = [one.datetime_complete for one in study.trials]
    assert ends == sorted(ends)


def test_distributions_are_those_of_the_search(client: Client) -> None:
    """SciPy's, with logarithms; lists are categories, with others than plain as texts."""
    study = fitted(randomized(), client).to_optuna()

    for trial in study.trials:
        assert trial.distributions == {
            "max_depth": IntDistribution(1, 8),
            "ccp_alpha": FloatDistribution(1e-4, 1e-1, log=True),
            "criterion": CategoricalDistribution(["gini", "entropy"]),
            "class_weight": CategoricalDistribution([None, "{0: 1, 1: 2, 2: 1}"]),
        }


def test_distributions_of_skopt_and_unbounded_ones(client: Client) -> None:
    """Dimensions in each form that skopt takes; tails of a normal one are cut."""
    space = {
        "ccp_alpha": Real(1e-4, 1e-1, prior="log-uniform"),
        "max_depth": (1, 9),
        "min_weight_fraction_leaf": (0.0, 0.3, "uniform"),
        "criterion": Categorical(["gini", "entropy"]),
        "splitter": ["best", "random"],
    }
    search = BayesSearchCV(TREE, space, n_iter=3, cv=2, random_state=0)
    study = fitted(search, client).to_optuna()
    assert study.trials[0].distributions == {
        "ccp_alpha": FloatDistribution(1e-4, 1e-1, log=True),
        "max_depth": IntDistribution(1, 9),
        "min_weight_fraction_leaf": FloatDistribution(0.0, 0.3),
        "criterion": CategoricalDistribution(["gini", "entropy"]),
        "splitter": CategoricalDistribution(["best", "random"]),
    }

    unbounded = {"ccp_alpha": norm(0.5, 0.01)}
    search = RandomizedSearchCV(TREE, unbounded, n_iter=3, cv=2, random_state=0)
    (found,) = fitted(search, client).to_optuna().trials[0].distributions.values()
    assert (found.low, found.high) == pytest.approx((0.4525, 0.5475), abs=1e-3)


def test_several_grids_are_one_space(client: Client) -> None:
    """A parameter has the values of all grids; a candidate, only its own parameters."""
    grids = [{"max_depth": [1, 2]}, {"min_samples_leaf": [3], "max_depth": [3]}]

    study = fitted(GridSearchCV(TREE, grids, cv=2), client).to_optuna()

    choices = {one.distributions["max_depth"].choices for one in study.trials}
    assert choices == {(1, 2, 3)}
    assert sorted(len(one.params) for one in study.trials) == [1, 1, 2]


def test_a_second_export_adds_only_what_is_new(client: Client, tmp_path: Path) -> None:
    """While the search runs, after its driver was killed, and once it has finished."""
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    gated = GatedSearch(tmp_path, 4)
    own = DaskSearchCV(gated.search, client=client, store=tmp_path / "store")
    run = own.submit(X, y)

    wait_until(lambda: run.progress().fits_done >= 4)
    study = run.to_optuna(storage)
    assert 0 < len(study.trials) < 12
    assert {one.state for one in study.trials} == {TrialState.COMPLETE}
    kill_driver(run)
    run.to_optuna(storage)
    gated.let(1000)
    run.resume(client)
    result = run.result(60)
    run.to_optuna(storage)
    study = run.to_optuna(storage)

    assert len(study.trials) == 12
    found = {one.params["number"]: one.value for one in study.trials}
    scores = result.cv_results_["mean_test_score"]
    assert found == dict(enumerate(scores))


def test_an_extended_run_adds_only_its_new_candidates(
    client: Client, tmp_path: Path
) -> None:
    """Although the ordinals of the earlier ones change."""
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    deed = Deed(client=os.getpid())
    space = {"number": list(range(50))}
    search = RandomizedSearchCV(deed, space, n_iter=5, cv=2, random_state=0)
    run = DaskSearchCV(search, client=client, store=tmp_path / "store").submit(X, y)
    run.result(60)
    run.to_optuna(storage)

    run.extend(4, client)
    run.result(60)
    study = run.to_optuna(storage)

    numbers = [one.params["number"] for one in study.trials]
    assert len(numbers) == len(set(numbers))
    assert set(run.trials()["param_number"]) <= set(numbers)


def test_several_runs_can_share_a_study(client: Client, tmp_path: Path) -> None:
    """Of the same space; of another one, the error says what to do."""
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    first, second = fitted(randomized(), client), fitted(randomized(), client)
    other = fitted(GridSearchCV(TREE, {"max_depth": [1, 2]}, cv=2), client)

    first.to_optuna(storage, "both")
    study = second.to_optuna(storage, "both")

    assert len(study.trials) == 16
    # Candidates are exported in the order in which they ended.
    with pytest.raises(
        ValueError, match=r"'both' cannot take candidate 0\.\d of.*study_name"
    ):
        other.to_optuna(storage, "both")


def test_one_of_several_scores_is_chosen(client: Client) -> None:
    """The search's own, or a named one; without either, the error has the names."""
    two = ["accuracy", "balanced_accuracy"]
    grid = {"max_depth": [1, 2]}
    own = fitted(GridSearchCV(TREE, grid, scoring=two, refit=two[1], cv=2), client)
    none = fitted(GridSearchCV(TREE, grid, scoring=two, refit=False, cv=2), client)

    table = own.trials()
    assert own.to_optuna().best_value == table["mean_test_balanced_accuracy"].max()
    named = own.to_optuna(scoring="accuracy")
    assert named.best_value == table["mean_test_accuracy"].max()
    with pytest.raises(ValueError, match=r"choose one with scoring=, of.*accuracy"):
        none.to_optuna()
    with pytest.raises(ValueError, match=r"scoring must be one of.*got 'auc'"):
        own.to_optuna(scoring="auc")


def test_optuna_draws_its_pictures(client: Client) -> None:
    """History, slices, importances, parallel coordinates, intermediate values."""
    import matplotlib.pyplot as plt

    study = fitted(randomized(), client).to_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's own, of experimental functions
        pictures.plot_optimization_history(study)
        pictures.plot_slice(study)
        pictures.plot_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
        pictures.plot_parallel_coordinate(study)
        pictures.plot_intermediate_values(study)
        importances = optuna.importance.get_param_importances(study)
    plt.close("all")

    assert set(importances) == set(SPACE)


def test_a_search_that_cannot_be_loaded_has_the_space_of_its_values(
    client: Client,
) -> None:
    """Of a class that this process lacks."""
    run = fitted(GridSearchCV(TREE, {"max_depth": [1, 2, 4]}, cv=2), client)
    run._folder.store.delete("search.pkl")

    study = run.to_optuna()

    assert study.trials[0].distributions == {"max_depth": IntDistribution(1, 4)}
    assert sorted(one.params["max_depth"] for one in study.trials) == [1, 2, 4]


def test_an_empty_run_is_an_empty_study(client: Client) -> None:
    """Before its first fit has finished."""
    deed = Deed(client=os.getpid(), seconds=5)
    search = GridSearchCV(deed, {"number": [1]}, cv=2)
    run = DaskSearchCV(search, client=client).submit(X, y)
    try:
        assert run.to_optuna().trials == []
    finally:
        run.cancel()
        run.wait(60)
