"""How the values of a parameter are laid out along an axis."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dask_hpsearch.journal.serialization import shown_value
from dask_hpsearch.plots.search_data import MISSING
from dask_hpsearch.plots.style import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

    from dask_hpsearch.plots.search_data import FloatArray

Kind = Literal["linear", "log", "category"]
_DECADE = 10.0
_FEW_VALUES = 7
_LEAST_GAP = 0.09  # between labels, as a part of the axis
_EDGE = 0.05
_LONGEST_CATEGORY = 18
_MANY_CATEGORIES = 6  # more are written steeply, so that they do not overlap
_TICKS = 5
_FEW_TICKS = 3  # of numbers that are long
_LONG_NUMBER = 4
_PLAIN_POWERS = 1e-4, 1e5  # outside: 10 to the power of something
_LARGEST_WHOLE = 1e6  # that is written without an exponent
_DIGITS = 4
_ROUND_STEPS = (1, 2, 2.5, 5, 10)
_WHOLE_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterScale:
    """The scale of a parameter.

    Attributes
    ----------
    name : str
    kind : {"linear", "log", "category"}
    categories : tuple of str
        Of a categorical parameter, in order; the position of one is its index.
    low, high : float
        Range of the numbers, or of the indices.
    ticks : tuple of float
        Positions to label if they are few; empty: as matplotlib chooses.
    is_integer : bool
        Whether all numbers are whole.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...]
    low: float
    high: float
    ticks: tuple[float, ...]
    is_integer: bool

    @classmethod
    def of(cls, name: str, values: Iterable[Any]) -> ParameterScale:
        """Choose the scale for the values that the candidates have."""
        known = [one for one in values if one is not MISSING]
        if not known or not all(_is_number(one) for one in known):
            return cls._of_categories(name, known)
        distinct = np.unique(np.array([float(one) for one in known]))
        low, high = float(distinct[0]), float(distinct[-1])
        kind: Kind = "log" if is_log_spread(distinct) else "linear"
        scale = cls(
            name=name,
            kind=kind,
            categories=(),
            low=low,
            high=high,
            ticks=(),
            is_integer=all(one == int(one) for one in distinct),
        )
        return scale._with_ticks(distinct)

    @classmethod
    def _of_categories(cls, name: str, values: Sequence[Any]) -> ParameterScale:
        labels = dict.fromkeys(category_of(one) for one in _in_order(values))
        n_categories = max(len(labels), 1)
        return cls(
            name=name,
            kind="category",
            categories=tuple(labels),
            low=0.0,
            high=n_categories - 1.0,
            ticks=tuple(map(float, range(n_categories))),
            is_integer=False,
        )

    def _with_ticks(self, distinct: FloatArray) -> ParameterScale:
        """Label the values themselves, if they are few and far enough apart."""
        if len(distinct) > _FEW_VALUES:
            return self
        if len(distinct) > 1 and np.diff(self.unit(distinct)).min() < _LEAST_GAP:
            return self
        return ParameterScale(
            name=self.name,
            kind=self.kind,
            categories=(),
            low=self.low,
            high=self.high,
            ticks=tuple(map(float, distinct)),
            is_integer=self.is_integer,
        )

    def positions(self, values: Iterable[Any]) -> FloatArray:
        """Return where values are on the axis; NaN for a candidate without one."""
        if self.kind == "category":
            places = {label: place for place, label in enumerate(self.categories)}
            found = [
                math.nan if one is MISSING else places.get(category_of(one), math.nan)
                for one in values
            ]
        else:
            found = [math.nan if one is MISSING else float(one) for one in values]
        return np.array(found, dtype=np.float64)

    def unit(self, positions: FloatArray) -> FloatArray:
        """Return positions as parts of the range, from 0 to 1."""
        low, high = self.low, self.high
        if self.kind == "log":
            positions, low, high = np.log(positions), math.log(low), math.log(high)
        if high == low:
            return np.where(np.isnan(positions), np.nan, 0.5)
        return (positions - low) / (high - low)

    def at(self, units: FloatArray) -> FloatArray:
        """Return the positions of parts of the range."""
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)
            return np.exp(low + units * (high - low))
        return self.low + units * (self.high - self.low)

    def limits(self) -> tuple[float, float]:
        """Return the range with room at its ends."""
        if self.kind == "category":
            return self.low - 0.5, self.high + 0.5
        if self.low == self.high:
            pad = abs(self.low) * 0.1 or 1.0
            return self.low - pad, self.high + pad
        first, last = self.at(np.array([-_EDGE, 1 + _EDGE]))
        return float(first), float(last)

    def label_of(self, position: float) -> str:
        """Return the label of a position."""
        if self.kind == "category":
            return self.categories[round(position)] if self.categories else ""
        if self.kind == "linear":
            return number_text(position, digits=digits_for(self.low, self.high))
        smallest, largest = _PLAIN_POWERS
        plain = self.low > smallest / _DECADE and self.high < largest
        if self.ticks or plain or not self._has_powers_only():
            return number_text(position)
        return f"$10^{{{round(math.log10(position))}}}$"

    def _has_powers_only(self) -> bool:
        """Whether the ticks of a logarithmic scale are far enough apart without others."""
        low, high = self.limits()
        return high / low > _DECADE**2

    def tick_locator(self, *, across: bool = False) -> Locator:
        """Return matplotlib's locator of the ticks; ``across``: labels are side by side."""
        from matplotlib.ticker import FixedLocator, LogLocator

        if self.ticks:
            return FixedLocator(list(self.ticks))
        if self.kind == "log":
            subs = (1.0,) if self._has_powers_only() else (1.0, 3.0)
            return LogLocator(subs=subs, numticks=_TICKS)
        locator = round_ticks(_TICKS, whole=self.is_integer)
        labels = map(self.label_of, locator.tick_values(self.low, self.high))
        if across and max(map(len, labels)) > _LONG_NUMBER:
            return round_ticks(_FEW_TICKS, whole=self.is_integer)
        return locator

    def set_on(self, ax: Axes, which: Literal["x", "y"], *, label: str) -> None:
        """Give an axis this scale, its ticks and its label."""
        from matplotlib.ticker import FuncFormatter, NullLocator

        axis = ax.xaxis if which == "x" else ax.yaxis
        set_scale = ax.set_xscale if which == "x" else ax.set_yscale
        set_limits = ax.set_xlim if which == "x" else ax.set_ylim
        set_label = ax.set_xlabel if which == "x" else ax.set_ylabel
        set_scale("log" if self.kind == "log" else "linear")
        set_limits(*self.limits())
        set_label(label)
        axis.set_major_locator(self.tick_locator(across=which == "x"))
        axis.set_minor_locator(NullLocator())
        if self.ticks:
            axis.set_ticklabels([self.label_of(one) for one in self.ticks])
        else:
            axis.set_major_formatter(FuncFormatter(lambda at, _: self.label_of(at)))
        crowded = (
            self.kind == "category"
            and which == "x"
            and (sum(map(len, self.categories)) > _LONGEST_CATEGORY)
        )
        if crowded:
            steep = len(self.categories) > _MANY_CATEGORIES
            ax.tick_params(axis="x", labelrotation=65 if steep else 30)
            for tick in axis.get_ticklabels():
                tick.set_horizontalalignment("right")
                tick.set_rotation_mode("anchor")


def is_log_spread(distinct: FloatArray) -> bool:
    """Whether distinct, sorted values are spread evenly in their logarithms.

    That is: all positive, over a decade at least, and their logarithms are closer to
    evenly spaced than they are themselves. Of two values, two decades decide.
    """
    if len(distinct) < 2 or distinct[0] <= 0:  # noqa: PLR2004 (a range)
        return False
    ratio = distinct[-1] / distinct[0]
    if len(distinct) == 2:  # noqa: PLR2004
        return bool(ratio >= _DECADE**2)
    return bool(
        ratio >= _DECADE and _unevenness(np.log(distinct)) < _unevenness(distinct)
    )


def _unevenness(values: FloatArray) -> float:
    """Return the largest distance from evenly spaced values, as a part of the range."""
    even = np.linspace(0.0, 1.0, len(values))
    units = (values - values[0]) / (values[-1] - values[0])
    return float(np.abs(units - even).max())


def category_of(value: Any) -> str:
    """Return the label of a value that is not a number among others."""
    text = number_text(value) if _is_number(value) else str(shown_value(value))
    return short(" ".join(text.split()), _LONGEST_CATEGORY)


def number_text(value: float, *, digits: int = _DIGITS) -> str:
    """Return a number as a label, without an exponent if it is not needed."""
    value = float(value)
    large = _DECADE**digits <= abs(value) < _LARGEST_WHOLE
    if large or (value.is_integer() and abs(value) < _LARGEST_WHOLE):
        return f"{round(value)}"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def digits_for(low: float, high: float) -> int:
    """Return how many significant digits tell numbers of a range apart."""
    largest = max(abs(low), abs(high))
    if high <= low or not largest:
        return _DIGITS
    return max(_DIGITS, math.ceil(math.log10(largest / (high - low))) + 2)


def round_ticks(n_ticks: int, *, whole: bool = False) -> Locator:
    """Return a locator of about that many round numbers."""
    from matplotlib.ticker import MaxNLocator

    steps = _WHOLE_STEPS if whole else _ROUND_STEPS
    return MaxNLocator(n_ticks, integer=whole, steps=list(steps))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return names without the steps of a pipeline, as far as they stay distinct."""
    found = {}
    for name in names:
        parts = name.split("__")
        endings = ["__".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
        found[name] = short(
            next(
                ending
                for ending in endings
                if sum(one == ending or one.endswith(f"__{ending}") for one in names)
                == 1
                or ending == name
            )
        )
    return found


def _is_number(value: Any) -> bool:
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    return whole and math.isfinite(value)


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Sort values of several types: None, truth values, numbers, then texts."""

    def rank(value: Any) -> tuple[int, float, str]:
        if value is None:
            return 0, 0.0, ""
        if isinstance(value, bool | np.bool_):
            return 1, float(value), ""
        if _is_number(value):
            return 2, float(value), ""
        return 3, 0.0, category_of(value)

    return sorted(values, key=rank)
