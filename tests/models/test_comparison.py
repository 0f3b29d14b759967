"""Scores of two models on the same rows, and the interval of their difference."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, get_scorer_names, make_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dask_hpsearch.exceptions import PromotionError
from dask_hpsearch.models.comparison import Bootstrap, ScoredModel, compare
from dask_hpsearch.models.holdout import read_holdout
from dask_hpsearch.models.recorded_model import RecordedModel
from tests.models.contenders import X, guess, y

BOOTSTRAP = Bootstrap(confidence=0.95, n_resamples=200, random_state=0)


def models() -> dict[str, tuple[Any, Any, Any]]:
    """Return fitted models with their data."""
    iris, kinds = load_iris(return_X_y=True)
    diabetes, progress = load_diabetes(return_X_y=True)
    binary = kinds != 0
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    return {
        "multiclass": (scaled.fit(iris, kinds), iris, kinds),
        "binary": (
            SVC(C=0.02).fit(iris[binary], kinds[binary] - 1),
            iris[binary],
            kinds[binary] - 1,
        ),
        "regression": (Ridge().fit(diabetes, progress), diabetes, progress),
    }


def outcome(scorer: Any, model: Any, rows: Any, target: Any) -> Any:
    """Return a score, or the kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return scorer(model, rows, target)
        except (ValueError, AttributeError) as error:
            return type(error)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_recorded_predictions_score_as_the_model_does(kind: str) -> None:
    """By every scorer of scikit-learn, on any rows: the same number, or the same error."""
    model, data, target = models()[kind]
    recorded = RecordedModel(model, data)
    chosen = np.random.default_rng(1).integers(len(target), size=80)
    n_scored = 0

    for name in get_scorer_names():
        scorer = get_scorer(name)
        expected = outcome(scorer, model, data[chosen], target[chosen])
        found = outcome(scorer, recorded, chosen, target[chosen])
        n_scored += isinstance(expected, float)
        np.testing.assert_equal(found, expected, err_msg=name)

    assert n_scored > 10


def test_a_model_predicts_once_for_all_resamples() -> None:
    """However often its score is asked for."""
    calls = []

    class Counts(type(guess(0.5))):  # type: ignore[misc]
        def predict(self, X: Any) -> Any:
            calls.append(len(X))
            return super().predict(X)

    holdout = read_holdout(X, y)
    scorer = get_scorer("accuracy")
    good = ScoredModel("challenger", Counts(0.9).fit(X, y), scorer, holdout)
    bad = ScoredModel("champion", guess(0.6), scorer, holdout)

    compare(good, bad, n_rows=holdout.n_rows, bootstrap=BOOTSTRAP)

    assert calls == [len(X)]


def test_the_interval_is_that_of_paired_rows() -> None:
    """As wide as theory says of the difference, not as two independent scores would be."""
    holdout = read_holdout(X, y)
    scorer = get_scorer("accuracy")
    good = ScoredModel("challenger", guess(0.8), scorer, holdout)
    bad = ScoredModel("champion", guess(0.7), scorer, holdout)
    many = Bootstrap(confidence=0.95, n_resamples=2000, random_state=0)

    gain = compare(good, bad, n_rows=holdout.n_rows, bootstrap=many)

    differs = 0.1  # of the rows, all in favour of the challenger
    half = 1.96 * np.sqrt(differs * (1 - differs) / holdout.n_rows)
    assert gain.value == pytest.approx(0.1, abs=1e-9)
    np.testing.assert_allclose(gain.interval, (0.1 - half, 0.1 + half), atol=0.006)


def test_a_seed_gives_the_same_interval() -> None:
    """Another seed gives another one."""
    holdout = read_holdout(X, y)
    scorer = get_scorer("accuracy")
    good = ScoredModel("challenger", guess(0.8), scorer, holdout)
    bad = ScoredModel("champion", guess(0.7), scorer, holdout)

    def interval(seed: int) -> tuple[float, float]:
        bootstrap = Bootstrap(confidence=0.9, n_resamples=100, random_state=seed)
        return compare(good, bad, n_rows=holdout.n_rows, bootstrap=bootstrap).interval

    assert interval(0) == interval(0)
    assert interval(0) != interval(1)


def test_a_callable_gets_the_model_and_its_rows() -> None:
    """It may look at X, as one does that weighs rows by a column."""
    holdout = read_holdout(X, y)

    def weighted(model: Any, rows: Any, target: Any) -> float:
        right = model.predict(rows) == target
        return float(np.average(right, weights=rows[:, 0] + 1))

    scored = ScoredModel("challenger", guess(0.8), weighted, holdout)

    assert scored.score == weighted(guess(0.8), X, y)
    assert scored.score_of(np.array([0, 3, 3])) == weighted(
        guess(0.8), X[[0, 3, 3]], y[[0, 3, 3]]
    )


def test_resamples_without_a_score_are_left_out() -> None:
    """As those without one of the classes; if most are, that is an error."""
    few = np.r_[np.flatnonzero(y)[:3], np.flatnonzero(y == 0)[:60]]
    holdout = read_holdout(X[few], y[few])
    scorer = get_scorer("roc_auc")
    good = ScoredModel("challenger", guess(1.1), scorer, holdout)
    bad = ScoredModel("champion", guess(0.5), scorer, holdout)

    gain = compare(good, bad, n_rows=holdout.n_rows, bootstrap=BOOTSTRAP)
    assert np.isfinite(gain.interval).all()

    def on_all_rows_only(truth: Any, predicted: Any) -> float:
        if truth[0] != y[few][0]:  # as in most resamples
            return float("nan")
        return float(np.mean(truth == predicted))

    strict = make_scorer(on_all_rows_only)
    good = ScoredModel("challenger", guess(1.1), strict, holdout)
    with pytest.raises(PromotionError, match=r"undefined on \d+ of 200 resamples"):
        compare(good, good, n_rows=holdout.n_rows, bootstrap=BOOTSTRAP)
