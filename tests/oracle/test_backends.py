from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
from dask_ml import model_selection as dask_ml_search
from scipy.stats import uniform
from sklearn import model_selection
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.feature_selection import RFECV
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import UnsupportedSearchError
from tests.oracle.comparison import assert_same
from tests.oracle.estimators import Picky, dict_score
from tests.oracle.kinds import DEPTHS, THRESHOLDS, build, tree
from tests.oracle.reader import answers

if TYPE_CHECKING:
    from distributed import Client

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

# scikit-learn sends its caller's warning filters along. Dask's joblib backend sets them
# in a worker's threads, where they can stay: "error" would fail later tests' fits.
pytestmark = pytest.mark.filterwarnings("default")

BACKENDS = ("trials", "joblib", "dask-ml")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


@every_backend
@pytest.mark.parametrize("kind", ["grid", "random"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scoring": ["accuracy", "f1_macro"], "refit": "f1_macro"},
        {"return_train_score": True, "cv": KFold(3, shuffle=True)},
        {"refit": False, "pre_dispatch": 2, "n_jobs": 1},
    ],
    ids=["default", "metrics", "train scores", "no refit"],
)
def test_backends_are_equal(
    kind: str, options: dict[str, Any], backend: str, oracle: Oracle, iris: Data
) -> None:
    """A backend is a matter of speed, not of results."""
    make = partial(build, kind, tree(), DEPTHS, **options)

    found = oracle.check(make, *iris, backend=backend)

    assert found.backend_ == backend


@pytest.mark.parametrize("backend", ["trials", "joblib"])
@pytest.mark.parametrize("kind", ["halving-random", "bayes", "thrice"])
def test_other_searches_on_dasks_joblib_backend(
    kind: str, backend: str, oracle: Oracle, iris: Data
) -> None:
    """Every search that hands its fits to joblib runs on either backend."""
    oracle.check(partial(build, kind, tree(), DEPTHS), *iris, backend=backend)


@pytest.mark.parametrize("kind", ["halving-grid", "bayes", "thrice"])
def test_searches_that_dask_ml_cannot_run(kind: str, client: Client) -> None:
    """The error names a backend that can."""
    search = DaskSearchCV(build(kind, tree(), DEPTHS), client=client, backend="dask-ml")

    with pytest.raises(UnsupportedSearchError, match="use 'trials'"):
        search.fit([[0], [1]], [0, 1])


@pytest.mark.parametrize("options", [{"scoring": dict_score, "refit": "accuracy"}])
def test_options_that_dask_ml_cannot_run(
    options: dict[str, Any], client: Client, iris: Data
) -> None:
    """What dask-ml would get wrong is refused."""
    search = build("grid", tree(), DEPTHS, **options)

    with pytest.raises(UnsupportedSearchError, match="dask-ml"):
        DaskSearchCV(search, client=client, backend="dask-ml").fit(*iris)


@every_backend
@pytest.mark.parametrize("error_score", [np.nan, -1.0])
def test_failing_candidate(
    error_score: float, backend: str, client: Client, iris: Data
) -> None:
    """On every backend a failing candidate has the error score, and ends."""
    X, y = iris
    search = build("grid", Picky(refuses=(2,)), THRESHOLDS, error_score=error_score)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DaskSearchCV(search, client=client, backend=backend).fit(X, y)
        search.fit(X, y)

    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(
        found.cv_results_["rank_test_score"], search.cv_results_["rank_test_score"]
    )
    assert found.best_params_ == search.best_params_


@every_backend
def test_failing_candidate_raises(backend: str, client: Client, iris: Data) -> None:
    """On every backend error_score="raise" raises the candidate's own error."""
    search = build("grid", Picky(refuses=(2,)), THRESHOLDS, error_score="raise")

    with pytest.raises(ArithmeticError, match="no fit with threshold=2"):
        DaskSearchCV(search, client=client, backend=backend).fit(*iris)


@pytest.mark.parametrize(
    "make",
    [
        partial(
            dask_ml_search.GridSearchCV, GaussianNB(), {"var_smoothing": [1e-9, 1]}
        ),
        partial(
            dask_ml_search.RandomizedSearchCV,
            Picky(),
            {"threshold": uniform(1, 4)},
            n_iter=4,
            random_state=0,
            return_train_score=True,
        ),
        partial(dask_ml_search.GridSearchCV, tree(), DEPTHS, refit=False, cv=4),
        partial(
            dask_ml_search.GridSearchCV,
            tree(),
            DEPTHS,
            scoring=["accuracy", "f1_macro"],
            refit="accuracy",
        ),
    ],
    ids=["grid", "random", "no refit", "metrics"],
)
def test_searches_of_dask_ml(make: Any, client: Client, iris: Data) -> None:
    """dask-ml's own classes are fitted their own way."""
    own, plain = make(), make()
    with dask.config.set(scheduler="sync"):
        plain.fit(*iris)

    found = DaskSearchCV(own, client=client).fit(*iris)

    assert found.backend_ == "dask-ml"
    assert type(found.search_) is type(own)
    assert_same(plain.get_params(), found.search_.get_params())
    assert_same(plain.cv_results_, found.cv_results_)
    assert_same(answers(plain, *iris), answers(found.search_, *iris))
    assert not hasattr(own, "cv_results_")


@pytest.mark.timeout(60)
def test_search_of_dask_ml_with_a_failing_candidate(client: Client, iris: Data) -> None:
    """dask-ml alone would retry it for ever; here it ends in its own error."""
    search = dask_ml_search.GridSearchCV(
        Picky(refuses=(2,)), THRESHOLDS, error_score="raise"
    )

    with pytest.raises(ArithmeticError, match="no fit with threshold=2"):
        DaskSearchCV(search, client=client).fit(*iris)


def test_search_of_dask_ml_with_an_error_score(client: Client, iris: Data) -> None:
    """A number as the error score stands in dask-ml's results."""
    search = dask_ml_search.GridSearchCV(
        Picky(refuses=(2,)), THRESHOLDS, error_score=-1
    )

    found = DaskSearchCV(search, client=client).fit(*iris)

    assert found.cv_results_["mean_test_score"][1] == -1
    assert found.best_params_["threshold"] != 2


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_search_of_dask_ml_without_an_error_score(client: Client, iris: Data) -> None:
    """dask-ml cannot rank NaN: the error says so, and what to use."""
    search = dask_ml_search.GridSearchCV(
        Picky(refuses=(2,)), THRESHOLDS, error_score=np.nan
    )

    with pytest.raises(Exception, match="error_score"):
        DaskSearchCV(search, client=client).fit(*iris)


@pytest.mark.parametrize(
    "name",
    [
        "IncrementalSearchCV",
        "InverseDecaySearchCV",
        "SuccessiveHalvingSearchCV",
        "HyperbandSearchCV",
    ],
)
@pytest.mark.parametrize("backend", ["joblib", "dask-ml"])
def test_adaptive_searches_of_dask_ml(
    name: str, backend: Any, client: Client, iris: Data
) -> None:
    """Only our own engine runs them: the error names it."""
    search = getattr(dask_ml_search, name)(GaussianNB(), {"var_smoothing": [1e-9, 1]})

    with pytest.raises(UnsupportedSearchError, match="use 'trials'"):
        DaskSearchCV(search, client=client, backend=backend).fit(*iris)


@pytest.mark.parametrize(
    "thing",
    ["GridSearchCV", GridSearchCV, RandomizedSearchCV, object(), None, 3, [], len],
    ids=lambda thing: repr(thing).partition(" at 0x")[0],
)
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_what_is_no_search(thing: Any, backend: Any, client: Client) -> None:
    """Anything without a fit is refused at once, by name."""
    with pytest.raises(UnsupportedSearchError, match="search must be a search object"):
        DaskSearchCV(thing, client=client, backend=backend).fit([[0], [1]], [0, 1])


@pytest.mark.parametrize(
    "make",
    [
        partial(RFECV, tree(), cv=3),
        partial(BaggingClassifier, GaussianNB(), 4, random_state=0),
    ],
    ids=["RFECV", "bagging"],
)
def test_anything_parallel(make: Any, client: Client, iris: Data) -> None:
    """Whatever parallelises with joblib runs on Dask's joblib backend."""
    plain = make().fit(*iris)

    found = DaskSearchCV(make(), client=client).fit(*iris)

    assert found.backend_ == "joblib"
    assert_same(plain, found.search_)
    np.testing.assert_array_equal(plain.predict(iris[0]), found.predict(iris[0]))


def test_backend_that_there_is_not(client: Client) -> None:
    """The error lists the backends."""
    search = DaskSearchCV(build("grid", tree(), DEPTHS), client=client)
    search.set_params(backend="ray")

    with pytest.raises(ValueError, match="'auto', 'trials'"):
        search.fit([[0], [1]], [0, 1])


def scaled(first: Any = "passthrough") -> Pipeline:
    """Make a pipeline whose steps are searched."""
    return Pipeline([("first", first), ("second", PCA(2)), ("tree", tree())])


STEPS = {
    "in the estimator": (scaled(), {"tree__max_depth": [1, 3]}),
    "in the grid": (
        scaled(),
        {"first": ["passthrough", StandardScaler(), None], "tree__max_depth": [1, 3]},
    ),
    "several": (
        scaled(StandardScaler()),
        [{"first": ["passthrough"], "second": ["passthrough", PCA(1)]}, {}],
    ),
    "in a pipeline within": (
        Pipeline([("inner", scaled()[:2]), ("tree", tree())]),
        {"inner__second": ["passthrough", PCA(1)]},
    ),
    "in a union": (
        Pipeline(
            [
                ("union", FeatureUnion([("a", "passthrough"), ("b", PCA(1))])),
                ("tree", tree()),
            ]
        ),
        {"union__b": ["passthrough", PCA(2)]},
    ),
    "last": (scaled(), {"tree": ["passthrough", tree()]}),
}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("module", [model_selection, dask_ml_search])
@pytest.mark.filterwarnings("ignore:Estimator fit failed", "ignore:.*fits failed")
def test_steps_that_pass_data_through_score(
    kind: str, module: Any, client: Client, iris: Data
) -> None:
    """A step may be a word; the fitted search has it as the user gave it."""
    estimator, space = STEPS[kind]
    options = {"cv": 2, "error_score": 0.0}
    plain = GridSearchCV(estimator, space, **options).fit(*iris)
    search = module.GridSearchCV(estimator, space, **options)

    found = DaskSearchCV(search, client=client, backend="dask-ml").fit(*iris)

    scores = "mean_test_score"
    np.testing.assert_allclose(found.cv_results_[scores], plain.cv_results_[scores])
    assert str(found.cv_results_["params"]) == str(plain.cv_results_["params"])
    assert str(found.best_params_) == str(plain.best_params_)
    assert str(found.best_estimator_) == str(plain.best_estimator_)
    assert str(found.search_.estimator) == str(estimator)
    np.testing.assert_array_equal(found.predict(iris[0]), plain.predict(iris[0]))
