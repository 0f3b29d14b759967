from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sklearn
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tests.oracle.estimators import (
    NeedsFrame,
    Tinted,
    float_score,
    share_right_scorer,
)
from tests.oracle.kinds import DEPTHS, KINDS, build, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

every_kind = pytest.mark.parametrize("kind", KINDS)
# skopt passes groups=None on, which routing refuses.
ROUTING = [kind for kind in KINDS if kind != "bayes"]


@pytest.fixture
def weights() -> np.ndarray:
    """One weight a flower."""
    return np.random.default_rng(1).exponential(size=120)


@pytest.fixture
def groups() -> np.ndarray:
    """Twelve groups of ten flowers."""
    return np.repeat(np.arange(12), 10)


@pytest.fixture
def routing() -> Iterator[None]:
    """Turn scikit-learn's metadata routing on."""
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@every_kind
def test_groups(kind: str, oracle: Oracle, iris: Data, groups: np.ndarray) -> None:
    """Groups go to the splitter, and to nothing else."""
    make = partial(build, kind, tree(), DEPTHS, cv=GroupKFold(3))

    oracle.check(make, *iris, groups=groups)


def test_number_of_splits_from_groups(
    oracle: Oracle, iris: Data, groups: np.ndarray
) -> None:
    """There may be as many splits as groups."""
    make = partial(GridSearchCV, tree(), DEPTHS, cv=LeaveOneGroupOut())

    found = oracle.check(make, *iris, groups=groups // 2)

    assert found.n_splits_ == 6


def test_groups_missing(oracle: Oracle, iris: Data) -> None:
    """A splitter that lacks its groups says so itself."""
    make = partial(GridSearchCV, tree(), DEPTHS, cv=GroupKFold(3))

    oracle.check_error(make, *iris, match="groups")


@every_kind
@pytest.mark.parametrize("scoring", [None, share_right_scorer, float_score])
def test_sample_weight(
    kind: str, scoring: Any, oracle: Oracle, iris: Data, weights: np.ndarray
) -> None:
    """Weights reach the fit and a scorer that takes them; others are warned of."""
    make = partial(build, kind, tree(), DEPTHS, scoring=scoring)

    oracle.check(make, *iris, sample_weight=weights)


def test_fit_parameters_of_any_length(oracle: Oracle, iris: Data) -> None:
    """What has a value for each sample is split; what has not is passed whole."""
    X, y = iris
    make = partial(GridSearchCV, Tinted(), {"weight": [1, 2, 3]}, cv=3)

    oracle.check(make, X, y, colour=X[:, 1], word="loud")
    oracle.check(make, X, y, colour=[0.5, 0.25])


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("kind", ROUTING)
def test_routed_weights_and_groups(
    kind: str, oracle: Oracle, iris: Data, weights: np.ndarray, groups: np.ndarray
) -> None:
    """With routing on, metadata go where they are requested."""
    model = tree().set_fit_request(sample_weight=True)
    scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
    options = {"scoring": scorer, "cv": GroupKFold(3)}

    oracle.check(
        partial(build, kind, model, DEPTHS, **options),
        *iris,
        sample_weight=weights,
        groups=groups,
    )


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("kind", ROUTING)
def test_routed_metadata_of_its_own(kind: str, oracle: Oracle, iris: Data) -> None:
    """Metadata of any name are routed, to the fit and to the estimator's score."""
    X, y = iris
    model = (
        Tinted()
        .set_fit_request(colour=True, word=True)
        .set_score_request(colour="shade")
    )
    make = partial(build, kind, model, {"weight": [0.5, 1, 2]})

    oracle.check(make, X, y, colour=X[:, 1], shade=X[:, 3], word="loud")


@pytest.mark.usefixtures("routing")
def test_routed_through_a_pipeline(
    oracle: Oracle, iris: Data, weights: np.ndarray
) -> None:
    """A pipeline's steps request for themselves."""
    steps = Pipeline(
        [
            ("scale", StandardScaler().set_fit_request(sample_weight=False)),
            (
                "tree",
                tree()
                .set_fit_request(sample_weight=True)
                .set_score_request(sample_weight=True),
            ),
        ]
    )
    grid = {"tree__max_depth": [1, 2, 3]}

    oracle.check(partial(GridSearchCV, steps, grid), *iris, sample_weight=weights)


@pytest.mark.usefixtures("routing")
def test_metadata_nobody_requested(
    oracle: Oracle, iris: Data, weights: np.ndarray
) -> None:
    """scikit-learn's refusal of metadata without a request comes as it is."""
    oracle.check_error(
        partial(GridSearchCV, tree(), DEPTHS),
        *iris,
        match="sample_weight",
        sample_weight=weights,
    )


def test_global_configuration(oracle: Oracle, iris: Data) -> None:
    """scikit-learn's configuration where fit is called holds in the fits too."""
    steps = Pipeline([("scale", StandardScaler()), ("model", NeedsFrame())])
    grid = {"model__threshold": [-1, 0, 1]}
    options = {"error_score": "raise", "refit": False}

    with sklearn.config_context(transform_output="pandas"):
        oracle.check(partial(GridSearchCV, steps, grid, **options), *iris)
