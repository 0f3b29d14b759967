"""Which data the fits of a slot may share: data that indexing copies completely.

scikit-learn gives selected rows to a fit. Rows of an array or a table of numbers are copies,
which the fit may write to; rows of a list of arrays are the arrays themselves.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_IMMUTABLE = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, decimal.Decimal),
        *(dt.date, dt.datetime, dt.time, dt.timedelta),
        uuid.UUID,
    }
)
# By name, since neither need be installed.
_IMMUTABLE_NAMES = frozenset(
    f"{module}.{name}"
    for module, names in {
        "pandas": "Timestamp Timedelta Period Interval NaTType NAType",
        "pandas._libs.tslibs.timestamps": "Timestamp",
        "pandas._libs.tslibs.timedeltas": "Timedelta",
        "pandas._libs.tslibs.period": "Period",
        "pandas._libs.tslibs.nattype": "NaTType",
        "pandas._libs.missing": "NAType",
        "pandas._libs.interval": "Interval",
    }.items()
    for name in names.split()
)


def handing_out(value: Any) -> Callable[[], Any] | None:
    """Return a function that hands the data to each of several fits.

    Parameters
    ----------
    value : object
        X or y.

    Returns
    -------
    callable or None
        None if a fit that writes to selected rows might write to the data itself.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and type(value) in (pandas.DataFrame, pandas.Series):
        return _handing_out_pandas(value, pandas)
    return (lambda: value) if _is_copied_by_indexing(value) else None


def _is_copied_by_indexing(value: Any) -> bool:
    kind = type(value)
    if kind is np.ndarray:
        return not value.dtype.hasobject or _are_immutable(value.ravel())
    if kind in (list, tuple):
        return _are_immutable(value)
    if kind.__module__.startswith("scipy.sparse."):
        return not getattr(value, "dtype", np.dtype(object)).hasobject
    return value is None


def _handing_out_pandas(value: Any, pandas: Any) -> Callable[[], Any] | None:
    columns = (
        [value]
        if value.ndim == 1
        else [value.iloc[:, i] for i in range(value.shape[1])]
    )
    if value.attrs or not all(_is_copied_column(one, pandas) for one in columns):
        return None

    def hand_out() -> Any:
        own = value.copy(deep=False)
        own.index = value.index.view()  # it has a name, which can be set
        if value.ndim > 1:
            own.columns = value.columns.view()
        return own

    return hand_out


def _is_copied_column(column: Any, pandas: Any) -> bool:
    dtype = column.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        return _is_copied_column(dtype.categories.to_series(), pandas)
    if isinstance(dtype, np.dtype):
        return not dtype.hasobject or _are_immutable(column.to_numpy())
    return type(dtype).__module__.partition(".")[0] == "pandas"


def _are_immutable(values: Iterable[Any]) -> bool:
    """Whether all values are of known immutable types."""
    return all(map(_is_immutable, set(map(type, values))))


def _is_immutable(kind: type) -> bool:
    if issubclass(kind, np.generic):
        return kind.__module__ == "numpy" and kind is not np.void
    return kind in _IMMUTABLE or (
        f"{kind.__module__}.{kind.__qualname__}" in _IMMUTABLE_NAMES
    )
