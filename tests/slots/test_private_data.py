"""What a fit may write to is its own, and starts as the user gave it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.slots.shared_data import handing_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

ROWS = 12
LARGE = 200_000  # values, 1.6 MB: what loky maps read-only
y = np.arange(ROWS) % 2


class Rows:
    """Rows of a type of the user's."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Rows:
        return Rows(self.values[index])


def cells(values: np.ndarray) -> list[np.ndarray]:
    """Return rows as arrays of their own."""
    return [row.copy() for row in values]


def object_array(values: np.ndarray) -> np.ndarray:
    """Return an array whose elements are arrays."""
    rows = np.empty(len(values), dtype=object)
    rows[:] = cells(values)
    return rows


def has_objects(data: Any) -> bool:
    """Whether an array or a table holds Python objects."""
    dtype = data.dtypes.iloc[0] if isinstance(data, pd.DataFrame) else data.dtype
    return bool(dtype.hasobject)


def is_list(data: Any) -> bool:
    """Whether data is a list, or an array of objects."""
    return isinstance(data, list) or (
        isinstance(data, np.ndarray) and has_objects(data)
    )


def write_to(data: Any) -> None:
    """Add one to every number in data, in place."""
    if isinstance(data, pd.DataFrame):
        if has_objects(data):
            write_to(list(data.iloc[:, 0]))
            return
        data.columns.name = "changed"
        data.iloc[:, :] = data.to_numpy() + 1
    elif isinstance(data, Rows):
        write_to(data.values)
    elif is_list(data):
        for index, one in enumerate(data):
            if isinstance(one, np.ndarray | list):
                write_to(one)
            else:
                data[index] = one + 1
    elif sparse.issparse(data):
        data.data += 1
    else:
        data += 1


def total(data: Any) -> float:
    """Sum the numbers in data, and count what else of it was changed."""
    if isinstance(data, pd.DataFrame):
        if has_objects(data):
            return total(list(data.iloc[:, 0]))
        return float(data.to_numpy().sum()) + 1000 * (data.columns.name is not None)
    if isinstance(data, Rows):
        return total(data.values)
    if is_list(data):
        return float(sum(np.sum(one) for one in data))
    return float(data.sum())


class Writer(ClassifierMixin, BaseEstimator):
    """Writes to all that it is given; scores what it was given before it wrote."""

    def __init__(self, number: int = 0, table: Any = None) -> None:
        self.number = number
        self.table = table

    def fit(self, X: Any, y: Any, extra: Any = None) -> Self:
        self.classes_ = np.unique(y)
        given = [part for part in (X, extra, self.table) if part is not None]
        self.total_ = sum(map(total, given))
        for part in given:
            write_to(part)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(y))

    def score(self, X: Any, y: Any) -> float:
        write_to(X)
        return self.total_


VALUES = np.arange(ROWS * 3.0).reshape(ROWS, 3)
KINDS: dict[str, Callable[[], Any]] = {
    "array": VALUES.copy,
    "sparse": lambda: sparse.csr_array(VALUES),
    "frame": partial(pd.DataFrame, VALUES, columns=list("abc")),
    "lists": VALUES.tolist,
    "list of arrays": partial(cells, VALUES),
    "list of large arrays": lambda: [np.ones(LARGE) for _ in range(ROWS)],
    "array of arrays": partial(object_array, VALUES),
    "cells of a frame": lambda: pd.DataFrame({"cell": cells(VALUES)}),
    "rows of the user's": lambda: Rows(VALUES.copy()),
}
MASKS = [(np.arange(ROWS) < 8, np.arange(ROWS) >= 8), (y == 0, y == 1)]


def scores(found: GridSearchCV | DaskSearchCV) -> set[tuple[float, ...]]:
    """Return the distinct scores of each split: one, if no fit saw another's writing."""
    names = [name for name in found.cv_results_ if name.startswith("split")]
    return set(zip(*(found.cv_results_[name] for name in names), strict=True))


@pytest.mark.parametrize("splits", [2, MASKS], ids=["indices", "masks"])
@pytest.mark.parametrize("kind", KINDS)
def test_data_are_as_they_were_for_every_fit(
    kind: str, splits: Any, client: Client
) -> None:
    """Whatever holds the numbers, and however a split selects rows."""
    X = KINDS[kind]()
    before = total(X)
    search = GridSearchCV(
        Writer(), {"number": range(6)}, cv=splits, refit=False, error_score="raise"
    )

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert len(scores(found)) == 1
    assert total(X) == before


@pytest.mark.parametrize("size", [3, 10_000, LARGE])
@pytest.mark.parametrize("place", ["fit parameter", "estimator", "parameter", "scorer"])
def test_other_arrays_are_as_they_were_for_every_fit(
    place: str, size: int, client: Client
) -> None:
    """Those of fit parameters, estimators, parameters and scorers, small and large."""

    class Counting:
        def __init__(self, table: Any) -> None:
            self.table = table

        def __call__(self, estimator: Any, X: Any, y: Any) -> float:
            self.table += 1
            return float(self.table.sum())

    table = np.ones(size)
    grid: dict[str, Any] = {"number": range(6)}
    if place == "parameter":
        grid["table"] = [table]
    search = GridSearchCV(
        Writer(table=table if place == "estimator" else None),
        grid,
        cv=2,
        refit=False,
        error_score="raise",
        scoring=Counting(table) if place == "scorer" else None,
    )
    params = {"extra": table} if place == "fit parameter" else {}

    found = DaskSearchCV(search, client=client).fit(VALUES, y, **params)

    assert len(scores(found)) == 1
    assert table.sum() == size


@pytest.mark.parametrize("kind", KINDS)
def test_calls_under_the_joblib_backend_have_their_own(
    kind: str, client: Client
) -> None:
    """`cross_validate` too hands every fit what the user gave it."""
    X = KINDS[kind]()

    with joblib.parallel_config("dask_hpsearch", client=client):
        found = cross_validate(
            Writer(), X, y, cv=[(np.arange(8), np.arange(8, 12))] * 4, n_jobs=2
        )

    assert len(set(found["test_score"])) == 1


def test_a_scorer_may_change_the_pipeline_that_it_scores(client: Client) -> None:
    """Steps that fits have in common are given to each as its own."""
    X = np.random.default_rng(0).normal(size=(60, 3))
    labels = (X[:, 0] > 0).astype(int)

    def spoiling(estimator: Any, X: Any, y: Any) -> float:
        score = float(estimator.decision_function(X).sum())
        estimator[0].mean_ += 100
        estimator[0].scale_[:] = 7
        return score

    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__C": [0.1, 1.0, 10.0, 100.0, 1000.0]},
        cv=2,
        scoring=spoiling,
        refit=False,
    )

    found = DaskSearchCV(search, client=client).fit(X, labels)
    plain = search.fit(X, labels)

    for split in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(
            found.cv_results_[split], plain.cv_results_[split]
        )


@pytest.mark.parametrize(
    "value",
    [
        None,
        VALUES,
        ["a", None, 1.5, np.float64(2)],
        np.array(["a", None, pd.Timestamp("2020-01-01")], dtype=object),
        sparse.csr_matrix(VALUES),
        pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None], "c": pd.Categorical([1, 2])}),
        pd.Series([True, None], dtype="boolean"),
    ],
    ids=["none", "array", "list", "objects", "sparse", "frame", "series"],
)
def test_what_indexing_copies_is_kept_for_all_fits(value: Any) -> None:
    """It need not be loaded for every fit: selected rows are copies."""
    assert handing_out(value) is not None


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        [np.zeros(2)],
        object_array(VALUES),
        pd.Series([[1], [2]]),
        pd.DataFrame({"a": [{"b": 1}]}),
        Rows(VALUES),
        np.array([(1, [2])], dtype=[("a", int), ("b", object)]),
        VALUES.view(np.matrix),
    ],
    ids=["lists", "arrays", "objects", "series", "frame", "rows", "fields", "matrix"],
)
def test_what_indexing_may_share_is_loaded_for_every_fit(value: Any) -> None:
    """So is what nobody knows."""
    assert handing_out(value) is None
