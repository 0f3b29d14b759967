from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from tests.oracle.kinds import DEPTHS, KINDS, build, tree

if TYPE_CHECKING:
    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

every_kind = pytest.mark.parametrize("kind", KINDS)
NAMES = np.array(["setosa", "versicolor", "virginica"])


@every_kind
@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_array])
def test_sparse(kind: str, layout: Any, oracle: Oracle, iris: Data) -> None:
    """A sparse X stays sparse, in its own format."""
    X, y = iris
    space = {"C": [0.1, 1.0, 10.0]}

    oracle.check(partial(build, kind, LinearSVC(random_state=0), space), layout(X), y)


def test_sparse_without_rows(oracle: Oracle, iris: Data) -> None:
    """A format that cannot be indexed is converted as scikit-learn does it."""
    X, y = iris

    oracle.check(partial(GridSearchCV, tree(), DEPTHS), sparse.coo_array(X), y)


@every_kind
def test_data_frame_with_column_selection(
    kind: str, oracle: Oracle, iris: Data
) -> None:
    """Columns are picked by name; index, dtypes and missing values survive."""
    X, y = iris
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    frame.index = pd.Index([f"row {number}" for number in range(len(X))])
    frame["size"] = pd.cut(X[:, 0], 3, labels=["small", "medium", "large"])
    frame["word"] = np.where(X[:, 1] > 3, "wide", None)
    frame["count"] = pd.array(X[:, 2].round(), dtype="Int64")
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["d", "b"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["size", "word"]),
            ("count", "passthrough", ["count"]),
        ]
    )
    space = {
        "svc__C": [0.1, 1.0, 10.0],
    }

    found = oracle.check(
        partial(build, kind, make_pipeline(columns, SVC()), space),
        frame,
        pd.Series(NAMES[y], index=frame.index, name="species"),
    )

    assert list(found.feature_names_in_) == list(frame.columns)


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        NAMES.astype(object),
        np.array([10, 5, 7], dtype=np.uint8),
        np.array([1.0, 2.0, 4.0], dtype=np.float32),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels(labels: np.ndarray, oracle: Oracle, iris: Data) -> None:
    """Labels keep their dtype."""
    X, y = iris

    oracle.check(partial(GridSearchCV, tree(), DEPTHS), X, labels[y])


@pytest.mark.parametrize("dtype", ["category", "string", "Int64", "int8"])
def test_labels_of_pandas(dtype: str, oracle: Oracle, iris: Data) -> None:
    """A Series with an index of its own is a y like any other."""
    X, y = iris
    values = pd.Series(y, index=np.arange(len(y))[::-1]).astype(dtype)

    oracle.check(partial(GridSearchCV, tree(), DEPTHS), pd.DataFrame(X), values)


@every_kind
def test_lists(kind: str, oracle: Oracle, iris: Data) -> None:
    """X and y may be plain lists."""
    X, y = iris
    neighbours = {"n_neighbors": [1, 3, 5]}

    oracle.check(
        partial(build, kind, KNeighborsClassifier(), neighbours),
        X.tolist(),
        NAMES[y].tolist(),
    )


@pytest.mark.parametrize("container", [list, pd.Series, np.array])
def test_texts(container: Any, oracle: Oracle, iris: Data) -> None:
    """X may be documents."""
    X, y = iris
    texts = [" ".join(f"w{round(value)}" for value in row) for row in X]
    bag = make_pipeline(CountVectorizer(), MultinomialNB())

    oracle.check(
        partial(GridSearchCV, bag, {"multinomialnb__alpha": [0.1, 1]}),
        container(texts),
        y,
    )


@every_kind
def test_without_y(kind: str, oracle: Oracle, iris: Data) -> None:
    """Clusterings have no y, and score without one."""
    X, _ = iris
    model = KMeans(n_init=1, random_state=0)

    found = oracle.check(partial(build, kind, model, {"n_clusters": [2, 3, 4]}), X)

    assert found.transform(X).shape[0] == len(X)


@pytest.mark.parametrize(
    ("model", "space"),
    [
        (PCA(random_state=0), {"n_components": [1, 2, 3]}),
        (KernelDensity(), {"bandwidth": [0.1, 0.5, 1.0]}),
    ],
    ids=["transformer", "density"],
)
def test_unsupervised(
    model: Any, space: dict[str, Any], oracle: Oracle, iris: Data
) -> None:
    """Transformers and densities are searched by their own score."""
    oracle.check(partial(GridSearchCV, model, space), iris[0])


@every_kind
def test_precomputed_kernel(kind: str, oracle: Oracle, iris: Data) -> None:
    """A kernel matrix is split along both axes."""
    X, y = iris
    space = {"C": [0.1, 1.0, 10.0]}

    oracle.check(
        partial(build, kind, SVC(kernel="precomputed"), space), rbf_kernel(X), y
    )


def test_several_outputs(oracle: Oracle, iris: Data) -> None:
    """y may have columns."""
    X, y = iris
    both = np.column_stack([y, X[:, 2] > 4])
    model = MultiOutputClassifier(GaussianNB())
    grid = {"estimator__var_smoothing": [1e-9, 0.1]}

    oracle.check(partial(GridSearchCV, model, grid), X, both)


def test_missing_values(oracle: Oracle, iris: Data) -> None:
    """NaN in X reaches estimators that take it."""
    X, y = iris
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)

    oracle.check(partial(GridSearchCV, tree(), DEPTHS), holes, y)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16, object])
def test_array_layout(order: Any, dtype: Any, oracle: Oracle, iris: Data) -> None:
    """Memory order and dtype of X do not matter, nor that it cannot be written."""
    X, y = iris
    laid_out = np.array(X, dtype=dtype, order=order)
    laid_out.flags.writeable = False

    oracle.check(partial(GridSearchCV, tree(), DEPTHS), laid_out, y)


def test_written_in_place(oracle: Oracle, iris: Data) -> None:
    """Estimators may overwrite the part of X that they are given."""
    steps = make_pipeline(StandardScaler(copy=False), KNeighborsClassifier())
    grid = {"kneighborsclassifier__n_neighbors": [1, 5]}

    # A refit would overwrite X itself, for the second fit too.
    oracle.check(partial(GridSearchCV, steps, grid, refit=False), *iris)


def test_lengths_that_differ(oracle: Oracle, iris: Data) -> None:
    """A y of another length is refused as scikit-learn does."""
    X, y = iris

    oracle.check_error(
        partial(GridSearchCV, tree(), DEPTHS), X, y[:-1], match="inconsistent"
    )
