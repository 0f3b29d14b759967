"""What shared steps make of a test set is computed once, and nothing else changes."""

from __future__ import annotations

import pickle
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (as its name says)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.slots.pipeline_cache import PipelineCache
from dask_hpsearch.slots.shared_transforms import SharedTransforms

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

ROWS = "X", "y", "split"
LONG_ENOUGH_S = 0.001


class Doubled(TransformerMixin, BaseEstimator):
    """Doubles; counts its transforms, and does something more in each."""

    transforms: ClassVar[list[int]] = []

    def __init__(self, more: str = "") -> None:
        self.more = more

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn nothing."""
        del X, y
        self.n_seen_ = 0
        return self

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Double, without counting."""
        del params
        self.fit(X, y)
        return 2 * X

    def transform(self, X: Any) -> Any:
        """Double."""
        self.transforms.append(len(X))
        time.sleep(LONG_ENOUGH_S)
        if self.more == "counts":
            self.n_seen_ += 1
        elif self.more == "draws":
            np.random.random()  # noqa: NPY002 (a user's class)
        elif self.more == "warns":
            warnings.warn("doubled", stacklevel=2)
        elif self.more == "returns its input":
            return X
        elif self.more == "writes to its input":
            X *= 2
            return X.copy()
        return 2 * X


class Overwriting(ClassifierMixin, BaseEstimator):
    """Writes to the data that it predicts for."""

    def fit(self, X: Any, y: Any) -> Self:
        """Learn nothing."""
        del X
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        """Predict by the first column's sign, then erase it."""
        found = self.classes_[(X[:, 0] > 0).astype(int)]
        X[:] = 0
        return found


@pytest.fixture(name="X")
def _features() -> Any:
    """Return 40 rows of 5 columns."""
    return np.random.default_rng(0).normal(size=(40, 5))


@pytest.fixture(name="y")
def _classes() -> Any:
    """Return two classes."""
    return np.arange(40) % 2


@pytest.fixture(autouse=True)
def _count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    Doubled.transforms.clear()
    # Other tests may have loaded it into this process. Its generator cannot be watched.
    monkeypatch.delitem(sys.modules, "numba", raising=False)


def predicted(
    cache: PipelineCache,
    pipeline: Pipeline,
    X: Any,
    y: Any,
    predict: Callable[[Any, Any], Any] = lambda fitted, X: fitted.predict(X),
) -> Any:
    """Fit a clone and predict for a test set, as a slot does."""
    own = clone(pipeline)
    transforms = SharedTransforms(cache, ROWS)
    cache.attach(own, ROWS, transforms=transforms)
    own.fit(X, y)
    transforms.test_rows = test_rows = X[30:].copy()
    try:
        return predict(own, test_rows)
    finally:
        transforms.end()
        assert "transform" not in vars(own.steps[0][1])


def pipelines(more: str = "") -> list[Pipeline]:
    """Return two pipelines with the same first step."""
    return [make_pipeline(Doubled(more), LogisticRegression(C=C)) for C in (0.01, 100)]


def test_a_test_set_is_transformed_once_for_all_fits(X: Any, y: Any) -> None:
    """The second candidate predicts from the first one's transformed test set."""
    cache = PipelineCache()

    found = [predicted(cache, one, X, y) for one in pipelines()]

    assert Doubled.transforms == [10]
    for one, values in zip(pipelines(), found, strict=True):
        assert np.array_equal(clone(one).fit(X, y).predict(X[30:]), values)


@pytest.mark.parametrize(
    "more", ["counts", "draws", "warns", "returns its input", "writes to its input"]
)
@pytest.mark.filterwarnings("always:doubled")
def test_a_transform_that_does_more_runs_each_time(more: str, X: Any, y: Any) -> None:
    """It may differ the next time, or is part of what a fit does."""
    cache = PipelineCache()

    for one in pipelines(more):
        predicted(cache, one, X, y)

    assert Doubled.transforms == [10, 10]


@pytest.mark.parametrize(
    "predict",
    [
        lambda fitted, X: fitted.predict(X.copy()),
        lambda fitted, X: fitted.predict(X[:5]),
        lambda fitted, X: pickle.loads(pickle.dumps(fitted)).predict(X),
    ],
    ids=["a-copy", "a-part", "by-a-copied-estimator"],
)
def test_other_data_and_other_estimators_share_nothing(
    predict: Callable[[Any, Any], Any], X: Any, y: Any
) -> None:
    """Only the test set itself has a known output."""
    cache = PipelineCache()

    for one in pipelines():
        found = predicted(cache, one, X, y, predict)
        plain = predict(clone(one).fit(X, y), X[30:])
        assert np.array_equal(found, plain)

    n_plain = 2
    assert len(Doubled.transforms) == 2 + n_plain


def test_settings_of_scikit_learn_are_part_of_an_output(X: Any, y: Any) -> None:
    """A scorer that sets a configuration of its own gets no output of another one."""
    cache = PipelineCache()

    def predict_otherwise(fitted: Any, X: Any) -> Any:
        with config_context(enable_metadata_routing=False, assume_finite=True):
            return fitted.predict(X)

    for one in pipelines():
        predicted(cache, one, X, y, predict_otherwise)

    assert Doubled.transforms == [10, 10]


def test_a_later_step_may_write_to_an_output(X: Any, y: Any) -> None:
    """Each fit has its own copy."""
    cache = PipelineCache()
    pipeline = make_pipeline(Doubled(), Overwriting())

    found = [predicted(cache, pipeline, X, y) for _ in range(3)]

    assert Doubled.transforms == [10]
    assert all(np.array_equal(one, (X[30:, 0] > 0).astype(int)) for one in found)


def test_steps_behind_the_first_share_too(X: Any, y: Any) -> None:
    """The output of the second step is found by what the first one made."""
    cache = PipelineCache()
    second = make_pipeline(StandardScaler(), Doubled(), LogisticRegression())

    for _ in range(2):
        predicted(cache, second, X, y)
    behind_another = make_pipeline(
        StandardScaler(with_mean=False), Doubled(), LogisticRegression()
    )
    predicted(cache, behind_another, X, y)

    # Once for each of the two; the scaler's transform is too short to be kept, and its
    # output of one fit is another object than that of the next.
    assert Doubled.transforms == [10, 10]


def test_a_seed_of_the_last_step_holds_until_it_predicts(X: Any, y: Any) -> None:
    """Watching a transform draws no numbers of its own."""
    cache = PipelineCache()

    def predict_at_random(fitted: Any, X: Any) -> Any:
        np.random.seed(0)  # noqa: NPY002 (as a last step may do in its fit)
        fitted[:-1].steps[0][1].transform(X)
        return np.random.random(3)  # noqa: NPY002

    found = [predicted(cache, one, X, y, predict_at_random) for one in pipelines()]

    assert Doubled.transforms == [10]
    np.random.seed(0)  # noqa: NPY002
    assert np.array_equal(found, [np.random.random(3)] * 2)  # noqa: NPY002


def test_what_was_transformed_goes_with_the_data(X: Any, y: Any) -> None:
    """Once a search's data are gone, so are its outputs."""
    cache = PipelineCache()
    first, second = pipelines()
    predicted(cache, first, X, y)

    cache.forget("split")
    predicted(cache, second, X, y)

    assert Doubled.transforms == [10, 10]


def test_results_are_those_of_a_plain_search(client: Client) -> None:
    """A vectorizer is deterministic; this imputer draws anew in each of its transforms."""
    rng = np.random.default_rng(0)
    words = [" ".join(map(str, rng.integers(0, 300, 200))) for _ in range(120)]
    y = np.arange(120) % 2
    holes = rng.normal(size=(120, 6)) + y[:, None]
    holes[rng.random(holes.shape) < 0.2] = np.nan
    cases = [
        (np.array(words, object), TfidfVectorizer()),
        (holes, IterativeImputer(sample_posterior=True, random_state=0, max_iter=2)),
    ]
    for X, step in cases:
        search = GridSearchCV(
            make_pipeline(step, LogisticRegression()),
            {"logisticregression__C": [0.1, 1, 10]},
            scoring=["accuracy", "roc_auc", "neg_log_loss"],
            refit=False,
            return_train_score=True,
            cv=3,
        )

        found = DaskSearchCV(search, client=client).fit(X, y).cv_results_

        plain = clone(search).fit(X, y).cv_results_
        for name in plain:
            if "_score" in name and "time" not in name:
                assert np.array_equal(plain[name], found[name]), name
