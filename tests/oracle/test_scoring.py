from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.linear_model import Perceptron, RidgeClassifier
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC

from tests.oracle.estimators import (
    Minimal,
    Picky,
    dict_score,
    first_of_the_worst,
    float_score,
    share_right_scorer,
)
from tests.oracle.kinds import CALLABLE_REFIT, DEPTHS, KINDS, MULTIMETRIC, build, tree

if TYPE_CHECKING:
    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

every_kind = pytest.mark.parametrize("kind", KINDS)
several_metrics = pytest.mark.parametrize("kind", MULTIMETRIC)


@several_metrics
@pytest.mark.parametrize(
    "scoring",
    [
        ["accuracy", "f1_macro"],
        {"accuracy": "accuracy", "own": share_right_scorer, "plain": float_score},
        dict_score,
    ],
    ids=["list", "dict", "callable"],
)
def test_several_metrics(kind: str, scoring: Any, oracle: Oracle, iris: Data) -> None:
    """Each metric has its columns; one of them picks the best."""
    options = {"scoring": scoring, "refit": "accuracy", "return_train_score": True}

    found = oracle.check(partial(build, kind, tree(), DEPTHS, **options), *iris)

    assert found.multimetric_


@pytest.mark.parametrize("kind", ["grid", "random", "thrice"])
def test_several_metrics_and_callable_refit(
    kind: str, oracle: Oracle, iris: Data
) -> None:
    """A callable picks among several metrics; there is no best score then."""
    options = {"scoring": ["accuracy", "f1_macro"], "refit": first_of_the_worst}

    found = oracle.check(partial(build, kind, tree(), DEPTHS, **options), *iris)

    assert not hasattr(found, "best_score_")


@pytest.mark.parametrize("kind", ["grid", "random", "thrice"])
def test_several_metrics_without_refit(kind: str, oracle: Oracle, iris: Data) -> None:
    """Without refit, several metrics have no best candidate."""
    options = {"scoring": ["accuracy", "f1_macro"], "refit": False}

    found = oracle.check(partial(build, kind, tree(), DEPTHS, **options), *iris)

    assert not hasattr(found, "best_index_")


@pytest.mark.parametrize("kind", CALLABLE_REFIT)
def test_callable_refit(kind: str, oracle: Oracle, iris: Data) -> None:
    """A callable picks the candidate of a single metric."""
    options = {"refit": first_of_the_worst}

    oracle.check(partial(build, kind, tree(), DEPTHS, **options), *iris)


@every_kind
def test_without_refit(kind: str, oracle: Oracle, iris: Data) -> None:
    """Without refit there is a best candidate and nothing to predict with."""
    found = oracle.check(partial(build, kind, tree(), DEPTHS, refit=False), *iris)

    assert not hasattr(found, "predict")


@every_kind
def test_train_scores(kind: str, oracle: Oracle, iris: Data) -> None:
    """Scores on the training sets are returned when asked for."""
    options = {"return_train_score": True}

    found = oracle.check(partial(build, kind, tree(), DEPTHS, **options), *iris)

    assert "mean_train_score" in found.cv_results_


@every_kind
@pytest.mark.parametrize("scoring", ["balanced_accuracy", float_score])
def test_one_metric(kind: str, scoring: Any, oracle: Oracle, iris: Data) -> None:
    """A scorer may be a name or a function of estimator, X and y."""
    oracle.check(partial(build, kind, tree(), DEPTHS, scoring=scoring), *iris)


def test_scorer_that_needs_probabilities(oracle: Oracle, iris: Data) -> None:
    """A scorer's own options travel with it."""
    scoring = make_scorer(
        roc_auc_score, response_method="predict_proba", multi_class="ovo"
    )

    oracle.check(partial(GridSearchCV, tree(), DEPTHS, scoring=scoring), *iris)


@pytest.mark.parametrize(
    ("estimator", "space"),
    [
        (LinearSVC(random_state=0), {"C": [0.1, 1.0, 10.0]}),
        (Perceptron(random_state=0), {"penalty": [None, "l1", "l2"]}),
        (RidgeClassifier(), {"alpha": [0.1, 1.0, 10.0]}),
        (Picky(), {"threshold": [1, 2, 3]}),
    ],
    ids=lambda value: type(value).__name__,
)
@every_kind
def test_classifier_without_probabilities(
    kind: str, estimator: Any, space: dict[str, Any], oracle: Oracle, iris: Data
) -> None:
    """What the estimator lacks, the search lacks."""
    found = oracle.check(partial(build, kind, estimator, space), *iris)

    assert not hasattr(found, "predict_proba")


@every_kind
def test_estimator_that_only_scores(kind: str, oracle: Oracle, iris: Data) -> None:
    """An estimator needs no more than fit and score."""
    oracle.check(partial(build, kind, Minimal(), {"constant": [1, 3, 5]}), *iris)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scoring": "no_such_metric"}, "no_such_metric"),
        ({"scoring": ["accuracy", "f1_macro"]}, "refit"),
        ({"scoring": dict_score, "refit": "speed"}, "refit"),
        ({"cv": 1}, "cv|splits"),
        ({"refit": 3}, "refit"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_invalid_options(
    options: dict[str, Any], match: str, oracle: Oracle, iris: Data
) -> None:
    """scikit-learn's own refusals come as they are."""
    make = partial(build, "grid", tree(), DEPTHS, **options)

    oracle.check_error(make, *iris, match=match)
