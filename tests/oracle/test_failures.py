from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from dask_hpsearch import DaskSearchCV
from tests.oracle.estimators import Loud, Picky, dict_score, refuses_two
from tests.oracle.kinds import KINDS, THRESHOLDS, build

if TYPE_CHECKING:
    from distributed import Client

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

# skopt's plain fit ends at a candidate that fails: see the last tests.
GOES_ON = [kind for kind in KINDS if kind != "bayes"]
FAILING = Picky(refuses=(2,))


@pytest.mark.parametrize("kind", GOES_ON)
@pytest.mark.parametrize("error_score", [np.nan, -1.5])
def test_failing_candidate(
    kind: str, error_score: float, oracle: Oracle, iris: Data
) -> None:
    """A candidate that cannot be fitted has the error score, and a warning."""
    options = {"error_score": error_score, "return_train_score": True}

    oracle.check(partial(build, kind, FAILING, THRESHOLDS, **options), *iris)


@pytest.mark.parametrize("kind", KINDS)
def test_failing_candidate_raises(kind: str, oracle: Oracle, iris: Data) -> None:
    """With error_score="raise" the candidate's own error ends the search."""
    make = partial(build, kind, FAILING, THRESHOLDS, error_score="raise")

    oracle.check_error(make, *iris, match="no fit with threshold=2")


@pytest.mark.parametrize("kind", GOES_ON)
@pytest.mark.parametrize("error_score", [np.nan, 0])
def test_every_candidate_fails(
    kind: str, error_score: float, oracle: Oracle, iris: Data
) -> None:
    """When nothing can be fitted the search raises, and quotes the errors."""
    hopeless = Picky(refuses=(1, 2, 3))
    make = partial(build, kind, hopeless, THRESHOLDS, error_score=error_score)

    oracle.check_error(make, *iris, match=r"All the \d+ fits failed(?s:.*)threshold=1")


@pytest.mark.parametrize("error_score", [np.nan, 0.25])
def test_failing_splits(error_score: float, oracle: Oracle, iris: Data) -> None:
    """A candidate may fail on some splits only."""
    X, y = iris
    one_class, rest = np.flatnonzero(y == 0), np.flatnonzero(y != 0)
    cv = [(one_class, rest), (rest, one_class), (np.arange(90), np.arange(90, 120))]
    make = partial(
        GridSearchCV, SVC(), {"C": [0.1, 1.0]}, cv=cv, error_score=error_score
    )

    oracle.check(make, X, y)


@pytest.mark.parametrize("error_score", [np.nan, -1])
@pytest.mark.parametrize("kind", ["grid", "random", "thrice"])
@pytest.mark.parametrize(
    "scoring", [["accuracy", "f1_macro"], dict_score], ids=["list", "callable"]
)
def test_failing_candidate_of_several_metrics(
    kind: str, scoring: Any, error_score: float, oracle: Oracle, iris: Data
) -> None:
    """The error score stands in every metric."""
    options = {"scoring": scoring, "refit": "accuracy", "error_score": error_score}

    oracle.check(partial(build, kind, FAILING, THRESHOLDS, **options), *iris)


@pytest.mark.parametrize("error_score", [np.nan, -1])
@pytest.mark.parametrize("kind", GOES_ON)
def test_failing_scorer(
    kind: str, error_score: float, oracle: Oracle, iris: Data
) -> None:
    """A scorer that fails gives the error score too."""
    options = {"scoring": refuses_two, "error_score": error_score}

    oracle.check(partial(build, kind, Picky(), THRESHOLDS, **options), *iris)


def test_failing_scorer_raises(oracle: Oracle, iris: Data) -> None:
    """With error_score="raise" a scorer's error ends the search."""
    options = {"scoring": refuses_two, "error_score": "raise"}

    oracle.check_error(
        partial(build, "grid", Picky(), THRESHOLDS, **options),
        *iris,
        match="no score for a threshold of two",
    )


def test_empty_candidates(oracle: Oracle, iris: Data) -> None:
    """A space without candidates is refused as scikit-learn does."""
    oracle.check_error(
        partial(GridSearchCV, Picky(), {"threshold": []}), *iris, match="threshold"
    )


def test_warnings_inside_fits_stay_with_the_workers(client: Client, iris: Data) -> None:
    """As with other processes, only the refit's own warning is heard here."""
    search = GridSearchCV(Loud(), {"word": ["one", "two"]}, cv=3)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DaskSearchCV(search, client=client).fit(*iris)

    assert [str(entry.message) for entry in caught] == ["fitting one"]


def test_bayes_with_a_failure_among_several_points(oracle: Oracle, iris: Data) -> None:
    """With a number as error score and several points a batch, skopt goes on too."""
    options = {"error_score": -1.5, "n_points": 3, "n_iter": 6}

    oracle.check(partial(build, "bayes", FAILING, THRESHOLDS, **options), *iris)


@pytest.mark.parametrize("error_score", [np.nan, -1.5])
@pytest.mark.parametrize("refused", [(1,), (2,), (3,), (1, 2)], ids=str)
def test_bayes_goes_on_after_a_failure(
    refused: tuple[float, ...], error_score: float, client: Client, iris: Data
) -> None:
    """skopt is told the worst score seen for what cannot be fitted, never NaN."""
    picky = Picky(refuses=refused)
    options = {"n_iter": 6, "error_score": error_score}
    search = build("bayes", picky, THRESHOLDS, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.filterwarnings("ignore", ".*(non-finite|evaluated at point)")
        found = DaskSearchCV(search, client=client).fit(*iris)

    scores = found.cv_results_["mean_test_score"]
    failed = np.isin(found.cv_results_["param_threshold"].astype(float), refused)
    told = np.asarray(found.search_.optimizer_results_[0].func_vals)
    assert type(found.search_) is type(search)
    assert failed.any()
    np.testing.assert_array_equal(scores[failed], error_score)
    np.testing.assert_array_equal(told[~failed], -scores[~failed])
    assert np.isfinite(told).all()
    for position in np.flatnonzero(failed):
        earlier = told[:position][~failed[:position]]
        assert told[position] >= earlier.max(initial=-np.inf)
    assert found.best_params_["threshold"] not in refused


@pytest.mark.parametrize(
    "scoring", [["accuracy", "f1_macro"], dict_score], ids=["names", "function"]
)
def test_bayes_of_several_metrics_goes_on(
    scoring: Any, client: Client, iris: Data
) -> None:
    """What cannot be fitted has the error score in every metric."""
    options = {"scoring": scoring, "refit": "accuracy", "error_score": np.nan}
    seeded = {"n_iter": 6, "random_state": 1}
    search = build("bayes", FAILING, THRESHOLDS, **seeded, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DaskSearchCV(search, client=client).fit(*iris)

    failed = found.cv_results_["param_threshold"].astype(float) == 2
    means = [key for key in found.cv_results_ if key.startswith("mean_test_")]
    assert failed.any()
    assert len(means) == 2
    for key in means:
        np.testing.assert_array_equal(np.isnan(found.cv_results_[key]), failed)


@pytest.mark.filterwarnings("ignore")
def test_bayes_with_nothing_but_failures(client: Client, iris: Data) -> None:
    """When no candidate can be fitted the search raises as the others do."""
    hopeless = Picky(refuses=(1, 2, 3))
    search = build("bayes", hopeless, THRESHOLDS, error_score=np.nan)

    with pytest.raises(ValueError, match="All the 9 fits failed"):
        DaskSearchCV(search, client=client).fit(*iris)
