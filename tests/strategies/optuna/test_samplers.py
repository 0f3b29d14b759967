"""``sampler=``: Optuna chooses the candidates of a BayesSearchCV."""

from __future__ import annotations

import math
import os
import uuid
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna import samplers
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC
from skopt import BayesSearchCV
from skopt.space import Categorical, Integer, Real

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import MissingExtraError, UnsupportedSearchError
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.events import AskEvent, FitEvent, TellEvent
from dask_hpsearch.journal.folder import SEARCH, RunFolder
from dask_hpsearch.runs.create import Work
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.stores import open_store
from dask_hpsearch.strategies.optuna.asker import OptunaAsker
from dask_hpsearch.strategies.optuna.dimensions import Dimensions
from dask_hpsearch.strategies.optuna.samplers import from_manifest, to_manifest
from tests.estimators import Deed, flowers, seen
from tests.runs.recorded import RecordedRun, events_of
from tests.strategies.optuna.searches import optuna_search, study_with

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()
SPACE = {
    "C": Real(1e-3, 10, prior="log-uniform"),
    "coef0": Real(0, 1),
    "degree": Integer(1, 5),
    "cache_size": Integer(1, 64, prior="log-uniform"),
    "kernel": Categorical(["rbf", "linear", "poly"]),
    "shrinking": [True, False],
}
NAMES = sorted(SPACE)


def bayes(estimator: Any = None, space: Any = SPACE, **options: Any) -> Any:
    """Make a search with skopt's dimensions of all kinds."""
    options = {"n_iter": 12, "cv": 2, "random_state": 0, **options}
    return BayesSearchCV(estimator or SVC(), space, **options)


def dimensions_of(search: Any) -> list[Any]:
    """Return the dimensions as skopt has them."""
    search.optimizer_kwargs_ = {"random_state": 0}
    dimensions: list[Any] = search._make_optimizer(
        search.search_spaces
    ).space.dimensions
    return dimensions


DIMENSIONS = dimensions_of(bayes())


@given(seed=st.integers(0, 10_000))
def test_points_of_optuna_are_points_of_the_space(seed: int) -> None:
    """And the parameters of a trial follow from its point."""
    dimensions = Dimensions(NAMES, DIMENSIONS)
    study = optuna.create_study(sampler=samplers.RandomSampler(seed=seed))
    trial = study.ask(dimensions.distributions)

    point = dimensions.point_of(trial.params)

    assert dimensions.params_of(point) == trial.params
    for value, dimension in zip(point, DIMENSIONS, strict=True):
        assert value in dimension


def test_dimensions_keep_their_bounds_and_scales() -> None:
    """A category is itself, so that a sampler may name it."""
    found = Dimensions(NAMES, dimensions_of(bayes())).distributions

    assert found == {
        "C": optuna.distributions.FloatDistribution(1e-3, 10, log=True),
        "cache_size": optuna.distributions.IntDistribution(1, 64, log=True),
        "coef0": optuna.distributions.FloatDistribution(0, 1),
        "degree": optuna.distributions.IntDistribution(1, 5),
        "kernel": optuna.distributions.CategoricalDistribution(
            ["rbf", "linear", "poly"]
        ),
        "shrinking": optuna.distributions.CategoricalDistribution([True, False]),
    }


@pytest.mark.parametrize(
    "categories",
    [[SVC(), "passthrough"], [(1,), (2, 2)], [1, True], [0.5, math.nan]],
    ids=["estimators", "tuples", "equal", "NaN"],
)
@pytest.mark.filterwarnings("error")
def test_a_category_that_optuna_cannot_keep_is_its_ordinal(categories: Any) -> None:
    """So that it may be anything, and is given to the search as it is."""
    dimensions = Dimensions(["one"], [Categorical(categories)])

    assert dimensions.distributions == {
        "one": optuna.distributions.CategoricalDistribution([0, 1])
    }
    for ordinal, category in enumerate(categories):
        (value,) = dimensions.point_of({"one": ordinal})
        assert value is category
        assert dimensions.params_of([value]) == {"one": ordinal}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_may_name_categories(client: Client) -> None:
    """As the samplers of Optuna do whose values the user gives."""
    space = {"kernel": Categorical(["rbf", "linear"]), "shrinking": [True, False]}
    values = {"kernel": ["rbf", "linear"], "shrinking": [True, False]}
    fixed = samplers.PartialFixedSampler(
        {"kernel": "linear"}, samplers.RandomSampler(seed=0)
    )

    def candidates(sampler: Any) -> list[dict[str, Any]]:
        ours = DaskSearchCV(
            bayes(space=space, n_iter=3), client=client, sampler=sampler
        )
        return [dict(one) for one in ours.fit(X, y).cv_results_["params"]]

    assert {one["kernel"] for one in candidates(fixed)} == {"linear"}
    found = candidates(samplers.GridSampler(values, seed=0))
    assert len({tuple(one.items()) for one in found}) == 3


@pytest.mark.parametrize("kind", ["grid", "brute force"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_without_further_points_ends_the_search(
    kind: str, client: Client
) -> None:
    """Even if more candidates were allowed; another space goes on."""
    space = {"kernel": ["rbf", "linear"], "degree": Integer(1, 2)}
    values = {"kernel": ["rbf", "linear"], "degree": [1, 2]}
    sampler: Any = samplers.BruteForceSampler(seed=0)
    if kind == "grid":
        sampler = samplers.GridSampler(values, seed=0)
    search = bayes(space=[(space, 20), (space, 1)])

    found = DaskSearchCV(search, client=client, sampler=sampler).fit(X, y)

    params = [tuple(one.items()) for one in found.cv_results_["params"]]
    assert len(set(params)) == 4
    assert 5 <= len(params) < 12
    assert found.stopped_ is None


@pytest.mark.parametrize("sampler", ["tpe", samplers.RandomSampler(seed=3)], ids=str)
def test_the_search_is_fitted_as_a_bayes_search(sampler: Any, client: Client) -> None:
    """With candidates of Optuna, and skopt's results without models."""
    ours = DaskSearchCV(bayes(), client=client, sampler=sampler)

    fitted = clone(ours).fit(X, y).search_

    assert type(fitted) is BayesSearchCV
    candidates = fitted.cv_results_["params"]
    assert len(candidates) == 12
    assert fitted.best_params_ in candidates
    (result,) = fitted.optimizer_results_
    points = [[params[name] for name in NAMES] for params in candidates]
    assert [list(point) for point in result.x_iters] == points
    np.testing.assert_array_equal(
        -np.array(result.func_vals), fitted.cv_results_["mean_test_score"]
    )
    assert result.models == []


def test_the_seed_of_the_search_seeds_optuna(client: Client) -> None:
    """And a sampler of the user's has its own; it stays as it was."""
    own = samplers.RandomSampler(seed=7)

    def first_points(sampler: Any, seed: int) -> list[Any]:
        ours = DaskSearchCV(
            bayes(n_iter=5, random_state=seed), client=client, sampler=sampler
        )
        return [dict(one) for one in ours.fit(X, y).cv_results_["params"]]

    assert first_points("tpe", 0) == first_points("tpe", 0)
    assert first_points("tpe", 0) != first_points("tpe", 1)
    assert first_points(own, 0) == first_points(own, 1)


def test_several_spaces_are_searched_one_after_the_other(client: Client) -> None:
    """Each with a study of its own, and as many candidates as it is to have."""
    spaces = [({"C": Real(0.1, 1)}, 4), ({"degree": Integer(1, 3), "C": [5.0]}, 3)]

    fitted = DaskSearchCV(bayes(space=spaces), client=client, sampler="tpe").fit(X, y)

    candidates = fitted.cv_results_["params"]
    assert sum("degree" in params for params in candidates) == 3
    assert len(candidates) == 7
    assert len(fitted.optimizer_results_) == 2


def test_failed_candidates_are_failed_trials(client: Client) -> None:
    """The search goes on."""
    space = {"deed": ["fit", "raise"]}
    options: dict[str, Any] = {"refit": False, "error_score": np.nan}
    search = bayes(Deed(client=os.getpid()), space, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.filterwarnings("ignore", ".*non-finite")
        fitted = DaskSearchCV(search, client=client, sampler="tpe").fit(X, y)

    deeds = [params["deed"] for params in fitted.cv_results_["params"]]
    assert set(deeds) == {"fit", "raise"}
    failed = np.isnan(fitted.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(failed, [deed == "raise" for deed in deeds])


def test_an_asker_draws_other_points_after_a_resume() -> None:
    """A seeded sampler that began anew would draw the same ones again."""
    dimensions = dimensions_of(bayes())

    def asked(known: list[Any], number: int) -> list[Any]:
        asker = OptunaAsker(NAMES, dimensions, samplers.RandomSampler(seed=0))
        for point in known:
            asker.note_asked(point)
            asker.told(point, math.nan)
        points = []
        for _ in range(number):
            point = asker.take(wait=True, most=1)
            assert point is not None
            asker.note_asked(point)
            points.append(point)
        return points

    whole = asked([], 6)

    assert asked(whole[:4], 2) == whole[4:]


def test_a_run_that_is_cut_asks_the_same_points_again(
    client: Client, tmp_path: Path
) -> None:
    """No fit that is known runs again; the sampler comes from the manifest."""
    log = str(tmp_path / "fits.log")
    deed = Deed(log=log, client=os.getpid())
    store = f"memory://{uuid.uuid4().hex}"
    search = bayes(deed, {"number": (0, 70)}, refit=False)
    sampler = samplers.TPESampler(seed=1, n_startup_trials=4)
    ours = DaskSearchCV(search, client=client, store=store, sampler=sampler)
    folder = RunFolder.open(open_store(str(ours.fit(X, y).run_url_)))
    events = sorted(events_of(folder), key=lambda event: event.time)
    recorded = RecordedRun(folder, ours.search_, events)
    whole = {one.candidate: one.params for one in events if isinstance(one, AskEvent)}
    assert len(whole) == 12
    settings = Settings.from_manifest(folder.manifest.settings, client=client)
    assert type(settings.sampler) is samplers.TPESampler
    for number in (1, 9, 17, 24):
        begun_before = len(seen(log, "start"))
        kept = [
            one
            for one in recorded.before_fit(number)
            if type(one).__name__ in ("CallEvent", "AskEvent", "FitEvent", "TellEvent")
        ]

        copied = recorded.copy(kept)
        with DataStore() as data_store:
            work = Work(copied.load_pickle(SEARCH), X, y, {})
            fitted = drive_run(copied, work, data_store, settings)

        asked = {
            one.candidate: one.params
            for one in events_of(copied)
            if isinstance(one, AskEvent)
        }
        n_known = sum(isinstance(one, AskEvent) for one in kept)
        assert sorted(asked.items())[:n_known] == sorted(whole.items())[:n_known]
        assert len(asked) == 12
        assert len(fitted.search.cv_results_["params"]) == 12
        n_fits = sum(isinstance(one, FitEvent) for one in kept)
        assert len(seen(log, "start")) - begun_before == 24 - n_fits
        told = [one for one in events_of(copied) if isinstance(one, TellEvent)]
        assert {one.candidate for one in told} == set(range(12))


@pytest.mark.parametrize("sampler", [None, "skopt", "tpe", samplers.TPESampler(seed=5)])
def test_a_manifest_has_the_sampler(sampler: Any) -> None:
    """Also if it is an object, with its state."""
    found = from_manifest(to_manifest(sampler))

    assert type(found) is type(sampler)
    if isinstance(sampler, str):
        assert found == sampler


@pytest.mark.parametrize("sampler", ["anneal", 3, samplers.TPESampler], ids=str)
def test_what_is_no_sampler_is_refused(sampler: Any, client: Client) -> None:
    """By the values that there are."""
    with pytest.raises(ValueError, match="'skopt', 'tpe', 'gp' or a sampler of Optuna"):
        DaskSearchCV(bayes(), client=client, sampler=sampler).fit(X, y)


def test_searches_that_choose_by_themselves_are_refused(client: Client) -> None:
    """With what to do instead."""
    grid = GridSearchCV(SVC(), {"C": [1.0]})
    with pytest.raises(
        UnsupportedSearchError, match=r"GridSearchCV .* leave sampler out"
    ):
        DaskSearchCV(grid, client=client, sampler="tpe").fit(X, y)
    with pytest.raises(UnsupportedSearchError, match="create_study"):
        DaskSearchCV(optuna_search(), client=client, sampler="tpe").submit(X, y)
    with pytest.raises(ValueError, match="bayes_async=True"):
        DaskSearchCV(bayes(), client=client, sampler="tpe", bayes_async=False).fit(X, y)
    with pytest.raises(ValueError, match="needs backend='trials'"):
        DaskSearchCV(grid, client=client, backend="joblib", sampler="tpe").fit(X, y)


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
@pytest.mark.parametrize(
    "sampler", ["gp", samplers.GPSampler(seed=0)], ids=["name", "own"]
)
def test_gp_needs_torch(sampler: Any, client: Client) -> None:
    """The error comes before the search begins, and names it."""
    with pytest.raises(MissingExtraError, match="torch"):
        DaskSearchCV(bayes(), client=client, sampler=sampler).fit(X, y)


@pytest.mark.skipif(find_spec("cmaes") is not None, reason="cmaes is installed")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_cma_es_needs_cmaes(client: Client) -> None:
    """Also within another sampler, and in an OptunaSearchCV."""
    own = samplers.CmaEsSampler(seed=0)
    within = samplers.PartialFixedSampler({"degree": 2}, samplers.CmaEsSampler(seed=0))

    for sampler in (own, within):
        with pytest.raises(MissingExtraError, match=r"CmaEsSampler .*install cmaes"):
            DaskSearchCV(bayes(), client=client, sampler=sampler).fit(X, y)
    search = optuna_search(study=study_with(samplers.CmaEsSampler(seed=0)))
    with pytest.raises(MissingExtraError, match="'cmaes'"):
        DaskSearchCV(search, client=client).fit(X, y)
