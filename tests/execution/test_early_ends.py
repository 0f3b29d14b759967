"""Searches on a cluster whose scores drop candidates, or end the search."""

from __future__ import annotations

import math
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import UnsupportedSearchError
from tests.estimators import Deed, flowers, seen, times_begun
from tests.oracle.structure import difference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distributed import Client

X, y = flowers()
N_SPLITS = 4
# The best one is the fourth; most others are far behind it.
NUMBERS = [36, 0, 4, 40, 8, 12, 16, 20, 24, 28, 32, 44, 48, 52, 56, 1, 2, 3, 5, 6]
RULES: list[dict[str, Any]] = [{"racing": True}, {"stop_score": 0.5}, {"patience": 3}]


def grid(log: str | None = None, numbers: Any = NUMBERS, **more: Any) -> GridSearchCV:
    """Make a search whose scores follow from a number."""
    deed = Deed(log=log, client=os.getpid(), seconds=0.02)
    return GridSearchCV(deed, {"number": numbers}, **{"cv": N_SPLITS} | more)


def check_complete(whole: Any, found: Any) -> None:
    """Assert that a search's rows are the same ones as those of the whole search."""
    rows = [
        whole.cv_results_["params"].index(params)
        for params in found.cv_results_["params"]
    ]
    assert rows == sorted(rows)
    for name, column in whole.cv_results_.items():
        if "time" not in name and "rank" not in name and name != "params":
            expected = np.ma.getdata(column)[rows]
            np.testing.assert_array_equal(
                expected, np.ma.getdata(found.cv_results_[name])
            )
    assert found.best_params_ == whole.best_params_
    assert found.best_score_ == whole.best_score_
    assert found.best_params_ == found.cv_results_["params"][found.best_index_]


def check_dropped(whole: Any, found: Any) -> None:
    """Assert that the others are the dropped ones, with the scores that they had."""
    dropped = found.dropped_
    complete = found.cv_results_["params"]
    numbers = [one["number"] for one in [*dropped["params"], *complete]]
    every = [one["number"] for one in whole.cv_results_["params"]]
    assert sorted(numbers) == sorted(every)
    for row, params in enumerate(dropped["params"]):
        place = whole.cv_results_["params"].index(params)
        known = [
            (dropped[name][row], whole.cv_results_[name][place])
            for name in (f"split{split}_test_score" for split in range(N_SPLITS))
            if not np.isnan(dropped[name][row])
        ]
        assert 0 < len(known) == dropped["n_splits"][row] < N_SPLITS
        assert all(ours == theirs for ours, theirs in known)
        mean = np.mean([ours for ours, _ in known])
        assert dropped["mean_test_score"][row] == pytest.approx(mean)
        assert whole.cv_results_["mean_test_score"][place] < found.best_score_


def test_beaten_candidates_are_dropped_and_the_best_is_the_same(
    client: Client, tmp_path: Path
) -> None:
    """What is complete equals a plain fit in every bit; no fit runs twice."""
    log = str(tmp_path / "fits.log")
    whole = grid().fit(X, y)

    found = DaskSearchCV(grid(log), client=client, racing=True).fit(X, y)

    begun = times_begun(log)
    assert set(begun.values()) == {1}
    assert len(begun) < 0.8 * N_SPLITS * len(NUMBERS)
    assert found.stopped_ is None
    assert len(found.cv_results_["params"]) < len(NUMBERS)
    check_complete(whole, found)
    check_dropped(whole, found)
    np.testing.assert_array_equal(found.predict(X), whole.predict(X))
    finished = N_SPLITS * len(found.cv_results_["params"]) + sum(
        found.dropped_["n_splits"]
    )
    assert finished <= len(seen(log, "end"))


def test_without_racing_every_candidate_is_complete(client: Client) -> None:
    """That is the default."""
    found = DaskSearchCV(grid(), client=client).fit(X, y)

    assert difference(grid().fit(X, y), found.search_) is None
    assert not hasattr(found, "dropped_")


def test_a_race_that_drops_nothing_is_a_plain_fit(client: Client) -> None:
    """Equal candidates beat none."""
    search = grid(numbers=[40] * 5)

    found = DaskSearchCV(search, client=client, racing=True).fit(X, y)

    assert difference(search.fit(X, y).cv_results_, found.cv_results_) is None
    assert found.dropped_["params"] == []


def test_randomized_searches_and_several_scores_race(client: Client) -> None:
    """The score that ``refit`` names counts; the dropped ones have all of them."""
    search = RandomizedSearchCV(
        Deed(client=os.getpid(), seconds=0.02),
        {"number": range(60)},
        n_iter=25,
        cv=N_SPLITS,
        random_state=0,
        scoring=["balanced_accuracy", "accuracy"],
        refit="accuracy",
    )

    found = DaskSearchCV(search, client=client, racing=True).fit(X, y)

    check_complete(search.fit(X, y), found)
    assert found.dropped_["params"]
    names = ("mean_test_accuracy", "mean_test_balanced_accuracy")
    assert all(np.isfinite(found.dropped_[name]).all() for name in names)


def test_pipelines_that_share_steps_race(client: Client) -> None:
    """A step that is being made by one candidate holds up no other for good."""
    trees = DecisionTreeClassifier(random_state=0)
    search = GridSearchCV(
        make_pipeline(PCA(2), trees),
        {
            "pca__n_components": [1, 2, 3],
            "decisiontreeclassifier__max_depth": [3, 1, 2],
            "decisiontreeclassifier__min_samples_leaf": [1, 30],
        },
        cv=N_SPLITS,
    )

    found = DaskSearchCV(search, client=client, racing=True).fit(X, y)

    check_complete(search.fit(X, y), found)


def test_failing_candidates_are_dropped_and_warned_of(client: Client) -> None:
    """scikit-learn sees the complete ones only; the warning counts the others."""
    deed = Deed(client=os.getpid())
    space = [
        {"number": [40]},
        {"number": list(range(8)), "deed": ["raise"]},
        {"number": [36, 44]},
    ]
    search = GridSearchCV(deed, space, cv=N_SPLITS)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = DaskSearchCV(search, client=client, racing=True).fit(X, y)

    counted = [
        re.search(r"(\d+) fits failed out of a total", str(one.message))
        for one in caught
        if one.category is FitFailedWarning
    ]
    dropped = zip(found.dropped_["params"], found.dropped_["n_splits"], strict=True)
    n_failed = sum(n_splits for params, n_splits in dropped if "deed" in params)
    # A fit that still ran when its candidate was dropped may have ended since.
    assert any(one and 1 <= int(one[1]) <= n_failed for one in counted)
    assert found.best_params_["number"] == 40
    failed = [one for one in found.dropped_["params"] if one.get("deed") == "raise"]
    assert failed
    assert np.isnan(found.dropped_["mean_test_score"]).any()


def test_a_search_whose_fits_all_fail_says_so(client: Client) -> None:
    """Nothing can be dropped."""
    search = GridSearchCV(
        Deed(client=os.getpid()), {"number": [0, 1], "deed": ["raise"]}, cv=2
    )

    with pytest.raises(ValueError, match="All the 4 fits failed"):
        DaskSearchCV(search, client=client, racing=True).fit(X, y)


def test_a_failing_fit_raises_in_a_race_too(client: Client) -> None:
    """With ``error_score="raise"``."""
    search = GridSearchCV(
        Deed(client=os.getpid()),
        {"number": [40, 1], "deed": ["raise"]},
        cv=2,
        error_score="raise",
    )

    with pytest.raises(ValueError, match="a fit like any other that fails"):
        DaskSearchCV(search, client=client, racing=True).fit(X, y)


def test_a_killed_fit_of_a_race_runs_once_more(client: Client) -> None:
    """And is then a failed fit, which is beaten."""
    deed = Deed(client=os.getpid())
    space = [{"number": [40, 44, 36]}, {"number": [39], "deed": ["kill"]}]
    search = GridSearchCV(deed, space, cv=N_SPLITS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DaskSearchCV(search, client=client, racing=True).fit(X, y)

    assert found.best_params_["number"] == 40


def test_a_score_that_is_reached_ends_the_search(
    client: Client, tmp_path: Path
) -> None:
    """The result has the complete candidates; nothing is warned of."""
    log = str(tmp_path / "fits.log")
    numbers = [0, 40, *[1] * 60]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = DaskSearchCV(grid(log, numbers), client=client, stop_score=0.9)
        found.fit(X, y)

    assert found.stopped_ == "stop_score"
    assert found.best_params_ == {"number": 40}
    assert found.best_score_ >= 0.9
    assert len(seen(log, "start")) < N_SPLITS * len(numbers)
    check_complete(grid(numbers=numbers).fit(X, y), found)


def test_a_score_that_is_not_reached_changes_nothing(client: Client) -> None:
    """Nor does a patience that lasts."""
    found = DaskSearchCV(grid(), client=client, stop_score=1.5, patience=99).fit(X, y)

    assert found.stopped_ is None
    assert difference(grid().fit(X, y), found.search_) is None


def test_patience_ends_a_search_that_no_longer_improves(
    client: Client, tmp_path: Path
) -> None:
    """So many complete candidates in a row are no better."""
    log = str(tmp_path / "fits.log")
    numbers = [0, 40, *range(1, 31)]

    found = DaskSearchCV(grid(log, numbers), client=client, patience=4).fit(X, y)

    assert found.stopped_ == "patience"
    assert len(found.cv_results_["params"]) >= 5
    assert len(seen(log, "start")) < N_SPLITS * len(numbers)


def test_a_race_ends_at_a_score(client: Client) -> None:
    """Both together: the dropped ones are those until then."""
    numbers = [0, 40, *[1] * 30]

    found = DaskSearchCV(
        grid(numbers=numbers), client=client, racing=True, stop_score=0.9
    ).fit(X, y)

    assert found.stopped_ == "stop_score"
    assert found.best_params_ == {"number": 40}
    assert len(found.dropped_["params"]) < 30


def bayes(**more: Any) -> Any:
    """Make a Bayesian search of candidates most of which are bad."""
    from skopt import BayesSearchCV

    return BayesSearchCV(
        Deed(client=os.getpid(), seconds=0.02),
        {"number": (0.0, 60.0)},
        cv=N_SPLITS,
        random_state=0,
        refit=False,
        **{"n_iter": 16, "optimizer_kwargs": {"n_initial_points": 30}} | more,
    )


def test_bayes_is_told_the_mean_of_a_dropped_candidate_so_far(client: Client) -> None:
    """Its optimizer knows all candidates, ``cv_results_`` has the complete ones."""
    found = DaskSearchCV(bayes(), client=client, racing=True).fit(X, y)

    complete, dropped = found.cv_results_["params"], found.dropped_
    assert complete
    assert dropped["params"]
    assert len(complete) + len(dropped["params"]) == 16
    (result,) = found.optimizer_results_
    told = {
        point[0]: -value
        for point, value in zip(result.x_iters, result.func_vals, strict=True)
    }
    assert len(result.x_iters) == 16
    for params, mean in zip(dropped["params"], dropped["mean_test_score"], strict=True):
        assert told[params["number"]] == pytest.approx(mean)
    scores = found.cv_results_["mean_test_score"]
    for params, mean in zip(complete, scores, strict=True):
        assert told[params["number"]] == pytest.approx(mean)
    assert found.best_score_ == max(scores)


def test_bayes_ends_at_a_score(client: Client) -> None:
    """Also without a barrier."""
    found = DaskSearchCV(bayes(n_iter=40), client=client, stop_score=0.3).fit(X, y)

    assert found.stopped_ == "stop_score"
    assert 0 < len(found.cv_results_["params"]) < 40


class Searches(GridSearchCV):  # type: ignore[misc]
    """A search with a strategy of its own."""

    def _run_search(self, evaluate_candidates: Any) -> None:
        evaluate_candidates([{"number": 1}])
        evaluate_candidates([{"number": 2}])


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a halving search": (
        HalvingGridSearchCV(Deed(), {"number": [1, 2]}),
        {"racing": True},
        r"racing=True cannot be used with HalvingGridSearchCV: .* use GridSearchCV",
    ),
    "a score of a halving search": (
        HalvingGridSearchCV(Deed(), {"number": [1, 2]}),
        {"stop_score": 0.5},
        r"stop_score cannot be used with HalvingGridSearchCV",
    ),
    "a strategy of its own": (
        Searches(Deed(), {}),
        {"racing": True},
        r"racing=True cannot be used with Searches",
    ),
    "several scores without a name": (
        grid(scoring=["accuracy", "balanced_accuracy"], refit=False),
        {"racing": True},
        r"racing=True needs one score .* refit=False: name one",
    ),
    "several scores and a function": (
        grid(scoring={"a": "accuracy"}, refit=lambda _: 0),
        {"patience": 3},
        r"patience needs one score .* name one of them, refit=\.\.\.",
    ),
    "a function that chooses": (
        grid(refit=lambda _: 0),
        {"racing": True},
        r"racing=True cannot be used with a callable refit",
    ),
    "skopt's own loop": (
        bayes(),
        {"racing": True, "bayes_async": False},
        r"racing=True needs bayes_async=True, got False",
    ),
    "dask-ml": (
        grid(),
        {"racing": True, "backend": "dask-ml"},
        r"racing=True needs backend='trials'; this search runs with 'dask-ml'",
    ),
    "joblib": (
        grid(),
        {"stop_score": 0.0, "backend": "joblib"},
        r"stop_score=0.0 needs backend='trials'",
    ),
    "no patience": (
        grid(),
        {"patience": 0},
        "patience must be a positive integer, got 0",
    ),
    "half a candidate": (
        grid(),
        {"patience": 2.5},
        r"patience must be a positive integer, got 2\.5",
    ),
    "no number": (
        grid(),
        {"stop_score": "high"},
        "stop_score must be a number, got 'high'",
    ),
    "not a number": (
        grid(),
        {"stop_score": math.nan},
        "stop_score must be a number, got nan",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_before_any_work(
    what: str, client: Client, tmp_path: Path
) -> None:
    """The error names the parameter and the way out; no run is created."""
    search, parameters, message = REFUSED[what]
    ours = DaskSearchCV(search, client=client, store=tmp_path / "store", **parameters)

    for act in (ours.fit, ours.submit):
        if act == ours.submit and "backend" in parameters:
            continue
        with pytest.raises((UnsupportedSearchError, ValueError), match=message):
            act(X, y)

    assert not (tmp_path / "store").exists()


def one_unnamed_score(estimator: Any, X: Any, y: Any) -> Mapping[str, float]:
    """Score in two ways."""
    score = float(estimator.score(X, y))
    return {"one": score, "other": -score}


def test_scores_of_a_function_are_refused_with_the_first_result(
    client: Client,
) -> None:
    """They are not known before."""
    search = GridSearchCV(
        GaussianNB(), {"var_smoothing": [1, 2]}, scoring=one_unnamed_score, refit=False
    )

    with pytest.raises(UnsupportedSearchError, match="several"):
        DaskSearchCV(search, client=client, racing=True).fit(X, y)
