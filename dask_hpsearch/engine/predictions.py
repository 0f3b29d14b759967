"""Predict how long fits take, from the parameters and times of candidates that have run.

Pure, and cheap: a Gaussian process with fixed scales on at most `MOST_SAMPLES` candidates,
computed without BLAS (see `_solved`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MOST_SAMPLES = 128
_MOST_COLUMNS = 64
_LEAST_S = 1e-4
_MOST_NUMBER = 1e100
_NOISE = 0.05  # share of the times' variance that the parameters do not explain
_LEAST_DEVIATION = 0.05  # of the logarithm of times; closer times count as equal

Row = tuple[tuple[int, ...], tuple[float, ...]]

# The user's values may be of any size: a prediction may be bad, but must not warn.
_without_warnings = np.errstate(all="ignore")


@dataclass(slots=True)
class Encoder:
    """Turns parameters into sparse rows of numbers; new values add columns.

    A number has a column for its parameter; a sequence of numbers has two, for its length and
    its sum. Any other value has its own column, which is 1 for the candidates with this value.

    Attributes
    ----------
    numeric : list of bool
        For each column, whether it holds numbers.
    """

    numeric: list[bool] = field(default_factory=list)
    _columns: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def row(self, parameters: Mapping[str, Any]) -> Row:
        """Encode a candidate's parameters as its columns and their values."""
        columns, values = [], []
        for name, parameter in parameters.items():
            for key, value, numeric in _features(parameter):
                column = self._column((name, *key), numeric=numeric)
                if column is not None:
                    columns.append(column)
                    values.append(value)
        return tuple(columns), tuple(values)

    def _column(self, key: tuple[Any, ...], *, numeric: bool) -> int | None:
        column = self._columns.get(key)
        if column is None and len(self.numeric) < _MOST_COLUMNS:
            column = self._columns[key] = len(self.numeric)
            self.numeric.append(numeric)
        return column


def _features(parameter: Any) -> Iterator[tuple[tuple[Any, ...], float, bool]]:
    """Yield a value's features: key, number, and whether it is more than a category.

    Only values of well-known types are examined, because others may run any code when they
    are compared or hashed.
    """
    if _is_number(parameter):
        yield (), float(parameter), True
    elif parameter is None or isinstance(parameter, str | bool | np.bool_):
        yield ("is", type(parameter).__name__, str(parameter)), 1.0, False
    elif isinstance(parameter, tuple | list) and all(map(_is_number, parameter)):
        yield ("length",), float(len(parameter)), True
        yield ("sum",), float(sum(parameter)), True
    else:
        yield ("is", type(parameter).__qualname__, id(parameter)), 1.0, False


def _is_number(value: Any) -> bool:
    real = isinstance(value, int | float | np.number) and isinstance(value, Real)
    if not real or isinstance(value, bool):
        return False
    number = value if isinstance(value, int) else float(value)
    return -_MOST_NUMBER < number < _MOST_NUMBER  # not NaN either


@dataclass(frozen=True, slots=True)
class TimeModel:
    """A Gaussian process over encoded parameters; predicts the logarithm of seconds.

    Attributes
    ----------
    centre, scale : ndarray of shape (n_columns,)
        Mean and scale by which features are standardised.
    logarithmic : ndarray of shape (n_columns,)
        Whether the logarithm of a column is taken: its numbers are all positive.
    features : ndarray of shape (n_samples, n_columns)
        Standardised features of the samples.
    weights : ndarray of shape (n_samples,)
    mean, deviation : float
        Mean and standard deviation of the samples' logarithms of seconds.
    length2 : float
        Square of the length over which times resemble each other.
    """

    centre: FloatArray
    scale: FloatArray
    logarithmic: NDArray[np.bool_]
    features: FloatArray
    weights: FloatArray
    mean: float
    deviation: float
    length2: float

    @_without_warnings
    def predict(self, rows: Sequence[Row]) -> FloatArray:
        """Predict the logarithm of the seconds of a fit of each candidate.

        Predictions stay near the measured times: a model of few samples must not predict an
        hour.
        """
        n_columns = len(self.centre)
        dense, known = _dense(rows, n_columns)
        features = _standardised(dense, known, self)
        kernel = _kernel(features, self.features, self.length2)
        deviations = np.einsum("ij,j->i", kernel, self.weights)
        deviations = np.nan_to_num(np.clip(deviations, -4.0, 4.0))
        logs: FloatArray = self.mean + self.deviation * deviations
        return logs


@_without_warnings
def fit_times(
    rows: Sequence[Row], seconds: Sequence[float], numeric: Sequence[bool]
) -> TimeModel:
    """Fit a model of times.

    Parameters
    ----------
    rows : sequence of Row
        Encoded parameters of candidates that have run; evenly spaced ones are used if
        there are more than `MOST_SAMPLES`.
    seconds : sequence of float
        Mean time of each candidate's fits.
    numeric : sequence of bool
        For each column, whether it holds numbers.
    """
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_SAMPLES)).astype(int)
    dense, known = _dense([rows[index] for index in chosen], len(numeric))
    logarithms = np.log(np.maximum(np.asarray(seconds)[chosen], _LEAST_S))
    mean = float(logarithms.mean())
    deviation = max(float(logarithms.std()), _LEAST_DEVIATION)
    is_number = np.asarray(numeric, dtype=bool)
    positive = np.where(known, dense, 1.0).min(axis=0) > 0
    logarithmic = is_number & positive
    scaled = _logarithms(dense, logarithmic)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, scaled, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, scaled - centre, 0.0) ** 2).sum(axis=0) / count)
    model = TimeModel(
        centre=np.where(is_number, centre, 0.0),
        scale=np.where(is_number & (spread > 0), spread, 1.0),
        logarithmic=logarithmic,
        features=np.empty((0, len(numeric))),
        weights=np.empty(0),
        mean=mean,
        deviation=deviation,
        length2=max(1.0, float(known.sum(axis=1).mean())),
    )
    features = _standardised(dense, known, model)
    kernel = _kernel(features, features, model.length2)
    kernel[np.diag_indices_from(kernel)] += _NOISE
    weights = _solved(kernel, (logarithms - mean) / deviation)
    return TimeModel(
        model.centre,
        model.scale,
        logarithmic,
        features,
        weights,
        mean,
        deviation,
        model.length2,
    )


def _dense(rows: Sequence[Row], n_columns: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return rows as a matrix, and a mask of the values that they have."""
    matrix = np.zeros((len(rows), n_columns))
    known = np.zeros(matrix.shape, dtype=bool)
    lengths = [len(columns) for columns, _ in rows]
    where = np.repeat(np.arange(len(rows)), lengths)
    columns = np.array([one for columns, _ in rows for one in columns], dtype=int)
    values = np.array([one for _, values in rows for one in values], dtype=float)
    met = columns < n_columns  # the others are newer than the model
    matrix[where[met], columns[met]] = values[met]
    known[where[met], columns[met]] = True
    return matrix, known


def _logarithms(matrix: FloatArray, which: NDArray[np.bool_]) -> FloatArray:
    scaled = matrix.copy()
    scaled[:, which] = np.log(np.maximum(matrix[:, which], 1e-12))
    return scaled


def _standardised(
    matrix: FloatArray, known: NDArray[np.bool_], model: TimeModel
) -> FloatArray:
    """Scale features; a missing value counts as the mean, or as no category."""
    scaled = (_logarithms(matrix, model.logarithmic) - model.centre) / model.scale
    return np.where(known, np.clip(scaled, -10.0, 10.0), 0.0)


def _kernel(one: FloatArray, other: FloatArray, length2: float) -> FloatArray:
    """Return similarities: a trend over each parameter, plus that of neighbours."""
    products = np.einsum("ij,kj->ik", one, other)
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :]
    distance2 = np.maximum(squares - 2 * products, 0.0)
    kernel: FloatArray = products / length2 + np.exp(-distance2 / (2 * length2))
    return kernel


def _solved(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a positive definite system by elimination, which needs no pivots here.

    LAPACK would take a few milliseconds on all cores. Its threads then spin for ten times
    as long as the work takes, and keep the cores from the fits.
    """
    rows = np.column_stack([matrix, right])
    for place in range(len(rows)):
        row = rows[place] / rows[place, place]
        rows -= rows[:, place, None] * row
        rows[place] = row
    solution: FloatArray = rows[:, -1]
    return solution
