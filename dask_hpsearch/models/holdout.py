"""The rows on which champion and challenger are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.data import DataStore
from dask_hpsearch.data.inputs import is_reference, refer
from dask_hpsearch.exceptions import PromotionError
from dask_hpsearch.runs.create import Work, read_references

if TYPE_CHECKING:
    from dask_hpsearch.models.recorded_model import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """Held-out data.

    Attributes
    ----------
    X : array-like of shape (n_rows, n_features)
    y : array-like of shape (n_rows,) or (n_rows, n_outputs)
    n_rows : int
    n_features : int or None
        None: X has one dimension, as texts have.
    pins : dict
        What identifies the data, as JSON values, by "X" and "y".
    """

    X: Any
    y: Any
    n_rows: int
    n_features: int | None
    pins: dict[str, Any]

    def X_of(self, rows: Rows) -> Any:  # noqa: N802 (X is scikit-learn's name)
        """Select rows of X."""
        return _selected(self.X, rows)

    def y_of(self, rows: Rows) -> Any:
        """Select rows of y."""
        return _selected(self.y, rows)


def read_holdout(X: Any, y: Any) -> Holdout:
    """Read and check held-out data.

    Parameters
    ----------
    X, y
        Data, or URLs as `DaskSearchCV.fit` takes them.

    Raises
    ------
    PromotionError
        If there are no rows, or y is missing or has missing values, or lengths differ.
    DataFormatError, StoreError
        If data by URL cannot be read.
    """
    if y is None:
        msg = "y_holdout must be the target values of the held-out rows, got None"
        raise PromotionError(msg)
    found = refer(X, y, {})
    pins: dict[str, Any] = {
        name: {"source": one.to_json()}
        for name, one in (("X", found.X), ("y", found.y))
        if is_reference(one)
    }
    with DataStore() as data_store:  # mapped data stay mapped after it is closed
        work = read_references(Work(None, found.X, found.y, {}), data_store)
    X, y = _as_rows(work.X), _as_rows(work.y)
    lengths = _length("X_holdout", X), _length("y_holdout", y)
    if lengths[0] != lengths[1]:
        msg = (
            "the holdout's X and y differ in their number of rows: X has "
            f"{lengths[0]}, y has {lengths[1]}"
        )
        raise PromotionError(msg)
    if not lengths[0]:
        msg = "the holdout has no rows: pass rows that no model was trained on"
        raise PromotionError(msg)
    _check_y(y)
    shape: tuple[int, ...] = X.shape
    for name, value in (("X", X), ("y", y)):
        pins.setdefault(name, {"joblib_sha1": _digest(value)})
    return Holdout(
        X=X,
        y=y,
        n_rows=lengths[0],
        n_features=int(shape[1]) if len(shape) > 1 else None,
        pins=pins,
    )


def _as_rows(value: Any) -> Any:
    """Return an array of a list; CSR of a sparse matrix, whose rows can be selected."""
    if hasattr(value, "tocsr"):
        return value.tocsr()
    return value if hasattr(value, "shape") else np.asarray(value)


def _length(name: str, value: Any) -> int:
    if not value.shape:
        msg = f"{name} must have rows, got {value!r}"
        raise PromotionError(msg)
    return int(value.shape[0])


def _check_y(y: Any) -> None:
    values = np.asarray(y)
    if values.dtype.kind == "f" and np.isnan(values).any():
        n_missing = int(np.isnan(values).sum())
        msg = f"y_holdout has {n_missing} missing values (NaN): leave these rows out"
        raise PromotionError(msg)


def _selected(value: Any, rows: Rows) -> Any:
    return value.iloc[rows] if hasattr(value, "iloc") else value[rows]


def _digest(value: Any) -> str:
    """Return joblib's hash of data, which tells two holdouts apart."""
    import joblib

    return str(joblib.hash(value, hash_name="sha1", coerce_mmap=True))
