from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from scipy.stats import expon, loguniform
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from skopt.space import Integer, Real

from tests.oracle.kinds import DEPTHS, KINDS, build, tree

if TYPE_CHECKING:
    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_classifier(kind: str, oracle: Oracle, iris: Data) -> None:
    """A classifier with probabilities is searched over one list."""
    space = {"C": [0.01, 1.0, 10.0]}
    make = partial(build, kind, LogisticRegression(max_iter=500), space)

    found = oracle.check(make, *iris)

    assert found.backend_ == "trials"
    assert found.stopped_ is None


@every_kind
def test_regressor(kind: str, oracle: Oracle, iris: Data) -> None:
    """A regressor is split without stratification."""
    X, _ = iris

    oracle.check(
        partial(build, kind, Ridge(), {"alpha": [0.01, 1.0, 100.0]}), X[:, :3], X[:, 3]
    )


def test_grids_of_different_parameters(oracle: Oracle, iris: Data) -> None:
    """Parameters that some candidates lack are masked, values keep their dtypes."""
    grids = [
        {"kernel": ["rbf"], "gamma": [0.1, "scale"], "shrinking": [False]},
        {"kernel": ["poly"], "degree": [2, 3], "class_weight": [None, {0: 2}]},
    ]

    oracle.check(partial(GridSearchCV, SVC(), grids, cv=3), *iris)


@every_kind
def test_steps_of_a_pipeline_replaced(kind: str, oracle: Oracle, iris: Data) -> None:
    """Estimators are search values: steps of a pipeline come and go."""
    steps = Pipeline([("scale", StandardScaler()), ("model", GaussianNB())])
    space = {"model": [GaussianNB(), KNeighborsClassifier(5), tree()]}

    found = oracle.check(partial(build, kind, steps, space), *iris)

    assert found.best_estimator_["model"] is not found.best_params_["model"]


def test_step_left_out(oracle: Oracle, iris: Data) -> None:
    """A step's value may be "passthrough", beside parameters of other steps."""
    steps = Pipeline([("scale", StandardScaler()), ("model", KNeighborsClassifier())])
    grid = {
        "scale": ["passthrough", MinMaxScaler()],
        "model__n_neighbors": [1, 5],
        "model__weights": ["uniform", "distance"],
    }

    oracle.check(partial(GridSearchCV, steps, grid, cv=3), *iris)


@every_kind
def test_steps_of_a_pipeline_in_common(kind: str, oracle: Oracle, iris: Data) -> None:
    """Parameters of early and late steps, of branches too, together with failing ones."""
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), [0, 1]), ("ranged", MinMaxScaler(), [2, 3])]
    )
    reduced = PCA(random_state=0)
    model = LogisticRegression(max_iter=500)
    steps = Pipeline([("columns", columns), ("reduced", reduced), ("model", model)])
    space = {
        "columns__scaled": [StandardScaler(), MinMaxScaler(), "passthrough"],
        # 9 fails, of which skopt dies.
        "reduced__n_components": [2, 3, 4 if kind == "bayes" else 9],
        "model__C": [0.1, 1.0, 10.0],
    }

    oracle.check(partial(build, kind, steps, space), *iris)


def test_randomised_over_distributions(oracle: Oracle, iris: Data) -> None:
    """scipy's distributions, lists and several spaces are drawn alike."""
    spaces = [
        {"C": loguniform(1e-2, 1e2), "kernel": ["rbf", "linear"]},
        {"C": expon(scale=10), "kernel": ["poly"], "degree": [2, 3]},
    ]

    oracle.check(
        partial(RandomizedSearchCV, SVC(), spaces, n_iter=8, random_state=3), *iris
    )


def test_space_smaller_than_n_iter(oracle: Oracle, iris: Data) -> None:
    """scikit-learn's warning that it tries every candidate is passed on, once."""
    oracle.check(partial(RandomizedSearchCV, tree(), DEPTHS, n_iter=5, cv=2), *iris)


@pytest.mark.parametrize("kind", ["halving-grid", "halving-random"])
@pytest.mark.parametrize(
    "options",
    [
        {"min_resources": "smallest"},
        {"min_resources": 30, "aggressive_elimination": True},
        {"max_resources": 60, "factor": 3},
        {"resource": "max_leaf_nodes", "min_resources": 2, "max_resources": 8},
    ],
    ids=str,
)
def test_halving_options(
    kind: str, options: dict[str, Any], oracle: Oracle, iris: Data
) -> None:
    """Rungs over samples and over a parameter have the same candidates."""
    space = {"max_depth": [1, 2, 3], "criterion": ["gini", "entropy"]}

    found = oracle.check(partial(build, kind, tree(), space, **options), *iris)

    assert len(found.search_.n_resources_) == found.search_.n_iterations_


def test_halving_with_inconsistent_splits(oracle: Oracle, iris: Data) -> None:
    """scikit-learn's refusal of splits that change from call to call is its own."""
    cv = KFold(shuffle=True)

    oracle.check_error(
        partial(build, "halving-grid", tree(), DEPTHS, cv=cv),
        *iris,
        match="consistent folds",
    )


@pytest.mark.parametrize("n_points", [1, 2])
def test_bayes_over_dimensions(n_points: int, oracle: Oracle, iris: Data) -> None:
    """skopt learns from the same scores, so it asks the same points."""
    spaces = [
        ({"C": Real(1e-2, 1e2, "log-uniform"), "kernel": ["rbf"]}, 4),
        ({"C": (0.1, 10.0), "kernel": ["poly"], "degree": Integer(2, 3)}, 3),
    ]

    found = oracle.check(
        partial(build, "bayes", SVC(), spaces, n_points=n_points), *iris
    )

    assert len(found.search_.optimizer_results_) == 2


def test_bayes_with_its_default_model(oracle: Oracle, iris: Data) -> None:
    """The Gaussian process sees the same scores too."""
    space = {"C": (1e-2, 1e2, "log-uniform")}
    quick = {"n_initial_points": 2, "acq_optimizer_kwargs": {"n_points": 50}}

    oracle.check(
        partial(build, "bayes", SVC(), space, n_iter=3, optimizer_kwargs=quick), *iris
    )


def test_bayes_stopped_by_its_callback(oracle: Oracle, iris: Data) -> None:
    """skopt's own callbacks run in the client's process and end the search."""
    seen: list[int] = []

    def enough(result: Any) -> bool:
        seen.append(len(result.x_iters))
        return len(result.x_iters) == 2

    oracle.check(partial(build, "bayes", tree(), DEPTHS), *iris, callback=enough)

    assert seen == [1, 2, 1, 2]
