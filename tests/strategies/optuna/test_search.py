"""OptunaSearchCV in DaskSearchCV: what it takes, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.exceptions import ExperimentalWarning
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import MissingExtraError, UnsupportedSearchError
from dask_hpsearch.execution.client import slots_of_its_own
from tests.strategies.optuna.searches import (
    SPACE,
    X,
    assert_same,
    contents,
    fitted,
    optuna_search,
    study_with,
    y,
)

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client


def one_by_one() -> Any:
    """Make a search whose trials do not depend on the order in which others end."""
    study = study_with(optuna.samplers.RandomSampler(seed=0))
    return optuna_search(study=study, n_trials=6)


def by_params(search: Any) -> list[Any]:
    """Return the contents of a search's trials, in the order of their numbers."""
    return [contents(trial) for trial in search.trials_]


def test_data_may_come_in_any_way(client: Client, tmp_path: Path) -> None:
    """As array, table, Dask array, or by their path."""
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    ways = [
        (X, y),
        (str(tmp_path / "X.npy"), str(tmp_path / "y.npy")),
        (da.from_array(X, chunks=(30, 4)), da.from_array(y, chunks=30)),
    ]

    found = [
        by_params(DaskSearchCV(one_by_one(), client=client).fit(*data).search_)
        for data in ways
    ]

    for one in found[1:]:
        np.testing.assert_equal(one, found[0])
    table = DaskSearchCV(one_by_one(), client=client).fit(pd.DataFrame(X), pd.Series(y))
    assert table.best_score_ == pytest.approx(max(trial["value"] for trial in found[0]))


def test_a_fitted_search_needs_nothing_of_this_package(client: Client) -> None:
    """It is of the user's class, a pickle away from any other process."""
    ours = DaskSearchCV(optuna_search(n_trials=4), client=client).fit(X, y)

    loaded = pickle.loads(pickle.dumps(ours.search_))

    assert type(loaded).__module__.startswith("optuna_integration.")
    assert_same(ours.search_, loaded)
    np.testing.assert_array_equal(loaded.predict(X), ours.predict(X))
    assert ours.score(X, y) == loaded.score(X, y)
    assert list(ours.classes_) == [0, 1, 2]


def test_the_search_itself_stays_unfitted_and_the_study_is_the_users(
    client: Client,
) -> None:
    """As with a plain fit, a study that was given has the trials."""
    study = study_with()
    search = optuna_search(study=study, n_trials=3, timeout=60.0)
    before = dict(vars(search))

    ours = fitted(search, client)

    assert vars(search) == before
    assert ours.study_ is study
    assert len(study.trials) == 3
    assert (ours.n_trials, ours.timeout, ours.refit) == (3, 60.0, True)


def test_it_can_be_fitted_again_and_cloned(client: Client) -> None:
    """Each fit makes a study of its own unless it was given one."""
    ours = DaskSearchCV(optuna_search(n_trials=3), client=client)
    first = ours.fit(X, y).study_

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        again = clone(ours).fit(X, y)
        refitted = DaskSearchCV(ours.search_, client=client).fit(X, y)

    assert len(first.trials) == len(again.trials_) == len(refitted.trials_) == 3
    params = [trial.params for trial in first.trials]
    assert params == [trial.params for trial in again.trials_]


def test_its_own_checks_are_made(client: Client) -> None:
    """With its own words."""
    with pytest.raises(ValueError, match="must support partial_fit"):
        fitted(optuna_search(enable_pruning=True), client)
    minimized = optuna.create_study(direction="minimize")
    with pytest.raises(ValueError, match="must be 'maximize'"):
        fitted(optuna_search(study=minimized), client)
    trainable = optuna_search(SGDClassifier(), enable_pruning=True, max_iter=0)
    with pytest.raises(ValueError, match="max_iter must be > 0"):
        fitted(trainable, client)


def dict_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Score twice."""
    del estimator, X, y
    return {"one": 1.0, "other": 2.0}


@pytest.mark.parametrize(
    "scoring", [["accuracy", "f1_macro"], dict_scores], ids=["list", "function"]
)
def test_several_scores_are_refused(scoring: Any, client: Client) -> None:
    """OptunaSearchCV fails with them too, with a KeyError."""
    with pytest.raises(UnsupportedSearchError, match="name one, scoring="):
        fitted(optuna_search(scoring=scoring), client)


def test_racing_and_other_backends_are_refused(client: Client) -> None:
    """With what to do instead."""
    with pytest.raises(UnsupportedSearchError, match="give it one, study="):
        DaskSearchCV(optuna_search(), client=client, racing=True).fit(X, y)
    for backend in ("joblib", "dask-ml"):
        with pytest.raises(UnsupportedSearchError, match="use 'trials'"):
            DaskSearchCV(optuna_search(), client=client, backend=backend).fit(X, y)


def test_a_score_may_end_the_search(client: Client) -> None:
    """With the trials that are complete by then."""
    search = optuna_search(n_trials=200)

    ours = DaskSearchCV(search, client=client, stop_score=0.5).fit(X, y)

    assert ours.stopped_ == "stop_score"
    assert ours.best_score_ >= 0.5
    assert len(ours.trials_) < 200


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
def test_a_gp_sampler_needs_torch(client: Client) -> None:
    """The error comes before the search begins, and names it."""
    study = study_with(optuna.samplers.GPSampler(seed=0))
    with pytest.raises(MissingExtraError, match="torch"):
        fitted(optuna_search(study=study), client)


def test_its_n_jobs_is_not_known_to_be_one() -> None:
    """Its constructor makes 1 of None, which means all cores elsewhere."""
    assert slots_of_its_own(optuna_search()) is None
    assert slots_of_its_own(optuna_search(n_jobs=2)) is not None


def test_a_nested_optimization_is_refused(client: Client) -> None:
    """As Optuna itself does."""
    study = study_with()

    def objective(trial: optuna.Trial) -> float:
        del trial
        fitted(optuna_search(study=study), client)
        return 0.0

    with pytest.raises(RuntimeError, match="Nested"):
        study.optimize(objective, n_trials=1)


def test_spaces_and_splits_are_those_of_the_search(client: Client) -> None:
    """A splitter that draws without a seed draws once, for all trials."""
    from sklearn.model_selection import ShuffleSplit

    search = optuna_search(
        space=copy.deepcopy(SPACE), cv=ShuffleSplit(3, test_size=0.3), n_trials=3
    )

    ours = fitted(search, client)

    assert ours.n_splits_ == 3
    assert set(ours.best_params_) == set(SPACE)
