"""Steps that fits have in common are fitted once, and nothing else changes."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif, mutual_info_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    QuantileTransformer,
    StandardScaler,
)

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.slots.pipeline_cache import PipelineCache, is_repeatable

if TYPE_CHECKING:
    from distributed import Client

ROWS = "X", "y", "split"
STEP_BYTES = 1024  # more than a pickled scaler takes


@pytest.fixture(name="X")
def _features() -> Any:
    """Return 40 rows of 5 columns."""
    return np.random.default_rng(0).normal(size=(40, 5))


@pytest.fixture
def y() -> Any:
    """Return two classes."""
    return np.arange(40) % 2


def fitted(
    cache: PipelineCache,
    pipeline: Any,
    X: Any,
    y: Any,
    rows: Any = ROWS,
    **params: Any,
) -> Any:
    """Fit a clone of a pipeline as a slot does."""
    own = clone(pipeline)
    cache.attach(own, rows)
    return own.fit(X, y, **params)


def test_a_step_is_fitted_once_for_all_that_come_after_it(X: Any, y: Any) -> None:
    """The second candidate finds the first one's scaler, and predicts as a plain fit."""
    cache = PipelineCache()
    first = make_pipeline(StandardScaler(), LogisticRegression(C=1))
    second = make_pipeline(StandardScaler(), LogisticRegression(C=2))

    fitted(cache, first, X, y)
    found = fitted(cache, second, X, y)

    assert cache.hits == 1
    plain = clone(second).fit(X, y)
    assert np.array_equal(found.decision_function(X), plain.decision_function(X))


def test_a_pipeline_has_no_memory_once_its_fit_has_begun(X: Any, y: Any) -> None:
    """What a scorer fits, the pipeline or a clone, is fitted on the scorer's rows."""
    cache = PipelineCache()
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    fitted(cache, pipeline, X, y)

    found = fitted(cache, pipeline, X, y)
    assert found.memory is None
    again = found.fit(X[:20] + 7, y[:20])

    plain = clone(pipeline).fit(X[:20] + 7, y[:20])
    assert np.array_equal(again[0].mean_, plain[0].mean_)
    assert cache.hits == 1


def test_other_rows_are_other_data(X: Any, y: Any) -> None:
    """A split of its own is fitted on its own."""
    cache = PipelineCache()
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    fitted(cache, pipeline, X, y)

    found = fitted(cache, pipeline, X[:20], y[:20], ("X", "y", "another"))

    assert cache.hits == 0
    assert np.array_equal(found[0].mean_, X[:20].mean(axis=0))


def test_what_comes_before_a_step_is_part_of_what_it_is(X: Any, y: Any) -> None:
    """The same step behind other steps is fitted again."""
    cache = PipelineCache()
    for n_bins in (3, 5):
        bins = KBinsDiscretizer(
            n_bins, encode="ordinal", strategy="uniform", random_state=0
        )
        pipeline = make_pipeline(bins, StandardScaler(), GaussianNB())
        found = fitted(cache, pipeline, X, y)
        assert np.array_equal(found[1].mean_, clone(pipeline).fit(X, y)[1].mean_)

    assert cache.hits == 0


def test_what_a_later_step_writes_to_is_not_what_is_kept(X: Any, y: Any) -> None:
    """A step that alters its input in place alters a copy."""
    cache = PipelineCache()
    in_place = FunctionTransformer(_doubled)
    pipeline = make_pipeline(StandardScaler(), in_place, GaussianNB())
    plain = clone(pipeline).fit(X, y)

    for _ in range(3):
        found = fitted(cache, pipeline, X, y)
        assert np.array_equal(found[-1].theta_, plain[-1].theta_)

    assert cache.hits == 2


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        SelectKBest(f_classif, k=2),
        TfidfVectorizer(ngram_range=(1, 2), stop_words=["a"]),
        PCA(2, random_state=0),
        FunctionTransformer(np.log1p),
        SimpleImputer(missing_values=np.nan),
        Pipeline([("scale", StandardScaler()), ("pca", PCA(random_state=1))]),
        ColumnTransformer(
            [("scale", StandardScaler(), make_column_selector(dtype_include="number"))]
        ),
    ],
    ids=lambda step: type(step).__name__,
)
def test_what_is_sure_to_come_out_the_same(step: Any) -> None:
    """scikit-learn's steps with plain parameters and seeds are kept."""
    assert is_repeatable(step)


class Own(TransformerMixin, BaseEstimator):
    """A step of the user's."""


def _doubled(X: Any) -> Any:
    X *= 2
    return X


@pytest.mark.parametrize(
    "step",
    [
        Own(),
        PCA(2),
        PCA(2, random_state=np.random.RandomState(0)),
        QuantileTransformer(),
        StandardScaler(copy=False),
        SelectKBest(mutual_info_classif, k=2),
        FunctionTransformer(_doubled),
        FunctionTransformer(np.random.permutation),
        Pipeline([("scale", StandardScaler()), ("pca", PCA())]),
        ColumnTransformer([("own", Own(), [0])]),
        ColumnTransformer([("pca", PCA(), [0])]),
    ],
    ids=lambda step: repr(step)[:60].partition(" at 0x")[0],
)
def test_what_may_come_out_otherwise(step: Any) -> None:
    """Unseeded steps, the user's own code, and what writes to its input are not."""
    assert not is_repeatable(step)


def test_behind_a_step_that_is_not_kept_nothing_is(X: Any, y: Any) -> None:
    """What an unseeded step made is never taken for what another fit of it made."""
    cache = PipelineCache()
    pipeline = make_pipeline(
        QuantileTransformer(n_quantiles=5, subsample=10), StandardScaler(), GaussianNB()
    )

    fitted(cache, pipeline, X, y)
    fitted(cache, pipeline, X, y)

    assert cache.hits == 0


def test_metadata_of_a_step_are_its_own(X: Any, y: Any) -> None:
    """A step that is given sample weights is fitted each time."""
    cache = PipelineCache()
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    fitted(cache, pipeline, X, y)
    weights = np.arange(40.0)

    found = fitted(cache, pipeline, X, y, standardscaler__sample_weight=weights)

    assert cache.hits == 0
    assert np.allclose(found[0].mean_, np.average(X, axis=0, weights=weights))


def test_what_warns_warns_each_time(X: Any, y: Any) -> None:
    """Every fit has the warnings of its steps."""
    cache = PipelineCache()
    X[:, 0] = 0
    pipeline = make_pipeline(SelectKBest(f_classif, k=2), GaussianNB())

    seen = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted(cache, pipeline, X, y)
        seen.append(sorted(str(one.message) for one in caught))

    assert seen[0] == seen[1] != []


def test_settings_of_scikit_learn_are_part_of_a_step(X: Any, y: Any) -> None:
    """A frame is not taken for an array."""
    cache = PipelineCache()
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    fitted(cache, pipeline, X, y)

    with config_context(transform_output="pandas"):
        found = fitted(cache, pipeline, pd.DataFrame(X, columns=list("abcde")), y)

    assert list(found[-1].feature_names_in_) == list("abcde")


def test_an_output_that_was_set_is_part_of_a_step(X: Any, y: Any) -> None:
    """`set_output` makes another step of it."""
    cache = PipelineCache()
    frame = pd.DataFrame(X, columns=list("abcde"))
    plain = make_pipeline(StandardScaler(), GaussianNB())
    fitted(cache, plain, frame, y)
    framed = make_pipeline(
        StandardScaler().set_output(transform="pandas"), GaussianNB()
    )

    found = fitted(cache, framed, frame, y)

    assert list(found[-1].feature_names_in_) == list("abcde")


def test_sparse_results_are_kept(y: Any) -> None:
    """What a vectorizer or encoder makes is kept, with all its parts."""
    cache = PipelineCache()
    words = pd.DataFrame({"word": [f"w{n % 7}" for n in range(40)]})
    pipeline = make_pipeline(OneHotEncoder(), LogisticRegression())

    fitted(cache, pipeline, words, y)
    found = fitted(cache, pipeline, words, y)

    assert cache.hits == 1
    assert sparse.issparse(found[0].transform(words))
    assert np.array_equal(found[-1].coef_, clone(pipeline).fit(words, y)[-1].coef_)


class Layout(ClassifierMixin, BaseEstimator):
    """Keeps how its data lay in memory."""

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        self.strides_ = X.strides
        return self


@pytest.mark.parametrize(
    ("step", "hits"),
    [
        (SelectKBest(f_classif, k=2), 1),
        (StandardScaler(), 1),
        (FunctionTransformer(np.log1p), 1),
        (ColumnTransformer([("scale", StandardScaler(), [1, 2])]), 1),
        (PCA(2, random_state=0), 1),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_data_lie_in_memory_as_after_a_fit(
    X: Any, y: Any, step: Any, hits: int, order: Any
) -> None:
    """Else sums over them would differ in their last digits."""
    cache = PipelineCache()
    pipeline = make_pipeline(step, Layout())
    data = np.abs(np.asarray(X, order=order))
    plain = clone(pipeline).fit(data, y)[-1].strides_

    found = [fitted(cache, pipeline, data, y)[-1].strides_ for _ in range(2)]

    assert found == [plain, plain]
    assert cache.hits == hits


def test_room_is_bounded(X: Any, y: Any) -> None:
    """The least recently used goes, and what is large is never kept."""
    cache = PipelineCache(room=4 * (X.nbytes + STEP_BYTES))
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    for split in "abcde":  # one too many
        fitted(cache, pipeline, X, y, ("X", "y", split))
    fitted(cache, pipeline, X, y, ("X", "y", "e"))
    fitted(cache, pipeline, X, y, ("X", "y", "a"))
    assert cache.hits == 1

    small = PipelineCache(room=4 * X.nbytes - 1)
    for _ in range(2):
        fitted(small, pipeline, X, y)
    assert small.hits == 0


def test_large_parameters_are_not_kept_as_keys(y: Any) -> None:
    """A vocabulary of thousands of words would be held for every step that has one."""
    cache = PipelineCache()
    texts = [f"word{number}" for number in range(40)]
    for words, hits in ((40, 1), (10_000, 1)):  # the second is never recalled
        vocabulary = {f"word{number}": number for number in range(words)}
        step = TfidfVectorizer(vocabulary=vocabulary)
        pipeline = make_pipeline(step, LogisticRegression())
        for _ in range(2):
            fitted(cache, pipeline, texts, y)
        assert cache.hits == hits


@pytest.mark.parametrize("digest", ROWS)
def test_what_was_fitted_on_data_goes_with_them(X: Any, y: Any, digest: str) -> None:
    """Once a slot has let go of the data, or of the split."""
    cache = PipelineCache(room=4 * (X.nbytes + STEP_BYTES))
    pipeline = make_pipeline(StandardScaler(), GaussianNB())
    for rows in (ROWS, ("X2", "y2", "split2")):
        fitted(cache, pipeline, X, y, rows)

    cache.forget(digest)
    cache.forget("unknown")
    fitted(cache, pipeline, X, y)
    assert cache.hits == 0
    fitted(cache, pipeline, X, y, ("X2", "y2", "split2"))
    assert cache.hits == 1


def test_a_memory_of_the_users_own_stays(X: Any, y: Any, tmp_path: Any) -> None:
    """A pipeline that keeps its steps already is left as it is."""
    cache = PipelineCache()
    pipeline = make_pipeline(StandardScaler(), GaussianNB(), memory=str(tmp_path))

    fitted(cache, pipeline, X, y)

    assert any(tmp_path.rglob("*.pkl"))


def hits(estimator: Any, X: Any, y: Any) -> float:
    """Score a fit by how many steps its slot had at hand so far."""
    del estimator, X, y
    return sum(one.hits for one in gc.get_objects() if isinstance(one, PipelineCache))


@pytest.mark.parametrize("share_steps", [True, False])
def test_a_search_shares_unless_told_otherwise(
    client: Client, X: Any, y: Any, *, share_steps: bool
) -> None:
    """In the slots of a search, later candidates find the scaler fitted."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianNB()),
        {"gaussiannb__var_smoothing": np.logspace(-9, -1, 30)},
        scoring=hits,
        cv=KFold(2),
        refit=False,
    )
    found = DaskSearchCV(search, client=client, share_steps=share_steps).fit(X, y)

    results = found.cv_results_
    seen = {*results["split0_test_score"], *results["split1_test_score"]}
    assert (len(seen) > 2) == share_steps  # without, one number for each of two slots
